"""Writes the tables of README.md and docs/*.md from docs/data/*.json, between marks. make docs
calls it.

    python -m runs.tables               rewrite every block
    python -m runs.tables --check       status 1, and their names, where a block is stale

A block is what stands between <!-- table: NAME HASH --> and <!-- end -->. NAME is a function of
this file, HASH the first eight digits of the SHA-256 of the data that it reads. runs/compare.py
writes the data. No figure in a block is typed by hand.
"""
import argparse
import hashlib
import json
import pathlib
import re
import statistics
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
MARK = re.compile(r"<!-- table: \w+ \w+ -->")
BLOCK = re.compile(r"<!-- table: (\w+) (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)
TEMPERATURES = ("0", "0.3", "0.5", "0.7", "1")
# rows of the README's table, and what they are called there
TOWNS = {
    "base": "base",
    "sft": "sft",
    "sft_sharpened": "sft, sharpened",
    "sft_tidy": "sft on tidy answers",
    "likeliest_of_16": "likeliest of 16",
    "best_of_16": "best of 16, reward model",
    "rejection": "rejection sampling",
    "ppo": "PPO",
    "grpo": "GRPO",
    "dpo": "DPO",
}


def of_seeds(values, form, each=True):
    """The mean over the seeds, and each of them; "-" where there is none."""
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    mean = form.format(statistics.mean(values))
    return (
        mean if len(values) == 1 or not each else f"{mean} ({', '.join(map(form.format, values))})"
    )


def cell(seeds, key, form, each=True):
    """seeds: {seed: figures}; key may lead into a dict: "at_best.gold"."""
    values = []
    for seed in sorted(seeds):
        value = seeds[seed]
        for part in key.split("."):
            value = value.get(part) if value else None
        values.append(value)
    return of_seeds(values, form, each)


def markdown(titles, rows):
    return (
        "\n".join(f"| {' | '.join(line)} |" for line in (titles, ["---"] * len(titles), *rows))
        + "\n"
    )


def towns(data):
    titles = [
        "",
        "gold at 1",
        "gold at its best temperature",
        "over tidy",
        "told",
        "right: errors judged",
        "right: never judged",
        "filler",
    ]
    rows = []
    for name, title in TOWNS.items():
        seeds = data["rows"].get(name)
        if not seeds:
            continue
        # each seed chooses its own temperature: a mean of them is no temperature that was used
        chosen = [cell({s: seeds[s]}, "best_temperature", "{:g}") for s in sorted(seeds)]
        at = chosen[0] if len(set(chosen)) == 1 else "/".join(chosen)
        best = cell(seeds, "at_best.gold", "{:.2f}")
        rows.append(
            [
                title,
                "-" if name == "sft_sharpened" else cell(seeds, "gold", "{:.2f}", each=False),
                best if best == "-" else f"{best} at {at}",
                cell(seeds, "at_best.gold_over_tidy", "{:+.2f}"),
                cell(seeds, "at_best.told", "{:.0%}", each=False),
                cell(seeds, "at_best.right_of_told_judged", "{:.0%}"),
                cell(seeds, "at_best.right_of_told_unjudged", "{:.0%}"),
                cell(seeds, "at_best.filler", "{:.2f}", each=False),
            ]
        )
    return markdown(titles, rows)


def by_temperature(data):
    """Gold, and the share of the asked facts told, along the sampling temperature."""
    rows = []
    for name in ("base", "sft", "sft_tidy", "rejection", "ppo", "grpo", "dpo"):
        seeds = data["rows"].get(name, {})
        if seeds:
            row = [TOWNS[name]]
            for t in TEMPERATURES:
                gold, told = ([s.get(f"{what}_by_temperature", {}).get(t) for s in seeds.values()]
                              for what in ("gold", "told"))
                gold = of_seeds(gold, "{:.2f}", each=False)
                told = of_seeds(told, "({:.0%})", each=False)
                row.append("-" if gold == told == "-" else f"{gold} {told}")
            rows.append(row)
    return markdown(["gold (asked facts told)", *(f"T {t}" for t in TEMPERATURES)], rows)


def pooled(seeds, sft, temperature, draws=2000):
    """(share right of told of never-judged errors, its gain over sft's at this temperature, half of
    the
    gain's 95% interval), all seeds pooled, bootstrapped over towns: seeds share their facts."""
    def counts(rows):
        names = sorted(next(iter(rows.values()))["unjudged_by_town_by_temperature"][temperature])
        by_town = [
            [rows[s]["unjudged_by_town_by_temperature"][temperature][town] for s in rows]
            for town in names
        ]
        return np.array(
            [
                [
                    sum(f["right"] for f in town),
                    sum(f["right"] + f["error"] + f["other"] for f in town),
                ]
                # (towns, 2)
                for town in by_town
            ],
            dtype=float,
        )

    mine, theirs = counts(seeds), counts({s: sft[s] for s in seeds})
    picks = np.random.default_rng(0).integers(len(mine), size=(draws, len(mine)))
    share, base = (np.divide(*x[picks].sum(1).T) for x in (mine, theirs))
    half = float(np.subtract(*np.percentile(share - base, [97.5, 2.5])) / 2)
    right = mine[:, 0].sum() / mine[:, 1].sum()
    return right, right - theirs[:, 0].sum() / theirs[:, 1].sum(), half


def never_judged(data):
    rows, sft = [], data["rows"].get("sft", {})

    def there(row, temperature):
        return temperature in row.get("unjudged_by_town_by_temperature", {})

    names = {**{name: TOWNS[name] for name in ("best_of_16", "rejection", "ppo", "grpo", "dpo")},
             "dpo_all": "DPO, all errors judged"}
    for name, title in names.items():
        seeds = data["rows"].get(name, {})
        line = [title] if seeds else []
        for temperature in ("1", "0.3"):
            # a gain is a difference: a seed needs both models
            paired = {s: row for s, row in seeds.items()
                      if there(row, temperature) and there(sft.get(s, {}), temperature)}
            if paired:
                right, gain, half = pooled(paired, sft, temperature)
                line += [f"{right:.0%}", f"{gain:+.2f} ±{half:.2f}"]
            elif seeds:
                line += ["-", "-"]
        rows += [line] if line else []
    return markdown(
        [
            "",
            "right of told, T 1",
            "beyond sft's at T 1",
            "right of told, T 0.3",
            "beyond sft's at T 0.3",
        ],
        rows,
    )


def variants(data):
    titles = [
        "algorithm",
        "flags",
        "paper",
        "the idea",
        "gold at 1",
        "gold at best",
        "told",
        "right: errors judged",
        "right: never judged",
        "KL to sft",
    ]
    rows = []
    for name, row in data["about"].items():
        if seeds := data["rows"].get(name):
            rows.append(
                [
                    name,
                    f"`{row['flags']}`" if row["flags"] else "",
                    row["paper"],
                    row["idea"],
                    cell(seeds, "gold", "{:.2f}"),
                    cell(seeds, "at_best.gold", "{:.2f}"),
                    cell(seeds, "at_best.told", "{:.0%}", each=False),
                    cell(seeds, "at_best.right_of_told_judged", "{:.0%}", each=False),
                    cell(seeds, "at_best.right_of_told_unjudged", "{:.0%}", each=False),
                    cell(seeds, "kl_to_sft", "{:.1f}", each=False),
                ]
            )
    return markdown(titles, rows)


def reward_models(data):
    titles = [
        "reward model",
        "flags",
        "accuracy on held-out pairs",
        "the most possible",
        "gold order",
    ]
    rows = [[name, f"`{data['about'][name]['flags']}`" if data["about"][name]["flags"] else ""] +
            [cell(seeds, key, "{:.1%}") for key in ("accuracy", "noise_ceiling", "gold_order")]
            for name, seeds in data["rows"].items()]
    return markdown(titles, rows)


def sums(data):
    def both(seeds, kind):
        greedy = cell(seeds, f"greedy_{kind}", "{:.2f}", False)
        return f"{greedy} / {cell(seeds, f'accuracy_{kind}', '{:.2f}', False)}"

    titles = [
        "T 0 / T 1",
        "all",
        "plus",
        "minus, nothing lent",
        "minus, lent",
        "pass@8",
        "majority of 8",
        "majority, lent",
        "best of 8, orm",
        "best of 8, prm",
    ]
    rows = []
    for name, seeds in data["rows"].items():
        rows.append(
            [
                name,
                f"{cell(seeds, 'greedy', '{:.2f}', False)} / "
                f"{cell(seeds, 'accuracy', '{:.2f}', False)}",
                *(both(seeds, kind) for kind in ("plus", "minus")),
                f"{cell(seeds, 'greedy_lent', '{:.2f}')} / "
                f"{cell(seeds, 'accuracy_lent', '{:.2f}', False)}",
                *(
                    cell(seeds, key, "{:.2f}", False)
                    for key in (
                        "pass@8",
                        "majority@8",
                        "majority@8_lent",
                        "best_of_8_orm",
                        "best_of_8_prm",
                    )
                ),
            ]
        )
    return markdown(titles, rows)


# block -> (what makes it, the file of docs/data that it reads)
TABLES = {
    "towns": (towns, "towns"),
    "by_temperature": (by_temperature, "towns"),
    "never_judged": (never_judged, "towns"),
    "variants": (variants, "variants"),
    "reward_models": (reward_models, "reward_models"),
    "sums": (sums, "sums"),
}


def block(name, where, data_folder):
    """-> the block's text, marks included. SystemExit where the name or the data are not there."""
    if name not in TABLES:
        sys.exit(f"error: {where}: no table is called {name}; there are {', '.join(TABLES)}")
    make, file = TABLES[name]
    path = data_folder / f"{file}.json"
    if not path.exists():
        sys.exit(f"error: {where}: {path} does not exist; runs/compare.py writes it")
    data = json.loads(path.read_text(encoding="utf-8"))
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]
    return f"<!-- table: {name} {digest} -->\n{make(data)}<!-- end -->"


def stray_mark(text):
    """-> the line (from 1) of the first mark that opens or closes no block; None without one."""
    opened = None
    for number, line in enumerate(text.split("\n"), 1):
        begins, ends = "<!-- table: " in line, "<!-- end -->" in line
        if begins and (opened or not MARK.fullmatch(line)) or ends and not opened:
            return opened or number
        opened = number if begins else None if ends else opened
    return opened


def rewritten(path, data_folder):
    """-> (the file's text with its blocks made anew, names of those that differ)"""
    text, differ = path.read_text(encoding="utf-8"), []
    if line := stray_mark(text):
        sys.exit(f"error: {path}:{line}: a mark is not closed, or is not "
                 "<!-- table: NAME HASH --> ... <!-- end -->")

    def new(match):
        line = text[:match.start()].count("\n") + 1
        made = block(match[1], f"{path}:{line}", data_folder)
        if made != match[0]:
            differ.append(match[1])
        return made

    return BLOCK.sub(new, text), differ


def main(argv=None, root=ROOT):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing; status 1 where a block differs from its data",
    )
    check = parser.parse_args(argv).check
    stale = []
    for path in [*sorted(root.glob("README*.md")), *sorted((root / "docs").glob("**/*.md"))]:
        text, differ = rewritten(path, root / "docs/data")
        stale += [f"{path.relative_to(root)}: {name}" for name in differ]
        if differ and not check:
            path.write_text(text, encoding="utf-8")
    print(
        "\n".join(f"{'differs from its data' if check else 'written'}: {name}" for name in stale)
        or "every table is what its data say"
    )
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    main()
