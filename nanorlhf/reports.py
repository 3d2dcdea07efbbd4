"""How well a reward model, or an AI judge, knows what is good: its report on held-out data."""
import math
from itertools import combinations

import numpy as np

from nanorlhf import batches
from nanorlhf.rollout import score_answers
from nanorlhf.stats import within
from nanorlhf.worlds.labelers import sigmoid

MEANING = {"accuracy": "the chosen answer has the higher score; a tie is a miss",
           "noise_ceiling": "the most that anyone can reach: the labels are noisy",
           "longer_wins": "reached by preferring the longer answer",
           "gold_order": "the truly better answer has the higher score, whatever the label says",
           "judged_accuracy": "of the judged tokens, right or wrong, are told apart",
           "one_answer_for_all": "of them, by saying the same of all"}


def mean(xs):
    return sum(xs) / max(1, len(xs))


def score_pairs(reward_model, pairs, pad, batch_size=256):
    """[Preference] -> (chosen (B,), rejected (B,)): scores on the CPU."""
    prompts, answers, chosen, rejected = batches.distinct_answers(pairs)
    scores = score_answers(reward_model, prompts, answers, pad, batch_size)
    return scores[chosen], scores[rejected]


def accuracy_report(reward_model, pairs, pad, batch_size=256):
    """{name: number} on held-out pairs: accuracy, and what to hold it against."""
    chosen, rejected = score_pairs(reward_model, pairs, pad, batch_size)
    margins, longer = (chosen - rejected).tolist(), 0.0
    for pair in pairs:
        if len(pair.chosen) == len(pair.rejected):
            longer += 0.5
        else:
            longer += len(pair.chosen) > len(pair.rejected)
    report = {"pairs": len(pairs), "accuracy": mean([m > 0 for m in margins]),
              "longer_wins": longer / max(1, len(pairs))}
    if "certainty" in pairs[0].row:
        gaps = [pair.row["chosen_gold"] - pair.row["rejected_gold"] for pair in pairs]
        ordered = [(m > 0) == (gap > 0) for m, gap in zip(margins, gaps, strict=True) if gap]
        report["noise_ceiling"] = mean([pair.row["certainty"] for pair in pairs])
        report["gold_order"] = mean(ordered)
    report["calibration"] = calibration(margins)
    return report


def calibration(margins):
    """Score margins -> [{"pairs", "claimed", "right"}]: how sure it is, and how often right."""
    bins = []
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        claims, hits = [], []
        for margin in margins:
            claim = 1 / (1 + math.exp(-abs(margin)))
            if low <= claim < high:
                claims.append(claim)
                hits.append(margin > 0)
        if hits:
            bins.append({"pairs": len(hits), "claimed": mean(claims), "right": mean(hits)})
    return bins


def print_report(report):
    judged = f", {report['judged']} judged tokens" if "judged" in report else ""
    print(f"held out: {report.get('pairs', 0)} pairs{judged}")
    for name, meaning in MEANING.items():
        if name in report:
            print(f"  {name:18} {report[name]:6.1%}   {meaning}")
    for part in report.get("calibration", []):
        print(f"  where it is {part['claimed']:.0%} sure it is right in {part['right']:.0%} of "
              f"{part['pairs']} pairs")


# of the difference in gold between two answers
GAPS = ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, math.inf))


def judge_report(sizes, answers, scores, own, sharpness, people=2.0):
    """What an AI judge is worth, on N answers -> a dict:

    gaps          [{"from", "to", "pairs", "people", and a column for each of scores}]: of the pairs
                  of a prompt whose golds lie so far apart, the share put in gold's order; a tie is
                  half. people: what labelers of that sharpness would say
    calibration   of the judge, as calibration() has it
    biases        what it gives beyond gold, in its own unit: for ten more tokens, and for a nat a
                  token more of log-prob under the model that is asked ("own kind"), by least
                  squares within prompts

    sizes: answers of each prompt; answers: dicts with gold and tokens; scores: {who: (N,)}, one of
    them "judge"; own (N,): log-prob a token; sharpness: of the judge's labels, and people's.
    """
    starts = np.cumsum([0, *sizes])
    pairs = [pair for start, size in zip(starts, sizes, strict=False)
             for pair in combinations(range(start, start + size), 2)]
    first, second = (np.array(side, int) for side in zip(*pairs, strict=True))
    gold = np.array([answer["gold"] for answer in answers])
    gap = gold[first] - gold[second]
    # equal up to what float sums leave behind
    first, second, gap = (x[np.abs(gap) > 1e-9] for x in (first, second, gap))
    columns = {"people": np.array([sigmoid(people * abs(g)) for g in gap])}
    for who, values in scores.items():
        margin = (np.array(values)[first] - np.array(values)[second]) * np.sign(gap)
        columns[who] = (np.sign(margin) + 1) / 2
        if who == "judge":
            margins = (sharpness * margin).tolist()
    rows = []
    for low, high in GAPS:
        here = (np.abs(gap) > low) & (np.abs(gap) <= high)
        if here.any():
            rows.append({"from": low, "to": None if math.isinf(high) else high,
                         "pairs": int(here.sum()),
                         **{who: float(column[here].mean()) for who, column in columns.items()}})
    prompt = np.repeat(np.arange(len(sizes)), sizes)
    x = np.stack([gold, [answer["tokens"] / 10 for answer in answers], own, scores["judge"]], 1)
    centred = within(x, prompt)                                                     # (N, 4)
    weights, *_ = np.linalg.lstsq(centred[:, :3], centred[:, 3], rcond=None)
    return {"gaps": rows, "calibration": calibration(margins),
            "biases": dict(zip(("gold", "ten tokens", "own kind"), weights.tolist(), strict=True))}


def print_judge_report(report):
    print("held-out pairs put in gold's order, by how far apart their golds lie:")
    for row in report["gaps"]:
        to = "and more" if row["to"] is None else f"to {row['to']:g}"
        said = ", ".join(f"{who} {row[who]:.0%}" for who in row
                         if who not in ("from", "to", "pairs"))
        print(f"  {row['from']:g} {to:8} {row['pairs']:6} pairs   {said}")
    for part in report["calibration"]:
        print(f"  where the judge is {part['claimed']:.0%} sure it is right in {part['right']:.0%} "
              f"of {part['pairs']} pairs")
    biases = report["biases"]
    print(f"  the judge gives {biases['gold']:.2f} for a unit of gold, and beyond it "
          f"{biases['ten tokens']:+.2f} for ten tokens more, {biases['own kind']:+.2f} for a nat a "
          "token that its own model finds likelier")
