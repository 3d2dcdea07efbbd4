"""How well a reward model knows what people prefer: its report on held-out data."""
import math

from nanorlhf import batches
from nanorlhf.rollout import score_answers

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
