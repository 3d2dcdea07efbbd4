"""What makes a reward model a good teacher?

The RLHF Book (first edition 7, current 5): more labels, one epoch, all pairs of a prompt in one
batch (Ouyang et al. 2022). Razin et al. 2025: accuracy alone does not say how well a policy learns
from it; scores that hardly differ within a prompt teach slowly, however right their order is.
"Information-Theoretic Reward Decomposition" (2025): both answers of a pair speak to one prompt, so
a reward model may learn to tell them apart without reading it.

Varied: labels, one pair a prompt; their seed; all pairs of 1,000 prompts in one epoch, two and
three, shuffled into batches of as many pairs, and without what SFT knows; and with pairs that
nobody labels, an answer to the question before one to another question about the same town.
Measured: how often the better of two held-out answers has the higher score; how far it is from as
right as it is sure; the spread of its scores within a prompt; what it gives for right claims, in
SFT's answers and in ours; the best of sixteen by it; and gold after PPO, beta the same everywhere.
Drawn: gold after PPO against the order, and over all models the rank correlations.
"""
import json
import sys

from lab import exam, notebook, tastes
from lab import labels as label_files
from lab.overoptimization import best_of_n, reward_models
from nanorlhf import figures, seeds
from nanorlhf.rollout import score_answers
from nanorlhf.stats import within

SEEDS, MINUTES = (0, 1, 2), 13
SETTINGS = {"labels": [250, 1000, 4000], "ensemble": 4000, "all_pairs_of": 1000, "epochs": [2, 3],
            "mismatched": 0.5, "n": 16, "best_of_prompts": 192, "steps": 40}
TOY = {"labels": [10, 20], "ensemble": 30, "all_pairs_of": 20, "epochs": [2],
       "mismatched": 0.5, "n": 4, "best_of_prompts": 16, "steps": 2, "prompts": 32}
ANSWER = (
    "One that orders answers as people do, and reads the question: labels alone do not teach that.")
READING = """
Order is what a teacher needs. Over fourteen reward models it goes along with gold after PPO in each
seed, more than the spread of scores does; three seeds do not settle that it is more. All pairs of a
thousand prompts order better than one pair of each. Ouyang et al.'s batches of one prompt are not
better here than shuffled ones, and a second epoch does no harm. What a reward model knows of truth
SFT knew: from scratch it learns none of it. The surprise is what they read. For a right claim in
place of a wrong one all pairs give 2.7 nats, where labelers give 4; for a second right claim next
to nothing, where labelers give 2; and for one about what was asked no more than for one about
something else, where labelers give 3. It looks as if they average over claims and do not read the
question: both answers of a pair speak to the same one. This is the likeliest reason why PPO falls
silent. Pairs that nobody labels help, for every second prompt the best answer before one to another
question about the town. A second claim is worth 2.3 nats then, in each seed; what was asked 1.5, by
0.2 to 3.2. Held-out answers are ordered about as well, the best of sixteen is a little worse. PPO
tells as much as SFT, within a point in each seed, and has more gold in each, by too little for
three to settle.
"""
TRAITS = ("order", "spread", "best_of", "right")     # what may foretell gold after PPO


def of_all_pairs(folder, seed, prompts, epochs, mismatched):
    """Reward models of all pairs of some prompts, and one of all pairs of all prompts, with
    mismatched pairs for this share of them -> {row: folder in the run}"""
    train, held_out = label_files.rows_of(folder)
    rows = label_files.of_prompts(train, prompts)
    data = label_files.write(folder, "lab/rm_pairs_labels", rows, held_out)
    shuffled, title = list(rows), f"all pairs of {prompts}"
    seeds.rng(seed, "lab shuffled").shuffle(shuffled)
    # pairs of a prompt that do not stand together are not taken together
    apart = label_files.write(folder, "lab/rm_shuffled_labels", shuffled, held_out)
    pairs = 5 * len(rows) // prompts
    made = {title: ("lab/rm_pairs", {"data": data}),
            f"{title}, shuffled": ("lab/rm_shuffled", {"data": apart, "batch_size": pairs}),
            f"{title}, from scratch": ("lab/rm_scratch", {"data": data, "init": "scratch"})}
    _, world, _ = exam.held_out(folder, seed)
    mixed = label_files.with_mismatched(train, world, mismatched,
                                        seeds.rng(seed, "lab mismatched"))
    made["all pairs, mismatched ones too"] = "lab/rm_mismatched", {
        "data": label_files.write(folder, "lab/rm_mismatched_labels", mixed, held_out)}
    for n in epochs:
        steps = n * -(-prompts // 5)
        made[f"{title}, {n} epochs"] = f"lab/rm_pairs_{n}", {"data": data, "steps": steps}
    exam.at_once(exam.trained, [(folder, seed, name, "train_rm", settings)
                                for name, settings in made.values()], "reward models")
    return {row: name for row, (name, _) in made.items()}


def uncalibrated(bins):
    """Mean distance of how often it is right from how sure it is, over a report's bins."""
    far = sum(part["pairs"] * abs(part["claimed"] - part["right"]) for part in bins)
    return far / sum(part["pairs"] for part in bins)


def reported(folder, seed, name, rows):
    """What a reward model's report says, and the spread of its scores within a prompt."""
    with open(f"{folder}/{name}/report.json", encoding="utf-8") as f:
        report = json.load(f)
    _, prompts, scores = tastes.scored(folder, seed, name, rows)
    return {"accuracy": report["accuracy"], "order": report["gold_order"],
            "uncalibrated": uncalibrated(report["calibration"]),
            "spread": float(within(scores, prompts).std()),
            "right": tastes.weights(folder, seed, name, rows)["right"]}


def reads(folder, seed, name, n):
    """What it makes of answers that we write, in nats: "first", a right claim in place of a wrong
    one, 4 by its labelers; "second", one more right claim, 2; "asked", a right claim about what
    was asked in place of one about something else, 3."""
    run, world, questions = exam.held_out(folder, seed, n)
    rng, questions = seeds.rng(seed, "lab reads"), [q for q in questions if len(q.asked) == 2]
    answers = []
    for q in questions:
        first, second = (world.statement(q.town, a, rng) for a in q.asked)
        other = next(a for a in world.FACTS_ORDER if a not in q.asked)
        answers += [first, world.statement(q.town, q.asked[0], rng, wrong=True),
                    f"{first} {second}", world.statement(q.town, other, rng)]
    prompts = [run.tokenizer.prompt(q.text) for q in questions for _ in range(4)]
    ids = [run.tokenizer.encode(answer) + [run.tokenizer.end] for answer in answers]
    scores = score_answers(run.load(name, "scalar"), prompts, ids, run.tokenizer.pad)
    right, wrong, both, beside = scores.view(-1, 4).mean(0).tolist()
    return {"first": right - wrong, "second": both - right, "asked": right - beside}


def run(folder, seed, labels, ensemble, all_pairs_of, epochs, mismatched, n, best_of_prompts,
        steps, prompts=exam.PROMPTS):
    rewards = reward_models(folder, seed, labels, ensemble)
    # two of each kind of the ensembles' heads are enough
    rewards = {name: made for name, made in rewards.items() if not name.endswith("2")}
    rewards |= of_all_pairs(folder, seed, all_pairs_of, epochs, mismatched)
    models = {name: (f"{made}_ppo" if made != "rm" else "lab/rm_ppo", "train_ppo",
                     {"reward": f"{folder}/{made}", "steps": steps})
              for name, made in rewards.items()}
    rows = exam.marks_of(folder, seed, {"sft": ("sft", "", {}), **models}, prompts)
    rows = exam.over_sft(folder, seed, rows, prompts)
    curves = best_of_n(folder, seed, {name: [made] for name, made in rewards.items()}, n,
                       best_of_prompts)
    _, held_out = label_files.rows_of(folder)
    for name, made in rewards.items():
        rows[name] |= reported(folder, seed, made, held_out) | reads(folder, seed, made, prompts)
        rows[name]["best_of"] = curves[name][-1]["gold"]
    after = [rows[name]["at_best"]["gold"] for name in rewards]
    rows["rank correlation with gold after PPO"] = {
        trait: notebook.rank_correlation([rows[name][trait] for name in rewards], after)
        for trait in TRAITS}
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("accuracy", "accuracy", "{:.2f}"), ("gold's order", "order", "{:.2f}"),
        ("off its own sureness", "uncalibrated", "{:.2f}"), ("spread", "spread", "{:.2f}"),
        ("for a right claim, not a wrong one", "first", "{:+.2f}"),
        ("for a second", "second", "{:+.2f}"), ("for one that was asked for", "asked", "{:+.2f}"),
        ("best of 16", "best_of", "{:.2f}"), ("gold after PPO, T 1", "at_1.gold", "{:.2f}"),
        ("best T", "at_best.gold", "{:.2f}"), ("told", "at_best.told", "{:.0%}"),
        ("KL", "kl", "{:.1f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    labels, title = SETTINGS["labels"], f"all pairs of {SETTINGS['all_pairs_of']}"
    few, many = f"{labels[0]} labels", f"{labels[-1]} labels"
    mixed = "all pairs, mismatched ones too"
    most, told = f"{title}, {SETTINGS['epochs'][-1]} epochs", "rank correlation with gold after PPO"
    return {f"{many} order answers better than {few}": over("order", many, few),
            f"PPO earns more by {many} than by {few}": over("at_best.gold", many, few),
            f"all pairs of {SETTINGS['all_pairs_of']} prompts order better than one pair of each":
                over("order", title, f"{SETTINGS['all_pairs_of']} labels"),
            f"{SETTINGS['epochs'][-1]} epochs are further from what they claim than one":
                over("uncalibrated", most, title),
            "one epoch orders better than three": over("order", title, most),
            "all pairs of a prompt in one batch order better than shuffled ones":
                over("order", title, f"{title}, shuffled"),
            "what SFT knows orders better than a start from scratch":
                over("order", title, f"{title}, from scratch"),
            "right in place of wrong weighs more than twice a second right claim (seen first)":
                {s: rows["all pairs"]["first"] - 2 * rows["all pairs"]["second"]
                 for s, rows in data.items()},
            "with mismatched pairs it gives more for a second right claim (seen first)":
                over("second", mixed, "all pairs"),
            "and for what was asked for (seen first)":
                over("asked", mixed, "all pairs"),
            "and PPO tells more of it (seen first)": over("at_best.told", mixed, "all pairs"),
            "and earns more gold (seen first)": over("at_best.gold", mixed, "all pairs"),
            "what it gives for a right fact goes along with gold after PPO":
                {s: rows[told]["right"] for s, rows in data.items()},
            "the order goes along with gold after PPO":
                {s: rows[told]["order"] for s, rows in data.items()},
            "the spread within a prompt goes along with gold after PPO":
                {s: rows[told]["spread"] for s, rows in data.items()},
            "the order goes along with it more than the spread":
                {s: rows[told]["order"] - rows[told]["spread"] for s, rows in data.items()}}


def figure(data):
    points = {name: tuple(notebook.mean_of_seeds(data, name, key)
                          for key in ("order", "at_best.gold"))
              for name, row in next(iter(data.values())).items() if "accuracy" in row}
    return figures.plane("Reward models as teachers, mean of the seeds",
                         "held-out answers in gold's order", "gold after PPO, best temperature",
                         points)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
