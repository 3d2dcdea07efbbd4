"""Reward model: a score for an answer, learned from which of two answers people prefer.

    minimise  - E log sigmoid( r(x, chosen) - r(x, rejected) )      Bradley-Terry
    python train_rm.py                                              a minute on two laptop cores
    python train_rm.py --run out/hh --data hh.jsonl.gz              pairs of your own
    python train_rm.py --loss margin --data out/towns/strengths/pairs.jsonl --out rm_margin
    python train_rm.py --loss plackett_luce --data out/towns/rankings/pairs.jsonl --out rm_ranked
    python train_rm.py --centring 0.01                              scores that stay near 0

InstructGPT, eq. 1; with a margin that grows with the strength, Llama 2, eq. 2; rankings, Plackett
1975; centring, Eisenstein et al. 2023. The pairs are those of make_preferences.py; it labels
strengths and rankings, too. The pairs of one prompt share its answers and stay in one batch, as
InstructGPT found best.
Left out: several epochs (a second one fits the labelers' mistakes), an ensemble.
"""
import json
import random
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    files,
    look,
    memory,
    optim,
    reports,
    resume,
    seeds,
    settings,
)
from nanorlhf.functional import last_token
from nanorlhf.gpt import ScalarModel
from nanorlhf.log import Log
from nanorlhf.logprobs import in_parts


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/rm
    out: str = "rm"             # name of this stage's folder in the run, to keep several variants
    # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch
    # (random); empty: <run>/sft
    init: str = ""
    # JSONL (.gz) of preference pairs; empty: <run>/preferences/pairs.jsonl
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data kept to measure on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 250       # steps between the states that --resume goes on from

    # ---- the loss ----
    loss: Literal["bradley_terry", "margin", "plackett_luce"] = "bradley_terry"     # see above
    # with --loss margin: how far apart scores should be for "better"; twice that for "much better"
    margin: float = 0.5
    # weight of centring_loss: differences alone leave open where a prompt's scores lie; 0: without,
    # 0.01 is usual
    centring: float = 0.0

    # ---- training ----
    seed: int = 0               # of the head's weights and of the data's order
    # prompts an update, with all their pairs: many small steps learn more from one epoch than few
    # large ones
    batch_size: int = 5
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    steps: int = 0              # updates; 0: as many as one epoch takes
    lr: float = 6e-4            # peak learning rate
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
    log_every: int = 100        # steps between lines on the console
    show_batch: bool = False    # print the first batch before the first step, its answers coloured

    def __post_init__(self):
        settings.check(self)
        if self.centring and self.loss == "plackett_luce":
            raise InputError("--centring is for losses on pairs; --loss plackett_luce has rankings")


# the columns that a loss needs beside the answers
USES = {"margin": ("strength", "margin"), "plackett_luce": ("chosen_rank", "rejected_rank")}


def preference_loss(chosen, rejected, margin=0.0):
    """-log sigmoid(chosen - rejected - margin), mean over pairs.

    chosen, rejected (B,): scores; margin: a number or (B,).
    """
    return -F.logsigmoid(chosen - rejected - margin).mean()


def centring_loss(chosen, rejected):
    """Scores (B,) of pairs -> (B,): (chosen + rejected)^2, Eisenstein et al. 2023 ("Helping or
    herding?").

    Bradley-Terry sees differences: what is added to both scores of a pair, another number for each
    prompt, changes nothing. This term leaves the difference alone and leads the mean to 0.
    """
    return (chosen + rejected) ** 2


def plackett_luce_loss(scores):
    """scores (P, K) of answers ranked best first -> scalar: -log probability of the rankings,
    mean over prompts.

    The best is picked from all, the second from the rest, ...: sum over k of
    log(sum of exp s_j, j >= k) - s_k (Plackett 1975). With K = 2 it is Bradley-Terry.
    """
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)        # (P, K) this one and all behind it
    return (rest - scores).sum(-1).mean()


def start(cfg, device):
    """-> (reward model, tokenizer): the SFT model's body and a new head. A reward model, where
    --init gives one, goes on as it is."""
    model, tokenizer = checkpoints.start_model(cfg, f"{cfg.run}/sft", device, kind=None)
    if isinstance(model, ScalarModel):
        print(f"{cfg.init} is a reward model already: it is trained on, head and all")
        return model, tokenizer
    return ScalarModel(model, seeds.generator(cfg.seed, "head")).to(device), tokenizer


def load_pairs(cfg, model, tokenizer):
    """-> (training pairs, held-out pairs)"""
    path = cfg.data or files.made_path(f"{cfg.run}/preferences/pairs.jsonl",
                                       f"make_preferences.py --run {cfg.run}")
    pairs, report = files.load_pairs(path, tokenizer, model.cfg.block_size,
                                     uses=USES.get(cfg.loss, ()))
    print(look.pairs_summary(path, pairs, report))
    train_pairs, held_out = files.split(pairs, report, cfg.held_out, cfg.seed)
    for pair in train_pairs:
        if cfg.loss == "margin" and not {"strength", "margin"} & set(pair.row):
            raise InputError(f"{path}: --loss margin needs 'strength', or 'margin', in every row, "
                             "as make_preferences.py --labels strengths writes them")
        if cfg.loss == "plackett_luce" and not {"chosen_rank", "rejected_rank"} <= set(pair.row):
            raise InputError(f"{path}: --loss plackett_luce needs 'chosen_rank' and "
                             "'rejected_rank' in every row, as make_preferences.py --labels "
                             "rankings writes them")
    if cfg.loss == "plackett_luce":
        for group in batches.by_prompt(train_pairs):
            check_ranking(group, path)
    return train_pairs, held_out


def check_ranking(group, path):
    """InputError where the pairs of one prompt do not give each answer one rank."""
    answer_of = {}
    for pair in group:
        for side in ("chosen", "rejected"):
            answer, rank = getattr(pair, side), pair.row[f"{side}_rank"]
            if answer_of.setdefault(rank, answer) != answer:
                raise InputError(f"{path}: two answers to {pair.row.get('prompt')!r} have the rank "
                                 f"{rank}; --loss plackett_luce takes one ranking a prompt")


def margin_of(pair, cfg):
    """How far apart the scores should be: the row's own margin, or its strength times
    --margin."""
    if cfg.loss != "margin":
        return 0.0
    return pair.row["margin"] if "margin" in pair.row else cfg.margin * pair.row["strength"]


def pairs_loss(reward_model, groups, cfg, pad, device):
    """[[Preference] of one prompt] -> (loss, stats).

    Each prompt weighs alike, so each of its pairs 1/(K choose 2): InstructGPT, eq. 1.
    """
    pairs = [pair for group in groups for pair in group]
    # B pairs of N answers
    ids, mask, chosen_rows, rejected_rows = batches.pair_batch(pairs, pad, device)      # (N, T)
    with devices.autocast(device):
        after = in_parts(reward_model, cfg.micro_batch, ids)                            # (N, T)
    scores = last_token(after, mask)                                                    # (N,)
    chosen, rejected = scores[chosen_rows], scores[rejected_rows]                       # (B,)
    if cfg.loss == "plackett_luce":
        losses, start = [], 0
        for group in groups:
            some = slice(start, start + len(group))
            best_first = ranked(group, chosen_rows[some], rejected_rows[some])
            losses.append(plackett_luce_loss(scores[best_first][None]))
            start += len(group)
        loss = torch.stack(losses).mean()
    else:
        margins = torch.tensor([margin_of(pair, cfg) for pair in pairs], device=device)
        # a prompt counts once, however many pairs it has
        weights = [1 / (len(groups) * len(group)) for group in groups for _ in group]
        weights = torch.tensor(weights, device=device)
        losses = -F.logsigmoid(chosen - rejected - margins)                             # (B,)
        if cfg.centring:
            losses = losses + cfg.centring * centring_loss(chosen, rejected)
        loss = (weights * losses).sum()
    return loss, {"accuracy": (chosen > rejected).float().mean().item(),
                  "margin": (chosen - rejected).mean().item(),
                  "padding": (ids == pad).float().mean().item()}


def ranked(group, chosen_rows, rejected_rows):
    """The pairs of one ranking, and the rows that they compare -> rows, best answer first."""
    row_of_rank = {}
    for pair, chosen, rejected in zip(group, chosen_rows.tolist(), rejected_rows.tolist(),
                                      strict=True):
        row_of_rank[pair.row["chosen_rank"]] = chosen
        row_of_rank[pair.row["rejected_rank"]] = rejected
    return [row_of_rank[rank] for rank in sorted(row_of_rank)]


def centre(reward_model, pairs, pad, micro_batch):
    """Move the head's bias so that what SFT writes scores 0 on average -> std of its scores.

    Bradley-Terry fixes only differences. Centred, 0 means "as usual", and a penalty has a scale
    to be read on.
    """
    some = random.Random(0).sample(pairs, min(1000, len(pairs)))
    scores = torch.cat(reports.score_pairs(reward_model, some, pad, micro_batch))
    with torch.no_grad():
        reward_model.head.bias -= scores.mean()
    return scores.std().item()


def train(cfg):
    """-> (reward model, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    reward_model, tokenizer = start(cfg, device)
    train_pairs, held_out = load_pairs(cfg, reward_model, tokenizer)
    optimizer = optim.adamw(reward_model, cfg.lr)

    groups = batches.by_prompt(train_pairs)
    order = batches.epochs(groups, cfg.batch_size, draws.generator("data order"),
                           lambda group: max(pair.length for pair in group))
    steps = cfg.steps or -(-len(groups) // cfg.batch_size)
    print(f"rm: {cfg.loss}, {len(train_pairs)} pairs, {len(held_out)} pairs held out, "
          f"{steps} steps of {cfg.batch_size} prompts on {device.type}")
    print(memory.plan({"reward model": reward_model}, {}, cfg.micro_batch, devices.bf16(device)))
    log = Log(folder, cfg, steps, cfg.log_every, saved)
    for step in resume.steps(log, reward_model, tokenizer, draws, {"optimizer": optimizer}, order,
                             read={"data": train_pairs}):
        batch = next(order)
        if cfg.show_batch and step == 1:
            pairs = [pair for group in batch for pair in group]
            look.print_batch(tokenizer, *batches.pair_batch(pairs, tokenizer.pad, device))
        loss, stats = pairs_loss(reward_model, batch, cfg, tokenizer.pad, device)
        loss.backward()
        lr = optim.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(reward_model, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), **stats, _grad_norm=grad_norm, _lr=lr)

    report = {}
    if held_out:
        report = reports.accuracy_report(reward_model, held_out, tokenizer.pad, cfg.micro_batch)
    report["score_std"] = centre(reward_model, train_pairs, tokenizer.pad, cfg.micro_batch)
    checkpoints.write_atomically(f"{folder}/report.json", lambda f: json.dump(report, f, indent=1))
    checkpoints.save_checkpoint(f"{folder}/model.pt", reward_model, tokenizer)
    reports.print_report(report)
    return reward_model, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
