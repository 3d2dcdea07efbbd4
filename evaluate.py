"""Every checkpoint of a run on the same held-out questions: one table, 95% intervals, samples.

    python evaluate.py out/towns                            a minute on two laptop cores
    python evaluate.py out/towns --models ppo grpo_rloo     folders of your choice
    python evaluate.py out/hh --data hh_test.jsonl.gz       preference pairs of your own, held out
    python evaluate.py out/gsm --data problems.jsonl        problems whose answer is a number

The world comes with the checkpoint; out/towns/results.json has every figure.

Where answers are better or worse (towns). Sampling temperature is a control: what a cooler SFT
model gives is no alignment. So each model answers at temperatures 0 to 1, and is compared at its
best one, chosen on training prompts.

    gold              mean gold reward
    over tidy         gold beyond sft_tidy's at its best temperature, on the same prompts: what
                      preferences give that neither cooling nor curation does
    win_rate_vs_sft   at 1, against other draws from sft, ties half
    kl_to_sft         at 1, nats an answer
    and the world's own columns, which it explains below the table

Rows that are no checkpoint: sft_sharpened is sft at its best temperature. Of sixteen draws of sft
at 1, likeliest_of_16 is the one that sft finds likeliest, best_of_16 the reward model's choice,
random_of_16 any one. In results.json alone: sft_cut is sft with its filler deleted by rule,
believed_of_16 the draw that is worth most if the base model's own P(True) is believed.

Where answers are right or wrong (sums, and --data of problems). greedy is the accuracy of the
likeliest answer, accuracy that at temperature 1; pass@8: is one of eight right? majority@8: is
their most frequent answer? best of 8, orm and prm: is the one that an outcome or a process reward
model scores highest?

Of --data of pairs, where nobody knows gold: proxy, wins by it, KL from the sampled tokens, and
pairs, the share of pairs whose chosen answer has gained more probability since sft than the
rejected one. The proxy flatters models that were trained on it. The pairs are what people
preferred.

Intervals are bootstrapped over what answers share: of towns the town, of sums the sum.
"""
import argparse
import json
import math
import os
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    files,
    gpt2,
    look,
    seeds,
    settings,
    worlds,
)
from nanorlhf.batches import map_answers
from nanorlhf.logprobs import answer_logprobs, pair_logprobs
from nanorlhf.measure import (
    SAMPLES,
    Answers,
    K,
    at_best,
    believed_gold,
    by_temperature,
    judge,
    judge_right,
    kl_per_answer,
    process_scores,
    wins_and_ties,
)
from nanorlhf.rollout import generate_in_batches, score_answers
from nanorlhf.stats import bootstrap

MODELS = ("base", "sft", "sft_tidy", "rejection", "rejection_control", "ppo", "grpo", "dpo",
          "online_dpo", "distill")
TEMPERATURES = (0.0, 0.3, 0.5, 0.7, 1.0)
BEST_OF = 16
# sft answers to each prompt to win against: with one, the draw alone moves a win rate by 0.02
RIVALS = 4
RERANKERS = ("orm", "prm")      # reward models of the outcome and of each step


@dataclass
class Run:
    """What every evaluation of a run needs."""
    folder: str
    sft: torch.nn.Module
    tokenizer: object
    device: torch.device
    seed: int
    max_new_tokens: int
    batch_size: int
    reward: str = ""        # the reward model; empty: <folder>/rm, where it is there

    def load(self, name, kind="gpt"):
        return checkpoints.load_checkpoint(f"{self.folder}/{name}", self.device, kind=kind,
                                           like=self.tokenizer)[0]

    def reward_model(self):
        return checkpoints.load_checkpoint(self.reward or f"{self.folder}/rm", self.device,
                                           kind="scalar", like=self.tokenizer)[0]

    def has(self, name):
        folder = f"{self.folder}/{name}"
        return os.path.exists(f"{folder}/model.pt") or gpt2.is_gpt2(folder)

    def answer(self, model, name, prompts, purpose, temperature=1.0):
        """-> Answers, with the same draws for every model: they differ by weights, not by luck."""
        draws = seeds.generator(self.seed, purpose, self.device)
        return Answers(*generate_in_batches(model, prompts, self.max_new_tokens, self.tokenizer,
                                            draws, self.batch_size, progress=name,
                                            temperature=temperature))


# ---- answers that are better or worse ----

def graded_columns(world):
    return [("gold, T 1", "gold", "gold_ci95", "{:.2f}"),
            ("best T", "best_temperature", None, "{:.1f}"),
            ("gold there", "at_best.gold", None, "{:.2f}"),
            ("over tidy", "at_best.gold_over_tidy", "at_best.gold_over_tidy_ci95", "{:+.2f}"),
            *((title, key, None, form) for title, key, form in world.COLUMNS),
            ("wins vs sft", "win_rate_vs_sft", None, "{:.2f}"),
            ("KL to sft", "kl_to_sft", None, "{:.1f}")]


DATA_ALONE = ("sft_cut", "believed_of_16")      # rows of results.json that the table leaves out


def evaluate_graded(run, world, names, n):
    """A world whose answers are better or worse -> results"""
    questions = world.questions(n, seeds.rng(run.seed, "evaluation prompts"), worlds.HELD_OUT)
    tuning = world.questions(n // 2, seeds.rng(run.seed, "tuning prompts"), worlds.TRAIN)
    prompts = [run.tokenizer.prompt(q.text) for q in questions]
    tuning_prompts = [run.tokenizer.prompt(q.text) for q in tuning]
    reward_model = run.reward_model() if run.reward or run.has("rm") else None

    def gold_of(questions, said):
        return np.array(world.columns(questions, said.texts, said.finished)["gold"])

    def along_temperatures(model, name, change=None):
        """-> ({temperature: Answers to the held-out prompts}, the best temperature).
        change(question, text): what is done to each answer."""
        def said(questions, prompts, purpose, temperature):
            answers = run.answer(model, name, prompts, f"evaluate {purpose} at {temperature:g}",
                                 temperature)
            if change:
                answers.texts = list(map(change, questions, answers.texts))
            return answers

        answers, tuned = {}, {}
        for temperature in TEMPERATURES:
            tried = said(tuning, tuning_prompts, "tuning answers", temperature)
            tuned[temperature] = gold_of(tuning, tried).mean()
            answers[temperature] = said(questions, prompts, "answers", temperature)
        return answers, max(TEMPERATURES, key=tuned.get)

    def rivals(temperature):
        said = run.answer(run.sft, "rivals", prompts * RIVALS,
                          f"evaluate rivals at {temperature:g}", temperature)
        return gold_of(questions * RIVALS, said).reshape(RIVALS, -1)                # (R, N)

    done = {"sft": along_temperatures(run.sft, "sft")}
    sharp_answers, sharp = done["sft"]
    others, models, shown = {"sharpened": sharp_answers[sharp]}, {}, {}
    if run.has("sft_tidy"):
        done["sft_tidy"] = along_temperatures(run.load("sft_tidy"), "sft_tidy")
        tidy_answers, tidy = done["sft_tidy"]
        others["tidy"] = tidy_answers[tidy]
    rival, rival_sharpened = rivals(1.0), rivals(sharp)
    most = np.array([world.best_gold(q) for q in questions])
    already_best = float((rival >= most - 1e-9).mean())

    def figures(answers, temperature, **more):
        wins, ties = wins_and_ties(gold_of(questions, answers[temperature]), rival_sharpened)
        # the highest temperature is 1, but where a row has one alone
        return {**judge(world, questions, answers[max(answers)], rival), **more,
                **by_temperature(world, questions, answers), "best_temperature": temperature,
                "win_rate_vs_sharpened": float((wins + ties / 2).mean(0).mean()),
                "at_best": at_best(world, questions, answers[temperature], others)}

    no_model = {"kl_to_sft": None, "proxy": None}
    for name in names:
        model = run.load(name)
        answers, temperature = done.get(name) or along_temperatures(model, name)
        ids = answers[1.0].ids
        kl = kl_per_answer(model, run.sft, prompts, ids, run.tokenizer.pad, run.device).mean()
        proxy = None
        if reward_model:
            proxy = float(score_answers(reward_model, prompts, ids, run.tokenizer.pad).mean())
        models[name] = figures(answers, temperature, kl_to_sft=float(kl), proxy=proxy)
        shown[name] = answers_to_shown(run, model, world)
        if name == "sft":
            models["sft_sharpened"] = figures({sharp: sharp_answers[sharp]}, sharp, **no_model)
            if world.cut_filler:
                cut = along_temperatures(run.sft, "sft_cut", world.cut_filler)
                models["sft_cut"] = figures(*cut, **no_model)
            for pick, (answers, more) in picks_of_16(run, world, questions, reward_model).items():
                models[pick] = figures({1.0: answers}, 1.0, **{**no_model, **more})

    kept = samples(world, shown)
    print_samples(kept)
    clusters = len({worlds.cluster(q) for q in questions})
    print(f"\n{n} held-out prompts in {clusters} groups that share their facts; ± is half a 95% "
          "interval, over the groups")
    table = {name: row for name, row in models.items() if name not in DATA_ALONE}
    print_table(table, graded_columns(world))
    print(f"""sft_sharpened is sft at temperature {sharp:g}: what cooling gives.
sft_tidy imitates answers without filler: what curation gives as well.
over tidy: gold beyond sft_tidy's, both at their best temperature: what preferences give beyond
both.
{world.LEGEND}
best_of_16 is at most {math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF:.2f} nats from sft. \
{already_best:.1%} of sft's answers are as good as can be, so no win rate can exceed \
{1 - already_best / 2:.3f}.""")
    return {"prompts": n, "seed": run.seed, **world.knobs, "sft_already_best": already_best,
            "models": models, "samples_shown": kept}


def picks_of_16(run, world, questions, reward_model):
    """{row: (Answers, more figures)} of one answer picked from sixteen of sft: by the reward
    model, by sft's own likelihood, by the base's P(True), and at random."""
    many = [q for q in questions for _ in range(BEST_OF)]
    prompts = [run.tokenizer.prompt(q.text) for q in many]
    said = run.answer(run.sft, f"best of {BEST_OF}", prompts, f"evaluate best of {BEST_OF} at 1")
    likelihoods = map_answers(lambda ids, mask: answer_logprobs(run.sft, ids, mask), prompts,
                              said.ids, run.tokenizer.pad, run.device)
    scores = {}
    if reward_model:
        scores["best_of_16"] = score_answers(reward_model, prompts, said.ids, run.tokenizer.pad)
    scores["likeliest_of_16"] = likelihoods
    scores["random_of_16"] = torch.rand(len(many),
                                        generator=seeds.generator(run.seed, "random of 16"))
    if world.believed_worth and run.has("base"):
        worth = believed_gold(run.load("base"), run.tokenizer, world, many, said.texts,
                              run.device)
        scores["believed_of_16"] = torch.tensor(worth)
    picks = {}
    for name, score in scores.items():
        # an answer that does not end is never picked
        score = score.masked_fill(~torch.tensor(said.finished), -math.inf).view(-1, BEST_OF)
        best = score.argmax(1)                                                      # (N,)
        more = {}
        if name == "best_of_16":
            top = score.max(1).values
            more = {"kl_bound": math.log(BEST_OF) - (BEST_OF - 1) / BEST_OF,
                    "proxy": top[top > -math.inf].mean().item()}
        rows = torch.arange(len(best)) * BEST_OF + best                             # (N,)
        picks[name] = said[rows.tolist()], more
    return picks


# ---- answers that are right or wrong ----

def evaluate_right(run, world, names, n):
    """A world whose answers are right or wrong -> results"""
    questions = world.questions(n, seeds.rng(run.seed, "evaluation prompts"), worlds.HELD_OUT)
    prompts = [run.tokenizer.prompt(q.text) for q in questions]
    many = [prompt for prompt in prompts for _ in range(SAMPLES)]
    asked = [q for q in questions for _ in range(SAMPLES)]
    judges = {name: run.load(name, "scalar") for name in RERANKERS
              if run.has(name) and (world.steps or name != "prm")}
    models, shown, pad = {}, {}, run.tokenizer.pad
    for name in names:
        model = run.load(name)
        likeliest = run.answer(model, name, prompts, "nothing is drawn", temperature=0)
        greedy = [done and world.correct(q, text) for q, text, done in
                  zip(questions, likeliest.texts, likeliest.finished, strict=True)]
        answers = run.answer(model, name, many, "evaluate answers")
        scores = {}
        if "orm" in judges:
            scores["orm"] = score_answers(judges["orm"], many, answers.ids, pad)
        if "prm" in judges:
            scores["prm"] = process_scores(judges["prm"], world, many, asked, answers, pad,
                                           run.device)
        unfinished = ~torch.tensor(answers.finished)
        scores = {judge: s.masked_fill(unfinished, -math.inf).numpy()
                  for judge, s in scores.items()}
        models[name] = judge_right(world, questions, greedy, answers, scores)
        shown[name] = answers_to_shown(run, model, world)

    kept = samples(world, shown)
    print_samples(kept)
    knobs = "".join(f", {name} {value}" for name, value in world.knobs.items())
    print(f"\n{n} held-out questions{knobs}, {len({worlds.cluster(q) for q in questions})} of them "
          f"distinct, {SAMPLES} answers to each; ± is half a 95% interval")
    columns = [("greedy", "greedy", "greedy_ci95", "{:.2f}"),
               ("accuracy", "accuracy", "accuracy_ci95", "{:.2f}"),
               (f"pass@{K}", f"pass@{K}", None, "{:.2f}"),
               (f"majority@{K}", f"majority@{K}", None, "{:.2f}"),
               *((title, key, None, form) for title, key, form in world.COLUMNS),
               *((f"best of {K}, {judge}", f"best_of_{K}_{judge}", None, "{:.2f}")
                 for judge in judges),
               ("finished", "finished", None, "{:.1%}")]
    print_table(models, columns)
    if world.LEGEND:
        print(world.LEGEND)
    return {"prompts": n, "seed": run.seed, **world.knobs, "samples": SAMPLES, "models": models,
            "samples_shown": kept}


def world_of(problems):
    """What evaluate_right needs of a world, of [Problem] from a file."""
    def questions(n, rng, split):
        return rng.sample(problems, min(n, len(problems)))

    def columns(questions, answers, finished):
        graded = map(files.grade, questions, answers, finished)
        return {"format": [parts["format"] for parts in graded]}

    def final(problem, answer):
        return files.final_number(answer)

    def explain(problem, answer):
        verdict = "right" if files.correct(problem, answer) else f"wrong, it is {problem.answer:g}"
        return f"{verdict} (read: {files.final_number(answer)})"

    return SimpleNamespace(questions=questions, correct=files.correct, final=final, steps=None,
                           columns=columns, explain=explain,
                           parts=lambda problem, answer: [], SHOWN=problems[:3], KINDS=(),
                           COLUMNS=(("format", "format", "{:.1%}"),), LEGEND="", knobs={})


# ---- pairs from a file: nobody knows the true reward ----

DATA_COLUMNS = [("proxy", "proxy", "proxy_ci95", "{:.2f}"),
                ("wins vs sft", "win_rate_vs_sft", "win_rate_ci95", "{:.2f}"),
                ("KL to sft", "kl_to_sft", None, "{:.1f}"), ("tokens", "tokens", None, "{:.0f}"),
                ("finished", "finished", None, "{:.1%}"),
                ("pairs", "pairs", "pairs_ci95", "{:.2f}")]


def evaluate_file(run, path, names, n):
    """Pairs, or problems, of a file that no stage was trained on -> results"""
    room = run.sft.cfg.block_size - run.max_new_tokens
    if room < 1:
        raise InputError(f"--max_new_tokens {run.max_new_tokens} leaves no room for a prompt in a "
                         f"block of {run.sft.cfg.block_size}")
    _, first = next(files.read_jsonl(path))
    if {"chosen", "rejected"} & set(first):
        return evaluate_pairs(run, path, names, n, room)
    problems, report = files.load_problems(path, run.tokenizer, room)
    rows = [(run.tokenizer.prompt(problem.text), []) for problem in problems]
    print(look.summary(f"{path}: {len(problems)} problems", rows, report))
    problems = unseen(problems, report)
    return {"data": path, **evaluate_right(run, world_of(problems), names, min(n, len(problems)))}


def unseen(items, report):
    """Those that the file marks as held out, where it marks any; else all."""
    if not any(source.split for source in report.kept):
        return items
    kept = [item for item, source in zip(items, report.kept, strict=True)
            if source.split == worlds.HELD_OUT]
    if not kept:
        raise InputError("all rows are marked for training by their 'split': none is left to "
                         "evaluate on")
    print(f"{len(kept)} of them are held out by their 'split'; the others are left alone")
    return kept


def evaluate_pairs(run, path, names, n, room):
    """Preference pairs that no stage was trained on -> results"""
    sft, pad = run.sft, run.tokenizer.pad
    reward_model = run.reward_model()
    pairs, report = files.load_pairs(path, run.tokenizer, sft.cfg.block_size)
    print(look.pairs_summary(path, pairs, report))
    pairs = unseen(pairs, report)
    every_prompt, every_answer, chosen, rejected = batches.distinct_answers(pairs)
    distinct = sorted({tuple(pair.prompt) for pair in pairs if len(pair.prompt) <= room})
    if not distinct:
        raise InputError(f"{path}: no prompt leaves room for --max_new_tokens "
                         f"{run.max_new_tokens}")
    drawn = seeds.rng(run.seed, "evaluation prompts").sample(distinct, min(n, len(distinct)))
    prompts = [list(prompt) for prompt in drawn]
    rng, asked = np.random.default_rng(0), [str(pair.prompt) for pair in pairs]
    scores = score_answers(reward_model, every_prompt, every_answer, pad, run.batch_size)
    right = float((scores[chosen] > scores[rejected]).float().mean())

    def scored(model, name, draws):
        answers = run.answer(model, name, prompts, f"evaluate {draws}")
        proxy = score_answers(reward_model, prompts, answers.ids, pad, run.batch_size)
        return answers, proxy.numpy()

    def margins_of(model):
        chosen, rejected = pair_logprobs(model, pairs, pad, run.batch_size, run.device)
        return chosen - rejected                                                    # (B,)

    @torch.no_grad()
    def log_ratio(model, ids, mask):
        return (answer_logprobs(model, ids, mask, run.batch_size)
                - answer_logprobs(sft, ids, mask, run.batch_size))

    sft_margins = margins_of(sft)
    _, rival = scored(sft, "rivals", "rivals")
    models, shown = {}, {}
    for name in names:
        model = run.load(name)
        answers, proxy = scored(model, name, "answers")
        shown[name] = answers.texts
        wins = (proxy > rival) + (proxy == rival) / 2
        kl = map_answers(lambda ids, mask, model=model: log_ratio(model, ids, mask), prompts,
                         answers.ids, pad, run.device, run.batch_size)
        row = {"proxy": float(proxy.mean()), "proxy_ci95": bootstrap(proxy, prompts, rng),
               "win_rate_vs_sft": float(wins.mean()),
               "win_rate_ci95": bootstrap(wins, prompts, rng),
               "tokens": float(np.mean([len(ids) for ids in answers.ids])),
               "finished": float(np.mean(answers.finished)), "kl_to_sft": float(kl.mean()),
               "pairs": None}
        if not checkpoints.same_weights(model, sft):
            gained = (margins_of(model) > sft_margins).float().numpy()
            row |= {"pairs": float(gained.mean()), "pairs_ci95": bootstrap(gained, asked, rng)}
        models[name] = row

    for i, prompt in enumerate(prompts[:3]):
        print(f"\n{look.shortened(run.tokenizer.decode(prompt))}")
        for name, texts in shown.items():
            print(f"  {name:18} {texts[i]}")
    print(f"\n{len(prompts)} prompts of {path}, {len(pairs)} pairs; ± is half a 95% interval")
    print_table(models, DATA_COLUMNS)
    print("The reward model, whose word proxy and wins are, prefers the chosen answer in "
          f"{right:.1%} of the pairs.")
    return {"data": path, "prompts": len(prompts), "pairs": len(pairs),
            "reward_model_pairs": right, "seed": run.seed, "models": models}


# ---- what is printed ----

def print_table(models, columns):
    """A line for each model. A column: (title, key, key of its interval or None, format); a key
    may lead into a dict, "at_best.gold"; what is not there is a dash."""
    def look_up(row, key):
        for part in key.split("."):
            row = row.get(part) if row else None
        return row

    lines = [["model", *(title for title, *_ in columns)]]
    for name, row in models.items():
        line = [name]
        for _, key, ci, form in columns:
            value, half = look_up(row, key), look_up(row, ci) if ci else None
            cell = "-" if value is None else form.format(value)
            if value is not None and half is not None:
                cell += f" ±{half:.2f}"
            line.append(cell)
        lines.append(line)
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    for name, *cells in lines:
        right = [f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)]
        print(name.ljust(widths[0]) + "".join(right))


def answers_to_shown(run, model, world):
    prompts = [run.tokenizer.prompt(q.text) for q in world.SHOWN]
    _, texts, _ = generate_in_batches(model, prompts, run.max_new_tokens, run.tokenizer,
                                      seeds.generator(run.seed, "samples", run.device))
    return texts


def samples(world, shown):
    """shown: {model: its answers to the world's three} -> what results.json keeps and is printed:
    what every model answers, and what each stretch of it earned."""
    return [{"question": question.text, "answers": {
                name: {"text": texts[i], "parts": world.parts(question, texts[i]),
                       "explained": world.explain(question, texts[i])}
                for name, texts in shown.items()}}
            for i, question in enumerate(world.SHOWN)]


def print_samples(kept):
    for sample in kept:
        print(f"\n{sample['question']}")
        for name, said in sample["answers"].items():
            print(f"  {name:18} {said['text']}\n  {'':18} {said['explained']}")


# ---- the whole ----

def evaluate(run, models=(), data="", prompts=512, max_new_tokens=64, batch_size=256, seed=0,
             device="auto", reward=""):
    """Evaluate these folders of a run, or all known ones that are there -> the dict that
    <run>/results.json holds."""
    for name, value, least in (("prompts", prompts, 32), ("max_new_tokens", max_new_tokens, 1),
                               ("batch_size", batch_size, 1)):
        if value < least:
            raise InputError(f"--{name} {value}: it must be at least {least}")
    folder, device = os.fspath(run), devices.pick(device)
    sft, tokenizer = checkpoints.load_checkpoint(f"{folder}/sft", device)
    run = Run(folder, sft, tokenizer, device, seed, max_new_tokens, batch_size, reward)
    names = list(models)
    if not names:
        names = [name for name in MODELS if run.has(name)]
        print(f"{folder} has {', '.join(names)}")
    if data:
        results = evaluate_file(run, data, names, prompts)
    else:
        world = worlds.of(tokenizer)
        of_kind = evaluate_right if world.correct else evaluate_graded
        results = of_kind(run, world, names, prompts)
    path = f"{folder}/results.json"
    checkpoints.write_atomically(path, lambda f: json.dump(results, f, indent=1))
    print(f"wrote {path}")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, such as out/towns")
    parser.add_argument("--models", nargs="+", metavar="NAME", default=(),
                        help="folders of the run (default: all known ones that are there)")
    parser.add_argument("--data", default="", help="JSONL (.gz) of preference pairs, or of "
                        "problems whose answer is a number, that no stage was trained on (default: "
                        "the checkpoint's world)")
    parser.add_argument("--reward", default="", help="the reward model (default: <run>/rm)")
    parser.add_argument("--prompts", type=int, default=512,
                        help="held-out prompts; an average over fewer than 32 says nothing "
                        "(default: 512)")
    parser.add_argument("--max_new_tokens", type=int, default=64,
                        help="longest answer (default: 64)")
    parser.add_argument("--batch_size", type=int, default=256, help="answers at a time: lower it "
                        "when memory runs out (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="of prompts and answers (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="auto takes a CUDA GPU where there is one")
    evaluate(**vars(parser.parse_args()))


if __name__ == "__main__":
    settings.script(main)
