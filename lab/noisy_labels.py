"""What do wrong labels cost, and which loss bears them?

The RLHF Book (first edition 12, current 8). cDPO (Mitchell 2023) and robust DPO (Chowdhury et al.
2024) know the share of wrong labels; robust DPO's loss is on average that of the right ones. IPO
(Azar et al. 2023) was made for labels that never waver: there DPO drives the margin to infinity,
and IPO stops at its target.

Varied: the share of training labels turned round, the loss, and the share that cdpo and robust
believe in, right and wrong. Besides: labels without any noise, each pair as gold has it. All on the
same 750 prompts, one pass. The labels to begin with are people's, of whom some 15% are wrong
already; a share of turned labels comes on top.
"""
import sys

from lab import exam, notebook
from lab import labels as label_files
from nanorlhf import figures, seeds

SEEDS, MINUTES = (0, 1, 2), 9
SETTINGS = {"flips": [0.0, 0.1, 0.2, 0.4], "wrong": [0.1, 0.4], "of": 0.2, "steps": 75}
TOY = {"flips": [0.0, 0.4], "wrong": [], "of": 0.4, "steps": 2, "prompts": 32}
ANSWER = "One in ten costs nothing, four more than half; robust DPO is ahead there, cDPO behind."
READING = """
One turned label in ten, on top of those that people get wrong, costs next to nothing at the best
temperature. Four in ten cost more than half of what DPO gains. Robust DPO, told the share, then has
more gold than DPO in each seed, too unevenly for three to settle; cDPO has less in each: it asks
for a smaller margin, and here no margin was too large. To believe in too few wrong labels costs
little, in too many everything: robust DPO that believes in 40% where there are 20% goes eleven nats
from SFT and ends at its gold. Labels that never waver are no gift to DPO. With gold's own it goes
more than twice as far from SFT as with people's, and in two seeds of three it has less gold. IPO,
made for that case, stops at two nats and loses nothing. With people's labels the two are equal.
"""


def flipped(rows, share, rng):
    """This share of the rows with the other label."""
    return [label_files.turned(row) if rng.random() < share else row for row in rows]


def by_gold(rows):
    """Labels that never waver; pairs of equal gold are left out."""
    return [row if row["chosen_gold"] > row["rejected_gold"] else label_files.turned(row)
            for row in rows if row["chosen_gold"] != row["rejected_gold"]]


def run(folder, seed, flips, wrong, of, steps, prompts=exam.PROMPTS):
    train, held_out = label_files.rows_of(folder)
    models = {"sft": ("sft", "", {})}

    def add(row, data, loss, **settings):
        name = f"lab/{exam.folder_name(row)}"
        models[row] = name, "train_dpo", {"data": data, "loss": loss, "steps": steps, **settings}

    for share in flips:
        rows = flipped(train, share, seeds.rng(seed, "lab flips"))
        data = label_files.write(folder, f"lab/flips_{share:g}", rows, held_out)
        for loss in ("dpo", "ipo"):
            add(f"{loss}, {share:.0%} turned", data, loss)
        if share:
            for loss in ("cdpo", "robust"):
                add(f"{loss}, {share:.0%} turned", data, loss, label_smoothing=share)
        if share == of:
            for belief in wrong:
                for loss in ("cdpo", "robust"):
                    add(f"{loss}, {share:.0%} turned, believes {belief:.0%}", data, loss,
                        label_smoothing=belief)
    data = label_files.write(folder, "lab/by_gold", by_gold(train), held_out)
    for loss in ("dpo", "ipo"):
        add(f"{loss}, labels of gold", data, loss)
    rows = exam.marks_of(folder, seed, models, prompts)
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("KL", "kl", "{:.1f}"), ("tokens", "tokens", "{:.0f}")])


def claims(data):
    def over(row, other):
        return notebook.differences(data, "at_best.gold", row, other)

    return {"dpo loses gold when 40% of the labels are turned":
                over("dpo, 0% turned", "dpo, 40% turned"),
            "at 40% turned, robust has more gold than dpo":
                over("robust, 40% turned", "dpo, 40% turned"),
            "at 40% turned, cdpo has more gold than dpo":
                over("cdpo, 40% turned", "dpo, 40% turned"),
            "at 20% turned, robust that believes 20% has more gold than dpo":
                over("robust, 20% turned", "dpo, 20% turned"),
            "with labels of gold, ipo has more gold than dpo":
                over("ipo, labels of gold", "dpo, labels of gold"),
            "dpo does better with labels of gold than with people's":
                over("dpo, labels of gold", "dpo, 0% turned")}


def figure(data):
    lines = {}
    for loss in ("dpo", "cdpo", "robust", "ipo"):
        shares = [s for s in SETTINGS["flips"] if all(f"{loss}, {s:.0%} turned" in rows
                                                      for rows in data.values())]
        lines[loss] = shares, [notebook.mean_of_seeds(data, f"{loss}, {s:.0%} turned",
                                                      "at_best.gold") for s in shares]
    return figures.curves("Labels turned round, mean of the seeds", "gold at the best temperature",
                          lines, x_name="share of labels turned round")


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
