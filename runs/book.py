"""Writes docs/BOOK.md from docs/data/book.json: chapter, equation, the line of code that is that
equation. make docs calls it.

    python -m runs.book
    python -m runs.book --check         status 1 where the page is stale

The data name functions and, where one line is the equation, that line. Where it stands now is
looked up, so a link never shows another line.
"""
import argparse
import json
import pathlib
import sys

from exercises import copies, tasks
from nanorlhf import InputError, settings
from nanorlhf.checkpoints import write_atomically

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA, PAGE = ROOT / "docs/data/book.json", ROOT / "docs/BOOK.md"
HEAD = """# Beside the book

Nathan Lambert's *RLHF Book* exists in a 19-chapter first web edition (also in Chinese) and in the
current 17-chapter one. Chapters stand here in the order of the current one. A link leads to the
line that is the equation, or to the function it lives in. An experiment of [the lab](LAB.md) tries
what is claimed: `python -m lab.NAME`. An exercise is begun with `python -m exercises.start NAME`.
What is listed here exists and runs. Key related works, chapter 2 of both, has nothing to run.
"""


def place(file, function, line):
    """-> (number of the line that is the equation, True), or where the function has no such line
    (number of its def, False). InputError where there is no such function."""
    source = (ROOT / file).read_text(encoding="utf-8")
    try:
        node = copies.node_of(source, function)
    except StopIteration:
        raise InputError(f"{DATA}: {file} has no {function}") from None
    lines = source.splitlines()
    for number in range(node.lineno, node.end_lineno + 1):
        if line and line in lines[number - 1]:
            return number, True
    return node.lineno, False


def page():
    """-> the text of docs/BOOK.md. InputError where a function or a line is not there any more.

    Where links lead stands at the end of the page: in the tables no line is wider than 120.
    """
    exercise_of = {e.function: e.name for e in tasks.EXERCISES}
    blocks, targets = [HEAD], []
    for chapter in json.loads(DATA.read_text(encoding="utf-8")):
        rows = ["| equation or idea | where it is code | experiment | exercise |",
                "|---|---|---|---|"]
        for row in chapter["rows"]:
            links, found, to_do = [], not row["line"], []
            for where in row["where"]:
                file, function = where.split("::")
                number, is_line = place(file, function, row["line"])
                found = found or is_line
                targets.append(f"[{len(targets) + 1}]: ../{file}#L{number}")
                links.append(f"[`{function.split('.')[-1]}`][{len(targets)}]")
                if function in exercise_of:
                    to_do.append(f"`{exercise_of[function]}`")
            if not found:
                raise InputError(f"{DATA}: {row['line']!r} is in none of {row['where']}")
            tried = [f"`{name}`" for name in row.get("lab", ())]
            if missing := [name for name in row.get("lab", ())
                           if not (ROOT / f"lab/{name}.py").exists()]:
                raise InputError(f"{DATA}: there is no experiment {missing[0]}")
            rows.append(f"| {row['idea']} | {', '.join(links)} | {', '.join(tried)} | "
                        f"{', '.join(to_do)} |")
        number = chapter["current"]
        number = number if number.startswith("app") else f"Chapter {number}"
        blocks.append(f"## {number}: {chapter['chapter']} (first edition: {chapter['first']})\n\n"
                      + "\n".join(rows) + "\n")
    return "\n".join([*blocks, *targets]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    text = page()
    if parser.parse_args().check:
        sys.exit(0 if PAGE.read_text(encoding="utf-8") == text else f"stale: {PAGE}")
    write_atomically(str(PAGE), lambda f: f.write(text))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    settings.script(main)
