"""Does a higher price of KL buy more gold at the same KL?

The RLHF Book (first edition 8 and 17, current 15 and 14): a KL penalty keeps the policy from
over-optimizing. Gao et al. 2023, section 3.5: in their runs it acts like stopping early. The path
through the plane of KL and gold is the same, and a price only ends it sooner.

Varied: PPO's beta, all else equal, the questions of each step too. Drawn: gold against KL as they
train, means over eleven steps.
"""
import sys

import numpy as np

import train_ppo
from lab import exam, notebook
from nanorlhf import figures
from nanorlhf.log import read_log

SEEDS, MINUTES = (0, 1, 2), 3
SETTINGS = {"betas": [0.0, 0.05, 0.1, 0.2, 0.4], "at_kl": [1.0, 2.0, 4.0], "steps": 75}
TOY = {"betas": [0.0, 0.2], "at_kl": [0.01], "steps": 3, "prompts": 32}
ANSWER = "Yes: a policy that pays stops where the free one turns down, and goes on gaining there."
READING = """
Here the book is right, and Gao et al. are not: a price of KL does more than end the path sooner.
All paths begin alike. The free one bends down near four nats. A policy that pays stops at a KL of
its own and goes on gaining gold there. The likeliest reason: the price is taken off the reward of
each token, so it learns which tokens are worth a nat, and takes more steps for it than the free one
does. Near SFT, at one nat, there is little to choose between them.
"""


def path_of(folder, names):
    """What a run's log says of its way: means over eleven steps of these columns."""
    log = read_log(folder)
    return {name: figures.smooth(log[name], 11).tolist() for name in names}


def ppo_at(beta, steps):
    """The model of this beta, for exam.marks_of: the run's own where it is that."""
    own = train_ppo.Config
    if (beta, steps) == (own.beta, own.steps):
        return "ppo", "", {}
    return f"lab/ppo_beta_{beta:g}", "train_ppo", {"beta": beta, "steps": steps}


def run(folder, seed, betas, at_kl, steps, prompts=exam.PROMPTS):
    models = {f"beta {beta:g}": ppo_at(beta, steps) for beta in betas}
    rows = exam.marks_of(folder, seed, {"sft": ("sft", "", {}), **models}, prompts)
    for name, (made, _, _) in models.items():
        path = path_of(f"{folder}/{made}", ("kl", "gold", "score"))
        rows[name] |= {"path": path, "gold_at_kl": {
            f"{kl:g}": notebook.first_at(path["kl"], path["gold"], kl) for kl in at_kl}}
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("KL", "kl", "{:.1f}"), ("score", "proxy.rm", "{:.2f}"),
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("gold at 1 nat", "gold_at_kl.1", "{:.2f}"), ("2 nats", "gold_at_kl.2", "{:.2f}"),
        ("4 nats", "gold_at_kl.4", "{:.2f}")])


def claims(data):
    def over_free(beta, kl):
        return notebook.differences(data, f"gold_at_kl.{kl}", f"beta {beta}", "beta 0")

    return {"at 1 nat, beta 0.2 has more gold than beta 0": over_free("0.2", "1"),
            "at 2 nats, beta 0.1 has more gold than beta 0": over_free("0.1", "2"),
            "at 2 nats, beta 0.2 has more gold than beta 0 (seen first)": over_free("0.2", "2"),
            "at 4 nats, beta 0.05 has more gold than beta 0 (seen first)": over_free("0.05", "4"),
            "at the end, beta 0.2 has more gold than beta 0":
                notebook.differences(data, "at_1.gold", "beta 0.2", "beta 0"),
            "at the end and its best temperature, beta 0.2 has more gold than beta 0":
                notebook.differences(data, "at_best.gold", "beta 0.2", "beta 0")}


def figure(data):
    seed, paths = min(data), {}
    for name, row in data[seed].items():
        if "path" in row:
            kl, gold = np.array(row["path"]["kl"]), np.array(row["path"]["gold"])
            # what pays nothing goes far beyond
            paths[name] = kl[kl < 10], gold[kl < 10]
    return figures.plane(f"PPO's way, seed {seed}", "KL to sft, nats an answer", "gold", {}, paths)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
