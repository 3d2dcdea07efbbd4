"""Sampling: what is recorded is what training recomputes; padding, end tokens and budgets are told
apart."""
import pytest
import torch

from nanorlhf import InputError
from nanorlhf.functional import token_logprobs
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.rollout import generate, replaced, sample_token

PROMPTS = [[3, 4, 5, 6], [7], [8, 9]]


def tiny():
    torch.manual_seed(0)
    model = GPT(GPTConfig(12, 24, 2, 2, 16)).eval()
    torch.nn.init.normal_(model.wpe.weight, std=0.5)        # so that a wrong position shows
    return model


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_recorded_logprobs_equal_recomputed_ones(temperature):
    model = tiny()
    out = generate(
        model,
        PROMPTS * 5,
        10,
        eos=1,
        temperature=temperature,
        generator=torch.Generator().manual_seed(0),
    )
    again = token_logprobs(model(out.ids), out.ids, temperature)
    assert (out.logp - again)[out.mask].abs().max() < 1e-4
    for row, m, prompt, done in zip(out.ids, out.mask, PROMPTS * 5, out.finished):
        response = row[m].tolist()
        assert row[:len(prompt)].tolist() == prompt and not m[:len(prompt)].any()
        assert (response[-1] == 1) == bool(done) and 1 not in response[:-1]
        assert bool(done) or len(response) == 10
    assert 0 < out.finished.sum() < 15


def test_a_batch_answers_as_its_rows_alone():
    model = tiny()
    together = generate(model, PROMPTS, 8, eos=1, temperature=0).responses()
    assert together == [
        generate(model, [p], 8, eos=1, temperature=0).responses()[0] for p in PROMPTS
    ]
    assert (
        together
        == generate(
            model, PROMPTS, 8, eos=1, top_k=1, generator=torch.Generator().manual_seed(3)
        ).responses()
    )


@pytest.mark.parametrize("budgets", [(10, 2), (2, 10)])
def test_replaced_rows(budgets):
    """The wrong rows gone, a column of another row, a pad that counts as an answer's token: all
    that is known of a row must go where its ids go."""
    model = tiny()
    old, new = (
        generate(model, PROMPTS * 2, budget, eos=1, generator=torch.Generator().manual_seed(budget))
        for budget in budgets
    )
    gone = torch.tensor([True, False, False, True, False, True])
    out = replaced(old, gone, new, pad=0)
    assert old.ids.shape[1] != new.ids.shape[1] and not old.finished.all()
    stay = [1, 2, 4]
    answers = [old.responses()[i] for i in stay] + new.responses()
    assert out.responses() == answers and len(set(map(len, answers))) > 2
    assert out.finished.tolist() == [answer[-1] == 1 for answer in answers]
    again = token_logprobs(model(out.ids), out.ids)
    assert (out.logp - again)[out.mask].abs().max() < 1e-4 and (out.logp[~out.mask] == 0).all()


def test_what_does_not_fit_is_an_error():
    with pytest.raises(InputError, match="block of 24"):
        generate(tiny(), [[1] * 20], 5, eos=1)
    with pytest.raises(InputError, match="at least one token"):
        generate(tiny(), [[]], 5, eos=1)


def test_draws_follow_the_distribution():
    """An id too far to the left or right, or a draw past the end. 40,000 draws: five standard
    errors are at most 0.0125."""
    logits = torch.tensor([0.0, -30.0, 2.0, 1.0, -1.0, -30.0])
    ids, logp = sample_token(
        logits.expand(40_000, -1), 0.7, 0, 1.0, torch.Generator().manual_seed(0)
    )
    expected = (logits / 0.7).softmax(-1)
    assert ((ids.bincount(minlength=6) / 40_000 - expected).abs() < 0.0125).all()
    torch.testing.assert_close(logp, expected.log()[ids])


@pytest.mark.parametrize(
    "top_k, top_p, kept",
    [(2, 1.0, {2, 3}), (0, 0.5, {2}), (0, 0.8, {2, 3}), (3, 0.99, {2, 3, 0}), (1, 1.0, {2})],
)
def test_truncation_keeps_the_likeliest_and_does_not_touch_their_logprobs(top_k, top_p, kept):
    """Probabilities 0.085, 0.000, 0.629, 0.231, 0.031, 0.023: a renormalised log-prob would make a
    KL to the whole policy wrong."""
    logits = torch.tensor([0.0, -30.0, 2.0, 1.0, -1.0, -1.3])
    ids, logp = sample_token(
        logits.expand(2000, -1), 1.0, top_k, top_p, torch.Generator().manual_seed(0)
    )
    assert set(ids.tolist()) == kept
    torch.testing.assert_close(logp, logits.log_softmax(-1)[ids])
