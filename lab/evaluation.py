"""What can go wrong with a benchmark, and what mends it?

The RLHF Book, chapter 16 in both editions. Benchmarks leak into training data; wording moves a
score; so do the seeds of training and of sampling; and a model that judges likes the answer that
stands first, or the longer one (Zheng et al. 2023), of which asking twice, with the answers
swapped, mends the first alone.

Varied: SFT with and without right answers to half of the held-out questions among its
demonstrations, 1 in 8; the wording of a question; four seeds of SFT on one base, by four of
sampling; a judge of PPO against SFT whose bias is known. Of wins, 0.5 is a tie.
"""
import sys

import numpy as np

from lab import exam, labels, notebook
from lab.elicitation import demonstrations
from nanorlhf import figures, seeds, worlds
from nanorlhf.worlds.labelers import sigmoid

SEEDS, MINUTES = (0, 1, 2), 3
SETTINGS = {"demonstrations": 4800, "leaked": 0.125, "trained": 4, "sampled": 4, "first": 1.0,
            "longer": 1.0}
TOY = {"demonstrations": 32, "leaked": 0.5, "trained": 2, "sampled": 2, "first": 1.0,
       "longer": 1.0, "prompts": 32}
ANSWER = (
    "A leak shows on fresh questions too; asking both ways mends order, not a liking for length.")
READING = """
A leak raises the benchmark, on the questions that leaked and nearly as much on the others: here it
is true answers that leak, and they tell of facts that other questions ask for too. So a fresh half
is no proof that nothing leaked, where questions share their facts. Another seed of SFT moves the
mean of 512 answers as little as another draw does. The wording moves a single question far more,
and averages out over many. Asking the judge both ways mends its liking for the first answer, and
does nothing for its liking for length, since length goes along with the answer.
"""


def said_by(folder, seed, name, prompts, purpose, temperature=1.0):
    """-> (questions, columns, lengths) of one model's answers to the held-out questions"""
    run, world, questions = exam.held_out(folder, seed, prompts)
    asked = [run.tokenizer.prompt(q.text) for q in questions]
    said = run.answer(run.load(name), None, asked, purpose, temperature)
    return (questions, world.columns(questions, said.texts, said.finished),
            [len(ids) for ids in said.ids])


def trained_and_said(folder, seed, name, settings, own_seed, draws, prompts):
    """SFT with a seed of its own -> (questions, gold (draws, N)) at temperature 1"""
    exam.trained(folder, own_seed, name, "train_sft", settings)
    golds = []
    for i in range(draws):
        questions, columns, _ = said_by(folder, seed, name, prompts, f"lab sampled {i}")
        golds.append(columns["gold"])
    return questions, np.array(golds)


def leak(folder, seed, n, share):
    """-> (path of demonstrations of which this share answers held-out questions, truly; the keys
    that they answer, half of those held out)"""
    _, world, _ = exam.held_out(folder, seed)
    rng = seeds.rng(seed, "lab leak")
    keys = sorted({q.key for q in world.questions(2000, rng, worlds.HELD_OUT)})
    leaked = set(rng.sample(keys, len(keys) // 2))
    rows = demonstrations(world, rng, n, 1.0, worlds.TRAIN)
    for i in range(int(share * n)):
        question = world.questions(1, rng, worlds.HELD_OUT)[0]
        while question.key not in leaked:
            question = world.questions(1, rng, worlds.HELD_OUT)[0]
        text = world.tidy_demonstration(question, rng)
        while world.grade(question, text)["wrong"]:
            text = world.tidy_demonstration(question, rng)
        rows[i] = {"prompt": question.text, "completion": text, "split": worlds.TRAIN}
    return labels.write_rows(f"{folder}/lab/leak.jsonl", rows), leaked


def chances_to_win(mine, theirs, first=0.0, longer=0.0):
    """(N,), by a judge who sees mine first. mine, theirs: (gold, tokens) of N answers each;
    first: log-odds for what stands first; longer: for ten more tokens."""
    (gold, tokens), (other_gold, other_tokens) = mine, theirs
    gaps = 2 * np.subtract(gold, other_gold) + longer * np.subtract(tokens, other_tokens) / 10
    return np.array([sigmoid(gap + first) for gap in gaps])


def wins(mine, theirs, first=0.0, longer=0.0):
    """Share of wins by a judge who sees mine first."""
    return float(chances_to_win(mine, theirs, first, longer).mean())


def by_wording(questions, golds):
    """golds (trained, sampled, N) -> standard deviation of the gold of a question over its
    wordings, beyond what the draws alone make of it."""
    draws, texts = golds.reshape(-1, len(questions)), {}
    for q, gold in zip(questions, draws.T, strict=True):
        texts.setdefault(q.key, {}).setdefault(q.text, gold)
    beyond = []
    for golds_of in texts.values():
        if len(golds_of) > 1:
            each = np.array(list(golds_of.values()))                # (wordings, draws)
            noise = each.var(1, ddof=1).mean() / each.shape[1]
            beyond.append(each.mean(1).var(ddof=1) - noise)
    return float(np.sqrt(max(0.0, np.mean(beyond))))


def run(folder, seed, demonstrations, leaked, trained, sampled, first, longer,
        prompts=exam.PROMPTS):
    path, keys = leak(folder, seed, demonstrations, leaked)
    plain = {"demonstrations": demonstrations}
    jobs = [(folder, seed, f"lab/sft_seed_{i}", plain, seed + 1000 * (i + 1), sampled, prompts)
            for i in range(trained)]
    jobs.append((folder, seed, "lab/sft_leak", {"data": path, "held_out": 0.0}, seed, sampled,
                 prompts))
    *plain, (questions, of_leak) = exam.at_once(trained_and_said, jobs, f"SFT of seed {seed}")
    golds = np.array([gold for _, gold in plain])                   # (trained, sampled, N)
    hit = np.array([q.key in keys for q in questions])              # (N,)
    rows = {"SFT": {"leaked half": golds[..., hit].mean(), "fresh half": golds[..., ~hit].mean()},
            "SFT with a leak": {"leaked half": of_leak[:, hit].mean(),
                                "fresh half": of_leak[:, ~hit].mean()}}
    # what a draw, a seed of training, and a wording do to the benchmark
    means = golds.mean(2)                                           # (trained, sampled)
    within = means.var(1, ddof=1).mean()
    between = max(0.0, means.mean(1).var(ddof=1) - within / sampled)
    rows["seeds of sampling"] = {"moves gold by": float(np.sqrt(within))}
    rows["seeds of training"] = {"moves gold by": float(np.sqrt(between))}
    rows["wording of a question"] = {"moves gold by": by_wording(questions, golds)}
    judged = {}
    for name in ("sft", "ppo"):
        _, columns, tokens = said_by(folder, seed, name, prompts, "lab judged")
        judged[name] = columns["gold"], tokens
    ppo, sft = judged["ppo"], judged["sft"]
    for judge, bias in (("no bias", {}), ("likes the first", {"first": first}),
                        ("likes the longer", {"longer": longer})):
        ahead, behind = wins(ppo, sft, **bias), 1 - wins(sft, ppo, **bias)
        rows[f"judge: {judge}"] = {"PPO first": ahead, "PPO second": behind,
                                   "both ways": (ahead + behind) / 2}
    return {name: {key: float(value) for key, value in row.items()} for name, row in rows.items()}


def table(data):
    return notebook.rows_of(data, [
        ("gold, leaked half", "leaked half", "{:.2f}"), ("fresh half", "fresh half", "{:.2f}"),
        ("moves gold by", "moves gold by", "{:.2f}"), ("wins, PPO first", "PPO first", "{:.2f}"),
        ("PPO second", "PPO second", "{:.2f}"), ("both ways", "both ways", "{:.2f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    def nearer(row, key, other):
        """By how much less one way of asking is off than another."""
        return {s: abs(r[row][other] - r["judge: no bias"]["both ways"])
                - abs(r[row][key] - r["judge: no bias"]["both ways"]) for s, r in data.items()}

    return {"a leak raises the leaked half": over("leaked half", "SFT with a leak", "SFT"),
            "a leak raises the leaked half more than the fresh one":
                {s: (r["SFT with a leak"]["leaked half"] - r["SFT"]["leaked half"])
                 - (r["SFT with a leak"]["fresh half"] - r["SFT"]["fresh half"])
                 for s, r in data.items()},
            "seeds of training move gold more than seeds of sampling":
                over("moves gold by", "seeds of training", "seeds of sampling"),
            "of a judge who likes the first, both ways are nearer to the truth":
                nearer("judge: likes the first", "both ways", "PPO first"),
            "of a judge who likes the longer, both ways are nearer to the truth":
                nearer("judge: likes the longer", "both ways", "PPO first")}


def figure(data):
    """Wins as each judge counts them, the mean of the seeds."""
    rows = {}
    for judge in ("no bias", "likes the first", "likes the longer"):
        for way in ("PPO first", "PPO second", "both ways"):
            rows[f"{judge}: {way}"] = notebook.mean_of_seeds(data, f"judge: {judge}", way), None
    return figures.dots("PPO against SFT, mean of the seeds", "wins", rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
