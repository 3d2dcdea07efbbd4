"""docs/BOOK.md names files, functions and lines, README.md files: they must be there."""
import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROWS = [row for row in (ROOT / "docs/BOOK.md").read_text(encoding="utf-8").splitlines() if ".py`: " in row]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[4].strip()[:40])
def test_the_book_map_names_what_is_there(row):
    """A function renamed, an equation moved or written another way since."""
    *_, equation, where, line, _ = row.split("|")
    sources = []
    for file, functions in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", where):
        text = (ROOT / file).read_text(encoding="utf-8")
        defined = {n.name: ast.get_source_segment(text, n) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.FunctionDef)}
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
