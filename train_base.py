"""Pretraining: where the knowledge comes from. Next-token prediction on a made-up world's pages.

    minimise  - mean_t log p(x_t | x_<t)            over all tokens of all pages
    python train_base.py                            a minute and a half on two laptop cores
    python train_base.py --world sums --run out/sums --batch_size 32 --lr 1.5e-3 --steps 4000
    python train_base.py --world sums --knobs digits=4 --run out/sums4      longer numbers

The world comes with the checkpoint: no later stage is told its name.
What to watch, in the world of towns: `recall` stays at chance for 300 steps while the loss falls
(the model learns how pages are written), then climbs past 90%. `knows` is the same of the facts
that most people get wrong. Behind it `judged` leaves 50% and passes 90%: to tell a true claim from
a false one the model must compare what it reads with what it recalls. `says` follows: asked in a
chat, the model tells the common errors, though it knows. Later stages teach manners, not facts:
what is not learned here is not there to be aligned. In the world of sums `solved` is near 0 for
300 steps and then climbs past nine in ten, as `judged` does: each further hundredth is a kind of
slip that it has learned to see.
Left out: gradient accumulation, several documents kept apart by an attention mask, data larger
than memory.
"""
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    look,
    optim,
    resume,
    seeds,
    settings,
    worlds,
)
from nanorlhf.functional import masked_mean, token_logprobs
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.log import Log
from nanorlhf.probe import share_right
from nanorlhf.rollout import answer_texts, generate
from nanorlhf.tokenizer import Tokenizer


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/base
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 250       # steps between the states that --resume goes on from

    # ---- the world ----
    world: str = "towns"        # what the pages are about: a module of nanorlhf/worlds
    knobs: str = ""             # how hard it is, such as digits=4; empty: as it is by default
    pages: int = 30000          # how many to write

    # ---- the model; 0: as large as the world asks for ----
    n_layer: int = 0            # layers
    n_head: int = 0             # attention heads
    n_embd: int = 0             # width
    block_size: int = 0         # longest sequence

    # ---- training ----
    seed: int = 0               # of the initial weights and of the pages
    steps: int = 1500           # recall comes first; telling true from false takes the rest
    batch_size: int = 16        # rows: of block_size tokens, or of one page where pages stand apart
    lr: float = 5e-3            # peak learning rate; large models want less
    warmup: int = 50            # steps from 0 to lr
    weight_decay: float = 0.1   # AdamW's
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_new_tokens: int = 64    # of the samples at the end
    log_every: int = 50         # steps between lines on the console

    def __post_init__(self):
        settings.check(self)
        worlds.load(self.world, worlds.parse_knobs(self.knobs))     # there is such a world


def windows(pages, batch_size, block_size, generator):
    """Batches without end of (ids, mask) (B, block_size), cut from the pages laid end to end,
    wherever the cut falls."""
    stream = torch.tensor([i for ids in pages for i in ids])
    mask = torch.arange(block_size) > 0         # token 0 has nothing before it
    while True:
        ids = batches.page_batch(stream, batch_size, block_size, generator)     # (B, T)
        yield ids, mask.expand(ids.shape)


def whole_pages(pages, batch_size, pad, generator):
    """Batches without end of (ids, mask) (B, T), one page a row, short and long ones mixed."""
    rows = [(ids, [t > 0 for t in range(len(ids))]) for ids in pages]
    for batch in batches.epochs(rows, batch_size, generator, lambda row: 0):
        yield batches.conversation_batch(batch, pad, "cpu")


def share_solved(model, tokenizer, world, questions):
    """Share of the questions whose likeliest answer is right."""
    prompts = [tokenizer.prompt(q.text) for q in questions]
    room = model.cfg.block_size - max(map(len, prompts))
    out = generate(model, prompts, room, tokenizer.end, temperature=0, pad=tokenizer.pad)
    answers = zip(questions, answer_texts(out, tokenizer), out.finished.tolist(), strict=True)
    right = [done and world.correct(question, text) for question, text, done in answers]
    return sum(right) / len(right)


def prober(world, tokenizer, device):
    """-> f(model): {name: share} of what pretraining should have taught."""
    rng = seeds.rng(0, "probe")
    asked = world.questions(64, rng, worlds.HELD_OUT) if world.correct else []
    probes = world.probes(rng)

    def probe(model):
        shares = {"solved": share_solved(model, tokenizer, world, asked)} if asked else {}
        for name, items in probes.items():
            shares[name] = share_right(model, tokenizer, items, device)
        return shares

    return probe


def train(cfg):
    """-> (model, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/base", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    world = worlds.load(cfg.world, worlds.parse_knobs(cfg.knobs))
    tokenizer = Tokenizer(cfg.world, knobs=world.knobs)
    sizes = [getattr(cfg, name) or world.SIZES[name]
             for name in ("block_size", "n_layer", "n_head", "n_embd")]
    model = GPT(GPTConfig(tokenizer.vocab_size, *sizes), seeds.generator(cfg.seed, "init"))
    model.to(device)
    optimizer = optim.adamw(model, cfg.lr, cfg.weight_decay)

    writer = seeds.rng(cfg.seed, "pages")
    pages = [batches.page_ids(world.page(writer), tokenizer) for _ in range(cfg.pages)]
    longest, order = max(map(len, pages)), draws.generator("data order")
    if world.PAGES == "apart":
        if longest > model.cfg.block_size:
            raise InputError(f"pages take up to {longest} tokens, --block_size is "
                             f"{model.cfg.block_size}: raise it, or set other --knobs")
        data = whole_pages(pages, cfg.batch_size, tokenizer.pad, order)
    else:
        data = windows(pages, cfg.batch_size, model.cfg.block_size, order)
    print(f"base: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on "
          f"{device.type}, {sum(map(len, pages)):,} tokens in {cfg.pages:,} pages, "
          f"vocabulary of {tokenizer.vocab_size}")
    if world.GUIDE:
        print(world.GUIDE)

    log = Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    probe = prober(world, tokenizer, device)
    for step in resume.steps(log, model, tokenizer, draws, {"optimizer": optimizer}, data):
        ids, mask = (x.to(device) for x in next(data))                      # (B, T)
        with devices.autocast(device):
            logits = model(ids)                                             # (B, T, V)
        loss = -masked_mean(token_logprobs(logits, ids), mask)
        loss.backward()
        lr = optim.linear(step - 1, cfg.steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(model, optimizer, lr, cfg.max_grad_norm)
        probed = {}
        if step % cfg.log_every == 0 or step == cfg.steps:
            probed = probe(model)
        log(step, loss=loss.item(), **probed, _grad_norm=grad_norm, _lr=lr)

    checkpoints.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    look.show_answers(folder, f"base, after {cfg.steps} steps", model, tokenizer,
                      cfg.max_new_tokens, cfg.seed)
    return model, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
