"""All experiments, one after the other, and docs/LAB.md from what came out. make lab calls it.

    python -m lab.all                   runs what is missing, hours at first
    python -m lab.all --page            docs/LAB.md and its figures alone (make docs)
    python -m lab.all --page --check    status 1 where they are stale
"""
import argparse
import importlib
import os
import sys
import textwrap

from lab import exam, notebook
from nanorlhf import InputError, figures, settings
from nanorlhf.checkpoints import write_atomically
from runs.compare import recipe

EXPERIMENTS = ("overoptimization", "kl_price", "frontier", "estimators", "displacement",
               "noisy_labels", "elicitation", "selection", "evaluation", "groups", "length_bias",
               "rounds", "reward_models", "forgetting", "staleness", "reasoning", "ai_feedback",
               "constitution", "distillation", "collapse", "character",
               "sycophancy", "calculator")
PAGE = notebook.ROOT / "docs/LAB.md"
HEAD = """# The lab: what the book claims, tried

Each experiment takes a claim of the RLHF book or of a paper to a world whose true reward is known.
It starts from the runs of `make demo`, and its code is a page in [`lab/`](../lab).

* **How it is judged.** All models of a seed share base, SFT, questions and draws. A verdict is the
  mean over the seeds of a difference, ± t SD / sqrt(n), a 95% interval. *Holds* is said only where
  the interval leaves 0 out, *the opposite holds* where it leaves it out on the other side.
  Claims marked *(seen first)* were written after a look at the data.
* **What it speaks of.** A model of 0.7 million weights in a world of thirty-two towns. What holds
  here may fail elsewhere, and the other way round.
* **Cells** have the mean over the seeds, and each seed in brackets. Gold is that of 512 held-out
  answers where nothing else is said; *best T* is the sampling temperature with the most gold on
  training prompts, the control for what cooling gives.
"""


def figure_path(name):
    return notebook.ROOT / f"docs/figures/lab_{name}.svg"


def section(name, experiment, data):
    """One experiment as Markdown."""
    title, (_, _, claim) = title_of(experiment), experiment.__doc__.strip().partition("\n\n")
    titles, rows = experiment.table(data)
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, ["---"] * len(titles), *rows)]
    verdicts = [textwrap.fill(f"* {line}", 100, subsequent_indent="  ")
                for line in notebook.verdicts(experiment, data)]
    seeds = ", ".join(map(str, data))
    made = textwrap.fill(f"`python -m lab.{name}`, seeds {seeds}; some {experiment.MINUTES} "
                         "minutes a seed on two cores.", 100)
    parts = [f'<a id="{name}"></a>\n\n## {title}', claim,
             f"![{title}](figures/lab_{name}.svg)", "\n".join(lines), "\n".join(verdicts),
             textwrap.fill(" ".join(experiment.READING.split()), 100), made]
    return "\n\n".join(part for part in parts if part) + "\n"


def title_of(experiment):
    """Its question."""
    return experiment.__doc__.strip().partition("\n")[0]


def in_short(name, experiment):
    """Its question and our answer, as a line of the contents."""
    return textwrap.fill(f"* [{title_of(experiment)}](#{name}) {experiment.ANSWER}", 100,
                         subsequent_indent="  ")


def made():
    """{path: text} of the page and of the figures, of the experiments that have data."""
    files, contents, sections, waiting = {}, [], [], []
    for name in EXPERIMENTS:
        experiment = importlib.import_module(f"lab.{name}")
        if data := notebook.read(experiment):
            contents.append(in_short(name, experiment))
            sections.append(section(name, experiment, data))
            files[figure_path(name)] = figures.standalone(experiment.figure(data)) + "\n"
        else:
            waiting.append(f"[`{name}`](../lab/{name}.py)")
    if waiting:
        text = f"Written, tested at toy size, and not run to the end so far: {', '.join(waiting)}."
        sections.append(textwrap.fill(text, 100) + "\n")
    text = "\n".join([HEAD, "## In short", "", *contents, "", *sections])
    return {PAGE: text, **files}


def make_run(folder, seed):
    """make demo for this seed, where a model is missing that experiments start from."""
    try:
        exam.check_run(folder, seed)
    except InputError:
        os.makedirs(os.path.dirname(folder) or ".", exist_ok=True)
        recipe("demo", folder, seed)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="out/towns", help="the run of seed 0; that of seed 1 is "
                        "beside it, -1 behind its name (default: out/towns)")
    parser.add_argument("--page", action="store_true", help="run nothing")
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(argv)
    if not args.page:
        experiments = [importlib.import_module(f"lab.{name}") for name in EXPERIMENTS]
        for seed in sorted({seed for e in experiments for seed in e.SEEDS}):
            if any(seed not in notebook.read(e) for e in experiments if seed in e.SEEDS):
                make_run(notebook.run_of(args.runs, seed), seed)
        for experiment in experiments:
            notebook.main(experiment, ["--runs", args.runs])
            print()
    texts = made()
    if args.check:
        stale = [str(path) for path, text in texts.items()
                 if not path.exists() or path.read_text(encoding="utf-8") != text]
        if stale:
            sys.exit(f"stale: {', '.join(stale)}; python -m lab.all --page")
        print("the page and its figures are what the data say")
        return
    for path, text in texts.items():
        write_atomically(str(path), lambda f, text=text: f.write(text))
    print(f"wrote {PAGE.relative_to(notebook.ROOT)}")


if __name__ == "__main__":
    settings.script(main)
