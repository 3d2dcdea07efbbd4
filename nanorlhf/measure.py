"""The figures of one model, from what it says to the same questions as all others.

First where answers are better or worse (a world's gold), then where they are right or wrong.
"""
import math
from dataclasses import dataclass

import numpy as np
import torch

from nanorlhf import batches, worlds
from nanorlhf.batches import map_answers
from nanorlhf.judge import p_first
from nanorlhf.stats import average, bootstrap, majority_vote, pass_at_k

SAMPLES, K = 16, 8      # answers to each question; pass@8 and majority@8 are taken from them


@dataclass
class Answers:
    """What a model says to N questions."""
    ids: list           # N lists of ids
    texts: list
    finished: list      # N bools

    def __getitem__(self, rows):
        return Answers(*([part[i] for i in rows] for part in (self.ids, self.texts, self.finished)))


# ---- answers that are better or worse ----

@torch.no_grad()
def kl_per_answer(model, sft, prompts, answers, pad, device, batch_size=128):
    """(N,) nats: at each state the model's answers pass through, the full-vocabulary
    KL(model || sft), summed over the answer.

    The same mean as k1 (log-prob differences of the sampled tokens), with far less noise.
    """
    def kl(ids, mask):
        p = model(ids)[:, :-1].float().log_softmax(-1)              # (B, T-1, V), about column t+1
        q = sft(ids)[:, :-1].float().log_softmax(-1)                # (B, T-1, V)
        return ((p.exp() * (p - q)).sum(-1) * mask[:, 1:]).sum(1)   # (B,)

    return map_answers(kl, prompts, answers, pad, device, batch_size).numpy()


def wins_and_ties(gold, rival_gold):
    """gold (N,), rival_gold (R, N) -> two (R, N) bool: equal up to what float sums leave behind
    is a tie."""
    return gold > rival_gold + 1e-9, np.abs(gold - rival_gold) <= 1e-9


def judge(world, questions, answers, rival_gold):
    """The figures of one model that need only its answers. rival_gold (R, N): of sft."""
    columns = world.columns(questions, answers.texts, answers.finished)
    gold = np.array(columns["gold"])
    wins, ties = wins_and_ties(gold, rival_gold)                    # (R, N)
    win_rate = (wins + ties / 2).mean(0)                            # (N,)
    clusters, rng = [worlds.cluster(q) for q in questions], np.random.default_rng(0)
    row = {"gold": float(gold.mean()), "gold_ci95": bootstrap(gold, clusters, rng),
           "win_rate_vs_sft": float(win_rate.mean()),
           "win_rate_ci95": bootstrap(win_rate, clusters, rng),
           "win_tie_loss": [int(wins.sum()), int(ties.sum()), int((~wins & ~ties).sum())],
           "tokens": float(np.mean([len(ids) for ids in answers.ids])),
           "finished": float(np.mean(answers.finished))}
    for name, values in columns.items():
        if name == "gold":
            continue
        name = world.IN_RESULTS.get(name, name)
        row[name] = average(values)
        if not any(isinstance(value, tuple) for value in values):
            there = [i for i, value in enumerate(values) if value is not None]
            some = np.array([values[i] for i in there], dtype=float)
            if there:
                row[f"{name}_ci95"] = bootstrap(some, [clusters[i] for i in there], rng)
    return row


def by_temperature(world, questions, answers):
    """{temperature: Answers} -> {"<column>_by_temperature": {temperature as text: figure}}"""
    table = {}
    for temperature, said in answers.items():
        columns = world.columns(questions, said.texts, said.finished)
        figures = {name: average(values) for name, values in columns.items()}
        for name, figure in {**figures, **world.tallies(questions, said.texts)}.items():
            table.setdefault(f"{name}_by_temperature", {})[f"{temperature:g}"] = figure
    return table


def at_best(world, questions, answers, others):
    """The figures of one model at its best temperature. others: {name: Answers} of the models
    that it is compared with, prompt by prompt."""
    mine = world.columns(questions, answers.texts, answers.finished)
    row = {name: average(values) for name, values in mine.items()}
    clusters, rng = [worlds.cluster(q) for q in questions], np.random.default_rng(0)
    for other, said in others.items():
        theirs = world.columns(questions, said.texts, said.finished)
        for name in world.COMPARED or ("gold",):
            gain = np.array(mine[name]) - np.array(theirs[name])
            row[f"{name}_over_{other}"] = float(gain.mean())
            row[f"{name}_over_{other}_ci95"] = bootstrap(gain, clusters, rng)
    return row


def believed_gold(base, tokenizer, world, questions, texts, device):
    """[worth of each answer in the base model's own eyes]: its P(True) behind each claim in place
    of the truth. Nobody's judgment is in it but the model's."""
    claims = [claim for text in texts for claim in world.claims(text)]
    p_true = p_first(base, tokenizer, claims, " True", " False", device)
    return [world.believed_worth(question, text, p_true)
            for question, text in zip(questions, texts, strict=True)]


# ---- answers that are right or wrong ----

@torch.no_grad()
def process_scores(prm, world, prompts, questions, answers, pad, device, batch_size=256):
    """(N,): the score of the weakest step of each answer, read where the step ends. A chain is as
    good as its worst link.

    One character is one token; an answer of which that is not true (special tokens, bytes that
    are no text) has no steps: -inf.
    """
    scores = []
    for start in range(0, len(prompts), batch_size):
        rows = range(start, min(start + batch_size, len(prompts)))
        ids, mask = batches.answer_batch([prompts[j] for j in rows], [answers.ids[j] for j in rows],
                                         pad, device)                               # (B, T)
        ends = torch.zeros(mask.shape, dtype=torch.bool)
        for row, j in enumerate(rows):
            # one token more where it is finished: the end token
            if len(answers.ids[j]) - len(answers.texts[j]) in (0, 1):
                for end, _ in world.steps(questions[j], answers.texts[j]):
                    ends[row, len(prompts[j]) + end - 1] = True
        # written on the CPU: a GPU would be waited for at every step
        weakest = torch.where(ends, prm(ids).cpu(), math.inf).amin(1)               # (B,)
        scores.append(weakest.masked_fill(~ends.any(1), -math.inf))
    return torch.cat(scores)


def best_of_groups(scores, right):
    """Share of groups of K answers of which the one with the highest score is right, per prompt.

    scores, right (N, SAMPLES) -> (N,)
    """
    scores, right = scores.reshape(len(scores), -1, K), right.reshape(len(right), -1, K)
    best = scores.argmax(2)[:, :, None]                             # (N, groups, 1)
    return np.take_along_axis(right, best, 2).mean((1, 2))          # (N,)


def majority_shares(world, questions, answers, right):
    """(N,): chance that the most frequent of K answers is right, mean over the groups of K.

    right (N, SAMPLES) bool. What does not end casts no vote.
    """
    shares = []
    for row, question in enumerate(questions):
        votes = []
        for i in range(row * SAMPLES, (row + 1) * SAMPLES):
            text, done = answers.texts[i], answers.finished[i]
            votes.append(world.final(question, text) if done else None)
        # what the right ones say; where none is right, nothing that anyone says
        truth = next((vote for vote, ok in zip(votes, right[row], strict=True) if ok), object())
        groups = [votes[i:i + K] for i in range(0, SAMPLES, K)]
        shares.append(np.mean([majority_vote(group, truth) for group in groups]))
    return np.array(shares)


def judge_right(world, questions, greedy, answers, rerankers):
    """The figures of one model. greedy: whether its likeliest answers are right (N,); answers:
    SAMPLES to each question, question by question; rerankers: {name: scores (N * SAMPLES,)}.

    Votes and picks are taken among each K, then averaged. Behind a figure's name _<kind> stands
    the same of the questions of that kind alone.
    """
    each = [q for q in questions for _ in range(SAMPLES)]
    right = np.array([done and world.correct(q, text) for q, text, done in
                      zip(each, answers.texts, answers.finished, strict=True)], dtype=float)
    right = right.reshape(-1, SAMPLES)                                              # (N, SAMPLES)
    passes = [pass_at_k(SAMPLES, int(row.sum()), K) for row in right]
    figures = {"greedy": np.array(greedy, dtype=float), "accuracy": right.mean(1),
               f"pass@{K}": np.array(passes),
               f"majority@{K}": majority_shares(world, questions, answers, right)}
    for name, scores in rerankers.items():
        figures[f"best_of_{K}_{name}"] = best_of_groups(scores.reshape(-1, SAMPLES), right)
    row, rng = {}, np.random.default_rng(0)
    clusters = [worlds.cluster(q) for q in questions]
    for name, values in figures.items():
        row |= {name: float(values.mean()), f"{name}_ci95": bootstrap(values, clusters, rng)}
        for kind in world.KINDS:
            here = np.array([q.kind == kind for q in questions])
            row[f"{name}_{kind}"] = float(values[here].mean()) if here.any() else None
    columns = world.columns(each, answers.texts, answers.finished)
    return row | {name: average(values) for name, values in columns.items()} | {
        "tokens": float(np.mean([len(ids) for ids in answers.ids])),
        "finished": float(np.mean(answers.finished))}
