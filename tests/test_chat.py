"""chat.py on what people type."""
import builtins
import io
import os
import pty
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from calling import call, complaint

import chat
from nanorlhf import checkpoints
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import towns

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOK = Tokenizer()
ASKED = towns.SHOWN[0].text


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("chat") / "sft"
    size = GPTConfig(TOK.vocab_size, 48, 1, 1, 16)
    model = GPT(size, torch.Generator().manual_seed(0))
    checkpoints.save_checkpoint(str(place / "model.pt"), model, TOK)
    return str(place)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def typed(monkeypatch, *lines):
    """Lines at a terminal; KeyboardInterrupt among them is Ctrl-C."""
    left = list(lines)

    def read(prompt=""):
        assert prompt == "> "
        if not left:
            raise EOFError
        line = left.pop(0)
        if line is KeyboardInterrupt:
            raise line
        return line

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(builtins, "input", read)
    return left


def small(folder, *words):
    return ("chat", folder, "--device", "cpu", "--max_new_tokens", 8, *words)


def test_a_question_longer_than_the_block(folder, monkeypatch, capsys):
    """Cut off on the left, it loses its role first, and is answered as another; what is judged is
    then not what was read."""
    prompt = chat.fitted(TOK, "Who is the mayor of Tarn, " + "and of Fenwick, " * 40, 20)
    assert len(prompt) == 20 and prompt[0] == TOK.user and prompt[-1] == TOK.assistant
    assert TOK.decode(prompt[1:-1]).startswith("Who is the mayor of Tarn, and of")
    assert "its end is cut off" in capsys.readouterr().out
    assert chat.fitted(TOK, "Hi", 20) == TOK.prompt("Hi") and not capsys.readouterr().out
    typed(monkeypatch, "x " * 60 + ASKED, ASKED)
    call(monkeypatch, *small(folder))
    out = capsys.readouterr().out
    # only the one that was read is judged
    assert out.count("its end is cut off") == 1 and out.count("    gold ") == 1


def test_no_room_for_a_question(folder, monkeypatch):
    for words in ((46,), (48,), (1000,), (0,)):
        said = complaint(monkeypatch, "chat", folder, "--device", "cpu", "--max_new_tokens", *words)
        assert f"--max_new_tokens {words[0]}: {folder} has a block of 48" in said
    for temperature in ("-1", "nan", "inf"):
        said = complaint(monkeypatch, *small(folder, "--temperature", temperature))
        assert f"--temperature {temperature}: a number from 0 on is needed" in said


def test_an_empty_line_ends_a_terminals_session(folder, monkeypatch, capsys):
    left = typed(monkeypatch, "Hi", "  ", "never read")
    call(monkeypatch, *small(folder))
    out = capsys.readouterr().out
    assert left == ["never read"] and out.count(f"{folder}: ") == 1 and "Ask away" in out


def test_an_empty_line_does_not_end_a_pipe(folder):
    """The rest of a file of questions left unanswered, without a word."""
    done = subprocess.run(
        [sys.executable, "chat.py", folder, "--device", "cpu", "--max_new_tokens", "8"],
        cwd=ROOT,
        input=f"{ASKED}\n\n  \nWhy?\n\udcff\n".encode(errors="surrogateescape"),
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0 and done.stderr == b""
    assert done.stdout.decode().count(f"{folder}: ") == 3


def test_ctrl_c_stops_an_answer_then_leaves(folder, monkeypatch, capsys):
    """It says that nothing was saved, and takes the session with it."""
    generate, calls = chat.generate, []

    def slow(*args, on_token, **more):
        calls.append(1)
        if len(calls) == 1:
            on_token([0], TOK.encode("The"))
            raise KeyboardInterrupt
        return generate(*args, on_token=on_token, **more)

    monkeypatch.setattr(chat, "generate", slow)
    left = typed(monkeypatch, ASKED, ASKED, KeyboardInterrupt, "never read")
    call(monkeypatch, *small(folder))
    out = capsys.readouterr().out
    assert "The [stopped]\n" in out and out.count("    gold ") == 1 and "saved" not in out
    assert left == ["never read"]


def test_what_is_judged_is_what_is_shown(folder, monkeypatch, capsys):
    """Bytes that are no whole character, left out of what is shown and in what is judged."""
    ids = [*TOK.encode("Ada "), "日".encode()[0], TOK.user]

    def said(model, prompts, n, eos, *args, on_token, pad, **more):
        for i in ids:
            on_token([0], [i])
        return SimpleNamespace(finished=torch.tensor([False]), responses=lambda: [ids])

    judged = []
    world = SimpleNamespace(
        SHOWN=towns.SHOWN,
        find=lambda text: text,
        explain=lambda question, text, finished: judged.append((question, text, finished)),
    )
    monkeypatch.setattr(chat.worlds, "of", lambda tokenizer: world)
    monkeypatch.setattr(chat, "generate", said)
    typed(monkeypatch, "Who?")
    call(monkeypatch, *small(folder))
    assert f"{folder}: {TOK.decode(ids)} [cut off]\n" in capsys.readouterr().out
    assert judged == [("Who?", TOK.decode(ids), False)]


def test_a_reader_that_goes_away(folder):
    words = [sys.executable, "chat.py", folder, "--device", "cpu", "--max_new_tokens", "8"]
    running = subprocess.Popen(
        words,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    running.stdout.close()
    running.stdin.write("Who?\n" * 50)
    running.stdin.close()
    assert running.wait(120) == 1 and running.stderr.read() == ""


def test_in_a_terminal(folder):
    """A real one: an arrow key edits the line in place of being asked."""
    here, there = pty.openpty()
    words = [sys.executable, "chat.py", folder, "--device", "cpu", "--max_new_tokens", "8"]
    running = subprocess.Popen(words, cwd=ROOT, stdin=there, stdout=there, stderr=there)
    os.close(there)
    seen = b""

    def until(text):
        nonlocal seen
        start = time.time()
        while text not in seen and time.time() - start < 60:
            try:
                seen += os.read(here, 1000)
            except OSError:
                break
        assert text in seen, seen

    until(b"> ")
    # back over the question mark
    os.write(here, b"Wh?\x1b[Dy\n")
    until(b"sft: ")
    os.write(here, b"\x03")
    os.write(here, b"\n")
    assert running.wait(60) == 0
    os.close(here)
    assert b"^[[D" not in seen and b"Traceback" not in seen and b"saved" not in seen
