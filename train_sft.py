"""Instruction tuning: from a model that continues pages to one that answers. Cross-entropy on the answer only.

    minimise  - mean_t log p(y_t | x, y_<t)         over answer tokens and the end token; the prompt is read, never imitated
    python train_sft.py                             15 seconds on two laptop cores
    python train_sft.py --run out/hh --data hh.jsonl.gz --init gpt2         real GPT-2 weights, downloaded once; or --init DIR
    python train_sft.py --run out/hh --data hh.jsonl.gz --tokenizer gpt2 --init scratch --block_size 512
    python train_sft.py --tidy --out sft_tidy       only demonstrations without filler: what curation gives

The demonstrations of the made-up world are people's: they tell common errors, slip, wander off and
paste boilerplate. Imitation copies that too. --tidy leaves the filler out, which takes no
knowledge of the facts. What is worth imitating is the business of the later stages.
Left out: packing several conversations into a row, weights per source.
"""
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import InputError, data, look, memory, resume, run
from nanorlhf.functional import masked_mean, token_logprobs
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate_in_batches


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/sft
    out: str = "sft"                # name of this stage's folder in the run, to keep several variants
    seed: int = 0                   # of demonstrations, data order, samples (and initial weights, from scratch)
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch (random); empty: <run>/base
    data: str = ""                  # JSONL (.gz) of conversations; empty: demonstrations of the checkpoint's world
    mask: Literal["all", "last"] = "all"        # learn from every answer of a chat, or from its last one alone
    digits: int = 3                 # of the longest numbers in demonstrations of sums
    tokenizer: Literal["towns", "sums", "gpt2"] = "towns"       # with --init scratch; a checkpoint brings its own
    n_layer: int = 4                # layers, with --init scratch
    n_head: int = 4                 # heads, with --init scratch
    n_embd: int = 112               # width, with --init scratch
    block_size: int = 96            # longest sequence, with --init scratch
    demonstrations: int = 4800      # how many people's answers to write, without --data
    tidy: bool = False              # only demonstrations without filler, chosen blind to truth
    held_out: float = 0.05          # share of the prompts of --data kept to measure the loss on
    steps: int = 0                  # updates; 0: as many as one epoch takes
    batch_size: int = 32            # conversations an update
    micro_batch: int = 32           # conversations a forward: lower it when memory runs out, the gradient stays the same
    lr: float = 3e-4                # peak; at 1e-3 it forgets how to tell true from false, and the reward model starts from it
    warmup: int = 10                # steps from 0 to lr
    max_new_tokens: int = 64        # longest sampled answer
    log_every: int = 20             # steps between lines on the console
    show_batch: bool = False        # print the first batch before the first step, coloured by what is trained on
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 100           # steps between the states that --resume goes on from


def check_targets(mask):
    if not mask.any():
        raise ValueError("this batch has no token to learn from: its mask is empty")


def sft_loss(logits, ids, mask):
    """Mean NLL of the masked tokens, in nats. logits (B, T, V), ids and mask (B, T); ValueError when nothing is masked in.

    This is what `accumulate` minimises, which never has all logits at once.
    """
    check_targets(mask)
    return -masked_mean(token_logprobs(logits, ids), mask)


def accumulate(model, ids, mask, micro_batch):
    """backward() of sft_loss of the whole batch, a few rows at a time; returns the loss.

    Sums over tokens divided by the tokens of the whole batch: a mean of the parts' means would give the tokens of short rows more weight.
    """
    check_targets(mask)
    total, loss = mask.sum(), 0.0
    for i, m in zip(ids.split(micro_batch), mask.split(micro_batch)):
        part = -masked_logprobs(model, i, m).sum() / total
        part.backward()
        loss += part.item()
    return loss


@torch.no_grad()
def held_out_loss(model, examples, pad, batch_size, device):
    """Nats per answer token over all examples, each token counted once."""
    total, tokens = 0.0, 0
    for i in range(0, len(examples), batch_size):
        ids, mask = data.conversation_batch(examples[i:i + batch_size], pad, device)
        total -= masked_logprobs(model, ids, mask).sum().item()
        tokens += mask.sum().item()
    return total / tokens


def load(cfg, tokenizer, block_size):
    """-> (training examples, held-out examples), each a list of (ids, mask)."""
    if not cfg.data:
        world, people = run.world_of(tokenizer), run.rng(cfg.seed, "demonstrations")
        write = world.demonstration
        if cfg.tidy:
            write = getattr(world, "tidy_demonstration", None)
            if write is None:
                raise InputError(f"--tidy: the world of {tokenizer.name} has no filler to leave out")
        return [[tokenizer.chat([{"role": "user", "content": q.text}, {"role": "assistant", "content": write(q, people)}])
                 for q in world.sample_questions(n, people, split, **run.knobs(world, cfg.digits))]
                for n, split in ((cfg.demonstrations, world.TRAIN), (400, world.HELD_OUT))]
    examples, report = data.load_conversations(cfg.data, tokenizer, block_size, last_only=cfg.mask == "last")
    print(look.summary(f"{cfg.data}: {len(examples)} conversations", examples, report))
    return data.split_by_prompt(examples, prompt_of, cfg.held_out, run.rng(cfg.seed, "split"))


def prompt_of(example):
    """Ids before the last answer."""
    ids, mask = example
    start = len(ids)
    while mask[start - 1]:
        start -= 1
    return ids[:start]


def main():
    cfg = run.parse(Config, __doc__)
    if cfg.tidy and cfg.data:
        raise InputError("--tidy chooses among demonstrations of a made-up world; --data brings its own")
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/{cfg.out}"
    saved = resume.load(cfg, folder)
    model, tokenizer = run.start_model(cfg, f"{cfg.run}/base", device)
    if cfg.max_new_tokens >= model.cfg.block_size:
        raise InputError(f"--max_new_tokens {cfg.max_new_tokens} leaves no room for a prompt in a block of {model.cfg.block_size}")
    train, held_out = load(cfg, tokenizer, model.cfg.block_size)
    prompts = [prompt_of(e)[-(model.cfg.block_size - cfg.max_new_tokens):] for e in held_out]

    def show(title):
        run.show_answers(folder, title, model, tokenizer, cfg.max_new_tokens, cfg.seed, prompts[:3] if cfg.data else ())

    def report(title):
        loss = held_out_loss(model, held_out, tokenizer.pad, cfg.micro_batch, device)
        _, _, finished = generate_in_batches(model, prompts[:128], cfg.max_new_tokens, tokenizer,
                                             run.generator(cfg.seed, "finished", device), cfg.micro_batch)
        print(f"{title}: held-out loss {loss:.3f} nats a token, {sum(finished) / len(finished):.0%} of {len(finished)} answers finish "
              f"within {cfg.max_new_tokens} tokens")

    steps = cfg.steps or -(-len(train) // cfg.batch_size)
    print(f"sft: {len(train)} conversations, {len(held_out)} held out, {steps} steps of {cfg.batch_size} on {device.type}")
    print(memory.plan({"model": model}, {}, cfg.micro_batch, run.bf16(device)))
    log = run.Log(folder, cfg, steps, cfg.log_every, saved)
    report("before")
    show("before sft")
    optimizer = run.adamw(model, cfg.lr)
    batches = data.epochs(train, cfg.batch_size, run.generator(cfg.seed, "data order"), lambda e: len(e[0]))
    for step in resume.steps(log, model, tokenizer, {"optimizer": optimizer}, batches):
        ids, mask = data.conversation_batch(next(batches), tokenizer.pad, device)                # (B, T)
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, ids, mask)
        loss = accumulate(model, ids, mask, cfg.micro_batch)
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(model, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss, tokens=int(mask.sum()), padding=(ids == tokenizer.pad).float().mean().item(), _grad_norm=grad_norm, _lr=lr)

    run.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    report("after")
    show("after sft")


if __name__ == "__main__":
    run.script(main)
