"""Files: every shape is read, what is unusable is counted, what is broken is named with its line.
"""
import gzip
import json
import os
import pathlib

import pytest
import torch

from nanorlhf import InputError, batches, files, layouts
from nanorlhf.tokenizer import Tokenizer

REAL = pathlib.Path(__file__).resolve().parent.parent.parent / "shared/data"
HH, GSM8K = REAL / "hh_harmless.jsonl.gz", REAL / "gsm8k.jsonl.gz"
ASKED = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
OTHER = [ASKED[0], {"role": "assistant", "content": "B"}]
PAIRS = [
    {"prompt": "Q", "chosen": "A", "rejected": "B"},
    {"prompt": ASKED[:1], "chosen": "A", "rejected": OTHER[1:]},
    {"prompt": ASKED[:1], "chosen": ASKED[1:], "rejected": OTHER[1:]},
    {"prompt": "Q", "chosen": ASKED, "rejected": OTHER},
    {"chosen": ASKED, "rejected": OTHER},
    {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
]
CONVERSATIONS = [
    {"prompt": "Q", "completion": "A"},
    {"prompt": ASKED[:1], "completion": ASKED[1:]},
    {"messages": ASKED},
    {"question": "Q", "answer": "A"},
    {"instruction": "Q", "input": "", "output": "A"},
    {"instruction": "Q", "input": None, "output": "A"},
    {"instruction": "Q", "output": "A", "source": "a key of no shape"},
]


def write(path, rows):
    """Rows -> a .jsonl, or a .jsonl.gz where the name ends so; returns its path as a string."""
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
@pytest.mark.parametrize("row", CONVERSATIONS + PAIRS, ids=lambda row: json.dumps(row)[:60])
def test_every_shape_is_the_same_conversation(row, name, tmp_path):
    """A role lost or doubled, a prompt that stands in both parts read twice, a mask on the
    question, a .gz read as text."""
    tok = Tokenizer()
    examples, report = files.load_conversations(write(tmp_path / name, [row]), tok, 96)
    Q, A = tok.encode("Q"), tok.encode("A")
    assert examples == [
        ([tok.user, *Q, tok.assistant, *A, tok.end], [False] * (2 + len(Q)) + [True] * (1 + len(A)))
    ]
    assert not report


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.gz"])
@pytest.mark.parametrize("row", PAIRS, ids=lambda row: json.dumps(row)[:60])
def test_every_shape_is_the_same_pair(row, name, tmp_path):
    """Sides exchanged, the prompt in an answer, a string and a list of messages that differ."""
    tok = Tokenizer()
    [pair], report = files.load_pairs(write(tmp_path / name, [row]), tok, 96)
    assert (pair.prompt, pair.chosen, pair.rejected) == (
        tok.prompt("Q"),
        tok.completion("A"),
        tok.completion("B"),
    )
    assert pair.row == row and not report


def test_the_input_of_an_instruction_is_read():
    """Alpaca's second field lost: the task without the text it is about."""
    row = {"instruction": "Translate.", "input": "Hallo", "output": "Hello"}
    asked = layouts.chat(layouts.read_row(row, "f:1"))[0]
    assert (asked["role"], asked["content"]) == ("user", "Translate.\n\nHallo")


@pytest.mark.skipif(not GSM8K.exists(), reason="no gsm8k.jsonl.gz beside the repository")
def test_real_word_problems():
    """Line ends inside an answer, a number that is lost, rows that are dropped: all 3,000 are
    usable, and each answer ends in its number."""
    tok, rows = Tokenizer("sums"), [row for _, row in files.read_jsonl(str(GSM8K))]
    examples, report = files.load_conversations(str(GSM8K), tok, 8192)
    assert len(rows) == len(examples) == 3000 and not report
    for row, (ids, mask) in zip(rows, examples):
        assert [i for i, m in zip(ids, mask) if m] == [*row["answer"].encode(), tok.end]
        assert [i for i, m in zip(ids, mask) if not m] == [
            tok.user,
            *row["question"].encode(),
            tok.assistant,
        ]
    problems, report = files.load_problems(str(GSM8K), tok, 8192)
    assert not report and [p.answer for p in problems] == [
        float(r["answer"].split("#### ")[1].replace(",", "")) for r in rows
    ]


GOOD = b'{"prompt": "a", "completion": "b"}\n'


@pytest.mark.parametrize(
    "content, message",
    [
        (GOOD + b"{oops\n", "f.jsonl:2: not JSON"),
        (GOOD + b'{"prompt": "a", "comp', "f.jsonl:2: not JSON"),
        (b"[1]\n", "f.jsonl: a JSON array, not JSONL.*python -m tools.convert .*f.jsonl > out"),
        (GOOD + b"[1]\n", "f.jsonl:2: a line must be one JSON object, this is list"),
        (GOOD + b"null\n", "f.jsonl:2: a line must be"),
        (b"\xff\n", "f.jsonl:1: not UTF-8"),
        (GOOD + "é\n".encode("latin-1"), "f.jsonl:2: not UTF-8"),
        (gzip.compress(GOOD, mtime=0), "f.jsonl:1: not UTF-8 .*must end in .gz"),
        (b"", "f.jsonl: the file is empty"),
        (b"\n \n\r\n", "f.jsonl: the file is empty"),
    ],
)
def test_broken_files(tmp_path, content, message):
    """A bad line that is skipped, or named without its number, or that ends in a traceback."""
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        list(files.read_jsonl(str(tmp_path / "f.jsonl")))
    assert "\n" not in str(error.value)


def test_blank_lines_hold_nothing_but_count(tmp_path):
    """An error at the empty line that an editor left, at Windows' line ends or its mark at the
    start; numbers of lines that are then off."""
    (tmp_path / "f.jsonl").write_bytes(
        b"\xef\xbb\xbf" + b'{"a": 1}\r\n' + b"\n" + b'{"a": 2}\n' + b"\n  \n"
    )
    path = str(tmp_path / "f.jsonl")
    assert list(files.read_jsonl(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:3", {"a": 2})]


@pytest.mark.parametrize(
    "content, message",
    [
        (gzip.compress(GOOD * 5000)[:-20], "cannot be read past line [1-9]"),
        (GOOD, "cannot be read past line 0 .*gzip"),
        (gzip.compress(b""), "the file is empty"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 30, "cannot be read past line 0"),
    ],
    ids=["cut off", "not gzip", "of nothing", "garbled"],
)
def test_broken_gz(tmp_path, content, message):
    """A download that broke off read as a smaller file; a traceback of gzip or zlib."""
    (tmp_path / "f.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match="f.jsonl.gz: " + message):
        list(files.read_jsonl(str(tmp_path / "f.jsonl.gz")))


@pytest.mark.parametrize("name", ["folder.jsonl", "folder.jsonl.gz"])
def test_a_folder_in_place_of_a_file(tmp_path, name):
    """A traceback of open()."""
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: cannot be read .*irectory"):
        list(files.read_jsonl(str(tmp_path / name)))


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": 5, "completion": "A"}, "'prompt' is 5; it must be a string or a list"),
        ({"question": "Q", "answer": 4}, "'answer' is 4; it must be"),
        ({"instruction": "Q", "input": 5, "output": "A"}, "both must be strings"),
        ({"messages": [{"role": "user", "content": 5}, ASKED[1]]}, "message 1: its content is 5"),
        ({"messages": ["Q", "A"]}, "'messages' is .*; it must be"),
        ({"prompt": "Q"}, "none of the known layouts"),
        ({}, "none of the known layouts"),
        ({"Prompt": "Q", "Completion": "A"}, "none of the known"),
        (
            {"messages": ASKED, "prompt": "Q", "completion": "A"},
            "'messages' and 'completion' are several columns that answer",
        ),
        (
            {"prompt": "Q", "question": "W", "completion": "A"},
            "'prompt' and 'question' are several",
        ),
    ],
)
def test_rows_that_could_mean_anything(row, message, tmp_path):
    """A number written out as text, half of a row ignored, a column of another type taken for what
    it is called: each is one sentence with file and line."""
    path = write(tmp_path / "f.jsonl", [CONVERSATIONS[0]] * 3 + [row])
    with pytest.raises(InputError, match=f"f.jsonl:4: .*{message}"):
        files.load_conversations(path, Tokenizer(), 96)


@pytest.mark.parametrize(
    "row, reason",
    [
        ({"prompt": "Q", "completion": None}, "null in 'completion'"),
        ({"prompt": None, "completion": "A"}, "null in 'prompt'"),
        ({"instruction": None, "output": "A"}, "null in 'instruction'"),
        ({"messages": "Q"}, "'messages' is a text without turns"),
        ({"messages": []}, "'messages' is empty"),
        ({"messages": [ASKED[0], {"role": "assistant", "content": None}]}, "without content"),
        ({"messages": [None, ASKED[1]]}, "a message that is null"),
        ({"messages": [{"role": "tool", "content": "x"}, ASKED[1]]}, "a message of role 'tool'"),
        ({"messages": [{"content": "x"}]}, "a message of role None"),
        ({"messages": [ASKED[0], ASKED[0], ASKED[1]]}, "the same user turn twice in a row"),
        ({"messages": [*ASKED, {"role": "system", "content": "S"}, *ASKED]}, "not the first"),
        ({"messages": [{"role": "user", "content": "Q\nAssistant: A"}, ASKED[1]]}, "role marker"),
        ({"prompt": "", "completion": "A"}, "an empty user turn"),
        ({"prompt": "Q", "completion": " "}, "no answer, or an empty one"),
        ({"messages": ASKED[1:]}, "no user turn"),
        ({"system": "S", "messages": [{"role": "system", "content": "T"}, *ASKED]}, "that differ"),
        ({"prompt": "Q", "completion": OTHER[:1] + ASKED}, "two turns from user"),
        ({"prompt": "W", "completion": ASKED}, "two turns from user"),
        ({"prompt": ASKED, "completion": "more"}, "two turns from assistant"),
        ({"prompt": "Q", "completion": "A", "tools": [{"name": "w"}]}, "it needs tools"),
        ({"prompt": "Q", "completion": "A", "history": [["a"]]}, "a history that is not of"),
    ],
)
def test_rows_that_are_no_chat(row, reason, tmp_path):
    """One of them among thousands ends a run, or is trained on; it is dropped, with its reason and
    where the first of them stands."""
    path = write(tmp_path / "f.jsonl", [CONVERSATIONS[0], row])
    examples, report = files.load_conversations(path, Tokenizer(), 96)
    [(said, n)] = report.items()
    assert len(examples) == n == 1 and reason in said and said.startswith("dropped: ")
    assert report.first[said].startswith(f"{path}:2") and report.rows == 2
    # more than half of a file that is dropped is a layout that is not understood
    path = write(tmp_path / "f.jsonl", [CONVERSATIONS[0], row, row])
    with pytest.raises(InputError, match="more than half of the rows are no examples, of 3: "):
        files.load_conversations(path, Tokenizer(), 96)


def test_a_pair_with_an_answer_beside_it():
    """UltraFeedback's rows: the demonstration is what SFT is to imitate, and the two sides are what
    preferences are learned from."""
    row = {
        "prompt": "Q",
        "messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "M"}],
        "chosen": "C",
        "rejected": "R",
    }
    said = layouts.chat(layouts.read_row(row, "f:1"))
    assert [m["content"] for m in said] == ["Q", "M"] and layouts.imitated(said[1])
    assert [m["content"] for m in layouts.pair(layouts.read_row(row, "f:1"))[1:]] == ["C", "R"]


@pytest.mark.parametrize("row, message", [
    ({"prompt": "Q", "chosen": ["A"], "rejected": ["B"]}, "'chosen' is .*; it must be"),
    ({"prompt": "Q", "chosen": "A", "rejected": 7}, "'rejected' is 7; it must be"),
    ({"prompt": "Q", "chosen": "A"}, "lack 'rejected'"),
    ({"prompt": "Q", "completion": "A"}, "lack 'chosen'"),
    ({"prompt": "Q", "completion": "A", "label": True}, "--loss kto learns from them"),
    ({"chosen": "A", "rejected": "B"}, "without any prompt"),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "label": 1}, "'label' beside chosen"),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "rank": 1}, "'rank' beside chosen"),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "chosen_rank": 2, "rejected_rank": 1},
     "'chosen_rank' must come before")])
def test_rows_that_are_no_pair(row, message, tmp_path):
    """A side that is missing or of another type taken for empty, and dropped without a word."""
    path = write(tmp_path / "f.jsonl", [PAIRS[0]] * 3 + [row])
    with pytest.raises(InputError, match=f"f.jsonl:4: .*{message}"):
        files.load_pairs(path, Tokenizer(), 96)


@pytest.mark.parametrize("row, reason", [
    ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "both answers are the same"),
    ({"prompt": "Q", "chosen": "A", "rejected": " A\n"}, "both answers are the same"),
    ({"prompt": ASKED[:1], "chosen": "A", "rejected": ASKED}, "both answers are the same"),
    ({"prompt": "Q", "chosen": "", "rejected": "B"}, "no answer, or an empty one"),
    ({"prompt": "Q", "chosen": "A", "rejected": " \n"}, "no answer, or an empty one"),
    ({"chosen": ASKED[:1], "rejected": ASKED[:1]}, "no answer, or an empty one"),
    ({"chosen": None, "rejected": None}, "null in 'chosen' and 'rejected'"),
    ({"prompt": "Q", "chosen": [{"role": "assistant", "content": None}], "rejected": "B"},
     "without content"),
    ({"chosen": ASKED, "rejected": ASKED + OTHER}, "the two sides have different prompts"),
    ({"chosen": ASKED, "rejected": "Well.\n\nHuman: Q"}, "a role marker"),
    ({"chosen": ASKED, "rejected": "Well."}, "no user turn")])
def test_pairs_of_no_use(row, reason, tmp_path):
    """An empty answer trains "end at once"; a pair that does not differ has a loss of ln 2 and
    teaches nothing."""
    path = write(tmp_path / "p.jsonl", [PAIRS[0], row])
    pairs, report = files.load_pairs(path, Tokenizer(), 96)
    assert len(pairs) == 1 and [f"dropped: {reason}" in said or reason in said for said in report]
    [(said, n)] = report.items()
    assert reason in said and n == 1
    path = write(tmp_path / "p.jsonl", [row])
    with pytest.raises(InputError, match=f"no example is left, of 1: .*{said}"):
        files.load_pairs(path, Tokenizer(), 96)


@pytest.mark.parametrize("block, kept, bits", [
    (96, 3, "0000 111 0000 111 0000 1111"), (22, 3, "0000 111 0000 111 0000 1111"),
    (21, 2, "0000 111 0000 1111"), (15, 2, "0000 111 0000 1111"),
    (14, 1, "0000 1111"), (8, 1, "0000 1111")])
def test_both_masks_of_a_chat_of_three_turns(block, kept, bits, tmp_path):
    """By hand: earlier answers let in by the mask of the last, a question or a role by either, a
    turn cut into, an answer whose question is gone, an end token forgotten."""
    # a byte is a token here
    tok, bits = Tokenizer("sums"), [bit == "1" for bit in bits.replace(" ", "")]
    u, a, end = tok.user, tok.assistant, tok.end
    ids = [u, *b"Hi", a, *b"Yo", end, u, *b"1?", a, *b"No", end, u, *b"2?", a, *b"Ok!", end][
        -len(bits):
    ]
    said = zip(["user", "assistant"] * 3, ["Hi", "Yo", "1?", "No", "2?", "Ok!"])
    path = write(
        tmp_path / "f.jsonl",
        [{"messages": [{"role": role, "content": text} for role, text in said]}],
    )
    cut = {"truncated: the oldest turns left out": 1} if kept < 3 else {}
    assert files.load_conversations(path, tok, block) == ([(ids, bits)], cut)
    assert files.load_conversations(path, tok, block, last_only=True) == (
        [(ids, [False] * (len(ids) - 4) + [True] * 4)],
        cut,
    )


@pytest.mark.parametrize("block, why", [(7, "the last user turn does not fit"),
                                        (5, "the last user turn does not fit"),
                                        (4, "the answer alone is longer than the block")])
def test_an_answer_never_stands_without_its_question(block, why, tmp_path):
    """A block of 7 holds the answer and a part of what was asked: different questions would become
    one prompt, and the answer would be trained behind its role alone."""
    path = write(tmp_path / "f.jsonl", [{"prompt": "2?", "completion": "Ok!"}])
    for last_only in (False, True):
        with pytest.raises(InputError, match=rf"{why} \(1, first at "):
            files.load_conversations(path, Tokenizer("sums"), block, last_only)
    path = write(tmp_path / "p.jsonl", [{"prompt": "2?", "chosen": "Ok!", "rejected": "No"}])
    with pytest.raises(InputError, match="the last user turn does not fit|an answer alone"):
        files.load_pairs(path, Tokenizer("sums"), block)


def test_the_system_message_stays(tmp_path):
    """Cut off with the oldest turns, what says how to answer is gone."""
    tok = Tokenizer("sums")
    chat = [{"role": "system", "content": "S"}, *ASKED, {"role": "user", "content": "W"}, OTHER[1]]
    path = write(tmp_path / "f.jsonl", [{"messages": chat}])
    [(ids, _)], report = files.load_conversations(path, tok, 9)
    assert tok.decode(ids) == "<|system|>S<|user|>W<|assistant|>B<|end|>" and len(report) == 1
    with pytest.raises(InputError, match="the last user turn does not fit"):
        files.load_conversations(path, tok, 6)
    [prompt], _ = files.load_prompts(path, tok, 5)
    assert tok.decode(prompt) == "<|system|>S<|user|>W<|assistant|>"


@pytest.mark.skipif(not HH.exists(), reason="no hh_harmless.jsonl.gz beside the repository")
def test_real_transcripts():
    """A turn that is split or lost: with the mask of the last answer, what is trained on is what
    stands behind the last "Assistant:"."""
    tok = Tokenizer("sums")
    last = [
        row["chosen"].rsplit("\n\nAssistant:", 1)[1].strip() for _, row in files.read_jsonl(str(HH))
    ]
    examples, report = files.load_conversations(str(HH), tok, 10 ** 5, last_only=True)
    assert report["dropped: no answer, or an empty one"] == last.count("") == 4
    # of 26 an answer begins with "Human:", or has "Assistant:" behind a single line end: whose
    # words these are, nobody knows
    marked = report["dropped: a role marker at the head of a line inside a message"]
    assert marked == 26 and sum(report.values()) == 30
    said = iter(text for text in last if text)
    for ids, mask in examples:
        answer = [i for i, m in zip(ids, mask) if m]
        # in the order of the file, a dropped one left out here and there
        assert any([*text.encode(), tok.end] == answer for text in said)
    chats, _ = files.load_conversations(str(HH), tok, 10 ** 5)
    assert [ids for ids, _ in chats] == [ids for ids, _ in examples]
    # every answer begins behind its role and is trained on with its end: as many of one as of the
    # other
    for ids, mask in chats:
        begins = [t for t in range(1, len(ids)) if mask[t] and not mask[t - 1]]
        assert [t - 1 for t in begins] == [t for t, i in enumerate(ids) if i == tok.assistant]
        assert (
            sum(i == tok.end and m for i, m in zip(ids, mask)) == len(begins) == ids.count(tok.end)
        )


@pytest.mark.skipif(
    not HH.exists() or "TIKTOKEN_CACHE_DIR" not in os.environ,
    reason="needs the real data and tiktoken's gpt2 files",
)
def test_real_pairs():
    pairs, report = files.load_pairs(str(HH), Tokenizer("gpt2"), 4096)
    assert len(pairs) + sum(n for why, n in report.items() if why.startswith("dropped")) == 1800
    assert report["dropped: the two sides have different prompts"] in (1, 2)
    assert report["dropped: a role marker at the head of a line inside a message"] == 33
    assert report["dropped: no answer, or an empty one"] == 4


def test_an_epoch_deals_every_item_once_in_batches_of_like_length():
    """A pool of 20 batches that loses its remainder; the same order each time round; batches that
    are drawn blindly."""
    items = [(i * 7919) % 101 for i in range(130)]              # an item is its own length
    dealer = batches.epochs(items, 4, torch.Generator().manual_seed(0), lambda item: item)
    # a pool of 80, then 50 = 12 batches of 4 and a 2
    rounds = [[next(dealer) for _ in range(20 + 13)] for _ in range(2)]
    for dealt in rounds:
        assert sorted(sum(dealt, [])) == sorted(items)
        assert sorted(map(len, dealt)) == [2] + [4] * 32
        assert sum(max(b) - min(b) for b in dealt) / len(dealt) < 10
    assert rounds[0] != rounds[1]


def test_map_answers_keeps_the_order_given():
    """Sorted by length on the way in and not put back on the way out: every score at another
    answer."""
    prompts, responses = (
        [[1], [2, 2, 2], [3], [4, 4], [5]],
        [[9, 9, 9], [8], [7], [6, 6, 6, 6], [5, 5]],
    )
    widths = []

    def first_id_and_length(ids, mask):
        widths.append(ids.shape[1])
        return ids[:, 0] * 10 + mask.sum(1)

    got = batches.map_answers(
        first_id_and_length, prompts, responses, 0, torch.device("cpu"), batch_size=2
    )
    assert got.tolist() == [13, 21, 31, 44, 52]
    assert widths == [3, 4, 6]          # short with short: in the order given they would be 4, 6, 3


def test_prompts_of_a_file(tmp_path):
    """An answer left in the prompt, the same prompt weighted by its rows, the wrong end cut off, a
    prompt that answers itself."""
    rows = [
        *CONVERSATIONS,
        *PAIRS,
        {"prompt": "Q"},
        {"prompt": "W " * 50},
        {"messages": ASKED + OTHER},
        {"messages": ASKED[1:]},
    ]
    tok = Tokenizer()
    prompts, report = files.load_prompts(write(tmp_path / "p.jsonl.gz", rows), tok, 20)
    assert prompts == [tok.prompt("Q"), tok.prompt(ASKED + OTHER[:1])]
    assert report == {
        "dropped: the same prompt again": len(CONVERSATIONS) + len(PAIRS),
        "dropped: the last user turn does not fit": 1,
        "dropped: no user turn": 1,
    }
    with pytest.raises(InputError, match="no example is left, of 1: dropped: no user turn"):
        files.load_prompts(write(tmp_path / "p.jsonl", [{"messages": ASKED[1:]}]), tok, 20)
    with pytest.raises(InputError, match="lower --max_new_tokens"):
        files.load_prompts(write(tmp_path / "p.jsonl", rows), tok, 0)
    with pytest.raises(InputError, match="p.jsonl:1: 'prompt' is 7; it must be a string or a list"):
        files.load_prompts(write(tmp_path / "p.jsonl", [{"prompt": 7}]), tok, 20)


# ---- numbers: one grammar for labels and answers ----

WHOLE = [
    *(
        (text, 18)
        for text in (
            "18",
            "18.",
            "$18",
            "18.00",
            "**18**",
            "= 18",
            "18 apples",
            "18%",
            " 18 ",
            "\\boxed{18}",
            "$18$",
            "\\$18",
            "`18`",
            "18 km",
            "18)",
            "+18",
            "__18__",
            "\\(18\\)",
            "\\text{18}",
            "18 \\text{ apples}",
            "18\\%",
            ": 18",
            "€18",
        )
    ),
    ("1,800", 1800),
    ("12,345,678.5", 12345678.5),
    ("-5", -5),
    ("$-5", -5),
    ("-$5", -5),
    ("−5", -5),
    ("3/4", 0.75),
    ("1e6", 10**6),
    ("2 1/2", 2.5),
    ("18/2", 9),
    ("18e5", 1800000),
    ("\\frac{3}{4}", 0.75),
    ("-1/2", -0.5),
    (".5", 0.5),
    ("0", 0),
    ("007", 7),
    ("1.5e3", 1500),
    ("2e-1", 0.2),
    ("3 / 4", 0.75),
    ("\\dfrac{1}{8}", 0.125),
]
NONE = [
    "12:30",
    "18 or 19 or 20",
    "18-3",
    "10^3",
    "",
    "apples",
    "18 and 3",
    "1,80",
    "18 million",
    "2 dozen",
    "x18",
    "3/0",
    "1 1/0",
    "18:",
    "5-",
    "9" * 30,
    "٣",
    "18 19",
    "1e999",
    "18/x2",
    "-",
    "$",
    "2024-11-05",
    "1.2.3",
]


@pytest.mark.parametrize("text, number", WHOLE)
def test_a_number_is_read_whole(text, number):
    """Bold, boxed and "=" that earn nothing; 3 for 3/4, 1 for 1e6, 2 for 2 1/2, 18 for 18/2."""
    assert files.read_number(text) == pytest.approx(number)
    for said in (
        f"So it is.\n#### {text}",
        f"####{text}\nThat was all.",
        f"#### {text}\n\nSee also #1 and C# 7.",
    ):
        assert files.final_number(said) == pytest.approx(number), said
    assert files.grade(files.Problem("?", number), f"Well.\n#### {text}")["correct"] == 1


@pytest.mark.parametrize("text", NONE)
def test_what_goes_on_behind_a_number_makes_it_none(text):
    """12 for half past twelve, 18 for "18 or 19 or 20": whoever lists numbers is paid for one."""
    assert files.read_number(text) is None and files.final_number(f"#### {text}") is None


@pytest.mark.parametrize(
    "text, number",
    [
        ("#### 17 no\n#### 18", 18),
        ("\\boxed{17}, so \\boxed{18}", 18),
        ("#### 17\nso \\boxed{18}", 18),
        ("\\boxed{17}\n#### 18", 18),
        ("\\boxed{\\frac{3}{4}}", 0.75),
        ("\\boxed{18", None),
        ("C# 18", None),
        ("F#18", None),
        ("#18", 18),
        ("# 18\n", 18),
        ("#17 #18", 18),
        ("18", None),
        ("", None),
        ("#### ", None),
        ("####", None),
        ("##### 18", 18),
        ("#### 18\n# 3", 18),
        ("### 18", 18),
        ("#x18", None),
        ("<|end|>#1", 1),
    ],
)
def test_where_the_number_stands(text, number):
    """A later # in a remark that hides it; C# 18 that is paid; an earlier box for the last."""
    assert files.final_number(text) == number


def test_problems_of_all_kinds_of_answers(tmp_path):
    """A row whose whole answer is 4, or the JSON number 4, dropped or refused."""
    answers = ["#### 4", "4", 4, 4.0, "Four.", "it is 4", "\\boxed{4}", True, None]
    path = write(tmp_path / "p.jsonl", [{"question": "Q", "answer": a} for a in answers[:7]])
    problems, report = files.load_problems(path, Tokenizer(), 64)
    assert [p.answer for p in problems] == [4] * 5 and sum(report.values()) == 2
    for wrong in answers[7:]:
        path = write(tmp_path / "p.jsonl", [{"question": "Q", "answer": wrong}])
        with pytest.raises(InputError, match="p.jsonl:1: 'answer' is True|null in 'answer'"):
            files.load_problems(path, Tokenizer(), 64)
