"""Instruction tuning: from a model that continues pages to one that answers. Cross-entropy on
the answer only.

    minimise  - mean_t log p(y_t | x, y_<t)         over answer tokens and the end token
    python train_sft.py                             15 seconds on two laptop cores
    python train_sft.py --tidy --out sft_tidy       only demonstrations without filler
    python train_sft.py --run out/hh --data hh.jsonl.gz --init gpt2     real GPT-2, or --init DIR
    python train_sft.py --run out/hh --data hh.jsonl.gz --init scratch --tokenizer gpt2

The prompt is read, never imitated. The demonstrations of the made-up world are people's: they tell
common errors, slip, wander off and paste boilerplate. Imitation copies that too. --tidy leaves the
filler out, which takes no knowledge of the facts: it is what curation gives. What is worth
imitating is the business of the later stages.
Left out: packing several conversations into a row, weights per source.
"""
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    files,
    look,
    memory,
    optim,
    resume,
    seeds,
    settings,
    worlds,
)
from nanorlhf.functional import masked_mean, token_logprobs
from nanorlhf.log import Log
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate_in_batches


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/sft
    out: str = "sft"            # name of this stage's folder in the run, to keep several variants
    # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch
    # (random); empty: <run>/base
    init: str = ""
    # JSONL (.gz) of conversations; empty: demonstrations of the checkpoint's world
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data kept to measure the loss on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 100       # steps between the states that --resume goes on from

    # ---- what is imitated ----
    # learn from every answer of a chat, or from its last one alone
    mask: Literal["all", "last"] = "all"
    demonstrations: int = 4800  # how many people's answers to write, without --data
    tidy: bool = False          # only demonstrations without filler, chosen blind to truth

    # ---- training ----
    seed: int = 0               # of demonstrations, data order, samples (and weights, from scratch)
    steps: int = 0              # updates; 0: as many as one epoch takes
    batch_size: int = 32        # conversations an update
    # conversations a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 32
    # peak; at 1e-3 it forgets how to tell true from false, and the reward model starts from it
    lr: float = 3e-4
    warmup: int = 10            # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- with --init scratch ----
    tokenizer: str = "towns"    # a world's, or gpt2; a checkpoint brings its own
    n_layer: int = 4            # layers
    n_head: int = 4             # heads
    n_embd: int = 112           # width
    block_size: int = 96        # longest sequence

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_new_tokens: int = 64    # longest sampled answer
    log_every: int = 20         # steps between lines on the console
    # print the first batch before the first step, coloured by what is trained on
    show_batch: bool = False

    def __post_init__(self):
        settings.check(self)
        if self.tidy and self.data:
            raise InputError("--tidy chooses among demonstrations of a made-up world; "
                             "--data brings its own")


def check_targets(mask):
    if not mask.any():
        raise ValueError("this batch has no token to learn from: its mask is empty")


def sft_loss(logits, ids, mask):
    """Mean NLL of the masked tokens, in nats. logits (B, T, V), ids and mask (B, T).

    ValueError when nothing is masked in. This is what `accumulate` minimises, which never has all
    logits at once.
    """
    check_targets(mask)
    return -masked_mean(token_logprobs(logits, ids), mask)


def accumulate(model, ids, mask, micro_batch):
    """backward() of sft_loss of the whole batch, a few rows at a time; returns the loss.

    Sums over tokens divided by the tokens of the whole batch: a mean of the parts' means would
    give the tokens of short rows more weight.
    """
    check_targets(mask)
    total, loss = mask.sum(), 0.0
    for some_ids, some_mask in zip(ids.split(micro_batch), mask.split(micro_batch), strict=True):
        part = -masked_logprobs(model, some_ids, some_mask).sum() / total
        part.backward()
        loss += part.item()
    return loss


@torch.no_grad()
def held_out_loss(model, examples, pad, batch_size, device):
    """Nats per answer token over all examples, each token counted once."""
    total, tokens = 0.0, 0
    for i in range(0, len(examples), batch_size):
        ids, mask = batches.conversation_batch(examples[i:i + batch_size], pad, device)
        total -= masked_logprobs(model, ids, mask).sum().item()
        tokens += mask.sum().item()
    return total / tokens


def load(cfg, tokenizer, block_size):
    """-> (training examples, held-out examples), each a list of (ids, mask)."""
    if not cfg.data:
        return demonstrations(cfg, tokenizer)
    examples, report = files.load_conversations(cfg.data, tokenizer, block_size,
                                                last_only=cfg.mask == "last")
    print(look.summary(f"{cfg.data}: {len(examples)} conversations", examples, report))
    return files.split(examples, report, cfg.held_out, cfg.seed)


def demonstrations(cfg, tokenizer):
    """What people of the checkpoint's world answer -> as load."""
    world, people = worlds.of(tokenizer), seeds.rng(cfg.seed, "demonstrations")
    write = world.tidy_demonstration if cfg.tidy else world.demonstration
    if write is None:
        raise InputError(f"--tidy: the world of {world.name} has no filler to leave out")
    splits = []
    for n, split in ((cfg.demonstrations, worlds.TRAIN), (400, worlds.HELD_OUT)):
        examples = []
        for question in world.questions(n, people, split):
            chat = [{"role": "user", "content": question.text},
                    {"role": "assistant", "content": write(question, people)}]
            examples.append(tokenizer.chat(chat))
        splits.append(examples)
    return splits


def prompt_of(example):
    """Ids before the last answer that is trained on."""
    ids, mask = example
    start = len(ids)
    while not mask[start - 1]:
        start -= 1
    while mask[start - 1]:
        start -= 1
    return ids[:start]


def train(cfg):
    """-> (model, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    model, tokenizer = checkpoints.start_model(cfg, f"{cfg.run}/base", device)
    room = model.cfg.block_size - cfg.max_new_tokens
    if room < 1:
        raise InputError(f"--max_new_tokens {cfg.max_new_tokens} leaves no room for a prompt in "
                         f"a block of {model.cfg.block_size}")
    examples, held_out = load(cfg, tokenizer, model.cfg.block_size)
    prompts = [prompt_of(example) for example in held_out or examples]
    prompts = [prompt for prompt in prompts if len(prompt) <= room]

    def show(title):
        look.show_answers(folder, title, model, tokenizer, cfg.max_new_tokens, cfg.seed,
                          prompts[:3] if cfg.data else ())

    def report(title):
        kind = "held-out" if held_out else "training"
        loss = held_out_loss(model, held_out or examples, tokenizer.pad, cfg.micro_batch, device)
        _, _, finished = generate_in_batches(model, prompts[:128], cfg.max_new_tokens, tokenizer,
                                             seeds.generator(cfg.seed, "finished", device),
                                             cfg.micro_batch)
        print(f"{title}: {kind} loss {loss:.3f} nats a token, "
              f"{sum(finished) / max(1, len(finished)):.0%} of {len(finished)} answers finish "
              f"within {cfg.max_new_tokens} tokens")

    steps = cfg.steps or -(-len(examples) // cfg.batch_size)
    print(f"sft: {len(examples)} conversations, {len(held_out)} held out, {steps} steps of "
          f"{cfg.batch_size} on {device.type}")
    print(memory.plan({"model": model}, {}, cfg.micro_batch, devices.bf16(device)))
    log = Log(folder, cfg, steps, cfg.log_every, saved)
    report("before")
    show("before sft")
    optimizer = optim.adamw(model, cfg.lr)
    data = batches.epochs(examples, cfg.batch_size, draws.generator("data order"),
                          lambda example: len(example[0]))
    for step in resume.steps(log, model, tokenizer, draws, {"optimizer": optimizer}, data,
                             read={"data": examples}):
        ids, mask = batches.conversation_batch(next(data), tokenizer.pad, device)      # (B, T)
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, ids, mask)
        loss = accumulate(model, ids, mask, cfg.micro_batch)
        lr = optim.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(model, optimizer, lr, cfg.max_grad_norm)
        measured = {}
        if held_out and step % max(1, steps // 5) == 0:
            measured["_held_out"] = held_out_loss(model, held_out[:128], tokenizer.pad,
                                                  cfg.micro_batch, device)
        log(step, loss=loss, tokens=int(mask.sum()),
            padding=(ids == tokenizer.pad).float().mean().item(), **measured,
            _grad_norm=grad_norm, _lr=lr)

    checkpoints.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    report("after")
    show("after sft")
    return model, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
