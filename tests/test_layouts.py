"""Rows of anybody's file: the same chat in every layout is the same ids and mask; what would be
trained on wrongly is dropped and counted, or refused with its line."""

import itertools
import json
import pathlib
import random
import re
from collections import Counter

import pytest
from test_data import write

from nanorlhf import InputError, batches, files, layouts
from nanorlhf.tokenizer import Tokenizer

TOK = Tokenizer("sums")  # a byte is a token
BLOCK = 4096
WORDS = 'why tea ist zwölf 37 3/4 C# "so" <b> user: a:b [1] Human being ## 日本 — I\'m'.split()


def text(rng):
    """Some words, over several lines now and then, with whatever people write."""
    lines = [
        " ".join(rng.choices(WORDS, k=rng.randint(4, 7))) for _ in range(rng.choice((1, 1, 3)))
    ]
    return rng.choice(("\n", "\n\n", "\n  ")).join("So " + line for line in lines)


def chat(rng, system=None):
    """Messages, ending in an answer; no turn like another."""
    turns, said = rng.randint(1, 3), set()
    while len(said) < 2 * turns + 2:
        said.add(text(rng))
    said = rng.sample(sorted(said), len(said))
    messages = [{"role": "system", "content": said.pop()}] if system else []
    for _ in range(turns):
        messages += [
            {"role": "user", "content": said.pop()},
            {"role": "assistant", "content": said.pop()},
        ]
    return messages, said.pop()


def shaped(messages, names=("role", "content"), roles=None, **more):
    roles = roles or {}
    return [
        {names[0]: roles.get(m["role"], m["role"]), names[1]: m["content"], **more}
        for m in messages
    ]


def sharegpt(messages):
    return shaped(messages, ("from", "value"), {"user": "human", "assistant": "gpt"})


def transcript(messages, between="\n\n"):
    names = {"system": "System", "user": "Human", "assistant": "Assistant"}
    return "".join(f"{between}{names[m['role']]}: {m['content']}" for m in messages)


def unbroken(messages):
    """A transcript has its turns behind empty lines: an empty line in a message may be none."""
    return not any("\n\n" in m["content"] for m in messages)


def asked(messages):
    """What stands before the last answer -> every way to write it: {name: columns}"""
    *before, last = messages
    system = [m for m in before if m["role"] == "system"]
    turns = before[len(system) :]
    columns = {"system": system[0]["content"]} if system else {}
    ways = {
        "messages": {"prompt": before},
        "sharegpt": {"prompt": sharegpt(before)},
        "system column": {**columns, "prompt": turns},
        "developer": {"prompt": shaped(before, roles={"system": "developer"})},
        "parts": {
            "prompt": [
                {"role": m["role"], "content": [{"type": "text", "text": m["content"]}]}
                for m in before
            ]
        },
        "names": {"input": shaped(before, name="Ann")},
    }
    said = [m["content"] for m in turns]
    history = [list(two) for two in zip(said[0:-1:2], said[1::2])]
    ways["history of pairs"] = {**columns, "history": history, "question": said[-1]}
    ways["history of messages"] = {"history": before[:-1], "query": said[-1]}
    ways["history, system_prompt"] = {
        **({"system_prompt": system[0]["content"]} if system else {}),
        "history": sharegpt(turns[:-1]),
        "instruction": said[-1],
    }
    if len(turns) == 1:
        for name in layouts.ASKS:
            ways[name] = {**columns, name: said[0]}
        if said[0].count("\n\n") == 1:
            head, tail = said[0].split("\n\n")
            ways["alpaca"] = {**columns, "instruction": head, "input": tail}
    if unbroken(before):
        ways["transcript"] = {"prompt": transcript(before) + "\n\nAssistant:"}
        ways["transcript in a message"] = {
            **columns,
            "prompt": [{"role": "user", "content": transcript(turns)}],
        }
    return ways


def answered(messages):
    """Rows that hold this chat, its last answer alone to be imitated: {name: row}"""
    rows, last = {}, messages[-1]
    for how, columns in asked(messages).items():
        for name in layouts.ANSWERS:
            rows[f"{how}, {name}"] = {**columns, name: last["content"]}
        rows[f"{how}, a message"] = {**columns, "completion": [last]}
        rows[f"{how}, the whole chat"] = {**columns, "completion": messages}
        rows[f"{how}, its last turns"] = {**columns, "completion": messages[-2:]}
        rows[f"{how}, beside messages"] = {**columns, "messages": messages}
        if unbroken(messages):
            rows[f"{how}, a transcript"] = {**columns, "response": transcript(messages)}
    return rows


def whole(messages):
    """Rows that hold this chat, every answer of which is to be imitated: {name: row}"""
    rows = {
        "messages": {"messages": messages},
        "sharegpt": {"conversations": sharegpt(messages)},
        "weights": {"messages": shaped(messages, weight=1)},
        "a key more": {"conversation": shaped(messages, name="Ann"), "id": 7},
    }
    if messages[0]["role"] == "system":
        rows["system"] = {"system": messages[0]["content"], "messages": messages[1:]}
        rows["system twice"] = {"system": messages[0]["content"], "messages": messages}
    if unbroken(messages):
        rows["text"] = {"text": transcript(messages)}
        rows["text beside"] = {"text": "<s>rendered</s>", "messages": messages}
    return rows


def compared(messages, other):
    """Rows with this chat's last answer as the chosen one: {name: row}"""
    rows, (*before, last) = {}, messages
    worse = {"role": "assistant", "content": other}
    for how, columns in asked(messages).items():
        rows[f"{how}, texts"] = {**columns, "chosen": last["content"], "rejected": other}
        rows[f"{how}, messages"] = {**columns, "chosen": [last], "rejected": [worse]}
        rows[f"{how}, dicts"] = {**columns, "chosen": last, "rejected": sharegpt([worse])[0]}
        rows[f"{how}, whole"] = {**columns, "chosen": messages, "rejected": [*before, worse]}
        rows[f"{how}, one whole"] = {**columns, "chosen": messages, "rejected": other}
        if unbroken([*messages, worse]):
            rows[f"{how}, transcripts"] = {
                **columns,
                "chosen": transcript(messages),
                "rejected": transcript([*before, worse]),
            }
    rows["no prompt"] = {"chosen": messages, "rejected": [*before, worse]}
    rows["conversations"] = {
        "conversations": sharegpt(before),
        "chosen": sharegpt([last])[0],
        "rejected": sharegpt([worse])[0],
    }
    if unbroken([*messages, worse]):
        rows["HH"] = {"chosen": transcript(messages), "rejected": transcript([*before, worse])}
    return rows


def dressed(row, rng):
    """The same row as a table, or Windows, writes it: columns in any order."""
    row = dict(row)
    if rng.random() < 0.5:
        row |= {
            name: None
            for name in rng.sample(
                ["history", "tools", "system", "label", "input", "weight", "split", "messages"], 3
            )
            if name not in row
        }
    if rng.random() < 0.5:
        row |= {"split": "train"}
    for key in ("messages", "conversations", "prompt"):
        if isinstance(row.get(key), list) and rng.random() < 0.5:
            row[key] = [{**m, "tool_calls": None, "weight": m.get("weight")} for m in row[key]]
    items = list(row.items())
    rng.shuffle(items)
    text = json.dumps(dict(items))
    return json.loads(text.replace("\\n", "\\r\\n") if rng.random() < 0.5 else text)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_chat_in_every_layout(seed, tmp_path):
    """A turn lost, doubled or given to another role; an earlier answer that is imitated where it
    stood in the prompt; a \\r or a null in the ids; a layout whose prompts are others for RL."""
    rng = random.Random(seed)
    messages, other = chat(rng, system=seed % 2)
    ids, every = TOK.chat(messages)
    prompt, said = TOK.prompt(messages[:-1]), TOK.completion(messages[-1]["content"])
    last = [False] * len(prompt) + [True] * len(said)
    for rows, mask in ((answered(messages), last), (whole(messages), every)):
        assert len(rows) > 3
        for name, row in rows.items():
            path = write(tmp_path / "f.jsonl", [dressed(row, rng)])
            assert files.load_conversations(path, TOK, BLOCK) == ([(ids, mask)], {}), name
            assert files.load_conversations(path, TOK, BLOCK, True) == ([(ids, last)], {}), name
            assert files.load_prompts(path, TOK, BLOCK) == ([prompt], {}), name
    for name, row in compared(messages, other).items():
        path = write(tmp_path / "f.jsonl", [dressed(row, rng)])
        [pair], report = files.load_pairs(path, TOK, BLOCK)
        assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, said, TOK.completion(other)), (
            name
        )
        assert not report and files.load_prompts(path, TOK, BLOCK) == ([prompt], {}), name
        [(chosen, _)], _ = files.load_conversations(path, TOK, BLOCK)
        assert chosen == ids, name
    for name, row in answered(messages).items():
        for label in (True, False):
            path = write(tmp_path / "f.jsonl", [dressed({**row, "label": label}, rng)])
            [thumb], _ = files.load_pairs(path, TOK, BLOCK, thumbs=True)
            assert (thumb.prompt, thumb.chosen, thumb.rejected) == (
                prompt,
                said if label else [],
                [] if label else said,
            ), name


def test_any_order_of_rows_in_any_layout(tmp_path):
    """A split by neighbours, or by ids that a layout changes: a held-out chat is trained on in
    another layout, or longer, or by another script."""
    rng = random.Random(5)
    chats = [chat(rng, system=i % 2) for i in range(20)]
    rows = [
        row
        for messages, other in chats
        for row in (
            rng.choice(list(answered(messages).values())),
            rng.choice(list(whole(messages).values())),
            *rng.sample(list(compared(messages, other).values()), 2),
            {
                "messages": [
                    *messages,
                    {"role": "user", "content": "So and then more of it?"},
                    {"role": "assistant", "content": "So yes."},
                ]
            },
        )
    ]
    pairs = [row for row in rows if "chosen" in row]

    def first_turn(ids):
        said = ids[: ids.index(TOK.assistant)]
        return tuple(said)

    def held_out(rows, load, turn_of, share=0.2):
        items, report = load(write(tmp_path / "f.jsonl", rows))
        train, out = files.split(items, report, share, seed=3)
        train, out = Counter(map(turn_of, train)), Counter(map(turn_of, out))
        assert not set(train) & set(out) and train.total() + out.total() == len(items)
        return out

    def sft(path):
        return files.load_conversations(path, TOK, BLOCK)

    def rm(path):
        return files.load_pairs(path, TOK, BLOCK)

    def rl(path):
        return files.load_prompts(path, TOK, BLOCK)

    mine = held_out(rows, sft, lambda item: first_turn(item[0]))
    assert 0 < len(mine) < 20 and all(n == 5 for n in mine.values())
    theirs = held_out(pairs, rm, lambda pair: first_turn(pair.prompt))
    asked = held_out(rows, rl, first_turn)
    assert set(mine) == set(theirs) == set(asked)
    fewer = held_out(rows, sft, lambda item: first_turn(item[0]), share=0.1)
    assert set(fewer) < set(mine)
    for _ in range(3):
        rng.shuffle(rows)
        assert held_out(rows, sft, lambda item: first_turn(item[0])) == mine


# ---- groups and splits ----


def test_pairs_of_one_prompt_are_one_group_in_any_order(tmp_path):
    """Neighbours alone: 9 groups for 4 prompts, and an answer that stands in three pairs is paid
    for three times."""
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"good {j}", "rejected": f"bad {k}"}
        for i in range(6)
        for j in range(2)
        for k in range(2)
    ]
    shuffled = random.Random(0).sample(rows, len(rows))
    groups = []
    for some in (rows, shuffled):
        pairs, _ = files.load_pairs(write(tmp_path / "p.jsonl", some), TOK, BLOCK)
        groups.append(
            {
                frozenset((tuple(p.prompt), tuple(p.chosen), tuple(p.rejected)) for p in g)
                for g in batches.by_prompt(pairs)
            }
        )
        assert [len(g) for g in batches.by_prompt(pairs)] == [4] * 6
    assert groups[0] == groups[1]


def test_different_prompts_stay_different_when_they_are_cut(tmp_path):
    """Two conversations whose last turns are alike become one prompt once the rest is cut off."""
    rows = [
        {
            "prompt": [
                {"role": "user", "content": f"{c}" * 40},
                {"role": "assistant", "content": "Well."},
                {"role": "user", "content": "And?"},
            ],
            "chosen": "Yes",
            "rejected": "No",
        }
        for c in "ab"
    ]
    pairs, report = files.load_pairs(write(tmp_path / "p.jsonl", rows), TOK, 16)
    assert pairs[0].prompt == pairs[1].prompt and list(report.values()) == [2]
    assert [len(g) for g in batches.by_prompt(pairs)] == [1, 1]


CHATS = [{"prompt": f"Question {i}?", "completion": f"answer {i}"} for i in range(40)]


def split_of(rows, tmp_path, share=0.1, seed=0):
    items, report = files.load_conversations(write(tmp_path / "f.jsonl", rows), TOK, BLOCK)
    return [
        [TOK.decode(ids) for ids, _ in part] for part in files.split(items, report, share, seed)
    ]


def test_shares(tmp_path):
    """A share of 0 that keeps one, one that keeps none or all, the same rows for every seed."""
    train, held = split_of(CHATS, tmp_path, 0)
    assert len(train) == 40 and not held
    assert len(split_of(CHATS, tmp_path, 1e-9)[1]) == 1
    train, held = split_of(CHATS, tmp_path, 0.999999)
    assert len(train) == 1 and len(held) == 39
    shares = [len(split_of(CHATS, tmp_path, 0.3, seed)[1]) / 40 for seed in range(20)]
    assert abs(sum(shares) / 20 - 0.3) < 0.06 and len(set(shares)) > 3
    assert split_of(CHATS[:1], tmp_path, 0)[0]
    with pytest.raises(InputError, match="only one conversation.*--held_out 0 trains on all"):
        split_of(CHATS[:1] * 3, tmp_path)
    for share in (1, -0.1):
        with pytest.raises(InputError, match=f"--held_out {share}: a share"):
            split_of(CHATS, tmp_path, share)


@pytest.mark.parametrize(
    "mark",
    [
        "test",
        "validation",
        "valid",
        "val",
        "dev",
        "eval",
        "held-out",
        "test_sft",
        "TEST",
        "validation_matched",
        "eval_prefs",
        "holdout",
    ],
)
def test_marks_win(mark, tmp_path):
    """SFT that trains on rows of "test"; a mark that one script knows and another does not."""
    rows = [{**row, "split": "train" if i < 30 else mark} for i, row in enumerate(CHATS)]
    for share in (0, 0.5):
        train, held = split_of(rows, tmp_path, share)
        assert len(train) == 30 and len(held) == 10 and "answer 39" in held[-1]
    pairs = [
        {"prompt": r["prompt"], "chosen": "a", "rejected": "b", "split": r["split"]} for r in rows
    ]
    items, report = files.load_pairs(write(tmp_path / "f.jsonl", pairs), TOK, BLOCK)
    assert [len(part) for part in files.split(items, report, 0.5, 0)] == [30, 10]


@pytest.mark.parametrize("mark", ["train", "train_sft", "train_prefs", "training", "Train"])
def test_nothing_marked_as_held_out(mark, tmp_path):
    """A file of "train" alone refused, or all of it trained on."""
    assert split_of([{**row, "split": mark} for row in CHATS], tmp_path) == split_of(
        CHATS, tmp_path
    )


def test_a_conversation_of_which_one_row_is_held_out(tmp_path):
    """The beginning of a held-out dialogue is trained on, or its continuation."""
    tree = [
        {
            "messages": [
                m
                for j in range(n + 1)
                for m in (
                    {"role": "user", "content": f"Part {j} of tale {i}?"},
                    {"role": "assistant", "content": f"so {i} {j}"},
                )
            ],
            "split": "test" if (i, n) == (3, 1) else "train",
        }
        for i in range(6)
        for n in range(3)
    ]
    train, held = split_of(tree, tmp_path)
    assert len(held) == 3 and all("tale 3" in text for text in held)
    for row in tree:
        del row["split"]
    train, held = split_of(tree, tmp_path)
    assert held and not {t.split("?")[0] for t in train} & {t.split("?")[0] for t in held}


def test_a_file_of_held_out_rows(tmp_path):
    with pytest.raises(InputError, match="all 40 examples are held out by their 'split'"):
        split_of([{**row, "split": "test"} for row in CHATS], tmp_path)
    with pytest.raises(InputError, match="f.jsonl:1: 'split' is 'tset'; it must be train, test"):
        split_of([{**CHATS[0], "split": "tset"}], tmp_path)


# ---- columns that change the meaning ----

PAIR = {"prompt": "Q", "chosen": "A", "rejected": "B"}
CHAT = {"prompt": "Q", "completion": "A"}


@pytest.mark.parametrize(
    "load, row, message",
    [
        (load, {**row, name: value}, f"{name!r} is .*; it must be")
        for load, row in (
            ("load_pairs", PAIR),
            ("load_conversations", CHAT),
            ("load_prompts", CHAT),
        )
        for name, value in [
            ("label", "true"),
            ("label", 2),
            ("label", 0.5),
            ("weight", 0.5),
            ("weight", "0"),
            ("weight", -1),
            ("strength", -1),
            ("strength", "2"),
            ("strength", True),
            ("strength", [1]),
            ("margin", "big"),
            ("margin", -0.1),
            ("margin", 1e999),
            ("score_chosen", "9"),
            ("score_rejected", True),
            ("chosen_score", "9"),
            ("chosen_rank", -1),
            ("chosen_rank", 1.5),
            ("rejected_rank", "1"),
            ("system", 5),
            ("system", ["be kind"]),
            ("history", "before"),
            ("history", 3),
            ("tools", 7),
            ("split", 3),
            ("split", "maybe"),
            ("split", True),
        ]
        if name != "chosen_score"
    ],
)
def test_a_known_column_of_another_type(load, row, message, tmp_path):
    """Trained on, or a traceback once training has begun."""
    good = {key: row[key] for key in (PAIR if "chosen" in row else CHAT)}
    path = write(tmp_path / "f.jsonl", [good, good, row])
    with pytest.raises(InputError, match=f"f.jsonl:3: {message}"):
        getattr(files, load)(path, TOK, BLOCK)


@pytest.mark.parametrize(
    "load, row, reason",
    [
        ("load_conversations", {**CHAT, "weight": 0}, "weight 0"),
        ("load_conversations", {**CHAT, "label": False}, "label false, not to be imitated"),
        ("load_conversations", {**CHAT, "label": 0}, "label false, not to be imitated"),
        ("load_conversations", {**CHAT, "tools": "[{}]"}, "it needs tools"),
        ("load_conversations", {**PAIR, "strength": 0}, "strength 0, neither answer is better"),
        ("load_pairs", {**PAIR, "strength": 0}, "strength 0, neither answer is better"),
        ("load_pairs", {**PAIR, "strength": 0.0}, "strength 0, neither answer is better"),
        ("load_pairs", {**PAIR, "weight": 0}, "weight 0"),
        (
            "load_pairs",
            {**PAIR, "score_chosen": 3, "score_rejected": 3},
            "its scores do not prefer",
        ),
        (
            "load_pairs",
            {**PAIR, "chosen_rating": 1, "rejected_rating": 3},
            "its scores do not prefer",
        ),
        ("load_pairs", {**PAIR, "functions": [{"name": "weather"}]}, "it needs tools"),
        ("load_prompts", {**CHAT, "tools": [{"name": "weather"}]}, "it needs tools"),
    ],
)
def test_rows_that_say_that_they_are_no_example(load, row, reason, tmp_path):
    """Imitated, or preferred, against the word of its own row. Any number of them is meant."""
    good = PAIR if "chosen" in row else CHAT
    tools = "tools" in reason  # a row that is broken: more than half are refused
    rows = [good, row] if tools else [good] + [row] * 3
    items, report = getattr(files, load)(write(tmp_path / "f.jsonl", rows), TOK, BLOCK)
    [(said, n)] = report.items()
    assert len(items) == 1 and n == len(rows) - 1 and said.startswith(f"dropped: {reason}")


def test_what_no_script_makes_anything_of_is_named_once(tmp_path):
    """A column that would have changed the meaning, ignored without a word."""
    row = {
        **PAIR,
        "strength": 2,
        "margin": 0.5,
        "source": "web",
        "rejected_score": 1,
        "prompt": [{"role": "user", "content": "Q", "name": "Ann", "date": None}],
    }
    path = write(tmp_path / "f.jsonl", [row, row])
    _, report = files.load_pairs(path, TOK, BLOCK)
    assert report.unused == {"strength", "margin", "source", "score_rejected", "prompt.name"}
    _, report = files.load_pairs(path, TOK, BLOCK, uses=("strength", "margin"))
    assert report.unused == {"source", "score_rejected", "prompt.name"}
    row |= {"score_rejected": 1, "score_chosen": 2.5}
    del row["rejected_score"]
    _, report = files.load_pairs(write(tmp_path / "f.jsonl", [row]), TOK, BLOCK)
    assert not {"score_rejected", "score_chosen"} & report.unused
    _, report = files.load_conversations(
        write(tmp_path / "f.jsonl", [{**CHAT, "split": "train", "system": "S"}]), TOK, BLOCK
    )
    assert not report.unused


@pytest.mark.parametrize(
    "row, message",
    [
        ({**CHAT, "rank": 1}, "'rank' says which of several answers"),
        (
            {**CHAT, "system": "a", "system_prompt": "b"},
            "'system_prompt' and 'system' mean the same",
        ),
        ({"prompt": "Q", "completion": "A", "output": "B"}, ".* are several columns that answer"),
        ({"prompt": "Q", "completions": ["a"], "labels": [True]}, ".*--supervision process learns"),
        (
            {"utterances": ["a", "b"]},
            r"its keys \['utterances'\] are none of the known layouts: a whole",
        ),
    ],
)
def test_rows_that_are_refused(row, message, tmp_path):
    with pytest.raises(InputError, match=f"f.jsonl:2: {message}"):
        files.load_conversations(write(tmp_path / "f.jsonl", [CHAT, row]), TOK, BLOCK)


# ---- weights of messages, empty answers, what stands in the prompt ----


def masked(rows, tmp_path, **how):
    examples, report = files.load_conversations(
        write(tmp_path / "f.jsonl", rows), TOK, BLOCK, **how
    )
    return [
        TOK.decode([i for i, m in zip(*example, strict=True) if m]) for example in examples
    ], report


def turns(*said, **more):
    return [{"role": ("user", "assistant")[i % 2], "content": s} for i, s in enumerate(said)]


@pytest.mark.parametrize("key", ["weight", "train"])
def test_an_answer_of_weight_0_is_read_and_not_imitated(key, tmp_path):
    """Imitated; or its words gone from what later answers are read behind."""
    messages = turns("Hi", "no!", "And?", "yes")
    messages[1][key] = 0
    messages[3][key] = 1
    said, _ = masked([{"messages": messages}], tmp_path)
    assert said == ["yes<|end|>"]
    messages[1][key], messages[3][key] = True, False
    assert masked([{"messages": messages}], tmp_path)[0] == ["no!<|end|>"]
    messages[1][key] = False
    said, report = masked([{"messages": messages}, CHAT], tmp_path)
    assert said == ["A<|end|>"] and report == {"dropped: weight 0": 1}
    messages[1][key] = 0.5
    with pytest.raises(InputError, match=f"f.jsonl:1: message 2: its '{key}' is 0.5"):
        masked([{"messages": messages}], tmp_path)
    # the one answer that is left to imitate is cut off with its turn
    messages[1][key], messages[1]["content"] = 1, "no"
    path = write(tmp_path / "f.jsonl", [{"messages": messages}, CHAT])
    examples, report = files.load_conversations(path, TOK, 12)
    assert len(examples) == 1 and report["dropped: weight 0"] == 1
    examples, report = files.load_conversations(path, TOK, BLOCK, last_only=True)
    assert len(examples) == 1 and report == {"dropped: weight 0": 1}


@pytest.mark.parametrize("nothing", ["", " \n", "\t"])
def test_an_empty_answer_teaches_nothing(nothing, tmp_path):
    """In the middle of a chat it trains "end at once"."""
    said, _ = masked([{"messages": turns("Hi", nothing, "And?", "yes")}], tmp_path)
    assert said == ["yes<|end|>"]
    said, report = masked([{"messages": turns("Hi", "no", "And?", nothing)}, CHAT], tmp_path)
    assert said == ["A<|end|>"] and report == {"dropped: no answer, or an empty one": 1}
    said, _ = masked(
        [{"text": f"Human: Hi\n\nAssistant: {nothing}\n\nHuman: And?\n\nAssistant: yes"}], tmp_path
    )
    assert said == ["yes<|end|>"]


def test_a_greeting_answers_nothing(tmp_path):
    """Imitated, it is what the model says before anything was asked."""
    messages = [{"role": "assistant", "content": "Hello!"}, *turns("Hi", "yes")]
    assert masked([{"messages": messages}], tmp_path)[0] == ["yes<|end|>"]


@pytest.mark.parametrize(
    "prompt",
    [
        turns("Hi", "so", "And?"),
        "\n\nHuman: Hi\n\nAssistant: so\n\nHuman: And?\n\nAssistant:",
        "Human: Hi\nAssistant: so\nHuman: And?\nAssistant: ",
        "### User: Hi\n### Assistant: so\n### User: And?",
        "### Human: Hi### Assistant: so### Human: And?### Assistant:",
        "User: Hi\r\n\r\nAssistant: so\r\n\r\nUser: And?",
    ],
)
def test_what_stands_in_the_prompt_is_read_and_never_imitated(prompt, tmp_path):
    said, _ = masked([{"prompt": prompt, "completion": "yes"}], tmp_path)
    assert said == ["yes<|end|>"]
    ids = TOK.prompt(turns("Hi", "so", "And?"))
    path = write(tmp_path / "f.jsonl", [{"prompt": prompt, "chosen": "yes", "rejected": "no"}])
    assert files.load_pairs(path, TOK, BLOCK)[0][0].prompt == ids
    assert files.load_prompts(path, TOK, BLOCK)[0] == [ids]


@pytest.mark.parametrize(
    "first, second, kept",
    [
        ("What is in a name? A rose.", "What is in a name? A thorn.", ("A rose.", "A thorn.")),
        ("What is in a name?\nA rose.", "What is in a name?\n\nA thorn.", ("A rose.", "A thorn.")),
        # one side alone says it: that is its answer
        ("What is in a name? A rose.", "A thorn.", ("What is in a name? A rose.", "A thorn.")),
        # nothing would be left
        ("What is in a name?", "What is in a name?", None),
    ],
)
def test_a_prompt_that_two_strings_repeat(first, second, kept, tmp_path):
    """The question stands in the ids twice, and its repetition is rewarded."""
    row = {"prompt": "What is in a name?", "chosen": first, "rejected": second}
    pairs, report = files.load_pairs(write(tmp_path / "f.jsonl", [row, PAIR]), TOK, BLOCK)
    if kept is None:
        assert len(pairs) == 1 and report == {"dropped: both answers are the same": 1}
    else:
        assert tuple(TOK.decode(side) for side in (pairs[0].chosen, pairs[0].rejected)) == tuple(
            f"{side}<|end|>" for side in kept
        )


def test_a_short_prompt_may_be_answered_with_its_own_word(tmp_path):
    """ "Hi" -> "Hi there": cut off as an echo."""
    row = {"prompt": "Hi", "chosen": "Hi there", "rejected": "Hi you"}
    [pair], _ = files.load_pairs(write(tmp_path / "f.jsonl", [row]), TOK, BLOCK)
    assert TOK.decode(pair.chosen) == "Hi there<|end|>"


@pytest.mark.parametrize(
    "marker",
    [
        "\nHuman: more",
        "\n\nAssistant: more",
        "\nUser : more",
        "\n### Assistant: more",
        "\n<|im_start|>user",
        "\n[INST] more",
        "\n  Human: more",
    ],
)
def test_a_turn_inside_a_message_is_not_trained_on(marker, tmp_path):
    """The model learns to write the next question itself."""
    for row in (
        {"prompt": "Q", "completion": "A" + marker},
        {"messages": turns("Q" + marker, "A")},
        {"system": "S" + marker, **CHAT},
        {**PAIR, "chosen": "A" + marker},
    ):
        items, report = files.load_conversations(
            write(tmp_path / "f.jsonl", [row, CHAT]), TOK, BLOCK
        )
        assert len(items) == 1 and list(report) == [
            "dropped: a role marker at the head of a line inside a message"
        ]
    # a word of the text, behind other words, is none
    for words in ("A Human: more", "A\nThe user: more", "A\nhumanly: yes"):
        assert masked([{"prompt": "Q", "completion": words}], tmp_path)[0] == [f"{words}<|end|>"]


# ---- layouts of other tools ----


def test_orca_and_llama_factory_and_ultrafeedback(tmp_path):
    rows = [
        {"system": "Be brief.", "question": "Why?", "chosen": "So.", "rejected": "Because of it."},
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "Why?"},
            ],
            "chosen": {"from": "gpt", "value": "So."},
            "rejected": {"from": "gpt", "value": "Because of it."},
        },
        {
            "prompt": "Why?",
            "prompt_id": "7",
            "system": "Be brief.",
            "chosen": turns("Why?", "So."),
            "rejected": turns("Why?", "Because of it."),
            "messages": turns("Why?", "So."),
            "score_chosen": 8.0,
            "score_rejected": 2.0,
        },
        {
            "system": "Be brief.",
            "instruction": "Why?",
            "input": "",
            "chosen": "So.",
            "rejected": "Because of it.",
            "history": None,
        },
    ]
    pairs, report = files.load_pairs(write(tmp_path / "f.jsonl", rows), TOK, BLOCK)
    assert {
        (TOK.decode(p.prompt), TOK.decode(p.chosen), TOK.decode(p.rejected)) for p in pairs
    } == {("<|system|>Be brief.<|user|>Why?<|assistant|>", "So.<|end|>", "Because of it.<|end|>")}
    assert len(pairs) == 4 and not report and len(batches.by_prompt(pairs)) == 1


def test_systems_that_differ_make_different_prompts(tmp_path):
    """Two systems read as one prompt: contradictory labels for the same ids."""
    rows = [{**PAIR, "system": "S"}, {**PAIR, "system": "T"}, {**PAIR, "system": " "}, PAIR]
    pairs, _ = files.load_pairs(write(tmp_path / "f.jsonl", rows), TOK, BLOCK)
    assert len({tuple(p.prompt) for p in pairs}) == 3 and len(batches.by_prompt(pairs)) == 3


@pytest.mark.parametrize(
    "name, row",
    [
        ("SHP", {"history": "Q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}),
        (
            "PKU-SafeRLHF",
            {
                "prompt": "Q",
                "response_0": "a",
                "response_1": "b",
                "better_response_id": 1,
                "safer_response_id": 0,
            },
        ),
        ("HelpSteer2", {"prompt": "Q", "response": "a", "helpfulness": 3, "correctness": 4}),
        (
            "HelpSteer2 preferences",
            {"prompt": "Q", "response_1": "a", "response_2": "b", "preference_strength": 2},
        ),
        (
            "HelpSteer3",
            {"context": turns("Q"), "response1": "a", "response2": "b", "overall_preference": -1},
        ),
        (
            "summarize-from-feedback",
            {"info": {"post": "Q"}, "summaries": [{"text": "a"}, {"text": "b"}], "choice": 0},
        ),
    ],
)
@pytest.mark.parametrize("load", ["load_conversations", "load_pairs", "load_prompts"])
def test_layouts_that_are_converted_first(load, name, row, tmp_path):
    """ "Unknown keys" for a data set that hundreds of people have; the answers of low ratings
    imitated."""
    path = write(tmp_path / "f.jsonl", [row])
    with pytest.raises(
        InputError,
        match=f"f.jsonl:1: this is the layout of {name}; .*"
        f"python -m tools.convert {path} > out.jsonl",
    ):
        getattr(files, load)(path, TOK, BLOCK)


@pytest.mark.parametrize(
    "content, what",
    [
        (b'[{"prompt": "Q"}]', "a JSON array"),
        (b"\xef\xbb\xbf [\n{}]", "a JSON array"),
        (b"prompt,completion\nQ,A\n", r"a table \(CSV\)"),
        (b"prompt\tcompletion\n", r"a table \(CSV\)"),
        (b'"prompt","completion"\r\n', r"a table \(CSV\)"),
        (b"PAR1\x15\x04", "parquet"),
        (b"PK\x03\x04", "a zip archive"),
    ],
)
def test_formats_that_are_converted_first(content, what, tmp_path):
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=f"f.jsonl: {what}"):
        files.load_prompts(str(tmp_path / "f.jsonl"), TOK, BLOCK)


# ---- answers judged alone, and step by step ----


def test_steps_of_an_answer(tmp_path):
    """A verdict a token off, a step without its line end, the answer's steps glued together."""
    rows = [{"prompt": "1+2+3?", "completions": ["1+2=3", " 3+3=7\n"], "labels": [True, 0]}]
    [answer], report = files.load_judged(write(tmp_path / "f.jsonl", rows), TOK, BLOCK, "process")
    said = answer["completion_ids"]
    assert TOK.decode(said) == "1+2=3\n3+3=7<|end|>" and answer["steps"] == [(4, True), (10, False)]
    assert [TOK.decode([said[end]]) for end, _ in answer["steps"]] == ["3", "7"] and not report
    assert answer["prompt_ids"] == TOK.prompt("1+2+3?")


@pytest.mark.parametrize(
    "row, message",
    [
        ({"completions": ["a"], "labels": [True, True]}, "1 'completions', yet 2 'labels'"),
        ({"completions": "a", "labels": [True]}, "'completions' must be a list of strings"),
        ({"completions": ["a"], "labels": ["+"]}, "'labels' must be a list of true and false"),
        ({"completions": ["a"], "labels": [2]}, "'labels' must be a list of true and false"),
        ({"completion": "a", "label": True}, "lack 'completions': the steps"),
        ({"completions": ["a"]}, "lack 'labels': the steps"),
    ],
)
def test_steps_that_are_refused(row, message, tmp_path):
    good = {"prompt": "Q", "completions": ["a"], "labels": [True]}
    with pytest.raises(InputError, match=f"f.jsonl:2: .*{message}"):
        files.load_judged(
            write(tmp_path / "f.jsonl", [good, {"prompt": "Q", **row}]), TOK, BLOCK, "process"
        )


def test_steps_that_are_dropped(tmp_path):
    good = {"prompt": "Q", "completions": ["a"], "labels": [True]}
    rows = [good] * 4 + [
        {**good, "completions": [], "labels": []},
        {**good, "completions": [" "]},
        {**good, "labels": None},
        {**good, "prompt": turns("Q", "A")},
    ]
    answers, report = files.load_judged(write(tmp_path / "f.jsonl", rows), TOK, BLOCK, "process")
    assert len(answers) == 4 and report == {
        "dropped: no step, or an empty one": 2,
        "dropped: null in 'labels'": 1,
        "dropped: the prompt ends in an answer": 1,
    }


def test_answers_judged_alone(tmp_path):
    rows = [{**CHAT, "label": True}, {**CHAT, "label": 0}, {**CHAT, "label": None}]
    path = write(tmp_path / "f.jsonl", rows)
    thumbs, report = files.load_pairs(path, TOK, BLOCK, thumbs=True)
    a = TOK.completion("A")
    assert [(t.chosen, t.rejected) for t in thumbs] == [(a, []), ([], a)]
    assert report == {"dropped: null in 'label'": 1}
    answers, _ = files.load_judged(path, TOK, BLOCK, "outcome")
    assert [(x["completion_ids"], x["right"]) for x in answers] == [(a, True), (a, False)]
    with pytest.raises(InputError, match="f.jsonl:1: its keys .* lack 'label'"):
        files.load_pairs(write(tmp_path / "f.jsonl", [CHAT]), TOK, BLOCK, thumbs=True)


def test_report_says_of_every_row_what_became_of_it(tmp_path):
    """Kept and dropped that do not add up to the rows of the file."""
    rows = [
        CHAT,
        {**CHAT, "weight": 0},
        {"prompt": "Q", "completion": ""},
        {"messages": [*turns("Q", "A"), {"role": "tool", "content": "x"}]},
        {"prompt": "long " * 99, "completion": "A"},
        *[CHAT] * 3,
    ]
    examples, report = files.load_conversations(write(tmp_path / "f.jsonl", rows), TOK, 64)
    dropped = sum(n for what, n in report.items() if what.startswith("dropped"))
    assert report.rows == len(rows) == len(examples) + dropped and dropped == 4
    assert report.first["dropped: a message of role 'tool'"].endswith("f.jsonl:4, message 3")


def test_every_layout_of_the_guide_is_read_as_it_says(tmp_path):
    """docs/YOUR_DATA.md drifts from what is read: each of its rows goes through its loader."""
    guide = pathlib.Path(__file__).parent.parent / "docs/YOUR_DATA.md"
    blocks = re.findall(r"```jsonl (\w+)\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert {kind for kind, _ in blocks} == {
        "chats",
        "pairs",
        "thumbs",
        "steps",
        "prompts",
        "problems",
        "refused",
    }
    loads = {
        "chats": lambda p: files.load_conversations(p, TOK, BLOCK),
        "pairs": lambda p: files.load_pairs(p, TOK, BLOCK),
        "thumbs": lambda p: files.load_pairs(p, TOK, BLOCK, thumbs=True),
        "steps": lambda p: files.load_judged(p, TOK, BLOCK, "process"),
        "prompts": lambda p: files.load_prompts(p, TOK, BLOCK),
        "problems": lambda p: files.load_problems(p, TOK, BLOCK),
    }
    for kind, block in blocks:
        for line in block.splitlines():
            path = write(tmp_path / "f.jsonl", [json.loads(line)])
            if kind == "refused":
                for load in itertools.islice(loads.values(), 2):
                    with pytest.raises(InputError):
                        load(path)
            else:
                items, report = loads[kind](path)
                assert len(items) == 1 and not report, line
