"""Log-probs made a few at a time against the plain form: values, gradients, and how much is held at
once."""
import pytest
import torch

from nanorlhf import logprobs
from nanorlhf.functional import entropy, token_logprobs
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.logprobs import answer_logprobs, in_parts, masked_logprobs, plain_logprobs

V, B, T = 11, 7, 9
IDS = torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))
# holes, rows that begin or end anywhere
MASK = torch.rand(B, T, generator=torch.Generator().manual_seed(1)) < 0.4
# and one with nothing
MASK[:, 0], MASK[2] = False, False


def model(seed=0):
    gpt = GPT(GPTConfig(V, T, 2, 2, 16), torch.Generator().manual_seed(seed)).double()
    for p in gpt.parameters():
        p.data *= 5         # far from uniform
    return gpt


def gradient(gpt, loss):
    gpt.zero_grad()
    loss.backward()
    return torch.cat([p.grad.flatten() for p in gpt.parameters()])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("micro_batch", [1, 3, 256])
@pytest.mark.parametrize("tokens_at_once", [1, 4, 1000])
def test_values_and_gradients_of_the_plain_form(
    monkeypatch, temperature, micro_batch, tokens_at_once
):
    """A token beside its own, another temperature, a part left out or counted twice, a gradient
    that stops at a part."""
    monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", tokens_at_once * V)
    gpt, weights = (
        model(),
        torch.randn(B, T, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
    )
    plain = plain_logprobs(gpt, IDS, MASK, temperature)
    assert torch.equal(plain, torch.where(MASK, token_logprobs(gpt(IDS), IDS, temperature), 0.0))
    lean = masked_logprobs(gpt, IDS, MASK, temperature, micro_batch)
    torch.testing.assert_close(lean, plain, rtol=0, atol=1e-12)
    expected = gradient(gpt, (plain.exp() * weights).sum())
    assert expected.norm() > 1
    torch.testing.assert_close(
        gradient(gpt, (lean.exp() * weights).sum()), expected, rtol=0, atol=1e-12
    )
    logp, spread = masked_logprobs(gpt, IDS, MASK, temperature, micro_batch, entropy=True)
    assert torch.equal(logp, lean) and not spread.requires_grad
    torch.testing.assert_close(
        spread.float(), torch.where(MASK, entropy(gpt(IDS), temperature), 0.0), rtol=0, atol=1e-5
    )


def test_the_first_token_has_no_log_prob():
    """Masked in by mistake it would be read from the last token of the row above."""
    everywhere = torch.ones_like(MASK)
    torch.testing.assert_close(
        masked_logprobs(model(), IDS, everywhere),
        token_logprobs(model()(IDS), IDS),
        rtol=0,
        atol=1e-12,
    )


def test_nothing_masked_in_is_zero():
    gpt = model()
    logp = masked_logprobs(gpt, IDS, torch.zeros_like(MASK))
    assert torch.equal(logp, torch.zeros(B, T)) and logp.requires_grad
    assert not gradient(gpt, logp.sum()).any()


@pytest.mark.parametrize("micro_batch", [2, 256])
def test_no_more_logits_at_once_than_it_says(monkeypatch, micro_batch):
    """Logits of tokens outside the mask, of all parts at once, or kept until backward: 3 tokens' at
    a time here, of 22 and of 63."""
    monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", 3 * V)
    gpt, made, kept = model(), [], []
    plain = gpt.logits
    monkeypatch.setattr(gpt, "logits", lambda hidden: made.append(len(hidden)) or plain(hidden))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        masked_logprobs(gpt, IDS, MASK, micro_batch=micro_batch)
    assert sum(made) == int(MASK.sum()) and max(made) == 3
    assert not [shape for shape in kept if len(shape) == 2 and shape[-1] == V and shape[0] > 3]


def test_in_parts_keeps_the_rows_alone():
    """Activations of every part kept until backward: then the batch fills the memory, not the part.
    """
    gpt = ScalarModel(model()).double()
    expected = gradient(gpt, (gpt(IDS) ** 2).sum())
    sizes = {}
    for size in (B, 2):
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.__setitem__(size, sizes.get(size, 0) + x.numel()) or x, lambda x: x
        ):
            loss = (in_parts(gpt, size, IDS) ** 2).sum()
        torch.testing.assert_close(gradient(gpt, loss), expected, rtol=0, atol=1e-5)
    assert sizes[2] < sizes[B] / 10


def test_bf16_autocast_makes_float32_log_probs(monkeypatch):
    """What a GPU runs: products in bf16, log-probs in float32, close to those without."""
    gpt = model().float()
    plain = masked_logprobs(gpt, IDS, MASK)
    monkeypatch.setattr(logprobs.devices, "bf16", lambda device: True)
    half = masked_logprobs(gpt, IDS, MASK, micro_batch=3)
    assert half.dtype == torch.float32 and not torch.equal(half, plain)
    torch.testing.assert_close(half, plain, rtol=0, atol=0.2)
    half.sum().backward()
    assert all(p.grad.isfinite().all() for p in gpt.parameters())


def test_an_answer_is_the_sum_of_its_tokens():
    gpt = model()
    torch.testing.assert_close(
        answer_logprobs(gpt, IDS, MASK, micro_batch=2), masked_logprobs(gpt, IDS, MASK).sum(1)
    )
