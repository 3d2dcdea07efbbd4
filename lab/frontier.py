"""Which way buys the most gold for a nat of KL?

The RLHF Book (first edition 11 and 12, current 6 and 8) sets the algorithms side by side. They do
not have the same to learn from: a reward model may be asked at every step, fixed labels were given
once on SFT's answers, online labels are given on today's, and a verifier knows gold itself. So
only ways with the same source are compared.

Varied: the algorithm, and its beta. Drawn: KL and gold at the end of training, at the best sampling
temperature, a line along beta. The models are those of the other experiments where they have them.
"""
import sys

from lab import exam, kl_price, notebook
from nanorlhf import figures

SEEDS, MINUTES = (0, 1, 2), 8
SETTINGS = {"betas": [0.05, 0.1, 0.2, 0.4], "dpo_betas": [0.05, 0.2, 0.8], "steps": 75,
            "dpo_steps": 0, "online_steps": 150}
TOY = {"betas": [0.2], "dpo_betas": [0.2], "steps": 2, "dpo_steps": 2, "online_steps": 2,
       "imitated": 8, "prompts": 32}
ANSWER = "By one reward model all end alike; DPO, on the labels themselves, is ahead of PPO."
READING = """
By the same reward model the three ways end close together, each at its best temperature. Imitating
the best of sixteen gets there at half of the KL; at temperature 1 it is far behind, so cooling does
a part of its work. DPO saw the labels that the reward model was made of, and is ahead of PPO in
each seed: what the reward model loses of them, DPO does not, and it tells more of what is asked.
Labels on today's answers add nothing that three seeds could show. The most gold for a nat is DPO's
with a large beta: as much as with a small one, at half of the KL. With too small a beta every way
loses, and it loses by silence: PPO and online DPO then tell six asked facts in ten, SFT more than
eight.
"""


def run(folder, seed, betas, dpo_betas, steps, dpo_steps, online_steps, imitated=500,
        prompts=exam.PROMPTS):
    models = {"sft": ("sft", "", {})}
    for beta in betas:
        models[f"reward model: PPO, beta {beta:g}"] = kl_price.ppo_at(beta, steps)
        models[f"reward model: GRPO, beta {beta:g}"] = (
            f"lab/grpo_beta_{beta:g}", "train_grpo", {"beta": beta, "steps": steps})
    models["reward model: best of 16, imitated"] = "lab/rejection_16", "train_rejection", {
        "prompts": imitated, "curve_prompts": 1, "samples_per_prompt": 16, "control": True}
    for beta in dpo_betas:
        models[f"fixed labels: DPO, beta {beta:g}"] = (
            f"lab/dpo_beta_{beta:g}_nll_0.4", "train_dpo",
            {"beta": beta, "nll": 0.4, "steps": dpo_steps})
        models[f"online labels: DPO, beta {beta:g}"] = (
            f"lab/online_beta_{beta:g}", "train_online_dpo", {"beta": beta, "steps": online_steps})
    models["gold: GRPO, beta 0.2"] = "lab/grpo_verifier", "train_grpo", {
        "reward": "verifier", "steps": steps}
    rows = exam.marks_of(folder, seed, models, prompts)
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("KL", "kl", "{:.1f}"), ("gold, T 1", "at_1.gold", "{:.2f}"),
        ("gold, best T", "at_best.gold", "{:.2f}"), ("told", "at_best.told", "{:.0%}"),
        ("right: judged", "at_best.right_of_told_judged", "{:.0%}")])


def claims(data):
    def over(row, other):
        return notebook.differences(data, "at_best.gold", row, other)

    ppo, grpo = "reward model: PPO, beta 0.2", "reward model: GRPO, beta 0.2"
    fixed, online = "fixed labels: DPO, beta 0.2", "online labels: DPO, beta 0.2"
    return {"PPO earns more than SFT, each at its best temperature": over(ppo, "sft"),
            "PPO earns more than imitating the best of 16":
                over(ppo, "reward model: best of 16, imitated"),
            "GRPO earns more than PPO": over(grpo, ppo),
            "DPO on fixed labels earns more than PPO": over(fixed, ppo),
            "online labels earn more than fixed ones": over(online, fixed),
            "GRPO on gold earns more than GRPO on a reward model":
                over("gold: GRPO, beta 0.2", grpo)}


def figure(data):
    """Each way along its betas: the mean of the seeds."""
    paths = {}
    for name in next(iter(data.values())):
        way = name.partition(", beta")[0]
        if way != "sft":
            both = [notebook.mean_of_seeds(data, name, key) for key in ("kl", "at_best.gold")]
            for along, value in zip(paths.setdefault(way, ([], [])), both, strict=True):
                along.append(value)
    points = {way: (kl[0], gold[0]) for way, (kl, gold) in paths.items() if len(kl) == 1}
    return figures.plane("Gold and its price, mean of the seeds", "KL to sft, nats an answer",
                         "gold at the best temperature", points,
                         {way: path for way, path in paths.items() if len(path[0]) > 1})


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
