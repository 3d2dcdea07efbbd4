"""Stages one after the other, or two side by side: what demo.py and runs/ are made of.

    stages.alone(train_base, run=run, seed=seed)
    stages.beside((train_ppo, {"run": run}), (train_dpo, {"run": run}))

A stage that runs alone has two threads, one beside another has one, whatever the machine has.
Floats add up in another order with another number of threads; with the same number a recipe gives
the same figures. Two stages of two threads on two cores would wait for each other, five times as
long.
"""
import argparse
import contextlib
import importlib
import multiprocessing
import os
import re
import sys
import time
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

import torch

from nanorlhf import InputError, Interrupted

CLEAR = "\r\033[K" if sys.stdout.isatty() else ""        # the status line goes


def said(name, settings):
    """The command line of a stage."""
    flags = "".join(f" --{key}" if value is True else f" --{key} {value}"
                    for key, value in settings.items())
    return f"{name}.py{flags}"


def alone(script, **settings):
    """script.train with these settings, in this process -> what it returns."""
    print(f"\n=== {said(script.__name__, settings)} ===", flush=True)
    start = time.perf_counter()
    torch.set_num_threads(2)
    made = script.train(script.Config(**settings))
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    return made


def beside(*jobs):
    """(script, settings), two at a time, each in a process of its own.

    What a stage prints goes to <run>/<its folder>/output.txt; the terminal is told when it begins
    and ends. The first error is raised here when all have ended. After Ctrl-C no other begins.
    """
    spawn, problems, waiting, running = multiprocessing.get_context("spawn"), [], [], {}
    print()
    for script, settings in jobs:
        cfg = script.Config(**settings)         # a wrong setting is found before anything runs
        output = f"{cfg.run}/{cfg.out or script.__name__}/output.txt"
        command = said(script.__name__, settings)
        print(f"=== {command} ===   side by side, its words in {output}", flush=True)
        waiting.append((script.__name__, cfg, output, command))
    # a fresh process for each: the random state of torch, its threads and its memory are its own
    with ProcessPoolExecutor(2, spawn, max_tasks_per_child=1) as pool:
        try:
            while waiting or running:
                # no more than run: what the pool holds already it would begin after Ctrl-C
                while waiting and len(running) < 2:
                    name, cfg, output, command = waiting.pop(0)
                    running[pool.submit(_work, name, cfg, output)] = command, output
                for done in wait(running, timeout=2, return_when=FIRST_COMPLETED).done:
                    command, output = running.pop(done)
                    try:
                        print(f"{CLEAR}({done.result():.0f} s: {command})", flush=True)
                    except Exception as e:
                        problems.append(InputError(f"{command}: {e}; see {output}"))
                if sys.stdout.isatty():
                    status = "   ".join(progress(output) for _, output in running.values())
                    print(f"{CLEAR}{status[:100]}", end="", flush=True)
        except KeyboardInterrupt:
            # the terminal told the stages too: each ends its step and says what is kept
            kept = [f"{command}: {_ending(done)}" for done, (command, _) in running.items()]
            raise Interrupted("\n".join(kept)) from None
    if problems:
        raise problems[0]


def _ending(done):
    """Waits for a stage -> how it ended, in words."""
    e = done.exception()
    return "ended" if e is None else str(e) or "stopped before its first step"


def progress(output):
    """Where the stage is that writes to this file: "ppo step 40/75", or nothing yet."""
    steps = []
    if os.path.exists(output):
        with open(output, encoding="utf-8") as f:
            steps = re.findall(r"^step +(\d+/\d+)", f.read(), re.MULTILINE)
    return f"{os.path.basename(os.path.dirname(output))} step {steps[-1]}" if steps else ""


def _work(name, cfg, output):
    """In the new process -> the seconds it took."""
    torch.set_num_threads(1)
    os.makedirs(os.path.dirname(output), exist_ok=True)
    start = time.perf_counter()
    with open(output, "w", encoding="utf-8", buffering=1) as f:
        with contextlib.redirect_stdout(f), contextlib.redirect_stderr(f):
            importlib.import_module(name).train(cfg)
    return time.perf_counter() - start


def options(doc, run, argv=None):
    """--run and --seed of a recipe -> (run, seed)"""
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default=run, help=f"the run's folder (default: {run})")
    parser.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    args = parser.parse_args(argv)
    return args.run, args.seed
