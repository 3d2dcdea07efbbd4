"""Rejection sampling: how many answers, chosen how, in how many rounds?

The RLHF Book (first edition 10, current 9): the best of N answers to each prompt, or the best of
all answers whatever their prompt; a random choice of the same size is the control. Llama 2
(Touvron et al. 2023) does it in rounds, each from the last one's model.

Varied: N, at 500 prompts and as many answers to imitate; the choice; one round of sixteen answers
against three rounds of five, each round from the model of the last and on new prompts.
"""
import sys

from lab import exam, notebook
from nanorlhf import figures

SEEDS, MINUTES = (0, 1, 2), 4
SETTINGS = {"answers": [2, 4, 16, 64], "of": 16, "rounds": 3, "prompts_asked": 500}
TOY = {"answers": [2, 4], "of": 4, "rounds": 2, "prompts_asked": 8, "prompts": 32}
ANSWER = "Sixteen answers are enough; what is gained is the choice."
READING = """
What is gained is the choice: imitating any answer at all leaves SFT where it was. Sixteen answers
to a prompt are enough. The best of sixty-four scores no higher once it is imitated, and earns no
more. The best of all answers, whatever their prompt, earned less than the best of each in every
seed, too unevenly for three seeds to settle. Rounds go further from SFT and higher in score than
one round of as many answers, and at temperature 1 in gold too. At the best temperature they are not
ahead, so a part of what they gain is cooling; and they tell fewer of the asked facts.
"""


def in_rounds(folder, seed, name, rounds, settings, prompts):
    """Rejection sampling, each round from the model of the last -> marks of the last"""
    init = f"{folder}/sft"
    for i in range(rounds):
        # other prompts and answers each round
        init = exam.trained(folder, seed + 1000 * i, f"{name}_{i + 1}", "train_rejection",
                            {**settings, "init": init})
    return exam.mark(folder, seed, f"{name}_{rounds}", prompts)


def run(folder, seed, answers, of, rounds, prompts_asked, prompts=exam.PROMPTS):
    # the curve of best-of-N belongs to overoptimization.py
    common, models = {"prompts": prompts_asked, "curve_prompts": 1}, {"sft": ("sft", "", {})}
    for n in answers:
        models[f"best of {n}"] = f"lab/rejection_{n}", "train_rejection", {
            **common, "samples_per_prompt": n, "control": n == of}
    models[f"best of all, {of} a prompt"] = "lab/rejection_overall", "train_rejection", {
        **common, "samples_per_prompt": of, "select": "top_k_overall", "control": False}
    rows = exam.marks_of(folder, seed, models, prompts)
    each = of // rounds
    jobs = [(exam.mark, folder, seed, f"lab/rejection_{of}_control", prompts),
            (in_rounds, folder, seed, "lab/rejection_round", rounds,
             {**common, "samples_per_prompt": each, "control": False}, prompts)]
    rows["any one"], rows[f"{rounds} rounds of {each}"] = exam.at_once(exam.called, jobs, "rounds")
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("told", "at_best.told", "{:.0%}"), ("KL", "kl", "{:.1f}"),
        ("score", "proxy.rm", "{:.2f}")])


def claims(data):
    def over(row, other):
        return notebook.differences(data, "at_best.gold", row, other)

    of, rounds = SETTINGS["of"], SETTINGS["rounds"]
    best, most = f"best of {of}", f"best of {SETTINGS['answers'][-1]}"
    return {f"best of {of} earns more than any one answer": over(best, "any one"),
            f"{most} earns more than {best}": over(most, best),
            "the best of each prompt earns more than the best of all":
                over(best, f"best of all, {of} a prompt"),
            f"{rounds} rounds earn more than one of as many answers":
                over(f"{rounds} rounds of {of // rounds}", best)}


def figure(data):
    answers = SETTINGS["answers"]
    lines = {}
    for title, at in (("at temperature 1", "at_1"), ("at its best temperature", "at_best")):
        lines[title] = answers, [notebook.mean_of_seeds(data, f"best of {n}", f"{at}.gold")
                                 for n in answers]
    return figures.curves("The best of N, imitated: mean of the seeds", "gold", lines,
                          x_name="answers to each prompt")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
