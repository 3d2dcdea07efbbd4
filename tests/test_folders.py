"""Folders of weights as people have them: each loads as the function that it is, or is refused in a
sentence that names what it is."""

import json
import os
from types import SimpleNamespace

import pytest
import torch
from calling import complaint
from test_gpt2 import ROWS, by_the_formulas, made_up, needs_gpt2, write

from nanorlhf import InputError, checkpoints, gpt2, hf_vocabulary
from nanorlhf.rollout import generate
from nanorlhf.tokenizer import Tokenizer


def test_layouts_that_are_gpt2s(tmp_path, capsys):
    """A prefix, the buffers of old, a head of another task, half precision, another name for the
    same GELU."""
    cfg, w = made_up()
    expected = by_the_formulas(w, cfg, ROWS[0]).float()
    bare = {name.removeprefix("transformer."): x for name, x in w.items()}
    buffers = {
        "h.0.attn.bias": torch.ones(1, 1, 12, 12).tril(),
        "h.1.attn.masked_bias": torch.tensor(-1e4),
        "transformer.h.1.attn.bias": torch.ones(12, 12, dtype=torch.uint8),
    }
    for name, weights, change, said in [
        ("prefix", w, {}, ""),
        ("bare", bare, {}, ""),
        ("buffers", bare | buffers, {}, ""),
        ("tied", w | {"lm_head.weight": w["transformer.wte.weight"]}, {}, ""),
        ("classifier", w | {"score.weight": torch.ones(3, 8)}, {}, "another task: score.weight"),
        (
            "value",
            w | {"v_head.summary.weight": torch.ones(1, 8), "v_head.summary.bias": torch.ones(1)},
            {},
            "v_head.summary.weight, v_head.summary.bias",
        ),
        ("double", {n: x.double() for n, x in w.items()}, {}, ""),
        ("gelu", w, {"activation_function": "gelu_pytorch_tanh"}, ""),
        ("fast", w, {"activation_function": "gelu_fast"}, ""),
        ("untyped", w, {"model_type": "gpt2", "n_ctx": 12, "n_inner": None}, ""),
    ]:
        model = gpt2.load(write(tmp_path / name, cfg | change, weights))
        torch.testing.assert_close(model(torch.tensor(ROWS[:1]))[0], expected, rtol=0, atol=1e-5)
        out = capsys.readouterr().out
        assert said in out and bool(out) == bool(said), name
    half = {name: x.half() for name, x in w.items()}
    model = gpt2.load(write(tmp_path / "half", cfg, half))
    expected = by_the_formulas(half, cfg, ROWS[0]).float()
    torch.testing.assert_close(model(torch.tensor(ROWS[:1]))[0], expected, rtol=0, atol=1e-5)


WTE, LAST = "transformer.wte.weight", "transformer.ln_f.bias"


@pytest.mark.parametrize(
    "change, said",
    [
        (
            lambda c, w: w.update({LAST: w[LAST] * float("nan")}),
            "ln_f.bias has numbers that are not",
        ),
        (
            lambda c, w: w.update({LAST: w[LAST].double() + 1e300}),
            "ln_f.bias has numbers that are not",
        ),
        (
            lambda c, w: w.update({WTE: w[WTE].to(torch.int8)}),
            "wte.weight is torch.int8, quantised",
        ),
        (lambda c, w: w.update({WTE: w[WTE].to(torch.float8_e4m3fn)}), "float8_e4m3fn, quantised"),
        (
            lambda c, w: w.update({"transformer.h.0.attn.c_attn.weight.absmax": torch.ones(3)}),
            "1 tensors have no place here, the first is h.0.attn.c_attn.weight.absmax",
        ),
        (lambda c, w: w.update({"transformer.h.2.ln_1.bias": torch.ones(8)}), "no place here"),
        (
            lambda c, w: w.update(
                {"transformer.h.0.crossattention.q_attn.weight": torch.ones(8, 8)}
            ),
            "no place here",
        ),
        (lambda c, w: w.update({"wte.weight": w[WTE] + 1}), "wte.weight is there twice"),
        (
            lambda c, w: w.update({LAST: torch.ones(9)}),
            r"ln_f.bias is \(9,\), config.json asks for",
        ),
        (
            lambda c, w: w.update({"transformer.h.0.mlp.c_fc.weight": torch.ones(32, 8)}),
            r"c_fc.weight is \(32, 8\), config.json asks for \(8, 32\)",
        ),
        (lambda c, w: w.update({"step": 7}), "step is int, not a tensor"),
        (lambda c, w: c.update(model_type="llama"), "a model of type 'llama'; gpt2 alone"),
        (lambda c, w: c.update(model_type="gpt_neo"), "a model of type 'gpt_neo'"),
        (lambda c, w: (c.update(model_type="opt"), c.pop("n_embd")), "a model of type 'opt'"),
        (lambda c, w: c.update(n_layer=0), r"n_embd are \[19, 12, 0, 2, 8\]"),
        (lambda c, w: c.update(n_head=2.0), "no usable GPT-2 config.json"),
        (lambda c, w: c.update(n_head=3), "n_embd 8 is not a multiple of n_head 3"),
        (lambda c, w: c.update(n_head=-2), "no usable GPT-2 config.json"),
        (
            lambda c, w: c.update(quantization_config={"load_in_4bit": True}),
            "quantization_config is",
        ),
        (lambda c, w: c.update(add_cross_attention=True), "add_cross_attention is True"),
        (lambda c, w: c.update(activation_function="gelu"), "activation_function is 'gelu'"),
        (lambda c, w: c.update(vocab_size=18), r"wte.weight is \(19, 8\), config.json asks for"),
    ],
)
def test_what_is_another_function(change, said, tmp_path):
    cfg, w = made_up()
    change(cfg, w)
    with pytest.raises(InputError, match=said) as error:
        gpt2.load(write(tmp_path / "hf", cfg, w))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[torch.ones(3)], torch.ones(3), {}, {"model": {}}, {"a": 1}])
def test_files_that_hold_something_else(content, tmp_path):
    """A traceback for a list in a .bin."""
    cfg, _ = made_up()
    with pytest.raises(InputError, match="not weights by name|is missing|not a tensor"):
        gpt2.load(write(tmp_path / "hf", cfg, content))


def test_shards_are_read(tmp_path):
    cfg, w = made_up()
    folder = write(tmp_path / "hf", cfg, w)
    whole = gpt2.load(folder)
    os.remove(tmp_path / "hf/pytorch_model.bin")
    names, place = sorted(w), {}
    for i in range(2):
        torch.save({name: w[name] for name in names[i::2]}, tmp_path / f"hf/part-{i}.bin")
        place |= dict.fromkeys(names[i::2], f"part-{i}.bin")
    index = tmp_path / "hf/pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": place}))
    assert gpt2.is_gpt2(folder) and checkpoints.same_weights(gpt2.load(folder), whole)
    os.remove(tmp_path / "hf/part-1.bin")
    with pytest.raises(InputError, match="part-1.bin: a shard that is missing"):
        gpt2.load(folder)
    index.write_text("[]")
    with pytest.raises(InputError, match="index.json is no list of shards"):
        gpt2.load(folder)


def test_init_says_what_it_found(tmp_path, monkeypatch, capsys):
    """ "model.pt does not exist" for everything that is not as it should be."""
    cfg, w = made_up()

    def ask(place, script="train_sft"):
        return complaint(
            monkeypatch, script, "--run", tmp_path / "run", "--init", place, "--device", "cpu"
        )

    adapter = tmp_path / "lora"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    assert "an adapter (LoRA), not a whole model; merge it first" in ask(adapter)
    bare = write(tmp_path / "bare", cfg, w)
    os.remove(tmp_path / "bare/config.json")
    assert f"{bare}: weights, but no config.json beside them" in ask(bare)
    pointer = write(tmp_path / "lfs", cfg, w)
    (tmp_path / "lfs/pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "is a pointer of git-lfs" in ask(pointer) and "git lfs pull" in ask(pointer)
    for name in ("gpt2-small", "openai-community/gpt2"):
        assert "gpt2, gpt2-medium, gpt2-large, gpt2-xl" in ask(name)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "does not exist; give the folder of a checkpoint" in ask(empty)
    # an unusable file beside a usable one
    both = write(tmp_path / "both", cfg, w)
    (tmp_path / "both/model.safetensors").write_bytes(b"\x00" * 40)
    capsys.readouterr()
    model = gpt2.load(both)
    out = capsys.readouterr().out
    assert "model.safetensors" in out and "read in its place: pytorch_model.bin" in out
    assert checkpoints.same_weights(model, gpt2.load(write(tmp_path / "one", cfg, w)))


# ---- vocabularies ----


def gpt2_folder(folder, rows=50257, files=None, change=None, std=0.3):
    """A folder of GPT-2's layout with so many rows, and files of a vocabulary: {name: content}"""
    cfg, w = made_up(V=rows, T=16, std=std)
    path = write(folder, cfg, w)
    tokens = hf_vocabulary.written(Tokenizer("gpt2"))
    vocab = {tokens[i]: i for i in range(50257)}
    if change:
        change(vocab)
    for name, content in (files or {"vocab.json": vocab}).items():
        (folder / name).write_text(json.dumps(content(vocab) if callable(content) else content))
    return path, w


def start(path):
    return checkpoints.start_model(SimpleNamespace(init=path), "", "cpu")


@needs_gpt2
@pytest.mark.parametrize(
    "file",
    [
        {"vocab.json": lambda vocab: vocab},
        {
            "tokenizer.json": lambda vocab: {
                "model": {"type": "BPE", "vocab": vocab},
                "added_tokens": [{"id": 50256, "content": "<|endoftext|>"}],
            }
        },
        {
            "vocab.json": lambda vocab: {t: i for t, i in vocab.items() if i < 50256},
            "added_tokens.json": {"<|endoftext|>": 50256},
        },
        {
            "vocab.json": lambda vocab: {t: i for t, i in vocab.items() if i < 50256},
            "tokenizer_config.json": {
                "added_tokens_decoder": {"50256": {"content": "<|endoftext|>"}}
            },
        },
    ],
)
def test_gpt2s_own_vocabulary_in_every_file(file, tmp_path, capsys):
    path, w = gpt2_folder(tmp_path / "hf", files=file)
    model, tokenizer = start(path)
    assert tokenizer.name == "gpt2" and model.cfg.vocab_size == 50262
    assert torch.equal(model.wte.weight[:50257], w["transformer.wte.weight"])
    assert capsys.readouterr().out == ""


@needs_gpt2
def test_no_file_of_a_vocabulary_is_said(tmp_path, capsys):
    path, _ = gpt2_folder(tmp_path / "hf", files={"README.md": "x"})
    start(path)
    assert "no file of a vocabulary; 50257 tokens are taken for gpt2's own" in (
        capsys.readouterr().out
    )
    path, _ = gpt2_folder(tmp_path / "more", rows=50260, files={"README.md": "x"})
    with pytest.raises(InputError, match="has 50260 tokens, gpt2's has 50257, and no tokenizer"):
        start(path)


def swapped(vocab):
    """Spanish, say: as many pieces, others."""
    vocab["Ġel"], vocab["Ġde"] = vocab["Ġof"], vocab["Ġthe"]
    del vocab["Ġof"], vocab["Ġthe"]


@needs_gpt2
@pytest.mark.parametrize(
    "change, said",
    [
        (swapped, "another vocabulary than gpt2's: token 262 is 'Ġde' there and 'Ġthe' here"),
        (lambda vocab: vocab.pop("!"), "token 0 is None there and '!' here"),
        (lambda vocab: vocab.update({"<s>": vocab.pop("<|endoftext|>")}), "token 50256 is '<s>'"),
    ],
)
def test_another_vocabulary_of_the_same_size(change, said, tmp_path):
    """Trained with English ids."""
    path, _ = gpt2_folder(tmp_path / "hf", change=change)
    with pytest.raises(InputError, match=said):
        start(path)


@needs_gpt2
def test_rows_behind_the_vocabulary(tmp_path, capsys):
    """Somebody's <pad> and <bos> taken for <|end|> and <|pad|>; a vocabulary that was rounded up to
    a multiple of 64 refused."""
    ours = [f"<|{name}|>" for name in ("end", "pad", "user", "assistant", "system")]
    for name, rows, added, known, said in (
        ("pad", 50258, ["<pad>"], 50257, "1 rows behind gpt2's vocabulary are left out: <pad>"),
        ("round", 50304, [], 50257, "47 rows behind gpt2's vocabulary are left out\n"),
        ("five", 50262, ["<pad>", "<bos>", "<a>", "<b>", "<c>"], 50257, "left out: <pad>, <bos>"),
        ("ours", 50262, ours, 50262, ""),
        ("ours, round", 50304, ours, 50262, "42 rows behind"),
        ("ours, more", 50263, [*ours, "[X]"], 50262, "left out: [X]"),
    ):
        path, w = gpt2_folder(
            tmp_path / name,
            rows=rows,
            change=lambda vocab, added=added: vocab.update(
                {token: 50257 + i for i, token in enumerate(added)}
            ),
        )
        model, tokenizer = start(path)
        rows = w["transformer.wte.weight"]
        assert torch.equal(model.wte.weight[:known], rows[:known]), name
        assert model.cfg.vocab_size == 50262 and model.wte.weight.shape[0] == 50304
        mean = rows[:known].mean(0)
        for i in range(known, 50262):
            torch.testing.assert_close(model.wte.weight[i], mean, rtol=0, atol=1e-6)
        out = capsys.readouterr().out
        assert said in out if said else out == "", name


@needs_gpt2
def test_files_of_a_vocabulary_that_are_broken(tmp_path):
    for i, (files, said) in enumerate(
        [
            ({"vocab.json": "x"}, "not a tokenizer's file"),
            ({"tokenizer.json": {}}, "not a tokenizer's file"),
            ({"vocab.json": {"a": 0}, "added_tokens.json": {"b": 0}}, "token 0 is 'a' in one file"),
            (
                {"tokenizer_config.json": {"nanorlhf": {"world": "towns"}}, "vocab.json": {"a": 0}},
                "says? that it is a vocabulary of a made-up world",
            ),
        ]
    ):
        path, _ = gpt2_folder(tmp_path / str(i), files=files)
        with pytest.raises(InputError, match=said):
            start(path)


def test_logits_that_are_not_finite_are_a_sentence(tmp_path):
    """ "index 50262 is out of bounds"."""
    cfg, w = made_up()
    model = gpt2.load(write(tmp_path / "hf", cfg, w))
    for bad in (float("nan"), float("inf")):
        model.ln_f.bias.data[0] = bad
        for temperature in (0, 1.0):
            with pytest.raises(InputError, match="logits that are not finite"):
                generate(model, ROWS, 3, eos=0, temperature=temperature)
    for temperature in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="temperature"):
            generate(model, ROWS, 3, eos=0, temperature=temperature)
