"""How fast, how lean: every kind of step on random weights, and what share of the machine's matrix
rate it makes of it.

    python -m tools.bench           a table, and bench.json; minutes on two laptop cores
    python -m tools.bench --sizes towns --repeats 9

tokens/s   real tokens (prompts and answers, once each, however often they are passed) a second:
           the median over the repeats
share      of the floating-point rate of a large float32 (on a GPU bf16) matrix product, measured in
           the same run: 2 operations a weight and token forward, 4 backward, the head's only where
           it is needed, on answers; attention's own products and everything else are overhead
peak       memory of the process beyond what it took to import torch; on a GPU what torch had
           allocated
Each row has a process of its own, or the peak would be that of the largest so far; so has the
product beside it.
"""
import argparse
import copy
import importlib
import json
import multiprocessing
import resource
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import torch

from nanorlhf import checkpoints, devices, optim, seeds, settings
from nanorlhf.functional import last_token, shift_right, token_logprobs, whiten
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.logprobs import answer_logprobs, masked_logprobs
from nanorlhf.rollout import generate
from train_dpo import dpo_loss
from train_ppo import gae, policy_loss, token_rewards, value_loss
from train_rm import preference_loss
from train_sft import accumulate

# (vocabulary, block, layers, heads, width), rows of a training batch, tokens of a prompt and of an
# answer, answers of a rollout batch
SIZES = {
    "towns": (GPTConfig(831, 96, 4, 4, 112), 32, 12, 20, 64),
    "gpt2": (GPTConfig(50304, 1024, 12, 12, 768), 4, 128, 128, 4),
}
END = 0


class Bench:
    """What the rows share: a model, an optimizer, a batch of rows as long as each other.

    A row is a generator: it makes ready, then takes a step whenever asked, and yields (tokens,
    tokens through the body, tokens through the head).
    """

    def __init__(self, size, device):
        cfg, self.rows, self.prompt, self.answer, self.rollouts = SIZES[size]
        self.device, self.draw = device, seeds.generator(0, "bench", device)
        self.policy = GPT(cfg, seeds.generator(0, "weights")).to(device).eval()
        self.body = sum(p.numel() for p in self.policy.blocks.parameters())
        self.optimizer = optim.adamw(self.policy, 1e-5)

    def batch(self, rows=None):
        """ids (B, T), mask (B, T): the second part of each row is the answer."""
        ids = torch.randint(
            1,
            self.policy.cfg.vocab_size,
            (rows or self.rows, self.prompt + self.answer),
            generator=self.draw,
            device=self.device,
        )
        return ids, (torch.arange(ids.shape[1], device=self.device) >= self.prompt).expand(
            ids.shape
        )

    def step(self, loss, model=None, optimizer=None):
        loss.backward()
        optim.update(model or self.policy, optimizer or self.optimizer, 1e-5, 1.0)


def pretraining(b):
    ids, _ = b.batch()
    yield
    while True:
        with devices.autocast(b.device):
            logits = b.policy(ids)
        b.step(-token_logprobs(logits, ids)[:, 1:].mean())
        yield ids.numel(), 3 * ids.numel(), 3 * ids.numel()


def sft(b):
    ids, mask = b.batch()
    yield
    while True:
        accumulate(b.policy, ids, mask, len(ids))
        optim.update(b.policy, b.optimizer, 1e-5, 1.0)
        yield ids.numel(), 3 * ids.numel(), 3 * int(mask.sum())


def rm(b):
    """Pairs: every two rows."""
    ids, mask = b.batch()
    reward_model = ScalarModel(b.policy, seeds.generator(0, "head")).to(b.device)
    optimizer = optim.adamw(reward_model, 1e-5)
    yield
    while True:
        with devices.autocast(b.device):
            scores = last_token(reward_model(ids), mask)
        b.step(preference_loss(scores[::2], scores[1::2]), reward_model, optimizer)
        yield ids.numel(), 3 * ids.numel(), 0


def dpo(b):
    """The reference's log-probs are there already, as train_dpo.py keeps them."""
    ids, mask = b.batch()
    with torch.no_grad():
        ref = answer_logprobs(b.policy, ids, mask)
    yield
    while True:
        logp = answer_logprobs(b.policy, ids, mask)
        b.step(dpo_loss(logp[::2], logp[1::2], ref[::2], ref[1::2], 0.1)[0].mean())
        yield ids.numel(), 3 * ids.numel(), 3 * int(mask.sum())


def generation(b):
    prompts = b.batch(b.rollouts)[0][:, :b.prompt].tolist()
    yield
    while True:
        out = generate(b.policy, prompts, b.answer, eos=END, generator=b.draw)
        yield int(out.mask.sum()), b.rollouts * b.prompt + int(out.mask.sum()), int(out.mask.sum())


def ppo(b):
    """Sampling, four models' forwards, two epochs of two minibatches for policy and critic."""
    ref = copy.deepcopy(b.policy)
    reward_model, critic = (
        ScalarModel(
            GPT(b.policy.cfg, seeds.generator(0, "weights")), seeds.generator(0, "head")
        ).to(b.device)
        for _ in range(2)
    )
    critic_optimizer = optim.adamw(critic, 1e-5)
    prompts = b.batch(b.rollouts)[0][:, :b.prompt].tolist()
    yield
    while True:
        out = generate(b.policy, prompts, b.answer, eos=END, generator=b.draw)
        ids, mask = out.ids, out.mask
        with torch.no_grad():
            scores = last_token(reward_model(ids), mask)
            old_logp, ref_logp = (
                masked_logprobs(b.policy, ids, mask),
                masked_logprobs(ref, ids, mask),
            )
            with devices.autocast(b.device):
                old_values = shift_right(critic(ids))
            rewards = token_rewards(scores, old_logp, ref_logp, mask, 0.1)
            advantages, returns = gae(rewards, old_values, mask, 1.0, 0.95)
            advantages = whiten(advantages, mask)
        for _ in range(2):
            for rows in torch.randperm(len(ids), device=b.device).chunk(2):
                b.step(
                    policy_loss(
                        masked_logprobs(b.policy, ids[rows], mask[rows]),
                        old_logp[rows],
                        advantages[rows],
                        mask[rows],
                    )[0]
                )
                with devices.autocast(b.device):
                    values = shift_right(critic(ids[rows]))
                b.step(
                    value_loss(values, old_values[rows], returns[rows], mask[rows])[0],
                    critic,
                    critic_optimizer,
                )
        tokens = b.rollouts * b.prompt + int(mask.sum())
        yield tokens, tokens * (1 + 4 + 2 * 2 * 3), int(mask.sum()) * (1 + 2 + 2 * 3)


KINDS = {f.__name__: f for f in (pretraining, sft, rm, dpo, generation, ppo)}


def matmul_rate(device, repeats):
    """Operations a second of a large product."""
    # a large card is not filled by less
    n = 8192 if device.type == "cuda" else 2048
    half = devices.bf16(device)
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if half else torch.float32)
    return (
        2
        * len(a) ** 3
        / statistics.median(seconds(lambda: a @ a, device) for _ in range(repeats + 2))
    )


def seconds(f, device):
    start = time.perf_counter()
    f()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def memory(device):
    """MB at most so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1e6 if sys.platform == "darwin" else 1e3
    )


def alone(function, *args):
    """What it returns in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def measure(size, kind, device, repeats, rate):
    """One row of the table, a dict."""
    # in this process too: it also allows TF32
    device = devices.pick(device)
    # which the first optimizer would import: not the step's memory
    importlib.import_module("torch._dynamo")
    before = memory(device)
    b = Bench(size, device)
    steps = KINDS[kind](b)
    next(steps)
    next(steps)                         # the first one allocates
    done, times = [], []
    for _ in range(repeats):
        times.append(seconds(lambda: done.append(next(steps)), device))
    median = statistics.median(times)
    tokens, passes, of_head = (statistics.median(column) for column in zip(*done, strict=True))
    operations = 2 * (b.body * passes + b.policy.wte.weight.numel() * of_head)
    return {
        "size": size,
        "kind": kind,
        "seconds": median,
        "tokens_per_second": tokens / median,
        "matmul_share": operations / median / rate,
        "matmul_gflops": rate / 1e9,
        "peak_mb": memory(device) - before,
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="model sizes (default: all)"
    )
    parser.add_argument(
        "--kinds",
        nargs="+",
        choices=KINDS,
        default=list(KINDS),
        help="kinds of steps (default: all)",
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="steps measured, after one that is not (default: 5)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a CUDA GPU where there is one",
    )
    parser.add_argument(
        "--out", default="bench.json", help="file for the figures (default: bench.json)"
    )
    args = parser.parse_args()
    device = devices.pick(args.device)
    print(
        f"{device.type}, {torch.get_num_threads()} threads, torch {torch.__version__}; medians of "
        f"{args.repeats}"
    )
    print(f"{'size':8}{'step':13}{'s a step':>10}{'tokens/s':>11}{'share':>8}{'peak MB':>9}")
    rows = []
    for size in args.sizes:
        for kind in args.kinds:
            row = alone(
                measure,
                size,
                kind,
                device.type,
                args.repeats,
                alone(matmul_rate, device, args.repeats),
            )
            rows.append(row)
            print(
                f"{size:8}{kind:13}{row['seconds']:10.3f}{row['tokens_per_second']:11,.0f}"
                f"{row['matmul_share']:8.1%}{row['peak_mb']:9,.0f}",
                flush=True,
            )
    checkpoints.write_atomically(args.out, lambda f: json.dump(rows, f, indent=1))


if __name__ == "__main__":
    settings.script(main)
