"""What does a new task cost of the old one, and what foretells the cost?

The RLHF Book (first edition 8 and 11, current 15 and 6). Shenfeld et al. 2025 (RL's Razor): how
much a model forgets follows KL(pi_0 || pi), taken on the new task's prompts, whatever the method;
and methods that learn from their own answers get there with less of it.

pi_0 is SFT, the new task is gold, the old one the pages of pretraining. Varied: whose answers are
learned from, one's own or people's, and whether bad ones are learned from too.

    own answers,      good and bad     GRPO on gold, no price of KL
    own answers,      good ones        rejection sampling by gold, the best of sixteen
    people's answers, good and bad     DPO on the best and the worst of four demonstrations
    people's answers, good ones        SFT on the best of the same four

Each is stopped at three places. Drawn: nats per page token over SFT's, against KL(pi_0 || pi).
"""
import sys

import torch

from lab import exam, notebook
from lab import labels as label_files
from nanorlhf import batches, figures, seeds, worlds
from nanorlhf.functional import token_logprobs
from nanorlhf.measure import kl_per_answer

SEEDS, MINUTES = (0, 1, 2), 7
SETTINGS = {"grpo": [10, 25, 75], "rejection": [1, 3, 9], "dpo": [10, 25, 75],
            "sft": [25, 75, 225], "demonstrations": 1500, "pages": 2000}
TOY = {"grpo": [1, 2], "rejection": [1, 2], "dpo": [1, 2], "sft": [1, 2], "demonstrations": 20,
       "pages": 20, "imitated": 8, "prompts": 32}
ANSWER = "KL foretells it, whichever the way; RL is not the one that forgets least here."
READING = """
Half of the razor holds. Over twelve stops of four ways, what is forgotten goes along with KL(pi_0,
pi), in rank 0.96, and hardly with what is gained. KL(pi, pi_0) foretells it as well, so this does
not say which of the two it is. The other half does not hold here: RL is not the way that forgets
least. At the gold that all four come to, GRPO without a price of KL is three nats from pi_0, and
SFT on people's best answers less than one. The likeliest reason: pi_0 was made of people's answers,
so the best of them lie near it, while nothing keeps GRPO from moving where there is no gold. To
learn from bad answers too costs KL, of one's own answers as of people's, and only GRPO turns it
into gold: at its last stop it has the most of all. What can be asked is not lost: the facts are
completed in 96 to 99% everywhere but in DPO's last stop, 93%. A page is what is written less
surely.
"""
WAYS = {"grpo": "own, good and bad", "rejection": "own, good", "dpo": "people's, good and bad",
        "sft": "people's, good"}


def best_and_worst(folder, seed, n):
    """Of four demonstrations of each of n questions -> paths of pairs of the best and the worst,
    and of the best alone"""
    _, world, _ = exam.held_out(folder, seed)
    rng, pairs, best = seeds.rng(seed, "lab forgetting"), [], []
    for question in world.questions(n, rng, world.JUDGED):
        four = [world.demonstration(question, rng) for _ in range(4)]
        four.sort(key=lambda text: world.grade(question, text)["gold"])
        pairs.append({"prompt": question.text, "chosen": four[-1], "rejected": four[0],
                      "split": worlds.TRAIN})
        best.append({"prompt": question.text, "completion": four[-1], "split": worlds.TRAIN})
    return (label_files.write_rows(f"{folder}/lab/four_pairs.jsonl", pairs),
            label_files.write_rows(f"{folder}/lab/four_best.jsonl", best))


@torch.no_grad()
def kept(folder, seed, name, pages, prompts):
    """-> {"page": nats per token of fresh pages, "recall": share of the facts that it completes,
    "forward_kl": KL(pi_0 || pi), nats an answer of SFT to the questions of training}"""
    run, world, _ = exam.held_out(folder, seed)
    model, rng = run.load(name), seeds.rng(seed, "lab pages")
    rows = [batches.page_ids(world.page(rng), run.tokenizer)[:model.cfg.block_size]
            for _ in range(pages)]

    def nats(ids, mask):
        return -(token_logprobs(model(ids), ids) * mask).sum(1)

    # a page has no prompt, and its first token nothing before it
    lost = batches.map_answers(nats, [row[:1] for row in rows], [row[1:] for row in rows],
                               run.tokenizer.pad, run.device)
    tokens = sum(len(row) - 1 for row in rows)
    asked = world.questions(prompts, seeds.rng(seed, "lab asked"), world.JUDGED)
    ids = [run.tokenizer.prompt(q.text) for q in asked]
    said = run.answer(run.sft, None, ids, "lab asked")
    kl = kl_per_answer(run.sft, model, ids, said.ids, run.tokenizer.pad, run.device)
    return {"page": lost.sum().item() / tokens, "recall": exam.probed(run, world, model, "recall"),
            "forward_kl": float(kl.mean())}


def run(folder, seed, grpo, rejection, dpo, sft, demonstrations, pages, imitated=500,
        prompts=exam.PROMPTS):
    pairs, best = best_and_worst(folder, seed, demonstrations)
    stops = {"grpo": grpo, "rejection": rejection, "dpo": dpo, "sft": sft}
    scripts = {
        "grpo": lambda n: ("train_grpo", {"reward": "verifier", "beta": 0.0, "steps": n}),
        "rejection": lambda n: ("train_rejection", {"reward": "verifier", "epochs": n,
                                                    "control": False, "curve_prompts": 1,
                                                    "prompts": imitated}),
        "dpo": lambda n: ("train_dpo", {"data": pairs, "held_out": 0.0, "nll": 0.0, "steps": n}),
        "sft": lambda n: ("train_sft", {"data": best, "held_out": 0.0, "steps": n,
                                        "init": f"{folder}/sft"})}
    models = {"sft": ("sft", "", {})}
    for way, title in WAYS.items():
        for n in stops[way]:
            models[f"{title}: {n}"] = f"lab/forget_{way}_{n}", *scripts[way](n)
    rows = exam.marks_of(folder, seed, models, prompts)
    jobs = [(folder, seed, name, pages, prompts) for name, *_ in models.values()]
    for row, more in zip(rows.values(), exam.at_once(kept, jobs, "what is kept"), strict=True):
        row |= more
    for row in rows.values():
        row["forgotten"] = row["page"] - rows["sft"]["page"]
    rows = exam.over_sft(folder, seed, rows, prompts)
    # at the gold that every way comes to
    ways = {title: ["sft", *(f"{title}: {n}" for n in stops[way])] for way, title in WAYS.items()}
    golds = {title: [rows[name]["at_1"]["gold"] for name in names] for title, names in ways.items()}
    at = min(map(max, golds.values()))
    for title, names in ways.items():
        rows[f"{title}, at equal gold"] = {"at_1": {"gold": at}} | {
            key: notebook.first_at(golds[title], [rows[name][key] for name in names], at)
            for key in ("forgotten", "forward_kl")}
    stopped = [name for name in models if name != "sft"]
    rows["rank correlation with what is forgotten"] = {
        key: notebook.rank_correlation([notebook.look_up(rows[name], path) for name in stopped],
                                  [rows[name]["forgotten"] for name in stopped])
        for key, path in (("forward_kl", "forward_kl"), ("kl", "kl"), ("gold", "at_1.gold"))}
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("best T", "at_best.gold", "{:.2f}"),
        ("nats a page token, over SFT's", "forgotten", "{:+.3f}"), ("recall", "recall", "{:.0%}"),
        ("KL(pi_0, pi)", "forward_kl", "{:.2f}"), ("KL(pi, pi_0)", "kl", "{:.2f}"),
        ("gold gained", "gold", "{:.2f}")])


def claims(data):
    told, equal = "rank correlation with what is forgotten", "{}, at equal gold"

    def less(way, other, key="forgotten"):
        return notebook.differences(data, key, equal.format(WAYS[other]), equal.format(WAYS[way]))

    return {"what is forgotten goes along with KL(pi_0, pi)":
                {s: rows[told]["forward_kl"] for s, rows in data.items()},
            "more than with the gold that is gained":
                {s: rows[told]["forward_kl"] - rows[told]["gold"] for s, rows in data.items()},
            "more than with KL(pi, pi_0)":
                {s: rows[told]["forward_kl"] - rows[told]["kl"] for s, rows in data.items()},
            "at equal gold, GRPO forgets less than SFT on people's best": less("grpo", "sft"),
            "at equal gold, imitating one's own best forgets less than imitating people's":
                less("rejection", "sft"),
            "at equal gold, learning from bad answers too, GRPO forgets less than rejection":
                less("grpo", "rejection"),
            "at equal gold, GRPO is nearer to pi_0 than SFT on people's best":
                less("grpo", "sft", "forward_kl")}


def figure(data):
    """Each way along its stops: the mean of the seeds."""
    paths = {}
    for title in WAYS.values():
        names = [name for name in next(iter(data.values())) if name.startswith(f"{title}: ")]
        paths[title] = [[0.0, *(notebook.mean_of_seeds(data, name, key) for name in names)]
                        for key in ("forward_kl", "forgotten")]
    return figures.plane("What a new task costs, mean of the seeds", "KL(pi_0, pi), nats an answer",
                         "nats a page token, over SFT's", {}, paths)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
