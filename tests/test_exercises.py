"""Exercises are made from the code: each body can be taken out and put back, each test notices, and
the student's own tree is left alone."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
import textwrap

import mutants
import pytest

from exercises import check, copies, hint, solution, start, tasks


def source_of(task):
    return (copies.ROOT / task.file).read_text(encoding="utf-8")


def module_of(task):
    return task.file.removesuffix(".py").replace("/", ".")


@pytest.mark.parametrize("task", tasks.EXERCISES, ids=lambda task: task.name)
def test_the_body_is_taken_out_and_nothing_else(task):
    """A task that shows its solution, or loses its docstring; a file that no longer compiles."""
    source = source_of(task)
    made = copies.without_body(source, task.function, task.task)
    node, left = copies.node_of(source, task.function), copies.node_of(made, task.function)
    assert ast.unparse(left.args) == ast.unparse(node.args)
    assert ast.get_docstring(left) == ast.get_docstring(node) != ""
    assert isinstance(left.body[-1], ast.Raise) and len(left.body) == 2
    body = copies.body_of(source, task.function)
    assert body.strip() and body not in made and f"# Your turn. {task.task}" in made
    # put back, it is the file again
    todo = f'    raise NotImplementedError("{node.name}")'
    kept = made.replace(
        textwrap.indent(f"# Your turn. {task.task}\n", " " * node.body[0].col_offset), ""
    )
    kept = kept.replace(" " * node.body[0].col_offset + todo.strip(), body)
    assert kept == source


@pytest.mark.parametrize("task", tasks.EXERCISES, ids=lambda task: task.name)
def test_without_its_body_every_test_fails(task, monkeypatch, tmp_path):
    """A test that passes whatever stands in the function."""
    module = importlib.import_module(module_of(task))
    *owner, name = task.function.split(".")
    holder = getattr(module, owner[0]) if owner else module
    original = getattr(holder, name)

    def nothing(*args, **more):
        raise NotImplementedError(name)

    for test in task.tests:
        importlib.import_module(f"{test.split('.py::')[0]}")
    places = (
        [holder]
        if owner
        else [
            m
            for m in list(sys.modules.values())
            if str(getattr(m, "__file__", None) or "").startswith(str(copies.ROOT))
        ]
    )
    for place in places:
        for attribute, value in list(vars(place).items()):
            if value is original:
                monkeypatch.setattr(place, attribute, nothing)
    for test in task.tests:
        file, function = test.split(".py::")
        run = getattr(importlib.import_module(file), function)
        arguments = next(iter(mutants.cases(run)))
        wanted = inspect.signature(run).parameters
        arguments |= {
            k: v
            for k, v in {"monkeypatch": monkeypatch, "tmp_path": tmp_path}.items()
            if k in wanted
        }
        with pytest.raises(NotImplementedError):
            run(**arguments)


@pytest.mark.parametrize("fault", tasks.FAULTS, ids=lambda fault: fault.number)
def test_each_fault_is_caught_by_its_test(fault, monkeypatch):
    mutant = mutants.Mutant(
        f"{module_of(fault)}.{fault.function}",
        fault.right,
        fault.wrong,
        "",
        fault.test.replace(".py::", "::"),
    )
    made = copies.with_fault(source_of(fault), fault)
    assert made != source_of(fault) and ast.parse(made)
    mutants.apply(mutant, monkeypatch)
    assert mutants.fails(mutant.caught_by)


def test_from_start_to_done(tmp_path, monkeypatch, capsys):
    """A student's afternoon: begin, fail, solve, pass; the tree as it was."""
    monkeypatch.setattr(copies, "COPIES", tmp_path)
    before = {path: path.read_bytes() for path in copies.ROOT.glob("*.py")}

    def say(module, *words):
        monkeypatch.setattr(sys, "argv", ["x", *words])
        module.main()
        return capsys.readouterr().out

    assert "gae" in say(start) and "fault 1 to 8" in say(start)
    out = say(start, "gae")
    file = tmp_path / "gae/train_ppo.py"
    assert str(file) in out and "tests/test_ppo.py::test_gae_by_hand" in out
    assert "keep two things" in say(hint, "gae")
    with pytest.raises(SystemExit) as stopped:
        say(check, "gae")
    assert stopped.value.code == 1 and "Not yet" in capsys.readouterr().out
    body = say(solution, "gae")
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace('    raise NotImplementedError("gae")', body.rstrip("\n")))
    with pytest.raises(SystemExit) as stopped:
        say(check, "gae")
    assert stopped.value.code == 0 and "Done" in capsys.readouterr().out
    out = say(start, "fault", "3")
    assert "train_ppo.py --run out-towns --out fault" in out
    assert "the KL grows" in say(hint, "fault", "3")
    assert "'beta * kl_estimate' must be '-beta * kl_estimate'" in say(solution, "fault", "3")
    assert before == {path: path.read_bytes() for path in copies.ROOT.glob("*.py")}


def test_wrong_names(tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "COPIES", tmp_path)
    for words in (["gea"], ["fault"], ["fault", "9"], []):
        with pytest.raises(copies.InputError, match="exercises are token_logprobs, .*fault 1 to 8"):
            copies.find(words)
    task = copies.find(["gae"])
    with pytest.raises(copies.InputError, match="is not there; begin with"):
        copies.run_tests(task)
    (tmp_path / "gae").mkdir()
    with pytest.raises(copies.InputError, match="is there already, with your work in it"):
        copies.make(task)


def test_the_sheet_lists_every_exercise():
    assert tasks.sheet() in (copies.ROOT / "exercises/README.md").read_text(encoding="utf-8")
    assert len(tasks.EXERCISES) >= 15 and len(tasks.FAULTS) == 8
    for task in tasks.EXERCISES:
        for test in task.tests:
            file, name = test.split("::")
            assert f"def {name}(" in (copies.ROOT / "tests" / file).read_text(encoding="utf-8")


def test_from_a_shell(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "exercises.start", "nothing"],
        cwd=copies.ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("error: exercises are ")
