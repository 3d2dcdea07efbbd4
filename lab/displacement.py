"""DPO: where does the probability go that both answers lose?

The RLHF Book (first edition 12, current 8): DPO raises the margin, and often lowers the chosen
answer's probability too. Razin et al. 2024 (likelihood displacement): it goes to answers that no
pair holds. Pang et al. 2024: cross-entropy on the chosen answer stops it.

Varied: beta, and the weight of the cross-entropy. Measured on held-out prompts: the log-prob of
chosen and rejected answers relative to SFT, and how likely the six answers of a prompt are that
pairs were made of, all together: what they lose went elsewhere. In the enumerable world the same
is exact: a table with a number for every prefix, where nothing is shared between answers but what
they begin with, and a small GPT, where everything is.
"""
import sys

import torch

from lab import exam, notebook
from lab import labels as label_files
from nanorlhf import exact, figures
from nanorlhf.batches import map_answers
from nanorlhf.logprobs import answer_logprobs
from nanorlhf.preference_losses import dpo_loss
from nanorlhf.reports import mean

SEEDS, MINUTES = (0, 1, 2), 6
SETTINGS = {"beta_nll": [[0.05, 0.0], [0.2, 0.0], [0.8, 0.0], [0.2, 0.4]], "exact_pairs": 40,
            "exact_steps": 60}
TOY = {"beta_nll": [[0.2, 0.0]], "exact_pairs": 2, "exact_steps": 5, "prompts": 32, "steps": 3}
ANSWER = (
    "Nearly nowhere: likely answers keep theirs, the unlikely fall, and with them a mean of logs.")
READING = """
Plain DPO lowers the chosen answers by nats, at a small beta by tens of nats, and ends below SFT's
gold there. A large beta or cross-entropy on the chosen answers stops it, and earns more gold too.
What is lost is the mean of the log-probs. The mean of the probabilities says another thing: at beta
0.2 the six answers of a prompt keep about what they had, and the best of them gains. So the
likely ones stay, and the unlikely ones, on which a mean of logs depends, are given up. In a table,
where answers share only what they begin with, no chosen answer of 120 pairs fell. With shared
weights some did, in each seed.
"""


def answers_of_prompts(rows):
    """{prompt: {answer: (gold, ids, prompt_ids)}}: what the pairs of each prompt are made of."""
    known = {}
    for row in rows:
        for side in ("chosen", "rejected"):
            known.setdefault(row["prompt"], {})[row[side]] = (
                row[f"{side}_gold"], row[f"{side}_ids"], row["prompt_ids"])
    return known


@torch.no_grad()
def where_it_is(folder, seed, name, rows):
    """-> {"chosen", "rejected": mean log-ratio to SFT of the two sides, nats; "mass", "best":
    mean probability of all answers that a prompt's pairs hold, and of the best of them}"""
    run, _, _ = exam.held_out(folder, seed)
    policy, pad = run.load(name), run.tokenizer.pad
    known = answers_of_prompts(rows)
    places = [(prompt, answer) for prompt, answers in known.items() for answer in answers]
    golds, ids, asked = zip(*(known[prompt][answer] for prompt, answer in places), strict=True)
    logp, start = (map_answers(lambda i, m, model=model: answer_logprobs(model, i, m), asked, ids,
                               pad, run.device) for model in (policy, run.sft))         # (N,)
    moved = dict(zip(places, (logp - start).tolist(), strict=True))
    mass, best = dict.fromkeys(known, 0.0), {}
    for (prompt, _), gold, p in zip(places, golds, logp.exp().tolist(), strict=True):
        mass[prompt] += p
        best[prompt] = max(best.get(prompt, (gold, p)), (gold, p))
    return {"mass": mean(mass.values()), "best": mean([p for _, p in best.values()]),
            **{side: mean([moved[row["prompt"], row[side]] for row in rows])
               for side in ("chosen", "rejected")}}


def exactly(seed, pairs, steps, lr=0.5, beta=0.2):
    """DPO on one pair at a time in the enumerable world, from the same reference -> {"table",
    "gpt": {"fell": share of pairs whose chosen answer lost probability, "elsewhere": what the two
    answers together lost}}"""
    world, draws, made = exact.answers(), torch.Generator().manual_seed(seed), {}
    for kind in ("table", "gpt"):
        fell, elsewhere = [], []
        for _ in range(pairs):
            chosen, rejected = torch.randperm(len(world.ids), generator=draws)[:2].tolist()
            policy = exact.Table() if kind == "table" else exact.tiny_gpt(seed)
            optimizer = torch.optim.SGD(policy.parameters(), lr if kind == "table" else lr / 10)
            with torch.no_grad():
                start = exact.logprobs(policy, world).sum(1)                    # (N,)
            for _ in range(steps):
                logp = exact.logprobs(policy, world).sum(1)                     # (N,)
                pair = logp[[chosen]], logp[[rejected]], start[[chosen]], start[[rejected]]
                loss = dpo_loss(*pair, beta)[0].mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                end = exact.logprobs(policy, world).sum(1)                      # (N,)
            fell.append(bool(end[chosen] < start[chosen]))
            both = [chosen, rejected]
            elsewhere.append((start[both].exp().sum() - end[both].exp().sum()).item())
        made[kind] = {"fell": mean(fell), "elsewhere": mean(elsewhere)}
    return made


def run(folder, seed, beta_nll, exact_pairs, exact_steps, steps=0, prompts=exam.PROMPTS):
    models = {"sft": ("sft", "", {})}
    for beta, nll in beta_nll:
        models[f"beta {beta:g}, nll {nll:g}"] = (
            f"lab/dpo_beta_{beta:g}_nll_{nll:g}", "train_dpo",
            {"beta": beta, "nll": nll, "steps": steps})
    rows = exam.marks_of(folder, seed, models, prompts)
    _, held_out = label_files.rows_of(folder)
    jobs = [(folder, seed, name, held_out) for name, *_ in models.values()]
    for row, places in zip(rows.values(), exam.at_once(where_it_is, jobs, "log-probs"),
                           strict=True):
        row |= places
    rows = exam.over_sft(folder, seed, rows, prompts)
    for kind, figures_of in exactly(seed, exact_pairs, exact_steps).items():
        rows[f"enumerable, {kind}"] = figures_of
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("chosen, nats", "chosen", "{:+.2f}"), ("rejected", "rejected", "{:+.2f}"),
        ("P of all six", "mass", "{:.2f}"), ("P of the best", "best", "{:.2f}"),
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("KL", "kl", "{:.1f}"), ("chosen fell", "fell", "{:.0%}"),
        ("went elsewhere", "elsewhere", "{:+.2f}")])


def claims(data):
    def lower(key, row, other):
        return notebook.differences(data, key, other, row)

    plain, held = "beta 0.2, nll 0", "beta 0.2, nll 0.4"
    return {"plain DPO lowers the chosen answers' log-prob":
                {s: -rows[plain]["chosen"] for s, rows in data.items()},
            "what a prompt's six answers lose under plain DPO goes elsewhere":
                lower("mass", plain, "sft"),
            "cross-entropy keeps the chosen answers likelier than plain DPO does":
                notebook.differences(data, "chosen", held, plain),
            "cross-entropy earns more gold than plain DPO, each at its best temperature":
                notebook.differences(data, "at_best.gold", held, plain),
            "with shared weights the chosen answer falls more often than in a table":
                notebook.differences(data, "fell", "enumerable, gpt", "enumerable, table")}


def figure(data):
    seed = min(data)
    rows = {name: (row["chosen"], row["rejected"]) for name, row in data[seed].items()
            if "chosen" in row}
    return figures.plane(f"Where DPO moves held-out answers, seed {seed}", "chosen, nats from SFT",
                         "rejected, nats from SFT", rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
