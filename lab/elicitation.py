"""Does instruction tuning teach, or does it bring out what is there?

The RLHF Book (first edition 1 and 9, current 1 and 4), and Zhou et al. 2023 (LIMA): a few
demonstrations give a model the form of an answer; what it knows comes from pretraining. Gekhman et
al. 2024: demonstrations of what a model does not know teach it to make things up.

Varied: the number of demonstrations at equal updates, 8 of them drawn five times; demonstrations
that have none, half and all of the errors that people share; and the base model alone, with no
example and with one in its prompt. Measured apart: form (boilerplate) and knowledge (of what is
told, the share that is right, of facts that people tell rightly and of those that they err in).
"""
import sys

import numpy as np

from lab import exam, labels, notebook
from nanorlhf import figures, seeds, worlds
from nanorlhf.rollout import generate_in_batches
from nanorlhf.stats import average

SEEDS, MINUTES = (0, 1, 2), 4
SETTINGS = {"sizes": [8, 32, 128, 512, 4800], "draws": 5, "errors": [0.0, 0.5], "steps": 150}
TOY = {"sizes": [8, 16], "draws": 1, "errors": [0.0], "steps": 3, "prompts": 32}
ANSWER = "It brings out form; of knowledge a model tells what its demonstrations tell."
READING = """
Form comes first: eight demonstrations take boilerplate from three answers in four to one in eight.
They do it at a price. Six hundred passes over eight answers make the model say more that is false,
of plain facts too. At 128 demonstrations that is mended, and more than those bring nothing. So the
book's claim holds for form. Knowledge is not brought out by itself: a model tells what the
demonstrations tell. Where they leave out the errors that people share, SFT alone comes to the gold
that PPO comes to with its labels. What is in the demonstrations counts for more than their number.
"""


def demonstrations(world, rng, n, share, split):
    """n demonstrations, of which this share of those with a shared error is left as it is; the
    others are written anew until they have none."""
    rows = []
    for question in world.questions(n, rng, split):
        text, may_err = world.demonstration(question, rng), rng.random() < share
        while not may_err and world.believed_gold(question, text) > world.grade(
                question, text)["gold"]:
            text = world.demonstration(question, rng)
        rows.append({"prompt": question.text, "completion": text, "split": split})
    return rows


def prompted(folder, seed, examples, prompts):
    """The base model with so many examples before the question -> what it says, as columns."""
    run, world, questions = exam.held_out(folder, seed, prompts)
    rng, asked = seeds.rng(seed, "lab examples"), []
    for question in questions:
        chat = []
        for shown in world.questions(examples, rng):
            chat += [{"role": "user", "content": shown.text},
                     {"role": "assistant", "content": world.demonstration(shown, rng)}]
        asked.append(run.tokenizer.prompt([*chat, {"role": "user", "content": question.text}]))
    base = run.load("base")
    room = base.cfg.block_size - max(map(len, asked))
    ids, texts, finished = generate_in_batches(
        base, asked, min(64, room), run.tokenizer,
        seeds.generator(seed, "lab prompted", run.device))
    columns = world.columns(questions, texts, finished)
    return {"at_1": {name: average(values) for name, values in columns.items()},
            "finished": float(np.mean(finished)), "tokens": float(np.mean([len(i) for i in ids]))}


def run(folder, seed, sizes, draws, errors, steps, prompts=exam.PROMPTS):
    _, world, _ = exam.held_out(folder, seed)
    models = {}
    for n in sizes:
        for draw in range(draws if n == min(sizes) else 1):
            # another seed: other demonstrations
            data = f"lab/demonstrations_{n}_{draw}"
            rng = seeds.rng(seed, f"lab demonstrations {n} {draw}")
            rows = demonstrations(world, rng, n, 1.0, worlds.TRAIN)
            models[f"{n} demonstrations" + f", draw {draw}" * (n == min(sizes))] = data, rows
    for share in errors:
        rng = seeds.rng(seed, f"lab errors {share:g}")
        rows = demonstrations(world, rng, max(sizes), share, worlds.TRAIN)
        models[f"{max(sizes)}, {share:.0%} of the shared errors"] = f"lab/errors_{share:g}", rows
    jobs = {}
    for row, (name, rows) in models.items():
        path = labels.write_rows(f"{folder}/{name}.jsonl", rows)
        jobs[row] = name, "train_sft", {"data": path, "held_out": 0.0, "steps": steps}
    made = exam.without_questions(exam.marks_of(folder, seed, jobs, prompts))
    few = [name for name in made if ", draw " in name]
    rows = {f"{min(sizes)} demonstrations": mean_of([made[name] for name in few])}
    rows |= {name: row for name, row in made.items() if name not in few}
    rows["base"] = prompted(folder, seed, 0, prompts)
    rows["base, one example"] = prompted(folder, seed, 1, prompts)
    return rows


def mean_of(rows):
    """Means of the columns of several models; a column that none of them has stays None."""
    return {at: {name: average([row[at][name] for row in rows]) for name in rows[0][at]}
            for at in ("at_1", "at_best")}


def table(data):
    return notebook.rows_of(data, [
        ("boilerplate", "at_1.boilerplate", "{:.0%}"), ("told", "at_1.told", "{:.0%}"),
        ("right: plain", "at_1.right_of_told_plain", "{:.0%}"),
        ("right: errors shared", "at_1.right_of_told_judged", "{:.0%}"),
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}")])


def claims(data):
    def over(key, row, other):
        return notebook.differences(data, key, row, other)

    few, many = (f"{n} demonstrations" for n in (SETTINGS["sizes"][0], SETTINGS["sizes"][-1]))
    none = f"{SETTINGS['sizes'][-1]}, 0% of the shared errors"
    return {f"{few} take boilerplate away from the base":
                over("at_1.boilerplate", "base", few),
            f"{many} leave plain facts more often right than {few}":
                over("at_1.right_of_told_plain", many, few),
            f"{many} earn more gold than {few}, each at its best temperature":
                over("at_best.gold", many, few),
            f"{many} earn more gold than 128, each at its best temperature":
                over("at_best.gold", many, "128 demonstrations"),
            "demonstrations without the shared errors tell such facts more often rightly":
                over("at_1.right_of_told_judged", none, many),
            "demonstrations without the shared errors earn more gold at best (seen first)":
                over("at_best.gold", none, many),
            f"the base tells them more often rightly than the model of {many}":
                over("at_1.right_of_told_judged", "base", many)}


def figure(data):
    sizes = SETTINGS["sizes"]
    lines = {}
    for title, key in (("boilerplate", "boilerplate"), ("plain facts right", "right_of_told_plain"),
                       ("facts with a shared error right", "right_of_told_judged")):
        along = [notebook.mean_of_seeds(data, f"{n} demonstrations", f"at_1.{key}")
                 for n in sizes]
        lines[title] = np.log10(sizes), np.array(along, float)
    return figures.curves("What demonstrations bring, mean of the seeds", "share", lines,
                          x_name="log10 of the number of demonstrations")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
