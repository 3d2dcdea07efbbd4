"""Pictures of what happened, as SVG: the same bytes each time they are made, text as text, and
colours that a page can change for its dark scheme.

matplotlib is an extra that nothing that trains imports: pip install matplotlib.
"""
import io
import re
from itertools import product

import numpy as np

from nanorlhf import InputError

# Okabe and Ito 2008: told apart by the colour-blind, too. A page may set --c0 to --c6, --ink and
# --grid; without it these are what is seen.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777")
# what a dark page sets them to, in CSS
DARK = ("--ink: #dddddd; --grid: #444444; --c0: #56b4e9; --c1: #f0803c; --c2: #2fc598; "
        "--c3: #e09fc4; --c4: #f0b429; --c5: #8fd0f5; --c6: #aaaaaa; ")
INK, GRID = "#333333", "#dddddd"
SIZE = (4.4, 2.7)       # inches: legible beside another, and on a phone


def _pyplot():
    try:
        import matplotlib
    except ImportError:
        raise InputError("pictures need matplotlib, which no training does: pip install matplotlib"
                         ) from None
    matplotlib.use("svg")
    from matplotlib import pyplot
    return pyplot


def panel(title, x_name, y_name):
    """-> (figure, axes) in the one style."""
    pyplot = _pyplot()
    pyplot.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "nanorlhf", "font.size": 9,
        "font.family": "sans-serif", "text.color": INK, "axes.labelcolor": INK,
        "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": INK, "axes.linewidth": 0.6,
        "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.5, "axes.axisbelow": True,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
    figure, axes = pyplot.subplots(figsize=SIZE)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x_name)
    axes.set_ylabel(y_name)
    return figure, axes


def svg(figure):
    """-> the text of an <svg> element that fits where it is put."""
    pyplot, file = _pyplot(), io.StringIO()
    figure.savefig(file, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.05,
                   metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = file.getvalue()
    text = text[text.index("<svg"):]
    for i, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{i}, {colour})")
    text = text.replace(INK, f"var(--ink, {INK})").replace(GRID, f"var(--grid, {GRID})")
    # metadata says nothing here; ids would meet those of another figure on the page
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # as wide as its place: the viewBox keeps the proportions
    return re.sub(r' (width|height)="[^"]*pt"', "", text, count=2)


def standalone(text):
    """An svg for a file of its own: it brings the colours of a dark scheme along."""
    style = f"<style>@media (prefers-color-scheme: dark) {{ svg {{ {DARK}}} }}</style>"
    end = text.index(">") + 1
    return text[:end] + style + text[end:]


def smooth(values, width):
    """Mean of the last `width` values at each place; NaN is left out."""
    values = np.asarray(values, float)
    known, filled = np.cumsum(~np.isnan(values)), np.cumsum(np.nan_to_num(values))
    start = np.maximum(np.arange(len(values)) - width, -1)
    before = np.where(start >= 0, filled[start], 0.0), np.where(start >= 0, known[start], 0)
    count = known - before[1]
    return np.where(count > 0, (filled - before[0]) / np.maximum(count, 1), np.nan)


def curves(title, y_name, lines, limits=None, level=None, x_name="step"):
    """lines: {name: (x, y)} -> svg. Each is drawn thin, and its running mean thick.

    limits: (low, high) of y, where two panels are to be compared. level: (value, name) of a dotted
    line to compare with.
    """
    figure, axes = panel(title, x_name, y_name)
    for i, (name, (x, y)) in enumerate(lines.items()):
        x, y = np.asarray(x, float), np.asarray(y, float)
        there = ~np.isnan(y)
        x, y = x[there], y[there]
        width, colour = max(1, len(y) // 40), COLOURS[i % len(COLOURS)]
        marker = "o" if len(y) <= 12 else None
        if width > 1:
            axes.plot(x, y, color=colour, linewidth=0.5, alpha=0.4)
        axes.plot(x, smooth(y, width), color=colour, linewidth=1.6, label=name, marker=marker,
                  markersize=3, linestyle=("-", "--", ":")[i // len(COLOURS) % 3])
    if level:
        axes.axhline(level[0], color=INK, linestyle=":", linewidth=1, label=level[1])
    if x_name != "sampling temperature":
        axes.xaxis.get_major_locator().set_params(integer=True)
    if limits:
        axes.set_ylim(*limits)
    if len(lines) > 1 or level:
        legend_below(axes)
    return svg(figure)


def legend_below(axes):
    """Beside the lines it would lie on some of them."""
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(-0.12, -0.2), ncols=3,
                columnspacing=1.2, handlelength=1.4)


def dots(title, x_name, rows):
    """rows: {name: (value, half an interval or None)}, the first on top -> svg"""
    figure, axes = panel(title, x_name, "")
    figure.set_size_inches(SIZE[0], 0.8 + 0.22 * len(rows))
    for i, (value, half) in enumerate(rows.values()):
        axes.plot([value], [-i], "o", color=COLOURS[0], markersize=4)
        if half is not None:
            axes.plot([value - half, value + half], [-i, -i], color=COLOURS[0], linewidth=1.2)
    axes.set_yticks([-i for i in range(len(rows))], list(rows))
    axes.grid(False, axis="x")
    return svg(figure)


def plane(title, x_name, y_name, points, paths=()):
    """points: {name: (x, y)}, each with its name beside it; paths: {name: (xs, ys)}, ways there
    -> svg"""
    figure, axes = panel(title, x_name, y_name)
    from matplotlib.transforms import Bbox
    for i, (name, (x, y)) in enumerate(dict(paths).items()):
        axes.plot(x, y, color=COLOURS[i % len(COLOURS)], linewidth=1, alpha=0.7, label=name)
    for x, y in points.values():
        axes.plot([x], [y], "o", color=INK, markersize=4)
    axes.margins(0.12)
    figure.canvas.draw()
    # no name lies on another or on a point: the first free place beside its own
    taken = [Bbox.from_bounds(x - 2, y - 2, 4, 4)
             for x, y in axes.transData.transform(list(points.values()) or np.empty((0, 2)))]
    for name, point in sorted(points.items(), key=lambda item: -item[1][1]):
        text = axes.annotate(name, point, xytext=(5, 0), textcoords="offset points", fontsize=8,
                             annotation_clip=False)
        for up, side in product((-3, 4, -10, 14, -20, 24, -30), ("left", "right")):
            text.set(ha=side)
            text.xyann = 5 if side == "left" else -5, up
            if not any(text.get_window_extent().overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())
    if paths:
        legend_below(axes)
    return svg(figure)
