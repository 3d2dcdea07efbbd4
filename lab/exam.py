"""Trains the models of an experiment, and asks all of them the same.

Every model of a seed answers the same held-out questions with the same draws. So two of them are
compared question by question, and what the questions have in common cancels.
"""
import contextlib
import dataclasses
import importlib
import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, as_completed

import numpy as np
import torch
from tqdm import tqdm

import evaluate
import train_base
from nanorlhf import InputError, checkpoints, devices, seeds, worlds
from nanorlhf.measure import kl_per_answer
from nanorlhf.probe import share_right
from nanorlhf.rollout import score_answers
from nanorlhf.stats import average, bootstrap

PROMPTS = 512


def at_once(function, jobs, title):
    """[function(*job) for job in jobs], two at a time, each in a process of its own with one
    thread, behind a bar. The first error is raised when all have ended."""
    jobs, spawn = list(jobs), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, spawn, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(function, *job) for job in jobs]
        try:
            for _ in tqdm(as_completed(running), total=len(jobs), desc=title):
                pass
        except KeyboardInterrupt:
            # asked to stop they would end their step, and then begin with the next job
            for process in multiprocessing.active_children():
                process.kill()
            raise
    return [done.result() for done in running]


def called(function, *arguments):
    """For at_once(), where the jobs are of several kinds."""
    return function(*arguments)


def folder_name(row):
    """A row of a table as the name of a folder."""
    return row.replace(",", "").replace(" ", "_").replace("'", "")


def made_so(made, cfg):
    """Whether the model in this folder was trained with these settings."""
    with open(f"{made}/config.json", encoding="utf-8") as f:
        # a run may be moved, and a setting that it does not know is a newer one's default
        there = {**dataclasses.asdict(type(cfg)()), **json.load(f), "run": cfg.run}
    return there == dataclasses.asdict(cfg)


def train_quietly(script, cfg, path):
    """script.train(cfg); what it prints goes to this file."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8", buffering=1) as f:
        with contextlib.redirect_stdout(f), contextlib.redirect_stderr(f):
            script.train(cfg)


def trained(folder, seed, name, script, settings):
    """<folder>/<name>, a model made by this script with these settings, unless it is there already
    and what it is made from, the run's SFT and the paths among the settings, is older.

    What the script prints goes to <folder>/<name>/output.txt.
    """
    script = importlib.import_module(script)
    cfg, made = script.Config(run=folder, out=name, seed=seed, **settings), f"{folder}/{name}"
    model, sources = f"{made}/model.pt", [f"{folder}/sft/model.pt"]
    for path in map(str, settings.values()):
        sources += filter(os.path.isfile, (path, f"{path}/model.pt"))
    if os.path.exists(model) and os.path.getmtime(model) >= max(map(os.path.getmtime, sources)):
        if made_so(made, cfg):
            return made
    train_quietly(script, cfg, f"{made}/output.txt")
    return made


def base_of(folder, seed, world, **settings):
    """A run of another world inside this one, with a base model of its own, unless it is there
    already -> <folder>/lab/<world>"""
    own = f"{folder}/lab/{world}"
    cfg = train_base.Config(run=own, seed=seed, world=world, **settings)
    if os.path.exists(f"{own}/base/model.pt") and made_so(f"{own}/base", cfg):
        return own
    train_quietly(train_base, cfg, f"{own}/base.txt")
    return own


def check_run(folder, seed):
    """InputError, with the command to make it, where there is no run to start from."""
    for stage in ("base", "sft", "preferences", "rm", "ppo"):
        if not any(os.path.exists(f"{folder}/{stage}/{file}")
                   for file in ("model.pt", "pairs.jsonl")):
            raise InputError(f"{folder} has no {stage}; make it with: "
                             f"make demo SEED={seed} RUN={folder}")


def held_out(folder, seed, prompts=PROMPTS):
    """-> (evaluate.Run, world, the questions that every model of this seed is asked)"""
    device = devices.pick("auto")
    sft, tokenizer = checkpoints.load_checkpoint(f"{folder}/sft", device)
    run, world = evaluate.Run(folder, sft, tokenizer, device, seed, 64, 256), worlds.of(tokenizer)
    return run, world, world.questions(prompts, seeds.rng(seed, "evaluation prompts"),
                                       worlds.HELD_OUT)


def probed(run, world, model, name):
    """Share of the world's probes of this name that a model gets right, as in train_base.py"""
    return share_right(model, run.tokenizer, world.probes(seeds.rng(0, "probe"))[name], run.device)


def mark(folder, seed, name, prompts=PROMPTS):
    """What the model in <folder>/<name> is worth -> a dict, as JSON has it:

    at_1, at_best    the world's columns at temperature 1, and at best_temperature
    best_temperature the one of evaluate.TEMPERATURES with the most gold on training prompts
    kl               nats an answer, from sft, at temperature 1
    proxy            {"rm": mean score of the run's reward model at temperature 1}
    tokens           mean length at temperature 1
    by_question      {"best": gold of each question}, for over_sft()
    """
    run, world, questions = held_out(folder, seed, prompts)
    tuning = world.questions(prompts // 2, seeds.rng(seed, "tuning prompts"), worlds.TRAIN)
    asked, model = [run.tokenizer.prompt(q.text) for q in questions], run.load(name)
    tuning_asked = [run.tokenizer.prompt(q.text) for q in tuning]
    tuned, columns = {}, {}
    for t in evaluate.TEMPERATURES:
        tried = run.answer(model, None, tuning_asked, f"evaluate tuning answers at {t:g}", t)
        tuned[t] = np.mean(world.columns(tuning, tried.texts, tried.finished)["gold"])
        said = run.answer(model, None, asked, f"evaluate answers at {t:g}", t)
        columns[t] = world.columns(questions, said.texts, said.finished)
    best = max(evaluate.TEMPERATURES, key=tuned.get)
    # the last temperature is 1
    ids, pad = said.ids, run.tokenizer.pad
    kl = kl_per_answer(model, run.sft, asked, ids, pad, run.device)
    score = score_answers(run.load("rm", "scalar"), asked, ids, pad).mean().item()

    def means(columns):
        return {name: average(values) for name, values in columns.items()}

    return {"at_1": means(columns[1.0]), "at_best": means(columns[best]),
            "best_temperature": best, "kl": float(kl.mean()), "proxy": {"rm": score},
            "tokens": float(np.mean([len(answer) for answer in ids])),
            "by_question": {"best": columns[best]["gold"]}}


def train_and_mark(folder, seed, name, script, settings, prompts=PROMPTS):
    """script "": the model is one of the run's own."""
    if script:
        trained(folder, seed, name, script, settings)
    return mark(folder, seed, name, prompts)


def marks_of(folder, seed, models, prompts=PROMPTS):
    """models: {row: (folder in the run, script or "", settings)} -> {row: marks}"""
    jobs = [(folder, seed, *model, prompts) for model in models.values()]
    return dict(zip(models, at_once(train_and_mark, jobs, f"models of seed {seed}"), strict=True))


def over_sft(folder, seed, rows, prompts=PROMPTS):
    """Marks, one row of them "sft" -> the same rows without by_question, each with "over_sft": gold
    over SFT's, each at its best temperature, question by question, as [mean, half of its 95%
    interval over the questions of this seed, bootstrapped over what answers share]."""
    _, _, questions = held_out(folder, seed, prompts)
    clusters, sft = [worlds.cluster(q) for q in questions], rows["sft"]["by_question"]["best"]
    for row in rows.values():
        over = np.subtract(row["by_question"]["best"], sft)
        row["over_sft"] = [float(over.mean()),
                           bootstrap(over, clusters, np.random.default_rng(0))]
    return without_questions(rows)


def without_questions(rows):
    """Rows of marks as they are kept: without the gold of each question."""
    return {name: {key: value for key, value in row.items() if key != "by_question"}
            for name, row in rows.items()}
