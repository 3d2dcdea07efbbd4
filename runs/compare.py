"""Makes three runs of each world, trains each variant below in them, evaluates all, and prints the README's tables. compare.sh calls it:

    python runs/compare.py out/compare 2        the folder, and how many processes at once
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SEEDS = (0, 1, 2)
# name | script and flags | paper | the line that is the idea | seeds.   A script of None: the world's recipe makes it.
TOWNS = [
    ("sft", None, "", "imitate answers", (0, 1, 2)),
    ("rejection", None, "", "`argmax_j r(x, y_j)`, then imitate", (0, 1, 2)),
    ("rejection_overall", "train_rejection.py --select top_k_overall", "", "the K best answers of all prompts", (0,)),
    ("rejection_margin", "train_rejection.py --reward {run}/rm_margin", "Touvron et al. 2023", "`r_c - r_r - margin(strength)`", (0,)),
    ("rejection_ranked", "train_rejection.py --reward {run}/rm_ranked", "Plackett 1975", "`sum_k logsumexp_{j>=k} r_j - r_k`", (0,)),
    ("rejection_thumbs", "train_rejection.py --reward {run}/rm_thumbs", "Cobbe et al. 2021", "`BCE(r_t, thumb)` at every token", (0,)),
    ("ppo", None, "Schulman et al. 2017", "`min(rho A, clip(rho) A)`, A by GAE from a critic", (0, 1, 2)),
    ("ppo_ptx", "train_ppo.py --ptx 0.1", "Ouyang et al. 2022", "`+ ptx E_pages log pi`", (0,)),
    ("ppo_adaptive", "train_ppo.py --target_kl 2", "Ziegler et al. 2019", "`beta *= 1 + clip(KL/target - 1) n/horizon`", (0,)),
    ("ppo_free", "train_ppo.py --beta 0", "", "no KL at all", (0,)),
    ("grpo", None, "Shao et al. 2024", "`A = (r - mean) / std`, of `r - beta k1`", (0, 1, 2)),
    ("reinforce", "train_grpo.py --advantage reinforce --aggregate fixed", "Williams 1992", "`A = r - moving average`", (0,)),
    ("rloo", "train_grpo.py --advantage rloo --aggregate fixed", "Ahmadian et al. 2024", "`A = r - mean of the others`", (0,)),
    ("dr_grpo", "train_grpo.py --advantage dr_grpo --aggregate fixed", "Liu et al. 2025", "`A = r - mean`, sum / (B max_len)", (0,)),
    ("grpo_token", "train_grpo.py --aggregate token", "Yu et al. 2025", "mean over all tokens", (0,)),
    ("grpo_fixed", "train_grpo.py --aggregate fixed", "Liu et al. 2025", "sum / (B max_len)", (0,)),
    ("grpo_paper", "train_grpo.py --kl_in loss --kl k3", "Shao et al. 2024", "`+ beta k3` in the loss, as published", (0, 1, 2)),
    ("grpo_k2", "train_grpo.py --kl_in loss --kl k2", "Schulman 2020", "`+ beta k2` in the loss", (0,)),
    ("grpo_k1", "train_grpo.py --kl_in loss --kl k1", "Schulman 2020", "`+ beta k1` in the loss: its expected gradient is 0", (0, 1, 2)),
    ("grpo_higher", "train_grpo.py --clip_high 0.28", "Yu et al. 2025", "`clip(rho, 1 - 0.2, 1 + 0.28)`", (0,)),
    ("gspo", "train_grpo.py --ratio sequence --clip_low 3e-4 --clip_high 4e-4", "Zheng et al. 2025", "`rho = exp(mean_t log pi/old)`", (0,)),
    ("cispo", "train_grpo.py --objective cispo --aggregate token", "MiniMax 2025", "`sg(clip(rho)) A log pi`", (0,)),
    ("grpo_verifier", "train_grpo.py --reward verifier", "Lambert et al. 2024", "r is the gold reward itself", (0, 1, 2)),
    ("dpo", None, "Rafailov et al. 2023", "`-log sigmoid(beta (h_c - h_r))`", (0, 1, 2)),
    ("dpo_plain", "train_dpo.py --nll 0", "Rafailov et al. 2023", "the same, without the NLL term", (0, 1, 2)),
    ("cdpo", "train_dpo.py --loss cdpo", "Mitchell 2023", "some labels are the wrong way round", (0,)),
    ("ipo", "train_dpo.py --loss ipo", "Azar et al. 2023", "`(h - 1/(2 beta))^2`", (0,)),
    ("hinge", "train_dpo.py --loss hinge", "Liu et al. 2023", "`max(0, 1 - beta h)`", (0,)),
    ("kto", "train_dpo.py --loss kto", "Ethayarajh et al. 2024", "`1 - sigmoid(+-beta (h - z0))`", (0,)),
    ("orpo", "train_dpo.py --loss orpo", "Hong et al. 2024", "`NLL - beta log sigmoid(log odds ratio)`", (0,)),
    ("simpo", "train_dpo.py --loss simpo", "Meng et al. 2024", "`-log sigmoid(beta (avg_c - avg_r) - gamma)`", (0,)),
    ("dpo_online_rm", "train_dpo.py --online reward_model", "Guo et al. 2024", "pairs of today's policy, by the reward model", (0,)),
    ("dpo_online_labeler", "train_dpo.py --online labeler", "Guo et al. 2024", "the same, by the labeler", (0, 1, 2)),
]
# name | flags | rejection sampling with it | seeds
REWARD_MODELS = [("rm", None, "rejection", (0, 1, 2)), ("rm_margin", "train_rm.py --loss margin", "rejection_margin", (0,)),
                 ("rm_ranked", "train_rm.py --loss plackett_luce", "rejection_ranked", (0,)),
                 ("rm_thumbs", "train_rm.py --loss outcome", "rejection_thumbs", (0,))]

# What runs/sums.sh makes, and one flag more.
RLVR = "train_grpo.py --reward verifier --beta 0 --advantage dr_grpo --aggregate token --prompts 32 --samples 8 --steps 120 --lr 5e-5"
SUMS = [("base", None, (0, 1, 2)), ("sft", None, (0, 1, 2)), ("grpo", None, (0, 1, 2)),
        ("grpo_filter", f"{RLVR} --filter 1024", (0,)), ("grpo_skip_flat", f"{RLVR} --skip_flat", (0,))]


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
    return read(f"{folder}/results.json")["models"]


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def of_seeds(values, form):
    """The mean over the seeds, and each."""
    return form.format(statistics.mean(values)) + ("" if len(values) == 1 else " (" + ", ".join(map(form.format, values)) + ")")


def towns_table(results):
    print("\n| algorithm | flags | paper | the idea | gold | wins vs sft | KL to sft | wrong fact |\n|---|---|---|---|---|---|---|---|")
    for name, command, paper, idea, seeds in TOWNS:
        flags = f"`{command.partition(' ')[2].format(run='<run>')}`" if command else ""
        columns = (("gold", "{:.2f}"), ("win_rate_vs_sft", "{:.2f}"), ("kl_to_sft", "{:.1f}"), ("wrong_fact_rate", "{:.0%}"))
        print(f"| {name} | {flags} | {paper} | {idea} | "
              + " | ".join(of_seeds([results[seed][name][key] for seed in seeds], form) for key, form in columns) + " |")


def reward_models_table(root, results):
    print("\n| reward model | flags | accuracy on held-out pairs | the most possible | gold order | gold of rejection sampling with it |\n"
          "|---|---|---|---|---|---|")
    for name, command, used_by, seeds in REWARD_MODELS:
        reports = [read(f"{root}/towns-{seed}/{name}/report.json") for seed in seeds]
        cells = [of_seeds([report[key] for report in reports], "{:.1%}") for key in ("accuracy", "noise_ceiling", "gold_order")]
        gold = of_seeds([results[seed][used_by]["gold"] for seed in seeds], "{:.2f}")
        print(f"| {name} | {'`' + command.partition(' ')[2] + '`' if command else ''} | " + " | ".join(cells + [gold]) + " |")


def sums_table(results):
    columns = ("greedy", "accuracy", "pass@8", "majority@8", "best_of_8_orm", "best_of_8_prm")
    print("\n| model | " + " | ".join(columns) + " |" + "\n|---" + "|---" * len(columns) + "|")
    for name, _, seeds in SUMS:
        print(f"| {name} | " + " | ".join(of_seeds([results[seed][name][key] for seed in seeds], "{:.2f}") for key in columns) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("jobs", type=int)
    args = parser.parse_args()
    root = args.root
    os.makedirs(root, exist_ok=True)
    start = time.time()
    with ThreadPoolExecutor(args.jobs) as pool:
        def at_once(function, *rows):
            return list(pool.map(lambda row: function(*row), [row for some in rows for row in some]))

        # a list is finished before the next begins; the longest first, so that the last ones leave no core idle for long
        at_once(recipe, [("runs/sums.sh", f"{root}/sums-{seed}", seed) for seed in SEEDS],
                [("runs/demo.sh", f"{root}/towns-{seed}", seed) for seed in SEEDS])
        at_once(train, [(f"{root}/towns-{seed}", seed, name, command) for name, command, _, seeds in REWARD_MODELS for seed in seeds],
                [(f"{root}/sums-{seed}", seed, name, command) for name, command, seeds in SUMS for seed in seeds])
        at_once(train, [(f"{root}/towns-{seed}", seed, name, command) for name, command, *_, seeds in TOWNS for seed in seeds])
        found = at_once(evaluate, [(f"{root}/{world}-{seed}", seed, [name for name, *_, seeds in rows if seed in seeds])
                                   for world, rows in (("towns", TOWNS), ("sums", SUMS)) for seed in SEEDS])
    towns_table(found[:3])
    reward_models_table(root, found[:3])
    sums_table(found[3:])
    print(f"\nThat took {(time.time() - start) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
