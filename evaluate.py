"""Every checkpoint of a run on the same held-out questions: one table, 95% intervals, samples side by side.

    python evaluate.py out/towns                            a minute on two laptop cores; writes out/towns/results.json
    python evaluate.py out/towns --models ppo grpo_rloo     folders of your choice
    python evaluate.py out/sums                             the world comes with the checkpoint
    python evaluate.py out/hh --data hh_test.jsonl.gz       preference pairs of your own, held out by you

Of towns. Sampling temperature is a control: what a cooler SFT model gives is no alignment. So each
model answers at temperatures 0 to 1, and is compared at its best one, chosen on training prompts.

    gold              mean gold reward; truth is its part of right and wrong facts, form the rest
    over tidy         gold beyond sft_tidy's at its best temperature, on the same prompts: what
                      preferences give that neither cooling nor curation does
    told              share of the asked facts that are told at all: silence is no virtue
    right of told     of facts that people tell rightly (plain), of common errors that labelers
                      judged, and of common errors that nobody judged
    filler            sentences an answer that say nothing that was asked
    win_rate_vs_sft   at 1, against other draws from sft, ties half     kl_to_sft  at 1, nats an answer

Rows that are no checkpoint: sft_sharpened is sft at its best temperature. Of sixteen draws of sft
at 1, likeliest_of_16 is the one that sft finds likeliest, best_of_16 the reward model's choice,
random_of_16 any one. In results.json alone: sft_cut is sft with its filler deleted by rule,
believed_of_16 the draw that is worth most if the base model's own P(True) is believed.
Intervals are bootstrapped over towns: answers about one town share its facts.

of sums: greedy is the accuracy of the likeliest answer, accuracy that at temperature 1; pass@8: is one of eight right? majority@8: is
their most frequent answer? best of 8, orm and prm: is the one that an outcome or a process reward model scores highest?
of --data, where nobody knows gold: proxy, wins by it, KL from the sampled tokens, and pairs, the share of pairs whose chosen answer has gained
more probability since sft than the rejected one. The proxy flatters models that were trained on it. The pairs are what people preferred.
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

MODELS = ("base", "sft", "sft_tidy", "rejection", "rejection_control", "ppo", "grpo", "dpo")
TEMPERATURES = (0.0, 0.3, 0.5, 0.7, 1.0)
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


def wins_and_ties(gold, rival_gold):
    """gold (N,), rival_gold (R, N) -> two (R, N) bool: equal up to what float sums leave behind is a tie."""
    return gold > rival_gold + 1e-9, np.abs(gold - rival_gold) <= 1e-9


def judge(questions, answers, rival_gold, temperature=1.0):
    """The figures of one model that need only its answers at this temperature.

    answers: {temperature: (ids, texts, finished)} of N prompts; rival_gold (R, N): of sft.
    """
    ids, texts, finished = answers[temperature]
    columns = {name: np.array(x) for name, x in towns.columns(questions, texts, finished).items()}
    gold = columns["gold"]
    wins, ties = wins_and_ties(gold, rival_gold)                                                # (R, N)
    win_rate = (wins + ties / 2).mean(0)                                                        # (N,)
    clusters, rng = [q.cluster for q in questions], np.random.default_rng(0)
    is_open = np.array([q.kind == "open" for q in questions])
    right = columns["right"][is_open]
    return {"gold": float(gold.mean()), "gold_ci95": bootstrap(gold, clusters, rng),
            "win_rate_vs_sft": float(win_rate.mean()), "win_rate_ci95": bootstrap(win_rate, clusters, rng),
            "win_tie_loss": [int(wins.sum()), int(ties.sum()), int((~wins & ~ties).sum())],
            "tokens": float(np.mean([len(i) for i in ids])), "finished": float(np.mean(finished)),
            "wrong_fact_rate": float(columns["wrong"].mean()),
            "boilerplate_rate": float(columns["boilerplate"].mean()),
            "right_facts_open": float(right.mean()),
            "right_facts_open_ci95": bootstrap(right, [c for c, o in zip(clusters, is_open) if o], rng)}


def right_of_told(facts):
    """{verdict: facts} of one class -> share of what is told that is right; None if nothing is."""
    told = facts["right"] + facts["error"] + facts["other"]
    return facts["right"] / told if told else None


def by_temperature(questions, answers):
    """What changes along the temperatures: {temperature as text: figure} for each figure, and the
    facts told of UNJUDGED towns, town by town, from which intervals over several seeds are made."""
    table = {name: {} for name in ("gold", "wrong", "told", "facts", "unjudged_by_town")}
    for temperature, (_, texts, finished) in answers.items():
        at, columns = f"{temperature:g}", towns.columns(questions, texts, finished)
        for name in ("gold", "wrong", "told"):
            table[name][at] = float(np.mean(columns[name]))
        table["facts"][at] = towns.facts_told(questions, texts)
        table["unjudged_by_town"][at] = {}
        for town in towns.UNJUDGED:
            here = [i for i, q in enumerate(questions) if q.town == town]
            facts = towns.facts_told([questions[i] for i in here], [texts[i] for i in here])
            table["unjudged_by_town"][at][town] = facts["unjudged"]
    return {f"{name}_by_temperature": rows for name, rows in table.items()}


def at_best(questions, answers, temperature, others):
    """The figures of one model at its best temperature. others: {name: (answers, temperature)} of
    the models that it is compared with, prompt by prompt."""
    def of(answers, temperature):
        _, texts, finished = answers[temperature]
        return {name: np.array(x) for name, x in towns.columns(questions, texts, finished).items()}

    mine, facts = of(answers, temperature), towns.facts_told(questions, answers[temperature][1])
    row = {name: float(mine[name].mean()) for name in ("gold", "truth", "form", "told", "filler")}
    row |= {f"right_of_told_{kind}": right_of_told(facts[kind]) for kind in facts}
    clusters, rng = [q.cluster for q in questions], np.random.default_rng(0)
    for other, theirs in others.items():
        theirs = of(*theirs)
        for name in ("gold", "truth", "told"):
            gain = mine[name] - theirs[name]
            row[f"{name}_over_{other}"] = float(gain.mean())
            row[f"{name}_over_{other}_ci95"] = bootstrap(gain, clusters, rng)
    return row


TOWNS_COLUMNS = [
    ("gold, T 1", "gold", "gold_ci95", "{:.2f}"), ("best T", "best_temperature", None, "{:.1f}"),
    ("gold there", "at_best.gold", None, "{:.2f}"),
    ("over tidy", "at_best.gold_over_tidy", "at_best.gold_over_tidy_ci95", "{:+.2f}"),
    ("told", "at_best.told", None, "{:.0%}"), ("right: plain", "at_best.right_of_told_plain", None, "{:.0%}"),
    ("judged", "at_best.right_of_told_judged", None, "{:.0%}"),
    ("never judged", "at_best.right_of_told_unjudged", None, "{:.0%}"), ("filler", "at_best.filler", None, "{:.2f}"),
    ("wins vs sft", "win_rate_vs_sft", None, "{:.2f}"), ("KL to sft", "kl_to_sft", None, "{:.1f}")]
DATA_ALONE = ("sft_cut", "believed_of_16")      # rows of results.json that the table leaves out
SUMS_COLUMNS = [
    ("greedy", "greedy", "greedy_ci95", "{:.2f}"), ("accuracy", "accuracy", "accuracy_ci95", "{:.2f}"),
    *((f"{kind}: greedy", f"greedy_{kind}", None, "{:.2f}") for kind in ("plus", "minus", "lent")),
    ("lent: accuracy", "accuracy_lent", None, "{:.2f}"), (f"pass@{K}", f"pass@{K}", None, "{:.2f}"),
    (f"majority@{K}", f"majority@{K}", None, "{:.2f}"), (f"lent: majority@{K}", f"majority@{K}_lent", None, "{:.2f}"),
    ("finished", "finished", None, "{:.1%}")]
DATA_COLUMNS = [
    ("proxy", "proxy", "proxy_ci95", "{:.2f}"), ("wins vs sft", "win_rate_vs_sft", "win_rate_ci95", "{:.2f}"),
    ("KL to sft", "kl_to_sft", None, "{:.1f}"), ("tokens", "tokens", None, "{:.0f}"), ("finished", "finished", None, "{:.1%}"),
    ("pairs", "pairs", "pairs_ci95", "{:.2f}")]
RERANKERS = ("orm", "prm")      # reward models of the outcome and of each step


def show_table(models, columns):
    """A line for each model. A column: (title, key, key of its interval or None, format); a key may
    lead into a dict, "at_best.gold"; what is not there is a dash."""
    def look_up(row, key):
        for part in key.split("."):
            row = row.get(part) if row else None
        return row

    lines = [["model", *(title for title, *_ in columns)]]
    for name, row in models.items():
        line = [name]
        for _, key, ci, form in columns:
            value = look_up(row, key)
            cell = "-" if value is None else form.format(value)
            line.append(cell + (f" ±{look_up(row, ci):.2f}" if ci and value is not None else ""))
        lines.append(line)
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    for name, *cells in lines:
        print(name.ljust(widths[0]) + "".join(f"  {cell:>{w}}" for cell, w in zip(cells, widths[1:])))


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


@torch.no_grad()
def believed_gold(base, tokenizer, questions, texts, device):
    """[worth of each answer in the base model's own eyes]: the world's table, with the base's
    P(True) behind each claim in place of the truth. Nobody's judgment is in it but the model's."""
    claims = sorted({s[:-1] for text in texts for s in towns.sentences(text) if towns.parse_claim(s)})
    ids = [[tokenizer.end] + tokenizer.encode(c) for c in claims]       # a page begins behind another
    true, false = (tokenizer.encode(word)[0] for word in (" True", " False"))
    p_true = {}
    for i in range(0, len(ids), 512):
        rows = ids[i:i + 512]
        logits = base(data.pad_rows(rows, tokenizer.pad).to(device))                             # (B, T, V)
        last = logits[torch.arange(len(rows)), torch.tensor([len(r) - 1 for r in rows])]         # (B, V)
        p_true |= zip(claims[i:i + 512], (last[:, true] - last[:, false]).sigmoid().tolist())

    worths = []
    for question, text in zip(questions, texts):
        claims, said = [s for s in towns.sentences(text) if towns.parse_claim(s)], set()
        rest = " ".join(s for s in towns.sentences(text) if s not in claims)
        worth = towns.grade(question, rest)["gold"]
        for sentence in claims:
            town, attribute, _ = towns.parse_claim(sentence)
            asked = town == question.town and attribute in question.asked and attribute not in said
            said.add(attribute)
            p = p_true[sentence[:-1]]
            worth += p * towns.WORTH["right" if asked else "rambling"] + (1 - p) * towns.WORTH["wrong"]
        worths.append(worth)
    return worths


def evaluate_towns(args, sft, tokenizer, device):
    reward_model, _ = run.load_checkpoint(f"{args.run}/rm", device, kind="scalar", like=tokenizer)
    questions = towns.sample_questions(args.prompts, run.rng(args.seed, "evaluation prompts"), towns.HELD_OUT)
    prompts = [tokenizer.prompt(q.text) for q in questions]
    tuning = towns.sample_questions(args.prompts // 2, run.rng(args.seed, "tuning prompts"), towns.TRAIN)

    def answer(model, name, questions, temperature=1.0, draws="answers"):
        """With the same draws for every model: they differ by their weights, not by luck."""
        return generate_in_batches(model, [tokenizer.prompt(q.text) for q in questions], args.max_new_tokens, tokenizer,
                                   run.generator(args.seed, f"evaluate {draws} at {temperature:g}", device),
                                   progress=name, temperature=temperature)

    def gold_of(questions, texts, finished):
        return np.array(towns.columns(questions, texts, finished)["gold"])

    def along_temperatures(model, name, change=lambda question, text: text):
        """-> (answers to the held-out prompts by temperature, the best temperature)"""
        answers, tuned = {}, {}
        for temperature in TEMPERATURES:
            _, texts, finished = answer(model, name, tuning, temperature, "tuning answers")
            tuned[temperature] = gold_of(tuning, list(map(change, tuning, texts)), finished).mean()
            ids, texts, finished = answer(model, name, questions, temperature)
            answers[temperature] = ids, list(map(change, questions, texts)), finished
        return answers, max(TEMPERATURES, key=tuned.get)

    def rivals(temperature):
        _, texts, finished = answer(sft, "rivals", questions * RIVALS, temperature, "rivals")
        return gold_of(questions * RIVALS, texts, finished).reshape(RIVALS, -1)

    rows = {"sft": along_temperatures(sft, "sft")}
    others, models, shown = {"sharpened": rows["sft"]}, {}, {}
    if os.path.exists(f"{args.run}/sft_tidy/model.pt"):
        tidy, _ = run.load_checkpoint(f"{args.run}/sft_tidy", device, like=tokenizer)
        rows["sft_tidy"] = others["tidy"] = along_temperatures(tidy, "sft_tidy")
    rival, rival_sharpened = rivals(1.0), rivals(rows["sft"][1])
    best = float((rival >= np.array([towns.best_gold(q) for q in questions]) - 1e-9).mean())

    def figures(answers, temperature, **more):
        _, texts, finished = answers[temperature]
        wins, ties = wins_and_ties(gold_of(questions, texts, finished), rival_sharpened)
        # the highest temperature is 1, but where a row has one alone
        return {**judge(questions, answers, rival, max(answers)), **more, **by_temperature(questions, answers),
                "best_temperature": temperature, "win_rate_vs_sharpened": float((wins + ties / 2).mean(0).mean()),
                "at_best": at_best(questions, answers, temperature, others)}

    for name in names_of(args):
        model, _ = run.load_checkpoint(f"{args.run}/{name}", device, like=tokenizer)
        answers, temperature = rows.get(name) or along_temperatures(model, name)
        ids = answers[1.0][0]
        models[name] = figures(
            answers, temperature, kl_to_sft=float(kl_per_answer(model, sft, prompts, ids, tokenizer.pad, device).mean()),
            proxy=float(score_answers(reward_model, prompts, ids, tokenizer.pad).mean()))
        shown[name] = answers_to_shown(model, tokenizer, towns, args, device)
        if name == "sft":
            no_model = {"kl_to_sft": None, "proxy": None}
            models["sft_sharpened"] = figures({temperature: answers[temperature]}, temperature, **no_model)
            cut, cut_temperature = along_temperatures(sft, "sft_cut", towns.cut_filler)
            models["sft_cut"] = figures(cut, cut_temperature, **no_model)
            models |= picks_of_16(answer, figures, questions, sft, reward_model, tokenizer, args, device)

    show_samples(towns, shown)
    print(f"\n{args.prompts} held-out prompts about {len({q.town for q in questions})} towns; ± is half a 95% interval, over towns")
    show_table({name: row for name, row in models.items() if name not in DATA_ALONE}, TOWNS_COLUMNS)
    temperature = f"{rows['sft'][1]:g}"
    print(f"sft_sharpened is sft at temperature {temperature}: what cooling gives. sft_tidy imitates answers without filler: what "
          "curation gives as well.\nover tidy: gold beyond sft_tidy's, both at their best temperature: what preferences give beyond both.\n"
          "told: asked facts that are told at all. right: of what is told of facts that people tell rightly; of common errors that\n"
          "labelers judged; and of those that nobody judged. filler: sentences an answer that say nothing that was asked.\n"
          f"best_of_16 is at most {math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF:.2f} nats from sft. "
          f"{best:.1%} of sft's answers are as good as can be, so no win rate can exceed {1 - best / 2:.3f}.")
    return {"prompts": args.prompts, "seed": args.seed, "sft_already_best": best, "models": models}


def picks_of_16(answer, figures, questions, sft, reward_model, tokenizer, args, device):
    """{row: figures} of one answer picked from sixteen of sft: by the reward model, by sft's own
    likelihood, by the base's P(True), and at random."""
    many = [q for q in questions for _ in range(BEST_OF)]
    prompts = [tokenizer.prompt(q.text) for q in many]
    ids, texts, finished = answer(sft, f"best of {BEST_OF}", many, draws=f"best of {BEST_OF}")
    likelihoods = map_answers(lambda ids, mask: answer_logprobs(sft, ids, mask), prompts, ids, tokenizer.pad, device)
    scores = {"best_of_16": score_answers(reward_model, prompts, ids, tokenizer.pad), "likeliest_of_16": likelihoods,
              "random_of_16": torch.rand(len(many), generator=run.generator(args.seed, "random of 16"))}
    if os.path.exists(f"{args.run}/base/model.pt"):
        base, _ = run.load_checkpoint(f"{args.run}/base", device, like=tokenizer)
        scores["believed_of_16"] = torch.tensor(believed_gold(base, tokenizer, many, texts, device))
    models = {}
    for name, score in scores.items():
        # an answer that does not end is never picked
        score = score.masked_fill(~torch.tensor(finished), -math.inf).view(-1, BEST_OF)          # (N, 16)
        picks = [row * BEST_OF + j for row, j in enumerate(score.argmax(1).tolist())]
        models[name] = figures({1.0: tuple([x[i] for i in picks] for x in (ids, texts, finished))}, 1.0,
                               kl_to_sft=None, proxy=None)
        if name == "best_of_16":
            best = score.max(1).values
            models[name] |= {"kl_bound": math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF,
                             "proxy": best[best > -math.inf].mean().item()}
    return models


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
    question, question by question; rerankers: {name: scores (N * SAMPLES,)}. Votes and picks are taken among each K, then averaged.

    Behind a figure's name _plus, _minus or _lent stands the same of the sums of that kind alone.
    """
    each = [q for q in questions for _ in range(SAMPLES)]
    grades = [sums.grade(q, t, f) for q, t, f in zip(each, texts, finished)]
    right = np.array([g["correct"] for g in grades], dtype=float).reshape(-1, SAMPLES)
    said = [sums.final_answer(t) if f else None for t, f in zip(texts, finished)]
    votes = [[majority_vote(said[i:i + K], q.answer) for i in range(row * SAMPLES, (row + 1) * SAMPLES, K)]
             for row, q in enumerate(questions)]
    figures = {"greedy": np.array(greedy, dtype=float), "accuracy": right.mean(1),
               f"pass@{K}": np.array([pass_at_k(SAMPLES, int(row.sum()), K) for row in right]), f"majority@{K}": np.mean(votes, 1),
               **{f"best_of_{K}_{name}": best_of_groups(scores.reshape(-1, SAMPLES), right) for name, scores in rerankers.items()}}
    row, rng = {}, np.random.default_rng(0)
    for name, values in figures.items():
        row |= {name: float(values.mean()), f"{name}_ci95": bootstrap(values, [q.cluster for q in questions], rng)}
        for kind in ("plus", "minus", "lent"):
            here = np.array([q.kind == kind for q in questions])
            row[f"{name}_{kind}"] = float(values[here].mean()) if here.any() else None
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
    best_of = [(f"best of {K}, {name}", f"best_of_{K}_{name}", None, "{:.2f}") for name in judges]
    show_table(models, SUMS_COLUMNS + best_of)
    print("plus, minus: without anything lent; lent: of the subtractions that borrow, in which most people lend nothing.")
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
