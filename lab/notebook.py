"""The lab's notebook: what was tried, with which settings, and what came out.

    python -m lab.kl_price                  an experiment, from the runs of make demo
    python -m lab.kl_price --seeds 0        one seed of it
    make lab                                all of them, then docs/LAB.md

An experiment is a module of this folder with

    a docstring                 its first line is the question; then the claim, who claims it, what
                                is varied, and what is drawn
    SETTINGS, TOY               what is varied; what a test varies instead
    SEEDS, MINUTES              which runs it is made from, and how long a seed takes
    run(folder, seed, **settings)   -> what came out, as JSON has it
    table(data)                 data: {seed: what came out} -> (titles, [cells of a row])
    claims(data)                {a sentence that says that a difference is positive:
                                 {seed: that difference}}
    figure(data)                an svg
    ANSWER                      what came out, in a line
    READING                     what we make of it, and of what does not hold

A seed is written to docs/data/lab/NAME-SEED.json as soon as it ends, and is not run again while
the settings are the same. So an interrupted experiment goes on where it was. To run a seed again,
delete its file. Its models stay in <run>/lab, and are trained anew only where a setting differs.
"""
import argparse
import json
import os
import pathlib
import platform
import subprocess
import time
from importlib import metadata

import numpy as np

from lab import exam
from nanorlhf import InputError, settings
from nanorlhf.checkpoints import write_atomically
from nanorlhf.stats import average, over_seeds
from runs.compare import rounded
from runs.tables import of_seeds

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA = ROOT / "docs/data/lab"


def name_of(experiment):
    return pathlib.Path(experiment.__file__).stem


def run_of(runs, seed):
    """Where the run of this seed lies: make demo SEED=1 RUN=out/towns-1."""
    return runs if seed == 0 else f"{runs}-{seed}"


def read(experiment, data=DATA):
    """{seed: what came out} of the seeds that are finished with the settings of today."""
    found = {}
    for seed in experiment.SEEDS:
        path = data / f"{name_of(experiment)}-{seed}.json"
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            # as JSON has them: a tuple is a list there
            if kept["settings"] == json.loads(json.dumps(experiment.SETTINGS)):
                found[seed] = kept["came_out"]
    return found


def write(experiment, seed, came_out, seconds, data=DATA):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True,
                            text=True).stdout.strip()
    versions = {"python": platform.python_version()}
    versions |= {package: metadata.version(package) for package in ("torch", "numpy")}
    kept = {"command": f"python -m lab.{name_of(experiment)} --seeds {seed}", "commit": commit,
            "versions": versions, "seconds": round(seconds), "settings": experiment.SETTINGS,
            "came_out": rounded(came_out)}
    os.makedirs(data, exist_ok=True)
    path = data / f"{name_of(experiment)}-{seed}.json"
    write_atomically(str(path), lambda f: f.write(json.dumps(kept, indent=1) + "\n"))
    return path


def verdict(differences):
    """{seed: difference} of what should be positive -> ("holds", "the opposite holds" or "not
    settled", mean, half of the 95% interval over the seeds)."""
    mean, half = over_seeds(list(differences.values()))
    if mean - half > 0:
        word = "holds"
    elif mean + half < 0:
        word = "the opposite holds"
    else:
        word = "not settled"
    return word, mean, half


def verdicts(experiment, data):
    """-> lines of text, one a claim."""
    lines = []
    for claim, differences in experiment.claims(data).items():
        if not differences:
            continue
        each = ", ".join(f"{d:+.2f}" for d in differences.values())
        if len(differences) < 2:
            lines.append(f"**one seed alone**: {claim}: {each}")
            continue
        word, mean, half = verdict(differences)
        lines.append(f"**{word}**: {claim}: {mean:+.2f} ±{half:.2f} ({each})")
    return lines


def look_up(row, key):
    """"at_1.gold" of a dict of dicts; None where it is not there."""
    for part in key.split("."):
        row = row.get(part) if row else None
    return row


def rows_of(data, columns):
    """{seed: {row: figures}}, [(title, key, format)] -> (titles, [cells of a row]). A cell has the
    mean over the seeds, and each of them."""
    names = dict.fromkeys(name for rows in data.values() for name in rows)
    lines = [[name, *(of_seeds([look_up(rows.get(name), key) for rows in data.values()], form)
                      for _, key, form in columns)] for name in names]
    return ["", *(title for title, *_ in columns)], lines


def mean_of_seeds(data, row, key):
    """The mean of this figure over the seeds that have it; None where none has."""
    return average([look_up(rows.get(row), key) for rows in data.values()])


def differences(data, key, row, other):
    """{seed: how much more of this figure a row has than another}, where both have it"""
    both = {seed: (look_up(rows.get(row), key), look_up(rows.get(other), key))
            for seed, rows in data.items()}
    return {seed: one - two for seed, (one, two) in both.items() if None not in (one, two)}


def rank_correlation(xs, ys):
    """Spearman's, for values without ties; 0 where one of them is flat."""
    if not np.std(xs) or not np.std(ys):
        return 0.0
    return float(np.corrcoef(*(np.argsort(np.argsort(values)) for values in (xs, ys)))[0, 1])


def first_at(xs, ys, x):
    """y where a way (xs, ys) first comes to x, between the steps around it; None where it never
    does."""
    there = np.flatnonzero(np.asarray(xs) >= x)
    if not len(there):
        return None
    i = there[0]
    if i == 0:
        return float(ys[0])
    return float(np.interp(x, xs[i - 1:i + 1], ys[i - 1:i + 1]))


def print_table(titles, rows):
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def main(experiment, argv=None, data=DATA):
    """The command line of an experiment: run the seeds that are missing, and say what came out."""
    parser = argparse.ArgumentParser(f"python -m lab.{name_of(experiment)}", allow_abbrev=False,
                                     description=experiment.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=experiment.SEEDS,
                        help=f"(default: {' '.join(map(str, experiment.SEEDS))})")
    parser.add_argument("--runs", default="out/towns", help="the run of seed 0; that of seed 1 is "
                        "beside it, -1 behind its name (default: out/towns)")
    args = parser.parse_args(argv)
    if unknown := set(args.seeds) - set(experiment.SEEDS):
        raise InputError(f"--seeds {min(unknown)}: this experiment's are "
                         f"{', '.join(map(str, experiment.SEEDS))}")
    print(experiment.__doc__.split("\n\n")[0])
    done = read(experiment, data)
    missing = [seed for seed in args.seeds if seed not in done]
    if missing:
        print(f"{len(missing)} of {len(args.seeds)} seeds to run, some {experiment.MINUTES} "
              f"minutes each on two cores")
    for seed in missing:
        exam.check_run(run_of(args.runs, seed), seed)
    for seed in missing:
        start = time.perf_counter()
        came_out = experiment.run(run_of(args.runs, seed), seed, **experiment.SETTINGS)
        path = write(experiment, seed, came_out, time.perf_counter() - start, data)
        print(f"({time.perf_counter() - start:.0f} s) wrote {path.relative_to(ROOT)}", flush=True)
    found = {seed: kept for seed, kept in read(experiment, data).items() if seed in args.seeds}
    print()
    print_table(*experiment.table(found))
    print("\n" + "\n".join(verdicts(experiment, found)))


def script(experiment):
    settings.script(lambda: main(experiment))
