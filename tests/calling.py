"""How the tests call a script: its main in this process, since starting Python for each would take a second."""
import importlib
import sys

import pytest

from nanorlhf import run


def call(monkeypatch, script, *args):
    """The script's main in this process: no time goes into starting Python."""
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, args)])
    run.script(importlib.import_module(script).main)


def complaint(monkeypatch, script, *args):
    """-> the one sentence that the script ends with; a string as exit code means status 1."""
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, script, *args)
    assert isinstance(stopped.value.code, str) and stopped.value.code.startswith("error: ")
    assert "\n" not in stopped.value.code
    return stopped.value.code
