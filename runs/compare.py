"""Makes three runs of each world, trains each variant below in them, evaluates all, and writes what
README and docs show to docs/data/*.json; runs/tables.py makes the tables of it. compare.sh calls it:

    python runs/compare.py out/compare 2               the folder, and how many processes at once
    python runs/compare.py out/compare 2 --collect     only read what is there

What is finished is not made again, so it can be stopped and gone on with.
"""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

SEEDS = (0, 1, 2)
DATA = pathlib.Path(__file__).resolve().parent.parent / "docs/data"
# name | script and flags | paper | the line that is the idea | seeds
# A script of None: the world's recipe makes it.
TOWNS = [
    ("rejection", None, "", "`argmax_j r(x, y_j)`, then imitate", (0, 1, 2)),
    ("ppo", None, "Schulman et al. 2017", "`min(rho A, clip(rho) A)`, A by GAE from a critic", (0, 1, 2)),
    ("ppo_free", "train_ppo.py --beta 0", "", "no KL at all", (0,)),
    ("grpo", None, "Shao et al. 2024", "`A = (r - beta k1 - mean) / std of r`", (0, 1, 2)),
    ("grpo_paper", "train_grpo.py --kl_in loss --kl k3", "Shao et al. 2024", "`+ beta k3` in the loss, as published",
     (0, 1, 2)),
    ("grpo_k1", "train_grpo.py --kl_in loss --kl k1", "Schulman 2020",
     "`+ beta k1` in the loss: its expected gradient is 0", (0,)),
    ("reinforce", "train_grpo.py --advantage reinforce --aggregate fixed", "Williams 1992", "`A = r - moving average`", (0,)),
    ("rloo", "train_grpo.py --advantage rloo --aggregate fixed", "Ahmadian et al. 2024", "`A = r - mean of the others`", (0,)),
    ("dr_grpo", "train_grpo.py --advantage dr_grpo --aggregate fixed", "Liu et al. 2025",
     "`A = r - mean`, sum / (B max_len)", (0,)),
    ("gspo", "train_grpo.py --ratio sequence --clip_low 3e-4 --clip_high 4e-4", "Zheng et al. 2025",
     "`rho = exp(mean_t log pi/old)`", (0,)),
    ("cispo", "train_grpo.py --objective cispo --aggregate token", "MiniMax 2025", "`sg(clip(rho)) A log pi`", (0,)),
    ("grpo_verifier", "train_grpo.py --reward verifier", "Lambert et al. 2024", "r is the gold reward itself", (0, 1, 2)),
    ("dpo", None, "Rafailov et al. 2023", "`-log sigmoid(beta h)`", (0, 1, 2)),
    ("dpo_plain", "train_dpo.py --nll 0", "Rafailov et al. 2023", "the same, without the NLL term", (0,)),
    ("ipo", "train_dpo.py --loss ipo", "Azar et al. 2023", "`(h - 1/(2 beta))^2`", (0,)),
    ("kto", "train_dpo.py --loss kto", "Ethayarajh et al. 2024", "`1 - sigmoid(+-beta (h - z0))`", (0,)),
    ("orpo", "train_dpo.py --loss orpo", "Hong et al. 2024", "`NLL - beta log sigmoid(log odds ratio)`", (0,)),
    ("simpo", "train_dpo.py --loss simpo", "Meng et al. 2024", "`-log sigmoid(beta (avg_c - avg_r) - gamma)`", (0,)),
    ("dpo_online_labeler", "train_dpo.py --online labeler", "Guo et al. 2024", "pairs of today's policy, labelled as it trains",
     (0, 1, 2)),
    ("dpo_all", "train_dpo.py --data {run}/rm_all/pairs.jsonl", "", "pairs on all errors, the never judged ones too",
     (0, 1, 2)),
]
# name | script and flags | seeds
REWARD_MODELS = [("rm", None, (0, 1, 2)), ("rm_all", "train_rm.py --judged all", (0, 1, 2)),
                 ("rm_margin", "train_rm.py --loss margin", (0,)), ("rm_ranked", "train_rm.py --loss plackett_luce", (0,)),
                 ("rm_thumbs", "train_rm.py --loss outcome", (0,))]
# What runs/sums.sh makes.
SUMS = [("base", None, (0, 1, 2)), ("sft", None, (0, 1, 2)), ("grpo", None, (0, 1, 2))]
# Rows of an evaluation that the tables of towns show.
SHOWN = ("base", "sft", "sft_sharpened", "sft_cut", "sft_tidy", "likeliest_of_16", "random_of_16", "believed_of_16",
         "best_of_16", "rejection", "rejection_control", "ppo", "grpo", "dpo", "dpo_all")
CHECKPOINTS = ("base", "sft", "sft_tidy", "rejection_control")


def call(words, output, env=None):
    """Run a command, its output going to a file, and say how long it took."""
    start = time.time()
    print("begins:", " ".join(words[1:]), flush=True)
    with open(output, "w", encoding="utf-8") as f:
        if subprocess.run(words, stdout=f, stderr=subprocess.STDOUT, env=env).returncode:
            sys.exit(f"error: {' '.join(words[1:])} failed; see {output}")
    print(f"{time.time() - start:4.0f} s: {' '.join(words[1:])}", flush=True)


def recipe(script, folder, seed):
    """Everything that the variants start from: bash runs/demo.sh or runs/sums.sh."""
    if not os.path.exists(f"{folder}/results.json"):
        env = {"PYTHON": sys.executable, "SEED": str(seed), "RUN": folder}
        call(["bash", script, *(f"{k}={v}" for k, v in env.items())], f"{folder}.txt", os.environ | env)


def train(folder, seed, name, command):
    """One variant. Finished once its checkpoint is there: what a script writes after it, no table needs."""
    if command and not os.path.exists(f"{folder}/{name}/model.pt"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        call([sys.executable, *command.format(run=folder).split(), "--run", folder, "--out", name, "--seed", str(seed)],
             f"{folder}/{name}/output.txt")


def evaluate(folder, seed, names):
    call([sys.executable, "evaluate.py", folder, "--seed", str(seed), "--models", *names], f"{folder}/evaluate.txt")


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def rounded(x):
    """Four digits behind the point, in a figure, a list or a dict of them."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, list):
        return [rounded(value) for value in x]
    return round(x, 4) if isinstance(x, float) else x


def found(root, world, names):
    """{name: {seed: figures}} of the runs of this world that have been evaluated so far."""
    rows = {}
    for seed in SEEDS:
        if os.path.exists(path := f"{root}/{world}-{seed}/results.json"):
            for name, figures in read(path)["models"].items():
                if name in names:
                    rows.setdefault(name, {})[str(seed)] = figures
    return {name: rows[name] for name in names if name in rows}


def collect(root, folder=DATA, command="bash runs/compare.sh"):
    """Write docs/data/*.json from what there is: every figure that README and docs show.

    command: what made the runs. commit is that of the code that collects; it is theirs only where
    they were made just before.
    """
    os.makedirs(folder, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    made = {"command": command, "commit": commit,
            "versions": {"python": platform.python_version(), **{p: metadata.version(p) for p in ("torch", "numpy")}}}

    def write(name, rows, about=None):
        seeds = sorted({int(seed) for figures in rows.values() for seed in figures})
        data = {**made, "seeds": seeds, **({"about": about} if about else {}), "rows": rounded(rows)}
        with open(f"{folder}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(data, f, indent=1)
            f.write("\n")

    if rows := found(root, "towns", SHOWN):
        write("towns", rows)
        about = {name: {"flags": command.partition(" ")[2].format(run="<run>") if command else "", "paper": paper, "idea": idea}
                 for name, command, paper, idea, _ in TOWNS}
        keep = ("gold", "gold_ci95", "win_rate_vs_sft", "kl_to_sft", "proxy", "best_temperature", "at_best")
        rows = found(root, "towns", about)
        write("variants", {name: {seed: {key: figures[key] for key in keep} for seed, figures in seeds.items()}
                           for name, seeds in rows.items()}, about)
    reports = {}
    for name, _, seeds in REWARD_MODELS:
        for seed in seeds:
            if os.path.exists(path := f"{root}/towns-{seed}/{name}/report.json"):
                reports.setdefault(name, {})[str(seed)] = read(path)
    if reports:
        write("reward_models", reports, {name: {"flags": command.partition(" ")[2] if command else ""}
                                         for name, command, _ in REWARD_MODELS})
    if rows := found(root, "sums", [name for name, *_ in SUMS]):
        write("sums", rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("jobs", type=int)
    parser.add_argument("--collect", action="store_true", help="train and evaluate nothing, only write docs/data")
    args = parser.parse_args()
    root, start = args.root, time.time()
    if args.collect:
        return collect(root, command="collected from runs made earlier, by commands not known here")
    os.makedirs(root, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        def at_once(function, *rows):
            return list(pool.map(lambda row: function(*row), [row for some in rows for row in some]))

        # Recipes use every core themselves, so one after the other. Then a list is finished before
        # the next begins: reward models, what is trained on their pairs, the evaluation.
        for seed in SEEDS:
            recipe("runs/demo.sh", f"{root}/towns-{seed}", seed)
            recipe("runs/sums.sh", f"{root}/sums-{seed}", seed)
        collect(root)
        at_once(train, [(f"{root}/towns-{seed}", seed, name, command) for name, command, seeds in REWARD_MODELS for seed in seeds])
        at_once(train, [(f"{root}/towns-{seed}", seed, name, command) for name, command, *_, seeds in TOWNS for seed in seeds])
        at_once(evaluate, [(f"{root}/towns-{seed}", seed, [*CHECKPOINTS, *(name for name, *_, seeds in TOWNS if seed in seeds)])
                           for seed in SEEDS])
    collect(root)
    print(f"\nThat took {(time.time() - start) / 60:.0f} minutes. Now: make docs")


if __name__ == "__main__":
    main()
