"""docs/BOOK.md names files, functions and lines: they must be there. runs/compare.py names flags: the scripts must take them."""
import ast
import importlib
import pathlib
import re
import sys

import pytest

from nanorlhf import run

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


sys.path.insert(0, str(ROOT / "runs"))
COMMANDS = [command for table in ("TOWNS", "REWARD_MODELS", "SUMS") for _, command, *_ in getattr(importlib.import_module("compare"), table) if command]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_comparison_are_taken(command):
    """A flag renamed since, or settings that contradict each other: found out after an hour."""
    script, *flags = command.split()
    module = importlib.import_module(script.removesuffix(".py"))
    cfg = run.parse(module.Config, "", flags)
    assert cfg != module.Config()
    getattr(module, "check_settings", lambda _: None)(cfg)
