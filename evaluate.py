"""Every checkpoint of a run on the same held-out questions: one table, 95% intervals, samples side by side.

    python evaluate.py out/towns                            half a minute on two laptop cores; writes out/towns/results.json

gold          mean gold reward, the only judge that counts     win_rate_vs_sft   against other draws from sft, ties count half
kl_to_sft     KL(model || sft), nats per answer                proxy             mean reward-model score
right_facts_open   right facts per answer to an open question  the rest          shares of answers, and mean length in tokens
Intervals are bootstrapped over distinct (town, question) pairs: 512 prompts repeat some 115 of them, and repeats are not new evidence.
"""
import argparse
import json
import math
import os

import numpy as np
import torch

from nanorlhf import InputError, run, towns
from nanorlhf.data import map_answers
from nanorlhf.rollout import generate_in_batches, score_answers

MODELS = ("base", "sft", "rejection", "rejection_control", "ppo", "dpo")
SHARES = {"wrong_fact_rate": "wrong", "boilerplate_rate": "boilerplate"}
BEST_OF = 16
RIVALS = 4      # sft answers to each prompt to win against: with one, the draw alone moves every win rate by 0.02


@torch.no_grad()
def kl_per_answer(model, sft, prompts, responses, pad, device, batch_size=128):
    """(N,) nats: at each state the model's answers pass through, the full-vocabulary KL(model || sft), summed over the answer.

    The same mean as k1 (log-prob differences of the sampled tokens), with far less noise.
    """
    def kl(ids, mask):
        p, q = (m(ids)[:, :-1].float().log_softmax(-1) for m in (model, sft))                   # (B, T-1, V), about column t+1
        return ((p.exp() * (p - q)).sum(-1) * mask[:, 1:]).sum(1)

    return map_answers(kl, prompts, responses, pad, device, batch_size).numpy()


def bootstrap(values, pairs, rng, draws=2000):
    """Half the width of the 95% interval of the mean of values (N,), resampling the distinct pairs with all their prompts."""
    _, index = np.unique([str(p) for p in pairs], return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    picks = rng.integers(len(sums), size=(draws, len(sums)))
    means = sums[picks].sum(1) / counts[picks].sum(1)
    return float(np.subtract(*np.percentile(means, [97.5, 2.5])) / 2)


def judge(questions, texts, finished, ids, rival_gold):
    """The figures of one model that need only its answers: means over N prompts, and intervals over pairs. rival_gold: (R, N)."""
    grades = [towns.grade(q, t, f) for q, t, f in zip(questions, texts, finished)]
    gold = np.array([g["gold"] for g in grades])
    wins, ties = gold > rival_gold + 1e-9, np.abs(gold - rival_gold) <= 1e-9                     # (R, N)
    win_rate = (wins + ties / 2).mean(0)                                                        # (N,)
    pairs, rng = [q.pair for q in questions], np.random.default_rng(0)
    is_open = np.array([q.kind == "open" for q in questions])
    right = np.array([g["right"] for g in grades])[is_open]
    return {"gold": float(gold.mean()), "gold_ci95": bootstrap(gold, pairs, rng),
            "win_rate_vs_sft": float(win_rate.mean()), "win_rate_ci95": bootstrap(win_rate, pairs, rng),
            "win_tie_loss": [int(wins.sum()), int(ties.sum()), int((~wins & ~ties).sum())],
            "tokens": float(np.mean([len(i) for i in ids])), "finished": float(np.mean(finished)),
            **{name: float(np.mean([g[part] > 0 for g in grades])) for name, part in SHARES.items()},
            "right_facts_open": float(right.mean()),
            "right_facts_open_ci95": bootstrap(right, [p for p, o in zip(pairs, is_open) if o], rng)}


def show_table(models):
    columns = [("gold", "gold", "gold_ci95", "{:.2f}"), ("wins vs sft", "win_rate_vs_sft", "win_rate_ci95", "{:.2f}"),
               ("KL to sft", "kl_to_sft", None, "{:.1f}"), ("proxy", "proxy", None, "{:.2f}"), ("tokens", "tokens", None, "{:.0f}"),
               ("finished", "finished", None, "{:.1%}"), ("wrong fact", "wrong_fact_rate", None, "{:.1%}"),
               ("boilerplate", "boilerplate_rate", None, "{:.1%}"), ("right, open", "right_facts_open", "right_facts_open_ci95", "{:.2f}")]
    print("model              " + "".join(f"{title:>15}" for title, *_ in columns))
    for name, row in models.items():
        cells = []
        for _, key, ci, form in columns:
            cell = "-" if row[key] is None else form.format(row[key])
            cells.append(cell + (f" ±{row[ci]:.2f}" if ci else ""))
        print(f"{name:19}" + "".join(f"{cell:>15}" for cell in cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("run", help="the run's folder, such as out/towns")
    parser.add_argument("--prompts", type=int, default=512, help="held-out prompts (default: 512)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="longest answer (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and answers (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a CUDA GPU where there is one")
    args = parser.parse_args()
    if args.prompts < 32:
        raise InputError(f"--prompts {args.prompts}: an average over fewer than 32 says nothing")
    device = run.pick_device(args.device)

    sft, tokenizer = run.load_checkpoint(f"{args.run}/sft", device)
    reward_model, _ = run.load_checkpoint(f"{args.run}/rm", device, kind="scalar", like=tokenizer)
    questions = towns.sample_questions(args.prompts, run.rng(args.seed, "evaluation prompts"), towns.HELD_OUT)
    prompts = [tokenizer.prompt(q.text) for q in questions]

    def answer(model, name, prompts):
        return generate_in_batches(model, prompts, args.max_new_tokens, tokenizer,
                                   run.generator(args.seed, f"evaluate {name}", device), progress=name)

    _, texts, finished = answer(sft, "rivals", prompts * RIVALS)
    rival = np.array([towns.grade(q, t, f)["gold"] for q, t, f in zip(questions * RIVALS, texts, finished)]).reshape(RIVALS, -1)
    best = float((rival >= np.array([towns.best_gold(q) for q in questions]) - 1e-9).mean())

    models, shown = {}, {}
    for name in MODELS:
        if not os.path.exists(f"{args.run}/{name}/model.pt"):
            print(f"no {name} in {args.run}: left out")
            continue
        model, _ = run.load_checkpoint(f"{args.run}/{name}", device, like=tokenizer)
        ids, texts, finished = answer(model, name, prompts)
        models[name] = judge(questions, texts, finished, ids, rival)
        models[name]["kl_to_sft"] = float(kl_per_answer(model, sft, prompts, ids, tokenizer.pad, device).mean())
        models[name]["proxy"] = float(score_answers(reward_model, prompts, ids, tokenizer.pad).mean())
        _, shown[name], _ = generate_in_batches(model, [tokenizer.prompt(q.text) for q in towns.SHOWN], args.max_new_tokens, tokenizer,
                                                run.generator(args.seed, "samples", device))
        if name == "sft":
            ids, texts, finished = answer(sft, f"best of {BEST_OF}", [p for p in prompts for _ in range(BEST_OF)])
            scores = score_answers(reward_model, [p for p in prompts for _ in range(BEST_OF)], ids, tokenizer.pad)
            scores = scores.masked_fill(~torch.tensor(finished), -math.inf).view(-1, BEST_OF)
            picks = [row * BEST_OF + j for row, j in enumerate(scores.argmax(1).tolist())]
            models["best_of_16"] = judge(questions, *([x[i] for i in picks] for x in (texts, finished, ids)), rival)
            models["best_of_16"] |= {"kl_to_sft": None, "kl_bound": math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF,
                                     "proxy": scores.max(1).values[scores.max(1).values > -math.inf].mean().item()}

    for question in towns.SHOWN:
        print(f"\n{question.text}")
        for name, texts in shown.items():
            text = texts[towns.SHOWN.index(question)]
            print(f"  {name:18} {text}\n  {'':18} {towns.explain(question, text)}")
    print(f"\n{args.prompts} held-out prompts, {len({q.pair for q in questions})} distinct (town, question) pairs; ± is half a 95% interval")
    show_table(models)
    print(f"best_of_16 is at most {math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF:.2f} nats from sft. "
          f"{best:.1%} of sft's answers are as good as can be, so no win rate can exceed {1 - best / 2:.3f}.")
    results = {"prompts": args.prompts, "seed": args.seed, "sft_already_best": best, "models": models}
    run.write_atomically(f"{args.run}/results.json", lambda f: json.dump(results, f, indent=1))
    print(f"wrote {args.run}/results.json")


if __name__ == "__main__":
    run.script(main)
