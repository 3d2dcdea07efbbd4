"""Reward models of outcomes and of steps: a score at every token, from answers judged alone.

    minimise  - E [ right log p(t) + (1 - right) log(1 - p(t)) ]
    p(t) = sigmoid(score after token t), over the judged tokens
    python train_prm.py --run out/sums                          will the answer be right?
    python train_prm.py --run out/sums --supervision process    is this step right?
    python train_prm.py --data out/towns/thumbs/answers.jsonl   thumbs, where nothing can be checked
    python train_prm.py --supervision process --data steps.jsonl    answers of your own, in steps

An outcome reward model (Cobbe et al. 2021) predicts after each token of an answer whether the
answer will be right. A process reward model (Lightman et al. 2023) predicts at the end of each step
whether that step is. The answers are those of make_preferences.py --labels thumbs.
Left out: steps found by rollouts (Math-Shepherd), a step's place in tokens longer than a character.
"""
import json
import os
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import (
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
from nanorlhf.functional import masked_mean
from nanorlhf.gpt import ScalarModel
from nanorlhf.log import Log


@dataclass
class Config:
    # ---- files ----
    run: str = "out/sums"       # the run's folder; this stage writes <run>/orm or <run>/prm
    out: str = ""               # name of this stage's folder in the run; empty: orm or prm
    init: str = ""              # checkpoint to start from; empty: <run>/sft
    # JSONL of judged answers; empty: <run>/preferences/answers.jsonl. Pairs beside it, in
    # pairs.jsonl, are held out to compare outcome models with those of train_rm.py
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data kept to measure on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 250       # steps between the states that --resume goes on from

    # ---- the loss ----
    # outcome: every token is told whether the answer is right; process: each step's last token
    # whether the step is
    supervision: Literal["outcome", "process"] = "outcome"

    # ---- training ----
    seed: int = 0               # of the head's weights and of the data's order
    batch_size: int = 30        # answers an update
    # answers a forward in the report: lower it when memory runs out
    micro_batch: int = 64
    steps: int = 0              # updates; 0: as many as one epoch takes
    lr: float = 6e-4            # peak learning rate
    warmup: int = 10            # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 100        # steps between lines on the console
    # print the first batch before the first step, its judged tokens coloured
    show_batch: bool = False

    def __post_init__(self):
        settings.check(self)


def token_loss(logits, right, mask):
    """Cross-entropy of "this is right" after each masked token.

    logits (N, T), right (N, T) of 0 and 1, mask (N, T) -> scalar.
    """
    losses = F.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
    return masked_mean(losses, mask)


def verdicts(answer, supervision):
    """A row of answers.jsonl -> [(token of the answer, right)]"""
    if supervision == "process":
        return answer["steps"]
    return [(t, answer["right"]) for t in range(len(answer["completion_ids"]))]


def judged_batch(answers, supervision, pad, device):
    """Rows of answers.jsonl -> ids (N, T), judged (N, T) bool: the tokens with a verdict, right
    (N, T) bool: which it is."""
    prompts = [a["prompt_ids"] for a in answers]
    completions = [a["completion_ids"] for a in answers]
    ids, mask = batches.answer_batch(prompts, completions, pad, device)                 # (N, T)
    # written on the CPU: a GPU would be waited for at every token
    judged, right = torch.zeros(2, *mask.shape, dtype=torch.bool)                       # (N, T)
    for row, answer in enumerate(answers):
        for token, verdict in verdicts(answer, supervision):
            column = len(answer["prompt_ids"]) + token
            judged[row, column], right[row, column] = True, verdict
    return ids, judged.to(device), right.to(device)


def judged_loss(reward_model, answers, supervision, pad, device):
    """Rows of answers.jsonl -> (loss, stats)."""
    ids, judged, right = judged_batch(answers, supervision, pad, device)                # (N, T)
    with devices.autocast(device):
        logits = reward_model(ids)                                                      # (N, T)
    stats = {"accuracy": masked_mean(((logits > 0) == right).float(), judged).item(),
             "right": masked_mean(right.float(), judged).item(), "judged": int(judged.sum())}
    return token_loss(logits, right, judged), stats


@torch.no_grad()
def judged_report(reward_model, answers, supervision, pad, device, batch_size=256):
    """{name: number} over the judged tokens of held-out answers."""
    stats = [judged_loss(reward_model, answers[i:i + batch_size], supervision, pad, device)[1]
             for i in range(0, len(answers), batch_size)]
    tokens = max(1, sum(s["judged"] for s in stats))
    right = sum(s["right"] * s["judged"] for s in stats) / tokens
    accuracy = sum(s["accuracy"] * s["judged"] for s in stats) / tokens
    return {"judged": tokens, "judged_accuracy": accuracy,
            "one_answer_for_all": max(right, 1 - right)}


def load_answers(cfg, tokenizer, block_size):
    """-> (training answers, held-out answers, held-out pairs or [])"""
    path = cfg.data or files.made_path(f"{cfg.run}/preferences/answers.jsonl",
                                       f"make_preferences.py --run {cfg.run} --labels thumbs")
    answers, report = files.load_judged(path, tokenizer, block_size, cfg.supervision)
    rows = batches.answer_rows([a["prompt_ids"] for a in answers],
                               [a["completion_ids"] for a in answers])
    print(look.summary(f"{path}: {len(answers)} answers", rows, report))
    train_answers, held_out = files.split(answers, report, cfg.held_out, cfg.seed)
    pairs, beside = [], os.path.join(os.path.dirname(path), "pairs.jsonl")
    # a process model says nothing at the end token, where the score of a whole answer is read
    if cfg.supervision == "outcome" and os.path.exists(beside):
        pairs, report = files.load_pairs(beside, tokenizer, block_size)
        print(look.pairs_summary(beside, pairs, report))
    return train_answers, held_out, pairs


def train(cfg):
    """-> (reward model, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    name = cfg.out or ("prm" if cfg.supervision == "process" else "orm")
    folder, draws = f"{cfg.run}/{name}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    model, tokenizer = checkpoints.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    answers, held_out, pairs = load_answers(cfg, tokenizer, model.cfg.block_size)
    # the SFT model's body, a new head
    reward_model = ScalarModel(model, seeds.generator(cfg.seed, "head")).to(device)
    optimizer = optim.adamw(reward_model, cfg.lr)

    order = batches.epochs(answers, cfg.batch_size, draws.generator("data order"),
                           lambda a: len(a["prompt_ids"]) + len(a["completion_ids"]))
    steps = cfg.steps or -(-len(answers) // cfg.batch_size)
    print(f"{name}: {cfg.supervision}, {len(answers)} answers, {len(held_out)} held out, "
          f"{steps} steps of {cfg.batch_size} answers on {device.type}")
    print(memory.plan({"reward model": reward_model}, {}, cfg.micro_batch, devices.bf16(device)))
    log = Log(folder, cfg, steps, cfg.log_every, saved)
    for step in resume.steps(log, reward_model, tokenizer, draws, {"optimizer": optimizer}, order,
                             read={"data": answers}):
        batch = next(order)
        if cfg.show_batch and step == 1:
            ids, judged, _ = judged_batch(batch, cfg.supervision, tokenizer.pad, device)
            look.print_batch(tokenizer, ids, judged)
        loss, stats = judged_loss(reward_model, batch, cfg.supervision, tokenizer.pad, device)
        loss.backward()
        lr = optim.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(reward_model, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), **stats, _grad_norm=grad_norm, _lr=lr)

    report = {}
    if pairs:
        report = reports.accuracy_report(reward_model, pairs, tokenizer.pad, cfg.micro_batch)
    if held_out:
        report |= judged_report(reward_model, held_out, cfg.supervision, tokenizer.pad, device)
    checkpoints.write_atomically(f"{folder}/report.json", lambda f: json.dump(report, f, indent=1))
    checkpoints.save_checkpoint(f"{folder}/model.pt", reward_model, tokenizer)
    reports.print_report(report)
    return reward_model, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
