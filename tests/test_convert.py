"""tools/convert.py: files in other formats and layouts, row by row, by hand."""

import csv
import gzip
import json
import os
import subprocess
import sys

import pytest
from test_data import write

from nanorlhf import InputError, files, layouts
from nanorlhf.tokenizer import Tokenizer
from tools import convert

TOK = Tokenizer("sums")
CHAT = [{"role": "user", "content": "Q"}]


def pairs(rows, tmp_path, **how):
    """The rows that come of it -> (prompt, chosen, rejected) in text, read again, and what is
    left."""
    made, _, left = convert.convert(write(tmp_path / "f.jsonl", rows), **how)
    read, report = files.load_pairs(write(tmp_path / "out.jsonl", made), TOK, 512)
    assert not report
    return [tuple(map(TOK.decode, (p.prompt, p.chosen, p.rejected))) for p in read], dict(left)


def expected(*sides, prompt="Q"):
    ask = f"<|user|>{prompt}<|assistant|>"
    return [(ask, f"{chosen}<|end|>", f"{rejected}<|end|>") for chosen, rejected in sides]


def test_shp(tmp_path):
    """Labels the wrong way round: everything learned from them is upside down."""
    rows = [
        {
            "post_id": "7",
            "history": "Q",
            "human_ref_A": "a",
            "human_ref_B": "b",
            "labels": n,
            "score_A": 3,
            "score_B": 9,
        }
        for n in (1, 0)
    ]
    assert pairs(rows, tmp_path) == (expected(("a", "b"), ("b", "a")), {})
    rows[1]["labels"] = 2
    with pytest.raises(InputError, match=r"f.jsonl:2: 'labels' is 2; it must be one of \(0, 1\)"):
        convert.convert(write(tmp_path / "f.jsonl", rows))


def test_safe_rlhf(tmp_path):
    rows = [
        {
            "prompt": "Q",
            "response_0": "a",
            "response_1": "b",
            "better_response_id": better,
            "safer_response_id": 1,
            "is_response_0_safe": True,
        }
        for better in (0, 1)
    ]
    assert pairs(rows, tmp_path)[0] == expected(("a", "b"), ("b", "a"))
    assert pairs(rows, tmp_path, by="safer")[0] == expected(("b", "a"), ("b", "a"))
    with pytest.raises(InputError, match="--by votes: PKU-SafeRLHF has better, safer"):
        convert.convert(write(tmp_path / "f.jsonl", rows), by="votes")


def test_helpsteer2(tmp_path):
    """Answers of different prompts compared; a tie that gets a side; a strength that is lost."""

    def row(prompt, response, helpful, correct):
        return {
            "prompt": prompt,
            "response": response,
            "helpfulness": helpful,
            "correctness": correct,
            "coherence": 4,
            "complexity": 1,
            "verbosity": 2,
        }

    rows = [
        row("Q", "a", 4, 0),
        row("W", "x", 1, 1),
        row("Q", "b", 1, 3),
        row("V", "y", 2, 2),
        row("V", "z", 2, 3),
    ]
    ties = {"neither is better": 1, "an answer that stands alone": 1}
    assert pairs(rows, tmp_path) == (expected(("a", "b")), ties)
    made, said, _ = convert.convert(str(tmp_path / "f.jsonl"))
    assert made[0]["strength"] == 3 and said == "pairs of HelpSteer2 by helpfulness"
    assert pairs(rows, tmp_path, by="correctness")[0] == expected(("b", "a")) + expected(
        ("z", "y"), prompt="V"
    )
    rows[0]["helpfulness"] = "4"
    with pytest.raises(InputError, match="f.jsonl:1: 'helpfulness' is '4'; it must be a number"):
        convert.convert(write(tmp_path / "f.jsonl", rows))
    with pytest.raises(InputError, match=r"no pair comes of it: an answer that stands alone \(1\)"):
        convert.convert(write(tmp_path / "f.jsonl", rows[1:2]))


@pytest.mark.parametrize(
    "name, row",
    [
        ("preference_strength", {"prompt": "Q", "response_1": "a", "response_2": "b"}),
        (
            "overall_preference",
            {"context": CHAT, "response1": "a", "response2": "b", "domain": "code"},
        ),
    ],
)
def test_signed_preferences(name, row, tmp_path):
    """Below 0 the first is better, above it the second."""
    rows = [{**row, name: score} for score in (-3, 1, 0)]
    assert pairs(rows, tmp_path) == (expected(("a", "b"), ("b", "a")), {"neither is better": 1})
    assert [r["strength"] for r in convert.convert(str(tmp_path / "f.jsonl"))[0]] == [3, 1]
    with pytest.raises(InputError, match=f"'{name}' is 5"):
        convert.convert(write(tmp_path / "f.jsonl", [{**row, name: 5}]))


def test_summaries(tmp_path):
    row = {
        "info": {"id": "t3", "subreddit": "tifu", "title": "T", "post": "P", "article": None},
        "summaries": [{"text": " a"}, {"text": " b"}],
        "choice": 1,
        "split": "valid1",
    }
    prompt = "SUBREDDIT: tifu\n\nTITLE: T\n\nPOST: P\n\nTL;DR:"
    assert pairs([row], tmp_path)[0] == expected(("b", "a"), prompt=prompt)
    [made] = convert.convert(str(tmp_path / "f.jsonl"))[0]
    assert layouts.split_of(made["split"]) == "held-out"
    with pytest.raises(InputError, match="f.jsonl:1: 'info' and two 'summaries' are needed"):
        convert.convert(write(tmp_path / "f.jsonl", [{**row, "summaries": []}]))


ROWS = [
    {"prompt": 'Q, "so"\nand more', "chosen": "4", "rejected": "zwölf", "strength": 2.5},
    {"prompt": "7", "chosen": "[1] see", "rejected": "true", "strength": 1},
]


@pytest.mark.parametrize("name", ["f.json", "f.json.gz", "f.csv", "f.tsv", "f.csv.gz", "f.jsonl"])
def test_formats(name, tmp_path):
    """A number for an answer, a line end that splits a row, a gz read as text."""
    path = str(tmp_path / name)
    if ".jsonl" in name:
        content = "".join(json.dumps(row) + "\n" for row in ROWS)
    elif ".json" in name:
        content = json.dumps(ROWS, indent=1)
    else:
        with open(path, "w", newline="") as f:
            table = csv.DictWriter(f, list(ROWS[0]), delimiter="\t" if ".tsv" in name else ",")
            table.writeheader()
            table.writerows(ROWS)
        content = open(path, newline="").read()
    content = content.encode()
    with open(path, "wb") as f:
        f.write(gzip.compress(content) if name.endswith(".gz") else content)
    rows, said, left = convert.convert(path)
    assert rows == ROWS and said == "rows as they are" and not left


def test_types_of_a_table(tmp_path):
    """ "False" that is true, messages that stay text, an empty cell that is an empty answer."""
    path = tmp_path / "f.csv"
    path.write_text("prompt,completion,label,weight,system\nQ,A,False,1,\nQ,7,TRUE,0,be kind\n")
    assert convert.convert(str(path))[0] == [
        {"prompt": "Q", "completion": "A", "label": False, "weight": 1},
        {"prompt": "Q", "completion": "7", "label": True, "weight": 0, "system": "be kind"},
    ]
    path.write_text('id,messages\n7,"[{""role"": ""user"", ""content"": ""Q""}]"\n')
    assert convert.convert(str(path))[0] == [{"id": "7", "messages": CHAT}]
    path.write_text("prompt,completion\nQ\n")
    with pytest.raises(InputError, match="f.csv: row 2 has more or fewer cells"):
        convert.convert(str(path))


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("f.json", b"[{}, 3]", "f.json: row 2 is int; each must be an object"),
        ("f.json", b'[{"a": 1},\n{]', "f.json:2: not JSON"),
        ("f.json", b"[]", "f.json: the file is empty"),
        ("f.csv", "prompt,completion\nä,b".encode("latin-1"), "f.csv: not UTF-8"),
        ("f.jsonl", b"", "f.jsonl: the file is empty"),
        ("none.csv", None, "none.csv: no such file"),
        ("f.parquet", b"PAR1....", "f.parquet: parquet needs pyarrow|cannot be read"),
        ("f.json.gz", b"[{}]", "f.json.gz: cannot be read"),
    ],
)
def test_files_that_cannot_be_read(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        convert.convert(str(tmp_path / name))


def test_the_command(tmp_path):
    """Words for people among the rows; a layout that is known by its first row alone."""
    rows = [
        {
            "prompt": "Q",
            "response_0": "a",
            "response_1": "b",
            "better_response_id": 0,
            "safer_response_id": 1,
        }
    ]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "tools.convert", *words],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=60,
        )

    path = write(tmp_path / "f.jsonl", rows)
    done = run(path)
    assert json.loads(done.stdout) == {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert done.stderr == f"{path}: 1 pairs of PKU-SafeRLHF by better\n" and done.returncode == 0
    assert json.loads(run("--by", "safer", path).stdout)["chosen"] == "b"
    path = write(tmp_path / "f.jsonl", [*rows, {"prompt": "Q"}])
    done = run(path)
    assert done.stdout == "" and done.returncode == 1
    assert done.stderr == f"error: {path}:2: it lacks 'response_0', which PKU-SafeRLHF has\n"


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.Table.from_pylist(
            [{"messages": CHAT, "label": None}, *[{"messages": None, "label": True}]]
        ),
        str(tmp_path / "f.parquet"),
    )
    assert convert.convert(str(tmp_path / "f.parquet"))[0] == [
        {"messages": CHAT, "label": None},
        {"messages": None, "label": True},
    ]
