"""A copy of the tree for each exercise, under out/exercises: the tree itself is never touched."""
import ast
import os
import pathlib
import shutil
import subprocess
import sys

from exercises import tasks
from nanorlhf import InputError

ROOT = pathlib.Path(__file__).resolve().parent.parent
COPIES = ROOT / "out/exercises"
LEFT_OUT = shutil.ignore_patterns("out", ".venv", ".git", "__pycache__", ".pytest_cache", "*.pyc")


def find(words):
    """["gae"] or ["fault", "3"] -> the Exercise or Fault. InputError with the list of all."""
    found = tasks.of(*words[:2]) if words else None
    if found is None:
        names = ", ".join(exercise.name for exercise in tasks.EXERCISES)
        raise InputError(f"exercises are {names}; and fault 1 to {len(tasks.FAULTS)}")
    return found


def folder(task):
    """Where the copy of this exercise lies."""
    name = task.name if isinstance(task, tasks.Exercise) else f"fault-{task.number}"
    return COPIES / name


def node_of(source, function):
    """The ast node of "name" or "Class.name"."""
    node = ast.parse(source)
    for part in function.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == part)
    return node


def without_body(source, function, task):
    """The source with a function's body taken out; signature, docstring and the task stay."""
    node, lines = node_of(source, function), source.splitlines(keepends=True)
    documented = ast.get_docstring(node) is not None
    start = node.body[1 if documented else 0].lineno
    # comments above the first line of the body are part of the solution
    after_docstring = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    indent = " " * node.body[0].col_offset
    assert start > after_docstring
    todo = [f"{indent}# Your turn. {task}\n", f'{indent}raise NotImplementedError("{node.name}")\n']
    return "".join(lines[:after_docstring] + todo + lines[node.end_lineno:])


def body_of(source, function):
    """A function as it stands in the source, without its docstring's lines: the solution."""
    node, lines = node_of(source, function), source.splitlines()
    first = node.body[0].end_lineno if ast.get_docstring(node) else node.body[0].lineno - 1
    return "\n".join(lines[first:node.end_lineno])


def with_fault(source, fault):
    """The source with one line of one function made wrong."""
    node, lines = node_of(source, fault.function), source.splitlines(keepends=True)
    inside = "".join(lines[node.lineno - 1:node.end_lineno])
    if inside.count(fault.right) < 1:
        raise InputError(f"{fault.file}: {fault.function} has no {fault.right!r} any more")
    made = inside.replace(fault.right, fault.wrong, 1)
    return "".join(lines[:node.lineno - 1]) + made + "".join(lines[node.end_lineno:])


def make(task):
    """Copy the tree and take the body out, or put the fault in -> the file to work on"""
    place = folder(task)
    if place.exists():
        raise InputError(f"{place} is there already, with your work in it; delete it to begin anew")
    shutil.copytree(ROOT, place, ignore=LEFT_OUT)
    file = place / task.file
    source = file.read_text(encoding="utf-8")
    if isinstance(task, tasks.Exercise):
        changed = without_body(source, task.function, task.task)
    else:
        changed = with_fault(source, task)
    file.write_text(changed, encoding="utf-8")
    return file


def run_tests(task):
    """pytest on the copy -> its exit status"""
    place = folder(task)
    if not place.exists():
        raise InputError(f"{place} is not there; begin with: python -m exercises.start "
                         + place.name.replace("-", " "))
    tests = task.tests if isinstance(task, tasks.Exercise) else (task.test,)
    words = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider",
             *(f"tests/{test}" for test in tests)]
    return subprocess.run(words, cwd=place, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
