"""docs/BOOK.md names files, functions and lines, README.md files: they must be there."""
import ast
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = [
    row
    for row in (ROOT / "docs/BOOK.md").read_text(encoding="utf-8").splitlines()
    if ".py`: " in row
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[4].strip()[:40])
def test_the_book_map_names_what_is_there(row):
    """A function renamed, an equation moved or written another way since."""
    *_, equation, where, line, _ = row.split("|")
    sources = []
    for file, functions in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", where):
        text = (ROOT / file).read_text(encoding="utf-8")
        defined = {
            n.name: ast.get_source_segment(text, n)
            for n in ast.walk(ast.parse(text))
            if isinstance(n, ast.FunctionDef)
        }
        for function in re.findall(r"`(\w+)`", functions):
            assert function in defined, f"{file} has no {function}"
            sources.append(defined[function])
    assert sources
    if line.strip():
        assert any(line.strip().strip("`") in source for source in sources), f"not found: {line}"


def test_the_book_map_is_not_empty():
    assert len(ROWS) >= 40


def test_the_readme_knows_the_scripts():
    """A script or a module that the tree leaves out."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text[text.index("## The tree"):]
    for path in [*ROOT.glob("*.py"), *(ROOT / "nanorlhf").glob("[!_]*.py")]:
        assert path.name in tree, path


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
