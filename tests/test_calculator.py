"""The world with a tool: what its answers are worth, and what the tool writes into them."""
import random

import pytest
import torch

from nanorlhf import seeds
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate, replaced
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import calculator

TOKENIZER = Tokenizer("calculator")


def tiny():
    cfg = GPTConfig(TOKENIZER.vocab_size, 48, n_layer=2, n_head=2, n_embd=32)
    model = GPT(cfg, seeds.generator(0, "test")).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(6 if p.dim() == 2 else 1)
    return model


def test_the_table_by_hand():
    hard, easy = calculator.Question(47, 86), calculator.Question(7, 6)
    assert calculator.with_call(hard) == "(47*86=4042)#4042"
    assert calculator.grade(hard, "(47*86=4042)#4042") == {"gold": 0.9, "correct": 1, "call": 1}
    assert calculator.grade(easy, "#0042")["gold"] == 1
    assert calculator.grade(easy, "#42")["gold"] == 1
    assert calculator.grade(easy, "#0042", finished=False)["gold"] == 0
    assert calculator.grade(hard, "(47*86=1234)(47*86=1234)#1234")["gold"] == -0.2
    assert calculator.calls("(47*86=(07*06=0042)") == [((47, 86), None), ((7, 6), "0042")]
    rows = calculator.columns([hard, easy], ["(47*86=1234)#1234", "#0042"], [True, True])
    assert rows["invented"] == [(1, 1), (0, 0)] and rows["call"] == [1, 0]
    assert rows["call_hard"] == [(1, 1), (0, 0)] and rows["call_easy"] == [(0, 0), (0, 1)]


def test_the_tool_answers_a_call_and_nothing_else():
    assert calculator.tool("(47*86=") == "4042)"
    assert calculator.tool("#1(02*03=") == "0006)"
    for text in ("", "47*86=", "(47*86", "(47*86=4", "(47*86=4042)", "(7*6=", "(47+86="):
        assert calculator.tool(text) == ""


def test_people_guess_what_is_hard_and_know_what_is_easy():
    rng = random.Random(0)
    for kind, right in (("easy", 1.0), ("hard", calculator.P_CALL)):
        asked = [q for q in calculator.questions(3000, rng) if q.kind == kind]
        said = [calculator.demonstration(q, rng) for q in asked]
        called = sum(bool(calculator.calls(text)) for text in said) / len(said)
        assert called == pytest.approx(calculator.P_CALL, abs=0.04)
        share = sum(map(calculator.correct, asked, said)) / len(said)
        assert share == pytest.approx(right, abs=0.04)


def constant(ids):
    """A tool that writes two tokens behind every 7."""
    return [20, 21] if ids[-1] == 7 else []


def test_what_a_tool_writes_is_in_the_answer_and_not_the_policys_own():
    """It is read by the model, which goes on from it: what the model chose has the log-prob of a
    forward through all of it. What the tool wrote has none."""
    model = tiny()
    prompts = [TOKENIZER.prompt(text) for text in ("07*06=", "47*86=") * 20]
    with torch.no_grad():       # sevens are frequent
        model.wte.weight[7] *= 3
    out = generate(model, prompts, 12, TOKENIZER.end, generator=seeds.generator(0, "sample"),
                   pad=TOKENIZER.pad, after_token=constant)
    logp = masked_logprobs(model, out.ids, out.mask)
    assert torch.allclose(torch.where(out.own, out.logp - logp, 0.0), torch.zeros_like(logp),
                          atol=1e-4)
    written = out.mask & ~out.own
    assert written.any() and (out.logp[written] == 0).all()
    for row, mask, own in zip(out.ids.tolist(), out.mask.tolist(), out.own.tolist(), strict=True):
        answer = [(i, mine) for i, said, mine in zip(row, mask, own, strict=True) if said]
        expected, owed = [], []
        for i, mine in answer:
            if owed:
                assert (i, mine) == (owed.pop(0), False)
            else:
                assert mine
                owed = constant([i])
            expected.append(i)
        assert [i for i, _ in answer] == expected


def test_without_a_tool_nothing_changes():
    model, prompts = tiny(), [TOKENIZER.prompt("07*06=")] * 8
    plain, silent = (generate(model, prompts, 12, TOKENIZER.end, pad=TOKENIZER.pad,
                              generator=seeds.generator(0, "sample"), after_token=after)
                     for after in (None, lambda ids: []))
    assert torch.equal(plain.ids, silent.ids) and torch.equal(plain.logp, silent.logp)
    assert torch.equal(plain.own, plain.mask) and torch.equal(silent.own, silent.mask)


def test_rows_that_are_replaced_keep_whose_tokens_they_are():
    model, prompts = tiny(), [TOKENIZER.prompt("07*06=")] * 6
    with torch.no_grad():
        model.wte.weight[7] *= 3
    one, other = (generate(model, prompts, n, TOKENIZER.end, pad=TOKENIZER.pad,
                           generator=seeds.generator(n, "sample"), after_token=constant)
                  for n in (6, 12))
    gone = torch.tensor([True, False, True, False, True, False])
    both = replaced(one, gone, other, TOKENIZER.pad)
    for i, (source, row) in enumerate([(one, 1), (one, 3), (one, 5)] +
                                      [(other, row) for row in range(6)]):
        T = source.own.shape[1]
        assert torch.equal(both.own[i, :T], source.own[row]) and not both.own[i, T:].any()
