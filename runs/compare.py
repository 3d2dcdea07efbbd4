"""Makes three runs of each world, trains each variant below in them, evaluates all, and writes what
README and docs show to docs/data/*.json; runs/tables.py makes the tables of it.

    python -m runs.compare                  over an hour on two cores, which it keeps busy
    python -m runs.compare --collect        only read what is there
    make docs                               then: the tables

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
GRPO, DPO = "train_grpo.py", "train_dpo.py"
ALL, ONE = SEEDS, (0,)
# name | script and flags | paper | the line that is the idea | seeds
# A script of "": the world's recipe makes it.
TOWNS = [
    ("rejection", "", "", "`argmax_j r(x, y_j)`, then imitate", ALL),
    ("ppo", "", "Schulman et al. 2017", "`min(rho A, clip(rho) A)`, A by GAE from a critic", ALL),
    ("ppo_free", "train_ppo.py --beta 0", "", "no KL at all", ONE),
    ("grpo", "", "Shao et al. 2024", "`A = (r - beta k1 - mean) / std of r`", ALL),
    ("grpo_paper", f"{GRPO} --kl_in loss --kl k3", "Shao et al. 2024",
     "`+ beta k3` in the loss, as published", ALL),
    ("grpo_k1", f"{GRPO} --kl_in loss --kl k1", "Schulman 2020",
     "`+ beta k1` in the loss: its expected gradient is 0", ONE),
    ("reinforce", f"{GRPO} --advantage reinforce --aggregate fixed", "Williams 1992",
     "`A = r - moving average`", ONE),
    ("rloo", f"{GRPO} --advantage rloo --aggregate fixed", "Ahmadian et al. 2024",
     "`A = r - mean of the others`", ONE),
    ("dr_grpo", f"{GRPO} --advantage dr_grpo --aggregate fixed", "Liu et al. 2025",
     "`A = r - mean`, sum / (B max_len)", ONE),
    ("gspo", f"{GRPO} --ratio sequence --clip_low 3e-4 --clip_high 4e-4", "Zheng et al. 2025",
     "`rho = exp(mean_t log pi/old)`", ONE),
    ("cispo", f"{GRPO} --objective cispo --aggregate token", "MiniMax 2025",
     "`sg(clip(rho)) A log pi`", ONE),
    ("sapo", f"{GRPO} --objective sapo", "Qwen team 2025",
     "`(4/tau) sigmoid(tau (rho - 1)) A`", ONE),
    ("dapo", f"{GRPO} --aggregate token --clip_high 0.28 --beta 0 --refill 4 --overlong penalty "
             "--max_new_tokens 24", "Yu et al. 2025",
     "clip-higher, token mean, groups with spread, a price of length", ONE),
    ("grpo_verifier", f"{GRPO} --reward verifier", "Lambert et al. 2024",
     "r is the gold reward itself", ALL),
    ("dpo", "", "Rafailov et al. 2023", "`-log sigmoid(beta h)`", ALL),
    ("dpo_plain", f"{DPO} --nll 0", "Rafailov et al. 2023", "the same, without the NLL term", ONE),
    ("robust", f"{DPO} --loss robust", "Chowdhury et al. 2024",
     "`((1 - e) L - e L~) / (1 - 2e)`", ONE),
    ("dpo_norm", f"{DPO} --loss dpo_norm", "Lambert et al. 2024",
     "`-log sigmoid(beta (h_c / n_c - h_r / n_r))`", ONE),
    ("apo_zero", f"{DPO} --loss apo_zero", "D'Oosterlinck et al. 2024",
     "`1 - sigmoid(beta h_c) + sigmoid(beta h_r)`", ONE),
    ("apo_down", f"{DPO} --loss apo_down", "D'Oosterlinck et al. 2024",
     "`sigmoid(beta h_c) + 1 - sigmoid(beta (h_c - h_r))`", ONE),
    ("ipo", f"{DPO} --loss ipo", "Azar et al. 2023", "`(h - 1/(2 beta))^2`", ONE),
    ("kto", f"{DPO} --loss kto", "Ethayarajh et al. 2024", "`1 - sigmoid(+-beta (h - z0))`", ONE),
    ("orpo", f"{DPO} --loss orpo", "Hong et al. 2024",
     "`NLL - beta log sigmoid(log odds ratio)`", ONE),
    ("simpo", f"{DPO} --loss simpo", "Meng et al. 2024",
     "`-log sigmoid(beta (avg_c - avg_r) - gamma)`", ONE),
    ("online_dpo", "train_online_dpo.py", "Guo et al. 2024",
     "pairs of today's policy, labelled as it trains", ALL),
    ("dpo_all", f"{DPO} --data {{run}}/preferences_all/pairs.jsonl", "",
     "pairs on all errors, the never judged ones too", ALL),
]
# name | script and flags | seeds
PREFERENCES = [("preferences_all", "make_preferences.py --judged all", ALL),
               ("strengths", "make_preferences.py --labels strengths", ONE),
               ("rankings", "make_preferences.py --labels rankings", ONE),
               ("thumbs", "make_preferences.py --labels thumbs", ONE)]
REWARD_MODELS = [
    ("rm", "", ALL),
    ("rm_all", "train_rm.py --data {run}/preferences_all/pairs.jsonl", ALL),
    ("rm_margin", "train_rm.py --loss margin --data {run}/strengths/pairs.jsonl", ONE),
    ("rm_ranked", "train_rm.py --loss plackett_luce --data {run}/rankings/pairs.jsonl", ONE),
    ("rm_thumbs", "train_prm.py --data {run}/thumbs/answers.jsonl", ONE)]
# What runs/sums.py makes.
SUMS = [("base", "", ALL), ("sft", "", ALL), ("grpo", "", ALL)]
# Rows of an evaluation that the tables of towns show.
SHOWN = ("base", "sft", "sft_sharpened", "sft_cut", "sft_tidy", "likeliest_of_16", "random_of_16",
         "believed_of_16", "best_of_16", "rejection", "rejection_control", "ppo", "grpo", "dpo",
         "dpo_all")
CHECKPOINTS = ("base", "sft", "sft_tidy", "rejection_control")


def call(words, output, env=None):
    """Run a command, its output going to a file, and say how long it took."""
    start = time.time()
    print("begins:", " ".join(words[1:]), flush=True)
    with open(output, "w", encoding="utf-8") as f:
        if subprocess.run(words, stdout=f, stderr=subprocess.STDOUT, env=env).returncode:
            sys.exit(f"error: {' '.join(words[1:])} failed; see {output}")
    print(f"{time.time() - start:4.0f} s: {' '.join(words[1:])}", flush=True)


def recipe(module, folder, seed):
    """Everything that the variants start from."""
    if not os.path.exists(f"{folder}/results.json"):
        call([sys.executable, "-m", module, "--run", folder, "--seed", str(seed)], f"{folder}.txt")


def train(folder, seed, name, command):
    """One variant, on one thread: two processes of two threads would wait for each other.

    Finished once its checkpoint or its pairs are there: what a script writes after it, no table
    needs.
    """
    made = [f"{folder}/{name}/{file}" for file in ("model.pt", "pairs.jsonl")]
    if command and not any(map(os.path.exists, made)):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
        call([sys.executable, *command.format(run=folder).split(), "--run", folder, "--out", name,
              "--seed", str(seed)], f"{folder}/{name}/output.txt", {**os.environ, **ONE_THREAD})


def evaluate(folder, seed, names):
    call([sys.executable, "evaluate.py", folder, "--seed", str(seed), "--models", *names],
         f"{folder}/evaluate.txt", {**os.environ, **ONE_THREAD})


ONE_THREAD = {"OMP_NUM_THREADS": "1"}


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


def collect(root, folder=DATA, command="python -m runs.compare"):
    """Write docs/data/*.json from what there is: every figure that README and docs show.

    command: what made the runs. commit is that of the code that collects; it is theirs only where
    they were made just before.
    """
    os.makedirs(folder, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    versions = {"python": platform.python_version()}
    versions |= {package: metadata.version(package) for package in ("torch", "numpy")}
    made = {"command": command, "commit": commit.stdout.strip(), "versions": versions}

    def write(name, rows, about=None):
        seeds = sorted({int(seed) for figures in rows.values() for seed in figures})
        data = {**made, "seeds": seeds}
        if about:
            data["about"] = about
        data["rows"] = rounded(rows)
        with open(f"{folder}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(data, f, indent=1)
            f.write("\n")

    if rows := found(root, "towns", SHOWN):
        write("towns", rows)
        about = {name: {"flags": flags_of(command), "paper": paper, "idea": idea}
                 for name, command, paper, idea, _ in TOWNS}
        keep = ("gold", "gold_ci95", "win_rate_vs_sft", "kl_to_sft", "proxy", "best_temperature",
                "at_best")
        variants = {}
        for name, seeds in found(root, "towns", about).items():
            variants[name] = {seed: {key: figures[key] for key in keep}
                              for seed, figures in seeds.items()}
        write("variants", variants, about)
    reports = {}
    for name, _, seeds in REWARD_MODELS:
        for seed in seeds:
            if os.path.exists(path := f"{root}/towns-{seed}/{name}/report.json"):
                reports.setdefault(name, {})[str(seed)] = read(path)
    if reports:
        write("reward_models", reports,
              {name: {"flags": flags_of(command)} for name, command, _ in REWARD_MODELS})
    if rows := found(root, "sums", [name for name, *_ in SUMS]):
        write("sums", rows)


def flags_of(command):
    return command.partition(" ")[2].format(run="<run>")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="out/compare", help="the folder of all the runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    parser.add_argument("--collect", action="store_true",
                        help="train and evaluate nothing, only write docs/data")
    args = parser.parse_args(argv)
    root, start = args.root, time.time()
    if args.collect:
        collect(root, command="collected from runs made earlier, by commands not known here")
        return
    os.makedirs(root, exist_ok=True)
    with ThreadPoolExecutor(args.jobs) as pool:
        def at_once(function, rows):
            return list(pool.map(lambda row: function(*row), rows))

        # Recipes use every core themselves, so one after the other. Then a list is finished before
        # the next begins: preferences, reward models, what is trained on pairs, the evaluation.
        for seed in SEEDS:
            recipe("demo", f"{root}/towns-{seed}", seed)
            recipe("runs.sums", f"{root}/sums-{seed}", seed)
        collect(root)
        for variants in (PREFERENCES, REWARD_MODELS, TOWNS):
            at_once(train, [(f"{root}/towns-{seed}", seed, name, command)
                            for name, command, *_, seeds in variants for seed in seeds])
        rows = []
        for seed in SEEDS:
            trained = [name for name, *_, seeds in TOWNS if seed in seeds]
            rows.append((f"{root}/towns-{seed}", seed, [*CHECKPOINTS, *trained]))
        at_once(evaluate, rows)
    collect(root)
    print(f"\nThat took {(time.time() - start) / 60:.0f} minutes. Now: make docs")


if __name__ == "__main__":
    main()
