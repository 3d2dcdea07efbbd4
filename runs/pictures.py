"""Draws docs/figures/*.svg of README and docs from docs/data/*.json. make docs calls it.

    python -m runs.pictures
    python -m runs.pictures --check     status 1, and their names, where a figure is stale

A figure's first line has the first eight digits of the SHA-256 of the data that it shows, and of
this file.
"""
import argparse
import hashlib
import json
import pathlib
import statistics
import sys

from nanorlhf import figures, settings
from nanorlhf.checkpoints import write_atomically

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIGURES = ROOT / "docs/figures"
SHOWN = {"sft": "SFT", "sft_tidy": "SFT on tidy answers", "rejection": "rejection sampling",
         "ppo": "PPO", "grpo": "GRPO", "dpo": "DPO"}
# boxes of the pipeline: {text: (x, y, what stands below)}
BOXES = {"base": (20, 60, "knows, and rambles"), "SFT": (170, 60, "answers as people do"),
         "preferences": (320, 60, "a or b? by people"),
         "reward model": (470, 10, "what people prefer"),
         "DPO": (620, 110, "straight from the pairs"),
         "PPO, GRPO": (620, 10, "by trial, scored"),
         "best of N": (620, 60, "imitate the best")}
ARROWS = [("base", "SFT"), ("SFT", "preferences"), ("preferences", "reward model"),
          ("preferences", "DPO"), ("reward model", "PPO, GRPO"), ("reward model", "best of N")]


def temperature(data):
    """Gold against temperature, the mean of the seeds."""
    lines = {}
    for name, title in SHOWN.items():
        along = [row["gold_by_temperature"] for row in data["rows"][name].values()]
        temperatures = list(along[0])
        lines[title] = ([float(t) for t in temperatures],
                        [statistics.mean(seed[t] for seed in along) for t in temperatures])
    return figures.curves("What an answer is truly worth", "gold", lines,
                          x_name="sampling temperature")


def pipeline():
    """The stages as boxes and arrows."""
    width, height = 120, 34
    made = []
    for source, target in ARROWS:
        (x0, y0, _), (x1, y1, _) = BOXES[source], BOXES[target]
        made.append(f'<path d="M{x0 + width} {y0 + height / 2} L{x1 - 5} {y1 + height / 2}" '
                    f'stroke="var(--ink, {figures.INK})" fill="none" marker-end="url(#tip)"/>')
    for text, (x, y, below) in BOXES.items():
        made.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="none" '
                    f'stroke="var(--c0, {figures.COLOURS[0]})"/>'
                    f'<text x="{x + width / 2}" y="{y + 14}" class="name">{text}</text>'
                    f'<text x="{x + width / 2}" y="{y + 28}" class="below">{below}</text>')
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 160">
<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="5" refY="3" orient="auto">
<path d="M0 0 L6 3 L0 6 z" fill="var(--ink, {figures.INK})"/></marker></defs>
<style>text {{ font: 12px system-ui, sans-serif; text-anchor: middle;
  fill: var(--ink, {figures.INK}); }} .below {{ font-size: 10px; }}</style>
{chr(10).join(made)}
</svg>"""


PICTURES = {"temperature": (temperature, "towns"), "pipeline": (pipeline, None)}


def stamp(data):
    """What a figure is made of, in eight digits."""
    source = pathlib.Path(__file__).read_bytes()
    content = (ROOT / f"docs/data/{data}.json").read_bytes() if data else b""
    return hashlib.sha256(source + content).hexdigest()[:8]


def stale():
    """Names of the figures that are not those of the data."""
    return [name for name, (_, data) in PICTURES.items()
            if not (FIGURES / f"{name}.svg").exists()
            or stamp(data) not in (FIGURES / f"{name}.svg").read_text(encoding="utf-8")[:40]]


def draw():
    for name, (make, data) in PICTURES.items():
        given = []
        if data:
            given = [json.loads((ROOT / f"docs/data/{data}.json").read_text(encoding="utf-8"))]
        text = f"<!-- {stamp(data)} -->\n" + figures.standalone(make(*given)) + "\n"
        write_atomically(str(FIGURES / f"{name}.svg"), lambda f, text=text: f.write(text))
        print(f"wrote {FIGURES / name}.svg")


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    if parser.parse_args().check:
        sys.exit(f"stale: {', '.join(stale())}" if stale() else 0)
    draw()


if __name__ == "__main__":
    settings.script(main)
