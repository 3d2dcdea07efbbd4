"""What is printed of the data: its numbers, and a batch whose mask can be seen."""
import sys

import pytest
import torch

from nanorlhf import batches, files, look
from nanorlhf.tokenizer import Tokenizer


def test_summary_by_hand():
    """A percentile that is off by one or no length at all, a share that is a mean of shares, a
    reason that is not said."""
    # 820 tokens, 40 of them trained on: 4.9%
    rows = [([0] * n, [True] + [False] * (n - 1)) for n in range(1, 41)]
    report = files.Report("f")
    report.rows, report.unused = 42, {"source", "id"}
    for what, line in (("dropped: too long", 2), ("truncated", 4), ("dropped: too long", 7)):
        report.note(what, f"f:{line}")
    assert look.summary("f: 40 chats", rows[::-1], report) == (
        "f: 40 chats of 42 rows; tokens: median 20, 95% up to 38, longest 40, 5% of all trained "
        "on; dropped: too long: 2 (first at f:2); truncated: 1 (first at f:4); not used: id, "
        "source"
    )
    assert look.summary("f: 1 problems", [([7, 7, 7], [])], files.Report()) == (
        "f: 1 problems of 0 rows; tokens: median 3, 95% up to 3, longest 3; none dropped")


def chat(tok, question, answer):
    return tok.chat(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )


def test_a_batch_in_brackets_and_in_colours():
    """A mask shifted by one, padding that looks like text, a reset forgotten, a token that is not
    shown."""
    tok = Tokenizer("sums")
    ids, mask = batches.conversation_batch(
        [chat(tok, "1+1", "2"), chat(tok, "?", "no")], tok.pad, "cpu"
    )
    assert look.batch_text(tok, ids, mask).splitlines() == [
        "first batch: [trained on] read only padding",
        "  0 <|user|>·1·+·1·<|assistant|>[2·<|end|>]",
        "  1 <|user|>·?·<|assistant|>[n·o·<|end|>]<|pad|> x 1"]
    assert look.batch_text(tok, ids, mask, colour=True).splitlines()[1:] == [
        "  0 \033[36m<|user|>·1·+·1·<|assistant|>\033[0m\033[32m2·<|end|>\033[0m",
        "  1 \033[36m<|user|>·?·<|assistant|>\033[0m\033[32mn·o·<|end|>\033[0m\033[2m<|pad|> x "
        "1\033[0m",
    ]


def test_a_wrong_mask_looks_wrong():
    """Colours that follow from the tokens, not from the mask: padding that is trained on, a
    question let in, an end left out."""
    tok = Tokenizer("sums")
    ids = torch.tensor(
        [[tok.user, ord("a"), tok.assistant, ord("b"), tok.end, tok.pad, tok.pad, tok.pad]]
    )
    mask = torch.tensor([[0, 1, 0, 1, 0, 0, 0, 1]]).bool()
    assert (
        look.batch_text(tok, ids, mask).splitlines()[1]
        == "  0 <|user|>[a]<|assistant|>[b]<|end|><|pad|> x 2[<|pad|>]"
    )


def test_pairs_say_which_row_is_preferred():
    """Sides exchanged; an answer that stands in two pairs shown twice."""
    tok = Tokenizer("sums")
    p, a, b, c = tok.prompt("?"), *(tok.completion(text) for text in "abc")
    lines = look.batch_text(
        tok,
        *batches.pair_batch([files.Preference(p, b, a), files.Preference(p, c, b)], tok.pad, "cpu"),
    ).splitlines()
    assert lines[1:] == [
        f"  {n} <|user|>·?·<|assistant|>[{text}·<|end|>]" for n, text in enumerate("bac")
    ] + ["preferred: 0 > 1, 2 > 0"]


def test_what_stands_in_data_does_not_reach_the_terminal():
    """Control characters of a file that colour or clear the screen, line ends that break a row,
    bytes of a character that cannot be shown."""
    tok = Tokenizer("sums")
    shown = [look.visible(tok, i) for i in (*b"a \n\r\x1b\x07\\", *"é".encode(), tok.end)]
    assert shown == ["a", " ", "\\n", "\\r", "\\x1b", "\\x07", "\\", "\\xc3", "\\xa9", "<|end|>"]
    assert look.visible(Tokenizer(), Tokenizer().encode(" Marlow")[0]) == " Marlow"


@pytest.mark.parametrize("terminal", [True, False])
def test_escape_codes_go_to_a_terminal_only(terminal, monkeypatch, capsys):
    """Junk in a file that the output is sent to."""
    tok = Tokenizer("sums")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    look.print_batch(tok, *batches.conversation_batch([chat(tok, "?", "!")], tok.pad, "cpu"))
    out = capsys.readouterr().out
    assert (
        ("\033[" in out) == terminal and ("[!·<|end|>]" in out) != terminal and out.endswith("\n")
    )
