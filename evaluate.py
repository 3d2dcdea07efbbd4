"""Every checkpoint of a run on the same held-out questions: one table, 95% intervals, samples side by side.

    python evaluate.py out/towns                            half a minute on two laptop cores; writes out/towns/results.json
    python evaluate.py out/towns --models ppo grpo_rloo     folders of your choice
    python evaluate.py out/sums                             the world comes with the checkpoint
    python evaluate.py out/hh --data hh_test.jsonl.gz       preference pairs of your own, held out by you

gold          mean gold reward, the only judge that counts     win_rate_vs_sft   against other draws from sft, ties count half
kl_to_sft     KL(model || sft), nats per answer                proxy             mean reward-model score
right_facts_open   right facts per answer to an open question  the rest          shares of answers, and mean length in tokens
of sums: greedy is the accuracy of the likeliest answer, accuracy that at temperature 1; pass@8: is one of eight right? majority@8: is
their most frequent answer? best of 8, orm and prm: is the one that an outcome or a process reward model scores highest?
of --data, where nobody knows gold: proxy, wins by it, KL from the sampled tokens, and pairs, the share of pairs whose chosen answer has gained
more probability since sft than the rejected one. Who was trained on the proxy is flattered by it; the pairs are people's word.
Intervals are bootstrapped over distinct (town, question) pairs: 512 prompts repeat some 115 of them, and repeats are not new evidence.
"""
import argparse
import json
import math
import os

import numpy as np
import torch

from nanorlhf import InputError, data, look, run, sums, towns
from nanorlhf.data import map_answers
from nanorlhf.logprobs import answer_logprobs, pair_logprobs
from nanorlhf.rollout import generate_in_batches, score_answers
from nanorlhf.stats import bootstrap, majority_vote, pass_at_k

MODELS = ("base", "sft", "rejection", "rejection_control", "ppo", "grpo", "dpo")
SHARES = {"wrong_fact_rate": "wrong", "boilerplate_rate": "boilerplate"}
BEST_OF = 16
SAMPLES, K = 16, 8      # answers to each sum; pass@8 and majority@8 are taken from them
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


TOWNS_COLUMNS = [
    ("gold", "gold", "gold_ci95", "{:.2f}"), ("wins vs sft", "win_rate_vs_sft", "win_rate_ci95", "{:.2f}"),
    ("KL to sft", "kl_to_sft", None, "{:.1f}"), ("proxy", "proxy", None, "{:.2f}"), ("tokens", "tokens", None, "{:.0f}"),
    ("finished", "finished", None, "{:.1%}"), ("wrong fact", "wrong_fact_rate", None, "{:.1%}"),
    ("boilerplate", "boilerplate_rate", None, "{:.1%}"), ("right, open", "right_facts_open", "right_facts_open_ci95", "{:.2f}")]
SUMS_COLUMNS = [
    ("greedy", "greedy", "greedy_ci95", "{:.2f}"), ("accuracy", "accuracy", "accuracy_ci95", "{:.2f}"),
    (f"pass@{K}", f"pass@{K}", f"pass@{K}_ci95", "{:.2f}"), (f"majority@{K}", f"majority@{K}", f"majority@{K}_ci95", "{:.2f}"),
    ("format", "format", None, "{:.1%}"), ("tokens", "tokens", None, "{:.0f}"), ("finished", "finished", None, "{:.1%}")]
DATA_COLUMNS = [
    ("proxy", "proxy", "proxy_ci95", "{:.2f}"), ("wins vs sft", "win_rate_vs_sft", "win_rate_ci95", "{:.2f}"),
    ("KL to sft", "kl_to_sft", None, "{:.1f}"), ("tokens", "tokens", None, "{:.0f}"), ("finished", "finished", None, "{:.1%}"),
    ("pairs", "pairs", "pairs_ci95", "{:.2f}")]
RERANKERS = ("orm", "prm")      # reward models of the outcome and of each step


def show_table(models, columns):
    print("model              " + "".join(f"{title:>15}" for title, *_ in columns))
    for name, row in models.items():
        cells = []
        for _, key, ci, form in columns:
            cell = "-" if row[key] is None else form.format(row[key])
            cells.append(cell + (f" ±{row[ci]:.2f}" if ci and row[key] is not None else ""))
        print(f"{name:19}" + "".join(f"{cell:>15}" for cell in cells))


def show_samples(world, shown):
    """shown: {model: its answers to the world's three}"""
    for i, question in enumerate(world.SHOWN):
        print(f"\n{question.text}")
        for name, texts in shown.items():
            print(f"  {name:18} {texts[i]}\n  {'':18} {world.explain(question, texts[i])}")


def names_of(args):
    """The folders to evaluate: those asked for, or all known ones that are there."""
    if args.models:
        return args.models
    there = [name for name in MODELS if os.path.exists(f"{args.run}/{name}/model.pt")]
    for name in MODELS:
        if name not in there:
            print(f"no {name} in {args.run}: left out")
    return there


def evaluate_towns(args, sft, tokenizer, device):
    reward_model, _ = run.load_checkpoint(f"{args.run}/rm", device, kind="scalar", like=tokenizer)
    questions = towns.sample_questions(args.prompts, run.rng(args.seed, "evaluation prompts"), towns.HELD_OUT)
    prompts = [tokenizer.prompt(q.text) for q in questions]

    def answer(model, name, prompts, draws="answers"):
        """With the same draws for every model: they differ by their weights, not by luck."""
        return generate_in_batches(model, prompts, args.max_new_tokens, tokenizer,
                                   run.generator(args.seed, f"evaluate {draws}", device), progress=name)

    _, texts, finished = answer(sft, "rivals", prompts * RIVALS, "rivals")
    rival = np.array([towns.grade(q, t, f)["gold"] for q, t, f in zip(questions * RIVALS, texts, finished)]).reshape(RIVALS, -1)
    best = float((rival >= np.array([towns.best_gold(q) for q in questions]) - 1e-9).mean())

    models, shown = {}, {}
    for name in names_of(args):
        model, _ = run.load_checkpoint(f"{args.run}/{name}", device, like=tokenizer)
        ids, texts, finished = answer(model, name, prompts)
        models[name] = judge(questions, texts, finished, ids, rival)
        models[name]["kl_to_sft"] = float(kl_per_answer(model, sft, prompts, ids, tokenizer.pad, device).mean())
        models[name]["proxy"] = float(score_answers(reward_model, prompts, ids, tokenizer.pad).mean())
        shown[name] = answers_to_shown(model, tokenizer, towns, args, device)
        if name == "sft":
            ids, texts, finished = answer(sft, f"best of {BEST_OF}", [p for p in prompts for _ in range(BEST_OF)], f"best of {BEST_OF}")
            scores = score_answers(reward_model, [p for p in prompts for _ in range(BEST_OF)], ids, tokenizer.pad)
            scores = scores.masked_fill(~torch.tensor(finished), -math.inf).view(-1, BEST_OF)
            picks = [row * BEST_OF + j for row, j in enumerate(scores.argmax(1).tolist())]
            models["best_of_16"] = judge(questions, *([x[i] for i in picks] for x in (texts, finished, ids)), rival)
            models["best_of_16"] |= {"kl_to_sft": None, "kl_bound": math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF,
                                     "proxy": scores.max(1).values[scores.max(1).values > -math.inf].mean().item()}

    show_samples(towns, shown)
    print(f"\n{args.prompts} held-out prompts, {len({q.pair for q in questions})} distinct (town, question) pairs; ± is half a 95% interval")
    show_table(models, TOWNS_COLUMNS)
    print(f"best_of_16 is at most {math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF:.2f} nats from sft. "
          f"{best:.1%} of sft's answers are as good as can be, so no win rate can exceed {1 - best / 2:.3f}.")
    return {"prompts": args.prompts, "seed": args.seed, "sft_already_best": best, "models": models}


def answers_to_shown(model, tokenizer, world, args, device):
    _, texts, _ = generate_in_batches(model, [tokenizer.prompt(q.text) for q in world.SHOWN], args.max_new_tokens, tokenizer,
                                      run.generator(args.seed, "samples", device))
    return texts


# ---- sums: what can be checked ----

@torch.no_grad()
def process_scores(prm, prompts, questions, responses, texts, pad, device, batch_size=256):
    """(N,): the score of the weakest step of each answer, read where the step ends. A chain is as good as its worst link.

    One character is one token; an answer of which that is not true (special tokens, bytes that are no text) has no steps: -inf.
    """
    scores = []
    for i in range(0, len(prompts), batch_size):
        rows = range(i, min(i + batch_size, len(prompts)))
        ids, mask = data.answer_batch([prompts[j] for j in rows], [responses[j] for j in rows], pad, device)
        ends = torch.zeros_like(mask)
        for row, j in enumerate(rows):
            if len(responses[j]) - len(texts[j]) in (0, 1):         # 1 where it is finished: the end token
                ends[row, [len(prompts[j]) + end - 1 for end, _ in sums.steps(questions[j], texts[j])]] = True
        weakest = torch.where(ends, prm(ids), math.inf).amin(1)
        scores.append(weakest.masked_fill(~ends.any(1), -math.inf).cpu())
    return torch.cat(scores)


def best_of_groups(scores, right):
    """Share of groups of K answers of which the one with the highest score is right, per prompt. scores, right (N, SAMPLES) -> (N,)"""
    scores, right = (x.reshape(len(x), -1, K) for x in (scores, right))                         # (N, groups, K)
    return np.take_along_axis(right, scores.argmax(2)[:, :, None], 2).mean((1, 2))


def judge_sums(questions, greedy, texts, finished, ids, rerankers):
    """The figures of one model. greedy: whether its likeliest answers are right (N,); texts, finished, ids: SAMPLES answers to each
    question, question by question; rerankers: {name: scores (N * SAMPLES,)}. Votes and picks are taken among each K, then averaged."""
    each = [q for q in questions for _ in range(SAMPLES)]
    grades = [sums.grade(q, t, f) for q, t, f in zip(each, texts, finished)]
    right = np.array([g["correct"] for g in grades], dtype=float).reshape(-1, SAMPLES)
    said = [sums.final_answer(t) if f else None for t, f in zip(texts, finished)]
    votes = [[majority_vote(said[i:i + K], q.answer) for i in range(row * SAMPLES, (row + 1) * SAMPLES, K)]
             for row, q in enumerate(questions)]
    figures = {"greedy": np.array(greedy, dtype=float), "accuracy": right.mean(1),
               f"pass@{K}": np.array([pass_at_k(SAMPLES, int(row.sum()), K) for row in right]), f"majority@{K}": np.mean(votes, 1),
               **{f"best_of_{K}_{name}": best_of_groups(scores.reshape(-1, SAMPLES), right) for name, scores in rerankers.items()}}
    pairs, rng, row = [q.pair for q in questions], np.random.default_rng(0), {}
    for name, values in figures.items():
        row |= {name: float(values.mean()), f"{name}_ci95": bootstrap(values, pairs, rng)}
    return row | {"format": float(np.mean([g["format"] for g in grades])), "tokens": float(np.mean([len(i) for i in ids])),
                  "finished": float(np.mean(finished))}


def evaluate_sums(args, sft, tokenizer, device):
    questions = sums.sample_questions(args.prompts, run.rng(args.seed, "evaluation prompts"), sums.HELD_OUT, args.digits)
    prompts = [tokenizer.prompt(q.text) for q in questions]
    many, asked = ([x for x in xs for _ in range(SAMPLES)] for xs in (prompts, questions))
    judges = {name: run.load_checkpoint(f"{args.run}/{name}", device, kind="scalar", like=tokenizer)[0]
              for name in RERANKERS if os.path.exists(f"{args.run}/{name}/model.pt")}
    models, shown = {}, {}
    for name in names_of(args):
        model, _ = run.load_checkpoint(f"{args.run}/{name}", device, like=tokenizer)
        _, texts, finished = generate_in_batches(model, prompts, args.max_new_tokens, tokenizer, None, progress=name, temperature=0)
        greedy = [sums.grade(*answer)["correct"] for answer in zip(questions, texts, finished)]
        ids, texts, finished = generate_in_batches(model, many, args.max_new_tokens, tokenizer,
                                                   run.generator(args.seed, "evaluate answers", device), progress=name)
        scores = {}
        if "orm" in judges:
            scores["orm"] = score_answers(judges["orm"], many, ids, tokenizer.pad)
        if "prm" in judges:
            scores["prm"] = process_scores(judges["prm"], many, asked, ids, texts, tokenizer.pad, device)
        unfinished = ~torch.tensor(finished)
        scores = {judge: s.masked_fill(unfinished, -math.inf).numpy() for judge, s in scores.items()}
        models[name] = judge_sums(questions, greedy, texts, finished, ids, scores)
        shown[name] = answers_to_shown(model, tokenizer, sums, args, device)

    show_samples(sums, shown)
    print(f"\n{args.prompts} held-out sums of up to {args.digits} digits, {len({q.pair for q in questions})} of them distinct, "
          f"{SAMPLES} answers to each; ± is half a 95% interval")
    best_of = [(f"best of {K}, {name}", f"best_of_{K}_{name}", f"best_of_{K}_{name}_ci95", "{:.2f}") for name in judges]
    show_table(models, SUMS_COLUMNS + best_of)
    return {"prompts": args.prompts, "seed": args.seed, "digits": args.digits, "samples": SAMPLES, "models": models}


# ---- pairs from a file: nobody knows the true reward ----

def evaluate_data(args, sft, tokenizer, device):
    reward_model, _ = run.load_checkpoint(f"{args.run}/rm", device, kind="scalar", like=tokenizer)
    pairs, report = data.load_pairs(args.data, tokenizer, sft.cfg.block_size)
    every_prompt, answers, *sides = data.distinct_answers(pairs)
    print(look.summary(f"{args.data}: {len(pairs)} pairs", data.answer_rows(every_prompt, answers), report))
    room, distinct = sft.cfg.block_size - args.max_new_tokens, sorted({tuple(p.prompt) for p in pairs})
    if room < 1:
        raise InputError(f"--max_new_tokens {args.max_new_tokens} leaves no room for a prompt in a block of {sft.cfg.block_size}")
    prompts = [list(p)[-room:] for p in run.rng(args.seed, "evaluation prompts").sample(distinct, min(args.prompts, len(distinct)))]
    rng, asked = np.random.default_rng(0), [str(p.prompt) for p in pairs]
    scores = score_answers(reward_model, every_prompt, answers, tokenizer.pad, args.batch_size)
    right = float(torch.gt(*(scores[rows] for rows in sides)).float().mean())

    def answer(model, name, draws):
        ids, texts, finished = generate_in_batches(model, prompts, args.max_new_tokens, tokenizer, run.generator(args.seed, f"evaluate {draws}", device),
                                                   args.batch_size, progress=name)
        return ids, texts, finished, score_answers(reward_model, prompts, ids, tokenizer.pad, args.batch_size).numpy()

    def ratio(model, ids, mask):
        return answer_logprobs(model, ids, mask, args.batch_size) - answer_logprobs(sft, ids, mask, args.batch_size)

    sft_margin = torch.sub(*pair_logprobs(sft, pairs, tokenizer.pad, args.batch_size, device))
    *_, rival = answer(sft, "rivals", "rivals")
    models, shown = {}, {}
    for name in names_of(args):
        model, _ = run.load_checkpoint(f"{args.run}/{name}", device, like=tokenizer)
        ids, shown[name], finished, proxy = answer(model, name, "answers")
        wins = (proxy > rival) + (proxy == rival) / 2
        models[name] = {"proxy": float(proxy.mean()), "proxy_ci95": bootstrap(proxy, prompts, rng),
                        "win_rate_vs_sft": float(wins.mean()), "win_rate_ci95": bootstrap(wins, prompts, rng),
                        "tokens": float(np.mean([len(i) for i in ids])), "finished": float(np.mean(finished)), "pairs": None}
        with torch.no_grad():
            kl = map_answers(lambda ids, mask: ratio(model, ids, mask), prompts, ids, tokenizer.pad, device, args.batch_size)
        models[name]["kl_to_sft"] = float(kl.mean())
        if not run.same_weights(model, sft):
            gained = (torch.sub(*pair_logprobs(model, pairs, tokenizer.pad, args.batch_size, device)) > sft_margin).float().numpy()
            models[name] |= {"pairs": float(gained.mean()), "pairs_ci95": bootstrap(gained, asked, rng)}

    for i, prompt in enumerate(prompts[:3]):
        print(f"\n{run.shortened(tokenizer.decode(prompt))}")
        for name, texts in shown.items():
            print(f"  {name:18} {texts[i]}")
    print(f"\n{len(prompts)} prompts of {args.data}, {len(pairs)} pairs; ± is half a 95% interval")
    show_table(models, DATA_COLUMNS)
    print(f"The reward model, whose word proxy and wins are, prefers the chosen answer in {right:.1%} of the pairs.")
    return {"data": args.data, "prompts": len(prompts), "pairs": len(pairs), "reward_model_pairs": right, "seed": args.seed, "models": models}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("run", help="the run's folder, such as out/towns")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="folders of the run to evaluate (default: all known ones that are there)")
    parser.add_argument("--data", help="JSONL (.gz) of preference pairs that no stage was trained on (default: the checkpoint's world)")
    parser.add_argument("--prompts", type=int, default=512, help="held-out prompts (default: 512)")
    parser.add_argument("--digits", type=int, default=3, help="of the longest numbers, for a run on sums (default: 3)")
    parser.add_argument("--max_new_tokens", type=int, default=64, help="longest answer (default: 64)")
    parser.add_argument("--batch_size", type=int, default=256, help="with --data, answers at a time: lower it when memory runs out (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and answers (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto takes a CUDA GPU where there is one")
    args = parser.parse_args()
    if args.prompts < 32:
        raise InputError(f"--prompts {args.prompts}: an average over fewer than 32 says nothing")
    if args.digits < 1 or args.batch_size < 1:
        raise InputError(f"--digits {args.digits} and --batch_size {args.batch_size} must be at least 1")
    device = run.pick_device(args.device)
    sft, tokenizer = run.load_checkpoint(f"{args.run}/sft", device)
    evaluate = evaluate_data if args.data else evaluate_sums if run.world_of(tokenizer) is sums else evaluate_towns
    results = evaluate(args, sft, tokenizer, device)
    run.write_atomically(f"{args.run}/results.json", lambda f: json.dump(results, f, indent=1))
    print(f"wrote {args.run}/results.json")


if __name__ == "__main__":
    run.script(main)
