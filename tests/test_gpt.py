"""The transformer: causal, its cache and its padding change nothing, its heads read what they
should."""
import pytest
import torch

from nanorlhf import InputError
from nanorlhf.functional import shift_right
from nanorlhf.gpt import GPT, GPTConfig, KVCache, ScalarModel


def tiny(seed=0):
    return GPT(
        GPTConfig(vocab_size=23, block_size=16, n_layer=2, n_head=2, n_embd=16),
        torch.Generator().manual_seed(seed),
    ).eval()


def test_a_token_changes_nothing_before_it():
    model, ids = tiny(), torch.randint(23, (2, 9), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[:, 5] = (ids[:, 5] + 1) % 23
    a, b = model(ids), model(other)
    assert torch.equal(a[:, :5], b[:, :5]) and not torch.allclose(a[:, 5:], b[:, 5:])


def test_cached_decoding_of_ragged_rows_equals_the_full_forward():
    """Left pads that are counted as positions, or attended to, or a cache that loses its place."""
    model, rows = tiny(), [[3, 4, 5, 6, 7], [8, 9], [1, 2, 3]]
    width, more = 5, torch.tensor([[10, 11, 12]] * 3)
    pads = torch.tensor([width - len(r) for r in rows])
    cache = KVCache(model.cfg, pads, 12)
    out = [model(torch.tensor([[0] * (width - len(r)) + r for r in rows]), cache)[:, -1:]]
    out += [model(more[:, i:i + 1], cache) for i in range(3)]
    out = torch.cat(out, 1)
    for i, r in enumerate(rows):
        full = model(torch.tensor([r + more[i].tolist()]))[0, len(r) - 1:]
        assert torch.allclose(out[i], full, atol=1e-5)


def test_rows_that_are_kept_go_on_as_before():
    model = tiny()
    cache = KVCache(model.cfg, torch.tensor([0, 0, 0]), 8)
    ids = torch.tensor([[1, 2], [3, 4], [5, 6]])
    model(ids, cache)
    cache.keep(torch.tensor([0, 2]))
    step = model(torch.tensor([[7], [7]]), cache)
    assert torch.allclose(step[1, 0], model(torch.tensor([[5, 6, 7]]))[0, -1], atol=1e-5)


def test_the_critic_is_blind_to_the_token_it_judges():
    model, ids = (
        ScalarModel(tiny()),
        torch.randint(23, (2, 8), generator=torch.Generator().manual_seed(2)),
    )
    for t in range(1, 8):
        other = ids.clone()
        other[:, t] = (ids[:, t] + 1) % 23
        a, b = model(ids), model(other)
        assert not torch.allclose(a[:, t], b[:, t])
        assert torch.equal(shift_right(a)[:, :t + 1], shift_right(b)[:, :t + 1])


def test_too_long_is_an_error():
    with pytest.raises(InputError, match="block of 16"):
        tiny()(torch.zeros(1, 17, dtype=torch.long))
