"""Trains each variant below in the runs that compare.sh has made, evaluates them, and prints the README's tables.

    python runs/compare.py out/compare
"""
import json
import os
import statistics
import subprocess
import sys

# name | script and flags | paper | the line that is the idea | seeds.   A script of None: the demo has made it.
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
    ("grpo", None, "Shao et al. 2024", "`A = (r - mean) / std`", (0, 1, 2)),
    ("reinforce", "train_grpo.py --advantage reinforce --aggregate fixed --kl_in reward --kl k1", "Williams 1992", "`A = r - moving average`", (0,)),
    ("rloo", "train_grpo.py --advantage rloo --aggregate fixed --kl_in reward --kl k1", "Ahmadian et al. 2024", "`A = r - mean of the others`", (0,)),
    ("dr_grpo", "train_grpo.py --advantage dr_grpo --aggregate fixed", "Liu et al. 2025", "`A = r - mean`, sum / (B max_len)", (0,)),
    ("grpo_token", "train_grpo.py --aggregate token", "Yu et al. 2025", "mean over all tokens", (0,)),
    ("grpo_fixed", "train_grpo.py --aggregate fixed", "Liu et al. 2025", "sum / (B max_len)", (0,)),
    ("grpo_kl_reward", "train_grpo.py --kl_in reward --kl k1", "", "`r - beta k1`, before the baseline", (0, 1, 2)),
    ("grpo_k1", "train_grpo.py --kl k1", "Schulman 2020", "`+ beta k1`: its expected gradient is 0", (0, 1, 2)),
    ("grpo_k2", "train_grpo.py --kl k2", "Schulman 2020", "`+ beta k2`", (0,)),
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
REWARD_MODELS = [("rm", None), ("rm_margin", "train_rm.py --loss margin"), ("rm_ranked", "train_rm.py --loss plackett_luce"),
                 ("rm_thumbs", "train_rm.py --loss outcome")]

# What runs/sums.sh makes, and one flag more.
RLVR = "train_grpo.py --reward verifier --beta 0 --advantage dr_grpo --aggregate token --prompts 32 --samples 8 --steps 120 --lr 5e-5"
SUMS = [("base", None, (0, 1, 2)), ("sft", None, (0, 1, 2)), ("grpo", None, (0, 1, 2)),
        ("grpo_filter", f"{RLVR} --filter 1024", (0,)), ("grpo_skip_flat", f"{RLVR} --skip_flat", (0,))]


def train(folder, seed, name, command):
    """Run a script unless its checkpoint is there; its output goes to <folder>/<name>.txt."""
    if command and not os.path.exists(f"{folder}/{name}/model.pt"):
        words = [sys.executable, *command.format(run=folder).split(), "--run", folder, "--out", name, "--seed", str(seed)]
        print(" ".join(words[1:]), flush=True)
        with open(f"{folder}/{name}.txt", "w", encoding="utf-8") as f:
            subprocess.run(words, check=True, stdout=f)


def read(path):
    with open(path, encoding="utf-8") as f:
        return json.load(f)


def evaluate(folder, seed, names):
    subprocess.run([sys.executable, "evaluate.py", folder, "--seed", str(seed), "--models", *names], check=True, stdout=subprocess.DEVNULL)
    return read(f"{folder}/results.json")["models"]


def cell(results, seeds, name, key, form):
    """The mean over the seeds, and each."""
    values = [results[seed][name][key] for seed in seeds]
    return form.format(statistics.mean(values)) + ("" if len(values) == 1 else " (" + ", ".join(map(form.format, values)) + ")")


def towns_table(root):
    for name, command in REWARD_MODELS:
        train(f"{root}/towns-0", 0, name, command)
    for name, command, *_, seeds in TOWNS:
        for seed in seeds:
            train(f"{root}/towns-{seed}", seed, name, command)
    results = {seed: evaluate(f"{root}/towns-{seed}", seed, [name for name, *_, seeds in TOWNS if seed in seeds]) for seed in (0, 1, 2)}
    print("\n| algorithm | flags | paper | the idea | gold | wins vs sft | KL to sft | wrong fact |\n|---|---|---|---|---|---|---|---|")
    for name, command, paper, idea, seeds in TOWNS:
        flags = f"`{command.partition(' ')[2].format(run='<run>')}`" if command else ""
        columns = (("gold", "{:.2f}"), ("win_rate_vs_sft", "{:.2f}"), ("kl_to_sft", "{:.1f}"), ("wrong_fact_rate", "{:.0%}"))
        print(f"| {name} | {flags} | {paper} | {idea} | " + " | ".join(cell(results, seeds, name, *column) for column in columns) + " |")
    print("\n| reward model | accuracy on held-out pairs | gold order |\n|---|---|---|")
    for name, _ in REWARD_MODELS:
        report = read(f"{root}/towns-0/{name}/report.json")
        print(f"| {name} | {report['accuracy']:.1%} of {report['noise_ceiling']:.1%} | {report['gold_order']:.1%} |")


def sums_table(root):
    for name, command, seeds in SUMS:
        for seed in seeds:
            train(f"{root}/sums-{seed}", seed, name, command)
    results = {seed: evaluate(f"{root}/sums-{seed}", seed, [name for name, _, seeds in SUMS if seed in seeds]) for seed in (0, 1, 2)}
    columns = ("greedy", "accuracy", "pass@8", "majority@8", "best_of_8_orm", "best_of_8_prm")
    print("\n| model | " + " | ".join(columns) + " |" + "\n|---" + "|---" * len(columns) + "|")
    for name, _, seeds in SUMS:
        print(f"| {name} | " + " | ".join(cell(results, seeds, name, column, "{:.2f}") for column in columns) + " |")


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "out/compare"
    towns_table(folder)
    sums_table(folder)
