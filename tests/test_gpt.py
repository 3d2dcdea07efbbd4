"""The transformer: causal, its cache and its padding change nothing, its heads read what they should."""
import json
import math

import pytest
import torch

from nanorlhf import InputError
from nanorlhf.functional import shift_right
from nanorlhf.gpt import GPT, GPTConfig, KVCache, ScalarModel


def tiny(seed=0):
    return GPT(GPTConfig(vocab_size=23, block_size=16, n_layer=2, n_head=2, n_embd=16), torch.Generator().manual_seed(seed)).eval()


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
    model, ids = ScalarModel(tiny()), torch.randint(23, (2, 8), generator=torch.Generator().manual_seed(2))
    for t in range(1, 8):
        other = ids.clone()
        other[:, t] = (ids[:, t] + 1) % 23
        a, b = model(ids), model(other)
        assert not torch.allclose(a[:, t], b[:, t])
        assert torch.equal(shift_right(a)[:, :t + 1], shift_right(b)[:, :t + 1])


def test_too_long_is_an_error():
    with pytest.raises(InputError, match="block of 16"):
        tiny()(torch.zeros(1, 17, dtype=torch.long))


def gpt2_in_the_layout_of_hugging_face(g):
    """(config, weights) of a made-up GPT-2; its Conv1D matrices are (in, out)."""
    V, T, L, C = 19, 12, 2, 8
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    for i in range(L):
        for name, shape in {"ln_1": (C,), "ln_2": (C,), "attn.c_attn": (C, 3 * C), "attn.c_proj": (C, C), "mlp.c_fc": (C, 4 * C),
                            "mlp.c_proj": (4 * C, C)}.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
    return ({"vocab_size": V, "n_positions": T, "n_layer": L, "n_head": 2, "n_embd": C},
            {f"transformer.{name}": torch.randn(shape, generator=g) * 0.5 for name, shape in shapes.items()})


def gpt2_by_the_formulas(w, cfg, ids):
    """Radford et al. 2019, written out in float64 for one row of ids -> logits (T, V)."""
    w = {name.removeprefix("transformer."): x.double() for name, x in w.items()}
    T, H, D = len(ids), cfg["n_head"], cfg["n_embd"] // cfg["n_head"]

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][:T]
    for i in range(cfg["n_layer"]):
        q, k, v = (norm(x, f"h.{i}.ln_1") @ w[f"h.{i}.attn.c_attn.weight"] + w[f"h.{i}.attn.c_attn.bias"]).split(H * D, -1)
        heads = []
        for h in range(H):
            part = slice(h * D, (h + 1) * D)
            scores = q[:, part] @ k[:, part].T / math.sqrt(D)
            heads.append(scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(-1) @ v[:, part])
        x = x + torch.cat(heads, -1) @ w[f"h.{i}.attn.c_proj.weight"] + w[f"h.{i}.attn.c_proj.bias"]
        a = norm(x, f"h.{i}.ln_2") @ w[f"h.{i}.mlp.c_fc.weight"] + w[f"h.{i}.mlp.c_fc.bias"]
        gelu = 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a ** 3)))
        x = x + gelu @ w[f"h.{i}.mlp.c_proj.weight"] + w[f"h.{i}.mlp.c_proj.bias"]
    return norm(x, "ln_f") @ w["wte.weight"].T


def test_gpt2_weights_make_the_function_of_the_paper(tmp_path):
    """A matrix not transposed, another GELU, a norm after instead of before, q, k and v in another order, a head of its own."""
    cfg, w = gpt2_in_the_layout_of_hugging_face(torch.Generator().manual_seed(0))
    (tmp_path / "config.json").write_text(json.dumps(cfg))
    torch.save(w, tmp_path / "pytorch_model.bin")
    model, ids = GPT.from_gpt2(str(tmp_path)), [3, 1, 4, 1, 5, 9, 2]
    expected = gpt2_by_the_formulas(w, cfg, ids)
    torch.testing.assert_close(model(torch.tensor([ids]))[0].double(), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.5

    del w["transformer.h.1.ln_2.bias"]
    torch.save(w, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="h.1.ln_2.bias is missing"):
        GPT.from_gpt2(str(tmp_path))
