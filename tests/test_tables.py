"""Figures in README and docs are those of docs/data: the mechanism, and that what is committed
agrees."""
import json
import pathlib

import numpy as np
import pytest

from runs import tables

ROOT = pathlib.Path(__file__).resolve().parent.parent

PAGE = "before\n<!-- table: sums 00000000 -->\nanything\n<!-- end -->\nafter <!-- not a mark -->\n"
FIGURES = {
    "greedy": 0.5,
    "accuracy": 0.25,
    **{
        f"{kind}_{of}": 0.125 for kind in ("greedy", "accuracy") for of in ("plus", "minus", "lent")
    },
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs/data").mkdir(parents=True)
    (tmp_path / "README.md").write_text(PAGE)
    (tmp_path / "docs/MORE.md").write_text("nothing to see\n")
    (tmp_path / "docs/data/sums.json").write_text(
        json.dumps({"rows": {"sft": {"0": FIGURES, "1": {**FIGURES, "greedy_lent": 0.375}}}})
    )
    return tmp_path


def test_every_table_is_what_its_data_say(capsys):
    """A figure typed by hand, or left from an older run."""
    tables.main(["--check"])
    assert "every table is what its data say" in capsys.readouterr().out


def test_a_block_is_written_once_and_then_stays(root, capsys):
    """Text around the block that is lost; another block each time."""
    with pytest.raises(SystemExit):
        tables.main(["--check"], root)
    assert "README.md: sums" in capsys.readouterr().out and (root / "README.md").read_text() == PAGE
    tables.main([], root)
    text = (root / "README.md").read_text()
    assert text.startswith("before\n<!-- table: sums ") and text.endswith(
        "<!-- end -->\nafter <!-- not a mark -->\n"
    )
    assert (
        "| sft | 0.50 / 0.25 | 0.12 / 0.12 | 0.12 / 0.12 | 0.25 (0.12, 0.38) / 0.12 | - |" in text
    )
    tables.main(["--check"], root)
    tables.main([], root)
    assert (root / "README.md").read_text() == text and (
        root / "docs/MORE.md"
    ).read_text() == "nothing to see\n"


@pytest.mark.parametrize(
    "change",
    [lambda text: text.replace("0.50", "0.51"), lambda text: text.replace("| sft", "| SFT")],
)
def test_a_digit_changed_by_hand_is_noticed(change, root):
    tables.main([], root)
    path = root / "README.md"
    path.write_text(change(path.read_text()))
    with pytest.raises(SystemExit):
        tables.main(["--check"], root)


def test_data_that_change_nothing_on_the_page_are_noticed(root, capsys):
    """The hash is of all data: a figure that no table shows may be quoted in the prose beside it.
    """
    tables.main([], root)
    path = root / "docs/data/sums.json"
    path.write_text(path.read_text().replace('"rows"', '"commit": "abc", "rows"'))
    with pytest.raises(SystemExit):
        tables.main(["--check"], root)
    assert "README.md: sums" in capsys.readouterr().out


@pytest.mark.parametrize(
    "page, said",
    [
        (PAGE.replace("sums", "nonsense"), "README.md:2: no table is called nonsense"),
        (PAGE.replace("<!-- end -->", ""), "README.md:2: a mark is not closed"),
        ("<!-- end -->\n" + PAGE, "README.md:1: a mark is not closed"),
        (
            PAGE.replace("anything", "<!-- table: sums 00000000 -->"),
            "README.md:2: a mark is not closed",
        ),
        (PAGE.replace("sums", "towns"), "towns.json does not exist"),
        (PAGE.replace(" 00000000", ""), "a mark is not closed, or is not"),
    ],
)
def test_what_a_page_gets_wrong(page, said, root):
    (root / "README.md").write_text(page)
    with pytest.raises(SystemExit, match=said):
        tables.main([], root)


def test_what_is_missing_is_a_dash():
    """An evaluation that broke off, or a row not made yet, that ends make docs in a KeyError."""
    def last(table):
        return [x.strip() for x in table.splitlines()[-1].strip("|").split("|")]

    assert last(tables.towns({"rows": {"dpo": {"0": {}}}})) == ["DPO"] + ["-"] * 7
    half = {"gold_by_temperature": {"0": 0.5}, "told_by_temperature": {"0": 0.75}}
    made = tables.by_temperature({"rows": {"dpo": {"0": half}}})
    assert last(made) == ["DPO", "0.50 (75%)"] + ["-"] * 4
    town = {"right": 3, "error": 1, "other": 0, "silent": 0}
    facts = {"unjudged_by_town_by_temperature": {"1": {"t": town}}}
    assert last(tables.never_judged({"rows": {"dpo": {"0": facts}}})) == ["DPO"] + ["-"] * 4
    # seed 1 has no SFT model beside it, so seed 0 alone counts
    rows = {"dpo": {"1": {}, "0": facts}, "sft": {"0": facts}}
    assert last(tables.never_judged({"rows": rows})) == ["DPO", "75%", "+0.00 ±0.00", "-", "-"]


def test_the_temperature_of_each_seed_is_named():
    """A mean of chosen temperatures, at which nothing was sampled."""
    def at(*temperatures):
        seeds = {str(s): {"best_temperature": t, "at_best": {"gold": 1.0}}
                 for s, t in enumerate(temperatures)}
        line = tables.towns({"rows": {"sft_sharpened": seeds}}).splitlines()[-1]
        return line.split("|")[3].strip()

    assert at(0.5, 0.0, 0.3) == "1.00 (1.00, 1.00, 1.00) at 0.5/0/0.3"
    assert at(1.0, 1.0) == "1.00 (1.00, 1.00) at 1"


def test_of_seeds_by_hand():
    assert (
        tables.of_seeds([0.5], "{:.2f}") == "0.50"
        and tables.of_seeds([None, None], "{:.2f}") == "-"
    )
    assert tables.of_seeds([0.1, 0.2, 0.6], "{:.0%}") == "30% (10%, 20%, 60%)"
    assert (
        tables.cell({"1": {"a": {"b": 2.0}}, "0": {"a": {"b": 1.0}}}, "a.b", "{:.0f}") == "2 (1, 2)"
    )
    assert tables.cell({"0": {"a": None}}, "a.b", "{:.0f}") == "-"


def test_pooled_shares_by_hand():
    """Seeds averaged in place of pooled; the interval of one model in place of that of the
    difference."""
    def row(*towns):
        facts = {
            f"t{i}": {"right": r, "error": e, "other": 0, "silent": 9}
            for i, (r, e) in enumerate(towns)
        }
        return {"unjudged_by_town_by_temperature": {"1": facts}}

    mine, sft = (
        {"0": row((3, 1), (0, 0)), "1": row((1, 3), (4, 0))},
        {"0": row((1, 3), (0, 0)), "1": row((1, 3), (2, 2))},
    )
    right, gain, half = tables.pooled(mine, sft, "1")
    assert right == pytest.approx(8 / 12) and gain == pytest.approx(8 / 12 - 4 / 12) and half > 0
    right, gain, half = tables.pooled(mine, mine, "1")
    assert (gain, half) == (0, 0)
    many = {"0": row(*[(3, 1)] * 50)}
    assert tables.pooled(many, {"0": row(*[(1, 3)] * 50)}, "1")[1:] == (
        pytest.approx(0.5),
        pytest.approx(0, abs=1e-9),
    )
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 2, (200, 2))
    half = tables.pooled(
        {"0": row(*((int(a), 1 - int(a)) for a in drawn[:, 0]))},
        {"0": row(*((int(b), 1 - int(b)) for b in drawn[:, 1]))},
        "1",
    )[2]
    assert half == pytest.approx(1.96 * np.std(drawn[:, 0] - drawn[:, 1]) / 200 ** 0.5, rel=0.1)
