"""docs/BOOK.md names files and functions: they must exist."""
import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_every_function_that_the_book_map_names_exists():
    named = 0
    for row in (ROOT / "docs/BOOK.md").read_text(encoding="utf-8").splitlines():
        for file, functions in re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", row):
            defined = {n.name for n in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))) if isinstance(n, ast.FunctionDef)}
            for function in re.findall(r"`(\w+)`", functions):
                assert function in defined, f"{file} has no {function}"
                named += 1
    assert named >= 25
