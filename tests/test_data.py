"""Files: every shape is read, what is unusable is counted, what is broken is named with its line."""
import gzip
import json
import os
import pathlib
from collections import Counter

import pytest
import torch

from nanorlhf import InputError, data
from nanorlhf.tokenizer import Tokenizer

HH = pathlib.Path(__file__).resolve().parent.parent.parent / "shared/data/hh_harmless.jsonl.gz"
ASKED = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize("row", [{"prompt": "Q", "completion": "A"}, {"messages": ASKED}, {"question": "Q", "answer": "A"},
                                 {"instruction": "Q", "input": "", "output": "A"}, {"prompt": ASKED[:1], "chosen": "A", "rejected": "B"},
                                 {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"}])
def test_every_shape_is_the_same_conversation(row):
    assert data.conversation(row, "f:1") == ASKED


@pytest.mark.parametrize("content, message", [(b'{"prompt": "a", "completion": "b"}\n{oops\n', "f.jsonl:2: not JSON"), (b"", "empty"),
                                              (b"[1]\n", "f.jsonl:1: a line must be"), (b"\xff\n", "f.jsonl:1: not UTF-8")])
def test_broken_files(tmp_path, content, message):
    (tmp_path / "f.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(data.read_jsonl(str(tmp_path / "f.jsonl")))


def test_a_truncated_gz(tmp_path):
    whole = gzip.compress(b'{"a": 1}\n' * 5000)
    (tmp_path / "f.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(InputError, match="cannot be read past line"):
        list(data.read_jsonl(str(tmp_path / "f.jsonl.gz")))


def test_long_conversations_lose_their_beginning_never_an_answer(tmp_path):
    tokenizer = Tokenizer()
    long = ASKED[:1] + [{"role": "assistant", "content": "The mayor of Marlow is Ada. " * 3}] + ASKED
    rows = [{"messages": long}, {"prompt": "Q", "completion": "The mayor " * 20}, {"prompt": "Q", "completion": " "}]
    (tmp_path / "f.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    [(ids, mask)], report = data.load_conversations(str(tmp_path / "f.jsonl"), tokenizer, 16)
    assert len(ids) == 16 and [i for i, m in zip(ids, mask) if m] == tokenizer.completion("A")
    assert report == Counter({"truncated from the left: longer than the block": 1, "dropped: no answer, or an empty one": 1,
                              "dropped: the answer alone is longer than the block": 1})


@pytest.mark.skipif(not HH.exists() or "TIKTOKEN_CACHE_DIR" not in os.environ, reason="needs the real data and tiktoken's gpt2 files")
def test_real_pairs():
    pairs, report = data.load_pairs(str(HH), Tokenizer("gpt2"), 4096)
    assert len(pairs) + sum(n for why, n in report.items() if why.startswith("dropped")) == 1800
    assert report["dropped: the two sides have different prompts"] == 2
    assert report["dropped: no answer, or an empty one"] == 4


def test_an_epoch_deals_every_item_once_in_batches_of_like_length():
    """A pool of 20 batches that loses its remainder; the same order each time round; batches that are drawn blindly."""
    items = [(i * 7919) % 101 for i in range(130)]              # an item is its own length
    batches = data.epochs(items, 4, torch.Generator().manual_seed(0), lambda item: item)
    rounds = [[next(batches) for _ in range(20 + 13)] for _ in range(2)]         # a pool of 80, then 50 = 12 batches of 4 and a 2
    for dealt in rounds:
        assert sorted(sum(dealt, [])) == sorted(items)
        assert sorted(map(len, dealt)) == [2] + [4] * 32
        assert sum(max(b) - min(b) for b in dealt) / len(dealt) < 10
    assert rounds[0] != rounds[1]


def test_map_answers_keeps_the_order_given():
    """Sorted by length on the way in and not put back on the way out: every score at another answer."""
    prompts, responses = [[1], [2, 2, 2], [3], [4, 4], [5]], [[9, 9, 9], [8], [7], [6, 6, 6, 6], [5, 5]]
    widths = []

    def first_id_and_length(ids, mask):
        widths.append(ids.shape[1])
        return ids[:, 0] * 10 + mask.sum(1)

    got = data.map_answers(first_id_and_length, prompts, responses, 0, torch.device("cpu"), batch_size=2)
    assert got.tolist() == [13, 21, 31, 44, 52]
    assert widths == [3, 4, 6]          # short with short: in the order given they would be 4, 6, 3
