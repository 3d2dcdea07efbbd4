"""Each wrong version of mutants.py is caught by the test that it names; each named test passes on
the right code."""
from pathlib import Path

import pytest
from mutants import MUTANTS, apply, fails, table


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.function}: {m.breaks}")
def test_mutant_is_caught(mutant, monkeypatch):
    """A test that would pass on this mistake too."""
    apply(mutant, monkeypatch)
    assert fails(mutant.caught_by), (
        f"{mutant.caught_by} passes although {mutant.right!r} is {mutant.wrong!r}"
    )


@pytest.mark.parametrize("name", sorted({m.caught_by for m in MUTANTS}))
def test_catcher_passes_on_the_right_code(name):
    """A catcher that fails always, or because it is run by the wrong hand here, catches nothing."""
    assert not fails(name)


def test_readme_lists_every_mutant():
    """`python tests/mutants.py` prints the table that belongs there."""
    assert table() in (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
