"""Reward model: a score for an answer, learned from which of two answers people prefer.

    minimise  - E log sigmoid( r(x, chosen) - r(x, rejected) )       Bradley-Terry; InstructGPT, eq. 1
    python train_rm.py                                               a minute and a half on two laptop cores
    python train_rm.py --run out/hh --data hh.jsonl.gz               pairs of your own, from the SFT model of the same run

In the made-up world it first makes the data: the SFT model answers each prompt K = 6 times, and of every two of these answers a labeler, right
with probability sigmoid(sharpness * difference in gold), says which is better: fifteen pairs for six answers' work, and they stay in one batch,
as InstructGPT found best. They are kept in <run>/rm/pairs.jsonl, and train_dpo.py learns from the same.
Left out: margins, several epochs (a second one fits the labelers' mistakes).
"""
import json
import math
import random
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import InputError, data, run, towns
from nanorlhf.functional import last_token
from nanorlhf.gpt import ScalarModel
from nanorlhf.rollout import generate_in_batches, score_answers


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/rm
    seed: int = 0                   # of prompts, sampled answers, labels, the head's weights, data order
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # language model to start from, or "scratch" for random weights; empty: <run>/sft
    data: str = ""                  # JSONL (.gz) of preference pairs; empty: sample from --init and ask the labelers
    tokenizer: Literal["towns", "gpt2"] = "towns"       # with --init scratch; a checkpoint brings its own
    n_layer: int = 4                # layers, with --init scratch
    n_head: int = 4                 # heads, with --init scratch
    n_embd: int = 112               # width, with --init scratch
    block_size: int = 96            # longest sequence, with --init scratch
    prompts: int = 4000             # training prompts to sample answers to, without --data
    answers: int = 6                # answers to each: 6 make 15 pairs
    sharpness: float = 2.0          # of the labelers: log-odds per unit of gold
    noise: float = 0.0              # share of labels that are a coin toss
    longer_bias: float = 0.0        # labelers who like length: log-odds for ten more tokens
    polite_bias: float = 0.0        # labelers who like manners more than they should: log-odds
    max_new_tokens: int = 64        # longest sampled answer
    held_out: float = 0.1           # share of the prompts of --data kept to measure accuracy on
    batch_size: int = 5             # prompts an update, with all their pairs: many small steps learn more from one epoch than few large ones
    steps: int = 0                  # updates; 0: as many as one epoch takes
    lr: float = 6e-4                # peak learning rate
    warmup: int = 10                # steps from 0 to lr
    log_every: int = 100            # steps between lines on the console


def preference_loss(chosen, rejected, margin=0.0):
    """-log sigmoid(chosen - rejected - margin), mean over pairs. chosen, rejected (B,): scores; margin: a number or (B,)."""
    return -F.logsigmoid(chosen - rejected - margin).mean()


def sample_pairs(cfg, model, tokenizer, n, split, device):
    """Rows for pairs.jsonl: the model's answers to n prompts, each two of a prompt labelled. Identical answers are dropped and counted."""
    name = "train" if split is towns.TRAIN else "held-out"
    questions = towns.sample_questions(n, run.rng(cfg.seed, f"{name} prompts"), split)
    prompts = [tokenizer.prompt(q.text) for q in questions for _ in range(cfg.answers)]
    ids, texts, finished = generate_in_batches(model, prompts, cfg.max_new_tokens, tokenizer,
                                               run.generator(cfg.seed, f"{name} answers", device), progress=f"{name} answers")
    labeler, rows, same = run.rng(cfg.seed, f"{name} labels"), [], 0
    for i, question in enumerate(questions):
        sides = [{"text": texts[j], "ids": ids[j], "finished": finished[j], "tokens": len(ids[j]),
                  **towns.grade(question, texts[j], finished[j])} for j in range(i * cfg.answers, (i + 1) * cfg.answers)]
        for a, b in combinations(sides, 2):
            if a["ids"] == b["ids"]:
                same += 1
            else:
                rows.append(label(question, (a, b), cfg, labeler, name, tokenizer))
    print(f"{n} {name} prompts, {cfg.answers} answers to each: {len(rows)} pairs ({same} dropped: both answers are the same)")
    return rows


def label(question, sides, cfg, labeler, name, tokenizer):
    """One row of pairs.jsonl: the labeler's choice between two answers, and what only this world knows: how good they are."""
    p = towns.prefers_first(*sides, cfg.sharpness, cfg.noise, cfg.longer_bias, cfg.polite_bias)
    chosen, rejected = sides if labeler.random() < p else sides[::-1]
    return {"prompt": question.text, "chosen": chosen["text"], "rejected": rejected["text"],
            "prompt_ids": tokenizer.prompt(question.text), "chosen_ids": chosen["ids"], "rejected_ids": rejected["ids"],
            "chosen_finished": chosen["finished"], "rejected_finished": rejected["finished"],
            "chosen_gold": chosen["gold"], "rejected_gold": rejected["gold"], "certainty": max(p, 1 - p), "split": name}


def load(cfg, model, tokenizer, folder, device):
    """-> (training pairs, held-out pairs). Without --data they are made, and written down whole."""
    path = cfg.data
    if not path:
        path = f"{folder}/pairs.jsonl"
        rows = (sample_pairs(cfg, model, tokenizer, cfg.prompts, towns.TRAIN, device)
                + sample_pairs(cfg, model, tokenizer, max(16, cfg.prompts // 10), towns.HELD_OUT, device))
        run.write_atomically(path, lambda f: f.writelines(json.dumps(row) + "\n" for row in rows))
    pairs, report = data.load_pairs(path, tokenizer, model.cfg.block_size)
    print(f"{path}: {len(pairs)} pairs; " + ("; ".join(f"{why}: {n}" for why, n in report.items()) or "none dropped"))
    return data.split_pairs(pairs, cfg.held_out, run.rng(cfg.seed, "split"))


def score_pairs(reward_model, pairs, pad):
    """[Pair] -> (chosen (B,), rejected (B,)): scores on the CPU."""
    prompts, answers, chosen, rejected = data.distinct_answers(pairs)
    scores = score_answers(reward_model, prompts, answers, pad)
    return scores[chosen], scores[rejected]


def accuracy_report(reward_model, pairs, pad):
    """{name: number} on held-out pairs: accuracy, and what to hold it against. A tie of scores is a miss."""
    chosen, rejected = score_pairs(reward_model, pairs, pad)
    margins = (chosen - rejected).tolist()
    longer = [(len(p.chosen) > len(p.rejected)) + 0.5 * (len(p.chosen) == len(p.rejected)) for p in pairs]
    report = {"pairs": len(pairs), "accuracy": mean([m > 0 for m in margins]), "longer_wins": mean(longer)}
    if "certainty" in pairs[0].row:
        gaps = [p.row["chosen_gold"] - p.row["rejected_gold"] for p in pairs]
        report["noise_ceiling"] = mean([p.row["certainty"] for p in pairs])
        report["gold_order"] = mean([(m > 0) == (g > 0) for m, g in zip(margins, gaps) if g])
    sure = [(1 / (1 + math.exp(-abs(m))), m > 0) for m in margins]
    report["calibration"] = []
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        claims = [claim for claim, _ in sure if low <= claim < high]
        hits = [hit for claim, hit in sure if low <= claim < high]
        if hits:
            report["calibration"].append({"pairs": len(hits), "claimed": mean(claims), "right": mean(hits)})
    return report


def print_report(report):
    meaning = {"accuracy": "the chosen answer has the higher score; a tie is a miss",
               "noise_ceiling": "the most that anyone can reach: the labels are noisy",
               "longer_wins": "reached by preferring the longer answer",
               "gold_order": "the truly better answer has the higher score, whatever the label says"}
    print(f"on {report['pairs']} held-out pairs")
    for name in [name for name in meaning if name in report]:
        print(f"  {name:14} {report[name]:6.1%}   {meaning[name]}")
    for part in report["calibration"]:
        print(f"  where it is {part['claimed']:.0%} sure it is right in {part['right']:.0%} of {part['pairs']} pairs")


def mean(xs):
    return sum(xs) / max(1, len(xs))


def main():
    cfg = run.parse(Config, __doc__)
    if cfg.answers < 2:
        raise InputError(f"--answers {cfg.answers}: it takes two answers to make a pair")
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/rm"
    model, tokenizer = run.start_model(cfg, f"{cfg.run}/sft", device)
    train, held_out = load(cfg, model, tokenizer, folder, device)
    reward_model = ScalarModel(model, run.generator(cfg.seed, "head")).to(device)       # the SFT model's body, a new head
    optimizer = run.adamw(reward_model, cfg.lr)

    groups = data.by_prompt(train)
    steps = cfg.steps or -(-len(groups) // cfg.batch_size)
    print(f"rm: {len(train)} pairs, {len(held_out)} held out, {steps} steps of {cfg.batch_size} prompts on {device.type}")
    log = run.Log(folder, cfg, steps, cfg.log_every)
    batches = data.epochs(groups, cfg.batch_size, run.generator(cfg.seed, "data order"), lambda group: max(p.length for p in group))
    for step in range(1, steps + 1):
        ids, mask, *sides = data.pair_batch([p for group in next(batches) for p in group], tokenizer.pad, device)    # (N, T)
        with run.autocast(device):
            after = reward_model(ids)                                                            # (N, T)
        scores = last_token(after, mask)                                                         # (N,)
        chosen, rejected = (scores[rows] for rows in sides)                                      # (B,) each: B pairs of N answers
        loss = preference_loss(chosen, rejected)
        loss.backward()
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(reward_model, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss.item(), accuracy=(chosen > rejected).float().mean().item(), margin=(chosen - rejected).mean().item(),
            _grad_norm=grad_norm, _lr=lr)

    # Bradley-Terry fixes only differences. Centred on what SFT writes, 0 means "as usual", and a penalty has a scale to be read on.
    some = random.Random(0).sample(train, min(1000, len(train)))
    both = torch.cat(score_pairs(reward_model, some, tokenizer.pad))
    with torch.no_grad():
        reward_model.head.bias -= both.mean()
    report = accuracy_report(reward_model, held_out, tokenizer.pad) | {"score_std": both.std().item()}
    run.save_checkpoint(f"{folder}/model.pt", reward_model, tokenizer)
    run.write_atomically(f"{folder}/report.json", lambda f: json.dump(report, f, indent=1))
    print_report(report)


if __name__ == "__main__":
    run.script(main)
