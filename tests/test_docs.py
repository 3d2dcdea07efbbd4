"""docs/BOOK.md names files, functions and lines, README.md files: they must be there."""
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from exercises import tasks
from lab.all import EXPERIMENTS
from runs import book, pictures

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_the_book_map_shows_the_lines_that_are_there():
    """A function renamed, an equation moved or written another way since."""
    text = book.page()
    assert book.PAGE.read_text(encoding="utf-8") == text, "python -m runs.book"
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) > 60 and max(map(len, rows)) <= 120
    # and every experiment stands in it
    assert all(f"`{name}`" in text for name in EXPERIMENTS)
    assert all(f"`{exercise.name}`" in text for exercise in tasks.EXERCISES
               if exercise.name not in ("whiten", "kl_estimate"))


def test_the_house_knows_its_rooms():
    """A script or a module that the tree leaves out."""
    tree = (ROOT / "docs/HOUSE.md").read_text(encoding="utf-8")
    for path in [*ROOT.glob("*.py"), *(ROOT / "nanorlhf").glob("[!_]*.py"),
                 *(ROOT / "docs").glob("*.md"), *(ROOT / "runs").glob("[!_]*.py"),
                 *(ROOT / "tools").glob("[!_]*.py")]:
        assert path.name in tree, path


LINKS = [
    (path, snippet, target, int(line))
    for path in sorted((ROOT / "docs").glob("*.md")) if path != book.PAGE
    for snippet, target, line in re.findall(
        r"\[`([^`]+)`\]\(([^)#]+)#L(\d+)\)", path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path, snippet, target, line", LINKS)
def test_a_link_to_a_line_shows_what_it_says(path, snippet, target, line):
    """Code that has moved on since."""
    there = (path.parent / target).read_text(encoding="utf-8").splitlines()
    assert snippet in there[line - 1], [n for n, text in enumerate(there, 1) if snippet in text]


def test_the_tutorial_follows_its_own_formulas():
    """A number that is copied wrongly: each column from those before it, as rounded there."""
    text = (ROOT / "docs/TUTORIAL.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| \d", line)]
    names = ("logp", "ref", "k1", "price", "r", "V", "delta", "A", "R", "white", "ratio")
    table = [dict(zip(names, map(float, row[2:]))) for row in rows]
    score = float(re.search(r"Its score is\n(-?[0-9.]+)\. ", text)[1])
    after = {"V": 0.0, "A": 0.0}
    assert len(table) == 9
    for row in reversed(table):
        assert row["k1"] == pytest.approx(row["logp"] - row["ref"], abs=2e-3)
        assert row["price"] == pytest.approx(-0.2 * row["k1"], abs=2e-3)
        earned = score if row is table[-1] else 0
        assert row["r"] == pytest.approx(row["price"] + earned, abs=2e-3)
        assert row["delta"] == pytest.approx(row["r"] + after["V"] - row["V"], abs=2e-3)
        assert row["A"] == pytest.approx(row["delta"] + 0.95 * after["A"], abs=2e-3)
        assert row["R"] == pytest.approx(row["A"] + row["V"], abs=2e-3)
        assert row["white"] == pytest.approx((row["A"] - 0.092) / 0.460, abs=0.01)
        after = row


def test_the_readme_is_one_screen_and_its_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "tests/README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)[)#]", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), (path.name, target)


def test_the_chinese_readme_says_the_same():
    """Numbers, commands or files that are in one of the two alone."""
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in
                        ("README.md", "README.zh.md"))

    def blocks(text):
        return [line for line in text.splitlines() if line.startswith(("    ", "<!--"))]

    assert blocks(english) == blocks(chinese)
    table = re.compile(r"<!-- table: towns.*?<!-- end -->", re.DOTALL)
    assert table.search(english)[0] == table.search(chinese)[0]
    for mark in (r"`([^`\n]+)`", r"\]\(([^)]+)\)"):
        theirs = set(re.findall(mark, chinese))
        mine = set(re.findall(mark, english)) - {"README.zh.md"}
        assert mine == theirs, mine ^ theirs


def test_figures_are_those_of_the_data():
    assert pictures.stale() == []


def prose(path):
    """(number, line) of a Markdown file, but for tables, code, marks and lines with a link."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
        elif not (fenced or line.startswith(("|", "    ", "<!--")) or "](" in line):
            yield number, line


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "tests/README.md"],
    ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_wider_than_100(path):
    """ruff holds the code to it; nobody reads a line of 160 in a diff."""
    assert not [f"{path.name}:{number}" for number, line in prose(path) if len(line) > 100]


def test_the_wheel_holds_the_worlds_and_their_vocabularies(tmp_path):
    """A package that works from a clone alone: pip leaves out what pyproject.toml does not name."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "nanorlhf", source / "nanorlhf",
                    ignore=shutil.ignore_patterns("__pycache__"))
    code = ("import sys; from setuptools import setup; "
            f"sys.argv = ['setup.py', '-q', 'bdist_wheel', '-d', {str(tmp_path)!r}]; setup()")
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    if "invalid command 'bdist_wheel'" in done.stderr or "named 'setuptools'" in done.stderr:
        pytest.skip("setuptools with bdist_wheel is not installed here")
    assert done.returncode == 0, done.stderr[-2000:]
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "nanorlhf").rglob("*"):
        if path.suffix in (".py", ".tiktoken"):
            assert str(path.relative_to(ROOT)) in names
