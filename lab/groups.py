"""Two groups of labelers want opposite things: whom does the reward model serve?

The RLHF Book (first edition 5, current 10): a preference model makes one person of many, and who
they are decides what is preferred. Two groups agree on everything but manners, which one likes and
the other dislikes, by the same. Bradley-Terry fits the share of votes. The log-odds of that share
are not the mean of what the groups feel: a strong feeling counts no more than one vote.

Varied: the share of the group that likes manners. Drawn: what the reward model weighs manners,
beside the log-odds of the vote and the mean of the two feelings. After PPO: what each group gets,
gold plus what it feels for manners.
"""
import math
import sys

from lab import exam, notebook, tastes
from nanorlhf import figures
from nanorlhf.worlds.labelers import sigmoid

SEEDS, MINUTES = (0, 1, 2), 7
SETTINGS = {"shares": [0.5, 0.7, 0.9, 1.0], "feeling": 6.0, "sharpness": 2.0,
            "label_prompts": 2000, "steps": 75}
TOY = {"shares": [0.5, 0.9, 1.0], "feeling": 6.0, "sharpness": 2.0, "label_prompts": 20, "steps": 2,
       "prompts": 32}
ANSWER = "The majority: it counts votes, and PPO takes the side of the majority wholly."
READING = """
The reward model counts votes. At nine in ten it gives manners 2.7 nats, near the log-odds of the
vote, where the groups feel 5.4 on average. At an even split it gives them next to nothing, though
nobody is indifferent. PPO then takes the side of the majority wholly: where seven in ten like
manners, 86% of its answers have them. That majority gets nearly all that it would get alone, and
the minority less than SFT gave it. Where all agree, Bradley-Terry should come to 6.6 nats and comes
to 4.6: so strong a feeling takes more labels than these, and the claim about the last tenth is not
settled for that reason. By the way, a right fact weighs 0.1 to 0.2 nats here, where every labeler
gives it 2. Pairs that differ in nothing but the number of right facts are rare, 300 of 55,000 in
seed 0, and this is what a policy loses when it falls silent.
"""


def expected(share, feeling, sharpness):
    """-> (log-odds of the vote for the polite one of two answers that are the same otherwise, mean
    of what the two groups feel), nats"""
    gold = sharpness * 0.3
    vote = share * sigmoid(gold + feeling) + (1 - share) * sigmoid(gold - feeling)
    return math.log(vote / (1 - vote)), gold + feeling * (2 * share - 1)


def serves(row, feeling, sharpness):
    """Adds what each group gets from a policy: gold, and what it feels for manners in gold's unit.
    """
    felt = feeling / sharpness * row["polite"]
    return {**row, "likes": row["at_1"]["gold"] + felt, "dislikes": row["at_1"]["gold"] - felt}


def polite(folder, seed, name, prompts):
    """Share of answers with manners, at temperature 1"""
    run, world, questions = exam.held_out(folder, seed, prompts)
    said = run.answer(run.load(name), None, [run.tokenizer.prompt(q.text) for q in questions],
                      "evaluate answers at 1")
    grades = map(world.grade, questions, said.texts)
    return sum(bool(grade["manners"]) for grade in grades) / prompts


def led(folder, seed, share, feeling, sharpness, label_prompts, steps, prompts):
    groups = [(share, {"polite_bias": feeling, "sharpness": sharpness}),
              (1 - share, {"polite_bias": -feeling, "sharpness": sharpness})]
    name = f"polite_{share:g}"
    row = tastes.led(folder, seed, name, groups, tastes.PARTS, label_prompts,
                     steps, prompts)
    vote, felt = expected(share, feeling, sharpness)
    return {**row, "vote": vote, "felt": felt,
            "polite": polite(folder, seed, f"lab/ppo_{name}", prompts)}


def run(folder, seed, shares, feeling, sharpness, label_prompts, steps, prompts=exam.PROMPTS):
    jobs = [(folder, seed, share, feeling, sharpness, label_prompts, steps, prompts)
            for share in shares]
    made = exam.at_once(led, jobs, f"groups of seed {seed}")
    rows = {"sft": {**exam.mark(folder, seed, "sft", prompts),
                    "polite": polite(folder, seed, "sft", prompts)}}
    rows |= {f"{share:.0%} like manners": row for share, row in zip(shares, made, strict=True)}
    rows = exam.over_sft(folder, seed, rows, prompts)
    return {name: serves(row, feeling, sharpness) for name, row in rows.items()}


def table(data):
    return notebook.rows_of(data, [
        ("weight of manners", "weights.manners", "{:+.2f}"),
        ("log-odds of the vote", "vote", "{:+.2f}"),
        ("mean feeling", "felt", "{:+.2f}"), ("weight of a right fact", "weights.right", "{:+.2f}"),
        ("polite answers", "polite", "{:.0%}"), ("who likes them gets", "likes", "{:.2f}"),
        ("who dislikes them gets", "dislikes", "{:.2f}"), ("gold", "at_1.gold", "{:.2f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    even, most, all_of = (f"{share:.0%} like manners" for share in (0.5, 0.9, 1.0))
    def weight(rows, name):
        return rows[name]["weights"]["manners"]

    return {"at 90%, the weight is nearer to the vote's log-odds than to the mean feeling":
                {s: abs(rows[most]["felt"] - weight(rows, most))
                 - abs(rows[most]["vote"] - weight(rows, most))
                 for s, rows in data.items()},
            "the last tenth of labelers adds more weight than the four tenths before it":
                {s: weight(rows, all_of) + weight(rows, even) - 2 * weight(rows, most)
                 for s, rows in data.items()},
            "who likes manners gets more at 90% than at 50%": over("likes", most, even),
            "who dislikes them gets less at 90% than at 50%": over("dislikes", even, most),
            "at 90%, the minority gets less than SFT gave it": over("dislikes", "sft", most),
            "a tenth of others costs the majority something": over("likes", all_of, most)}


def figure(data):
    shares = SETTINGS["shares"]
    names = [f"{share:.0%} like manners" for share in shares]
    lines = {title: (shares, [notebook.mean_of_seeds(data, name, key) for name in names])
             for title, key in (("weighed by the reward model", "weights.manners"),
                                ("log-odds of the vote", "vote"), ("mean feeling", "felt"))}
    return figures.curves("What manners weigh, mean of the seeds", "nats", lines,
                          x_name="share of labelers who like manners")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
