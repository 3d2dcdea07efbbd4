"""Training on one's own answers, generation after generation: what is lost?

The RLHF Book (first edition 15, current 12). Shumailov et al. 2024: models trained on what their
predecessors wrote lose the rare first, and narrow. Gerstgrasser et al. 2024: not where people's
data stay in. Feng et al. 2024: nor where a verifier chooses.

Each generation is trained anew from the base, with the same updates on as many examples: the last
one's answers at temperature 1 or at 0.7; half of them with half of people's; the better half of
twice as many, by gold; or people's, fresh each time, the floor. Drawn: the facts that are told
rightly. Measured besides: facts of the rarer half of the towns, and how many answers differ.
"""
import sys

import numpy as np

from lab import exam, labels, notebook
from nanorlhf import figures, seeds, worlds
from nanorlhf.stats import average

SEEDS, MINUTES = (0, 1, 2), 5
SETTINGS = {"generations": 5, "examples": 1500, "steps": 100}
TOY = {"generations": 2, "examples": 20, "steps": 2, "prompts": 32}
ANSWER = "A third of the facts in five generations, the rare no sooner; people's data keeps them."
READING = """
Five generations on their own answers at temperature 1 go from 31% of the asked facts told rightly
to 22%, a little with each. That the interval reaches over 0 is for the third seed, 3 points under
people's data where the others are 10 and 14 under. The answers that differ go from 98% to 87%.
Against Shumailov et al. the rarer towns do not go first: with thirty-two of them none is rare
enough for a sample to miss. What else goes is filler, by half; so gold rises while knowledge is
lost, and gold alone would have called it progress. With half of people's data nothing is lost, as
Gerstgrasser et al. say. A verifier that keeps the better half makes the most of it: 43% told
rightly, and 1.3 more gold than fresh data of people. At temperature 0.7 the first two generations
gain, by sharpening, and the next three lose a part of it again; a third of the answers are then the
same as another. So there is no one thing that is collapse: what the next generation imitates
decides what is lost.
"""
# what a generation learns from: the temperature of the last one's answers, the share of people's,
# how many answers are written for each that is kept
WAYS = {"own, T 1": (1.0, 0.0, 1), "own, T 0.7": (0.7, 0.0, 1), "half people's": (1.0, 0.5, 1),
        "own, verified": (1.0, 0.0, 2), "people's": (1.0, 1.0, 1)}


def examples(run, world, seed, name, generation, n, way):
    """What this generation learns from -> rows of JSONL"""
    temperature, share, tries = way
    rng, rows = seeds.rng(seed, f"lab generation {generation}"), []
    own = n - int(share * n)
    for question in world.questions(n - own, rng, worlds.TRAIN):
        rows.append({"prompt": question.text, "completion": world.demonstration(question, rng)})
    if own:
        questions = world.questions(own * tries, rng, worlds.TRAIN)
        said = run.answer(run.load(name), None, [run.tokenizer.prompt(q.text) for q in questions],
                          f"lab generation {generation}", temperature)
        # what does not end is nothing to imitate
        answers = [(q, text) for q, text, done in
                   zip(questions, said.texts, said.finished, strict=True) if done]
        if tries > 1:
            answers.sort(key=lambda answer: -world.grade(*answer)["gold"])
        rows += [{"prompt": q.text, "completion": text} for q, text in answers[:own]]
    return [{**row, "split": worlds.TRAIN} for row in rows]


def figures_of(run, world, questions, name):
    """-> what a generation is worth at temperature 1"""
    said = run.answer(run.load(name), None, [run.tokenizer.prompt(q.text) for q in questions],
                      "lab collapse")
    columns = world.columns(questions, said.texts, said.finished)
    # the web writes less about them
    rare = set(world.TOWNS[len(world.TOWNS) // 2:])
    verdicts = [(q, v) for q, text in zip(questions, said.texts, strict=True)
                for v in world.told(q, text).values()]
    right = [v == "right" for _, v in verdicts]
    return {"gold": average(columns["gold"]), "right": float(np.mean(right)),
            "right_rare": float(np.mean([ok for ok, (q, _) in zip(right, verdicts, strict=True)
                                         if q.town in rare])),
            "filler": average(columns["filler"]),
            "distinct": len(set(map(tuple, said.ids))) / len(questions)}


def descend(folder, seed, way, generations, n, steps, prompts):
    """-> {"path": {column: one figure a generation, SFT the first}, ...the last one's}"""
    run, world, questions = exam.held_out(folder, seed, prompts)
    name, path = "sft", [figures_of(run, world, questions, "sft")]
    for i in range(1, generations + 1):
        made = f"lab/generation_{exam.folder_name(way)}_{i}"
        rows = examples(run, world, seed, name, i, n, WAYS[way])
        data = labels.write_rows(f"{folder}/{made}.jsonl", rows)
        exam.trained(folder, seed, made, "train_sft",
                     {"data": data, "held_out": 0.0, "steps": steps})
        name = made
        path.append(figures_of(run, world, questions, made))
    return {**path[-1], "path": {key: [point[key] for point in path] for key in path[0]}}


def run(folder, seed, generations, examples, steps, prompts=exam.PROMPTS):
    jobs = [(folder, seed, way, generations, examples, steps, prompts) for way in WAYS]
    made = dict(zip(WAYS, exam.at_once(descend, jobs, f"generations of seed {seed}"), strict=True))
    first = {key: along[0] for key, along in made["people's"]["path"].items()}
    return {"sft": first, **made}


def table(data):
    return notebook.rows_of(data, [
        ("right facts", "right", "{:.0%}"), ("of rarer towns", "right_rare", "{:.0%}"),
        ("filler", "filler", "{:.2f}"), ("answers that differ", "distinct", "{:.0%}"),
        ("gold", "gold", "{:.2f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    own, cool, mixed = "own, T 1", "own, T 0.7", "half people's"
    return {"own answers lose right facts": over("right", "people's", own),
            "the rarer towns lose more than all":
                {s: (rows["people's"]["right_rare"] - rows[own]["right_rare"])
                 - (rows["people's"]["right"] - rows[own]["right"]) for s, rows in data.items()},
            "own answers differ less": over("distinct", "people's", own),
            "half of people's keep more right facts than none": over("right", mixed, own),
            "a verifier keeps more right facts than none": over("right", "own, verified", own),
            "a verifier earns more gold than people's": over("gold", "own, verified", "people's"),
            "cool answers earn more gold than people's: sharpening": over("gold", cool, "people's"),
            "and differ less": over("distinct", "people's", cool)}


def figure(data):
    lines = {}
    for way in WAYS:
        paths = [rows[way]["path"]["right"] for rows in data.values()]
        lines[way] = np.arange(len(paths[0])), np.mean(paths, 0)
    return figures.curves("Facts that are told rightly, mean of the seeds", "share of asked facts",
                          lines, x_name="generation")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
