"""Labelers like longer answers: what follows, and does length control mend the ranking?

The RLHF Book (first edition 18, current appendix B), and Singhal et al. 2023: much of what RLHF
gains is length. Dubois et al. 2024 (AlpacaEval 2): fit each model's wins by its strength, by how
much longer its answers are, and by how hard the question is; then leave the term of length out.

Varied: what labelers give for ten more tokens, at the same pairs and draws. Drawn: length and gold
of the PPO that follows. Then a judge with such a bias compares fifteen models, five at three
temperatures each, with SFT: raw wins and length-controlled ones, as rank correlations with the
order by gold.
"""
import sys

import numpy as np

from lab import exam, notebook, tastes
from lab.evaluation import chances_to_win, said_by
from nanorlhf import figures
from nanorlhf.measure import wins_and_ties

SEEDS, MINUTES = (0, 1, 2), 7
SETTINGS = {"biases": [0.0, 0.5, 1.0, 2.0], "temperatures": [0.3, 0.7, 1.0],
            "label_prompts": 2000, "steps": 75}
TOY = {"biases": [0.0, 1.0, 2.0], "temperatures": [0.3, 1.0], "label_prompts": 20, "steps": 2,
       "prompts": 32}
ANSWER = "PPO writes twice as much and earns less; length control mends little."
READING = """
Labelers who like length get it: at two nats for ten tokens PPO writes 42 tokens, SFT 21, and its
gold falls below SFT's at temperature 1. A little of this liking helps here. Without it, labels make
PPO fall silent, since its reward model hardly sees that a right fact is worth more than none
(groups.py); half a nat for ten tokens leads it to tell more (in each seed, 7 to 15 in a hundred of
what is asked), and gold rises. Length control mends little. The judge who gives two nats orders the
fifteen models at random, and control moves that a small way towards gold. With milder judges it
moves the order away from gold, or nowhere: within a model length goes along with what is told and
with how much rambling there is, so what is taken out with it is not the bias alone.
"""
PARTS = (*tastes.PARTS, "tokens")


def led(folder, seed, bias, label_prompts, steps, prompts):
    return tastes.led(folder, seed, f"longer_{bias:g}", [(1.0, {"longer_bias": bias})], PARTS,
                      label_prompts, steps, prompts)


def length_controlled(chances, longer):
    """Win rates of M models without what length gives: Dubois et al. 2024, eq. 2.

    chances (M, N): of each model's win; longer (M, N): by how many tokens its answers are longer
    -> (M,). For each model, logit P = theta + phi tanh(longer / sd) + psi difficulty is fitted by
    maximum likelihood, and phi's term is left out. A question's difficulty is the mean logit of
    all models' wins there, in standard deviations; the paper fits it too.
    """
    sure = chances.clip(1e-3, 1 - 1e-3)
    difficulty = np.log(sure / (1 - sure)).mean(0)                                  # (N,)
    difficulty = (difficulty - difficulty.mean()) / max(difficulty.std(), 1e-9)
    rates = []
    for p, more in zip(chances, longer, strict=True):
        x = np.stack([np.ones(len(p)), difficulty, np.tanh(more / max(more.std(), 1e-9))], 1)
        w = np.zeros(3)
        for _ in range(30):     # Newton's steps
            fitted = 1 / (1 + np.exp(-x @ w))                                       # (N,)
            # a little ridge: a model that always wins has no finite fit
            slope = x.T @ (p - fitted) - 1e-2 * w
            w = w + np.linalg.solve((x * (fitted * (1 - fitted))[:, None]).T @ x
                                    + 1e-2 * np.eye(3), slope)
        rates.append((1 / (1 + np.exp(-x[:, :2] @ w[:2]))).mean())
    return np.array(rates)


def said_at(folder, seed, name, temperatures, prompts):
    """-> [(gold (N,), tokens (N,))] of one model, at each of the temperatures"""
    said = []
    for t in temperatures:
        _, columns, tokens = said_by(folder, seed, name, prompts, "lab length", t)
        said.append((np.array(columns["gold"]), np.array(tokens)))
    return said


def run(folder, seed, biases, temperatures, label_prompts, steps, prompts=exam.PROMPTS):
    jobs = [(folder, seed, bias, label_prompts, steps, prompts) for bias in biases]
    made = exam.at_once(led, jobs, f"labelers of seed {seed}")
    rows = {"sft": exam.mark(folder, seed, "sft", prompts)}
    rows |= {f"{bias:g} for ten tokens": row for bias, row in zip(biases, made, strict=True)}
    rows = exam.over_sft(folder, seed, rows, prompts)
    names = ["sft", *(f"lab/ppo_longer_{bias:g}" for bias in biases)]
    said = sum(exam.at_once(said_at, [(folder, seed, name, temperatures, prompts)
                                      for name in names], "answers"), [])
    # all are compared with other draws of SFT
    _, columns, tokens = said_by(folder, seed, "sft", prompts, "lab rival")
    rival = np.array(columns["gold"]), np.array(tokens)
    wins, ties = wins_and_ties(np.stack([gold for gold, _ in said]), rival[0][None])
    truth = (wins + ties / 2).mean(1)                                               # (M,)
    longer = np.stack([mine - rival[1] for _, mine in said])                        # (M, N)
    for bias in biases:
        chances = np.stack([chances_to_win(mine, rival, longer=bias)
                            for mine in said])                                      # (M, N)
        rows[f"judge: {bias:g} for ten tokens"] = {
            "raw": notebook.rank_correlation(chances.mean(1), truth),
            "controlled": notebook.rank_correlation(length_controlled(chances, longer), truth)}
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("weight of a token", "weights.tokens", "{:+.3f}"), ("tokens", "tokens", "{:.0f}"),
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("told", "at_best.told", "{:.0%}"), ("KL", "kl", "{:.1f}"),
        ("raw wins with gold", "raw", "{:.2f}"), ("controlled with gold", "controlled", "{:.2f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    def control_over_raw(bias):
        row = f"judge: {bias:g} for ten tokens"
        return {s: rows[row]["controlled"] - rows[row]["raw"] for s, rows in data.items()}

    none, most = (f"{bias:g} for ten tokens" for bias in (0.0, 2.0))
    return {"labelers who like length make a reward model that does":
                over("weights.tokens", most, none),
            "its PPO writes longer answers": over("tokens", most, none),
            "and less gold, each at its best temperature": over("at_best.gold", none, most),
            "half as much liking for length costs less gold":
                over("at_best.gold", "1 for ten tokens", most),
            "half a nat for ten tokens earns more than none, at the best temperature (seen first)":
                over("at_best.gold", "0.5 for ten tokens", none),
            "and tells more of what is asked (seen first)":
                over("at_best.told", "0.5 for ten tokens", none),
            "of a judge who gives 2, control is nearer to the order by gold than raw wins":
                control_over_raw(2.0),
            "of a judge who gives 1, control is nearer, too": control_over_raw(1.0),
            "of a judge without a bias, control takes the order further from gold":
                {s: -gain for s, gain in control_over_raw(0.0).items()}}


def figure(data):
    biases = SETTINGS["biases"]
    lines = {}
    for title, key in (("raw wins", "raw"), ("length-controlled wins", "controlled")):
        lines[title] = biases, [notebook.mean_of_seeds(data, f"judge: {bias:g} for ten tokens", key)
                                for bias in biases]
    return figures.curves("The order of fifteen models, mean of the seeds",
                          "rank correlation with gold", lines,
                          x_name="what the judge gives for ten tokens, log-odds")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
