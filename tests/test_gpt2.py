"""GPT-2: its weights make the paper's function, special tokens find room behind its vocabulary, and
export.py gives it all back."""
import json
import math
import os
import random
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest
import torch
from calling import call, complaint

from nanorlhf import InputError, checkpoints, gpt2, worlds
from nanorlhf.functional import token_logprobs
from nanorlhf.gpt import GPT, GPTConfig, KVCache, ScalarModel
from nanorlhf.hf_vocabulary import byte_characters
from nanorlhf.rollout import generate
from nanorlhf.tokenizer import Tokenizer
from tools import export

ROWS = [[3, 1, 4, 1, 5], [9, 2], [6, 5, 3]]
TEXTS = [
    "Hello there! Don't, I'd say, DON'T.",
    "  naïve í 漢字 \n\t  🙂 x=1;   12345 ",
    "",
    "<|end",
    "the\n\nend\r\n",
]
CHAT = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": "Hi \n"},
    {"role": "assistant", "content": " <b>Sure</b> & '{{x}}'\n"},
    {"role": "user", "content": "Who?  "},
]


def gpt2_is_cached():
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    return os.path.isdir(folder) and len(os.listdir(folder)) >= 2


needs_gpt2 = pytest.mark.skipif(
    not gpt2_is_cached(), reason="tiktoken's gpt2 vocabulary is not cached"
)


def made_up(V=19, T=12, std=0.5):
    """(config, weights) of a GPT-2 in Hugging Face's layout; its Conv1D matrices are (in, out)."""
    g, L, C = torch.Generator().manual_seed(0), 2, 8
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    for i in range(L):
        for name, shape in {
            "ln_1": (C,),
            "ln_2": (C,),
            "attn.c_attn": (C, 3 * C),
            "attn.c_proj": (C, C),
            "mlp.c_fc": (C, 4 * C),
            "mlp.c_proj": (4 * C, C),
        }.items():
            shapes |= {f"h.{i}.{name}.weight": shape, f"h.{i}.{name}.bias": shape[-1:]}
    return (
        {
            "model_type": "gpt2",
            "vocab_size": V,
            "n_positions": T,
            "n_layer": L,
            "n_head": 2,
            "n_embd": C,
        },
        {
            f"transformer.{name}": torch.randn(shape, generator=g) * std
            for name, shape in shapes.items()
        },
    )


def write(folder, cfg, w):
    """-> the folder, as a str, in Hugging Face's layout."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(cfg))
    torch.save(w, folder / "pytorch_model.bin")
    return str(folder)


def by_the_formulas(w, cfg, ids):
    """Radford et al. 2019, written out in float64 for one row of ids -> logits (T, V)."""
    w = {name.removeprefix("transformer."): x.double() for name, x in w.items()}
    T, H, D = len(ids), cfg["n_head"], cfg["n_embd"] // cfg["n_head"]

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        return (
            x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * w[f"{name}.weight"]
            + w[f"{name}.bias"]
        )

    x = w["wte.weight"][ids] + w["wpe.weight"][:T]
    for i in range(cfg["n_layer"]):
        q, k, v = (
            norm(x, f"h.{i}.ln_1") @ w[f"h.{i}.attn.c_attn.weight"] + w[f"h.{i}.attn.c_attn.bias"]
        ).split(H * D, -1)
        heads = []
        for h in range(H):
            part = slice(h * D, (h + 1) * D)
            scores = q[:, part] @ k[:, part].T / math.sqrt(D)
            heads.append(
                scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf).softmax(-1)
                @ v[:, part]
            )
        x = x + torch.cat(heads, -1) @ w[f"h.{i}.attn.c_proj.weight"] + w[f"h.{i}.attn.c_proj.bias"]
        a = norm(x, f"h.{i}.ln_2") @ w[f"h.{i}.mlp.c_fc.weight"] + w[f"h.{i}.mlp.c_fc.bias"]
        gelu = 0.5 * a * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a ** 3)))
        x = x + gelu @ w[f"h.{i}.mlp.c_proj.weight"] + w[f"h.{i}.mlp.c_proj.bias"]
    return norm(x, "ln_f") @ w["wte.weight"].T


def left_padded(rows):
    """-> (ids (B, T), pads (B,)): what generate() makes of prompts of different length."""
    width = max(map(len, rows))
    return torch.tensor([[0] * (width - len(r)) + r for r in rows]), torch.tensor(
        [width - len(r) for r in rows]
    )


# ---- its weights ----

def test_gpt2_weights_make_the_function_of_the_paper(tmp_path):
    """A matrix not transposed, another GELU, a norm after instead of before, q, k and v in another
    order, a head of its own; and on
    left-padded rows, positions or attention that count the pads."""
    cfg, w = made_up()
    model = gpt2.load(write(tmp_path, cfg, w))
    ids, pads = left_padded(ROWS)
    padded = model(ids, KVCache(model.cfg, pads, 5))
    for row, pad, cached in zip(ROWS, pads, padded):
        expected = by_the_formulas(w, cfg, row)
        assert expected.std() > 0.5
        for logits in (model(torch.tensor([row]))[0], cached[pad:]):
            torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx is True"),
        ({"n_embd": None}, "no usable GPT-2 config.json"),
        ({"n_embd": 16}, "config.json asks for"),
    ],
)
def test_what_is_another_function_is_an_error(change, said, tmp_path):
    """Weights of GPT-2's shapes that were trained as another function: they load, and talk
    nonsense."""
    cfg, w = made_up()
    with pytest.raises(InputError, match=said):
        gpt2.load(write(tmp_path, cfg | change, w))


def test_weights_that_are_not_all_there_are_an_error(tmp_path):
    """A tensor left at random, a head of its own ignored, a half file, a pickle that would run
    code: a traceback, or silence."""
    cfg, w = made_up()
    without = {name: x for name, x in w.items() if "h.1.ln_2.bias" not in name}
    for weights, said in (
        (without, "h.1.ln_2.bias is missing"),
        (
            w | {"lm_head.weight": w["transformer.wte.weight"] + 1},
            "lm_head.weight is not wte.weight",
        ),
        ({"evil": os.getcwd}, "not a whole file of weights"),
    ):
        with pytest.raises(InputError, match=said):
            gpt2.load(write(tmp_path, cfg, weights))
    whole = open(tmp_path / "pytorch_model.bin", "rb").read()
    (tmp_path / "pytorch_model.bin").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(InputError, match="not a whole file of weights"):
        gpt2.load(str(tmp_path))
    os.remove(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="neither model.safetensors nor pytorch_model.bin"):
        gpt2.load(str(tmp_path))


# ---- the download ----

class Server(BaseHTTPRequestHandler):
    """Promises ten bytes; /whole keeps the promise, /half hangs up after five."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"0123456789"[:10 if self.path == "/whole" else 5])

    def log_message(self, *args):
        pass


def test_a_download_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    """A lost connection reads as the end of the file: half the weights lie in the cache for good,
    and every later run fails on them."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(OSError, match="after 5 of 10 bytes"):
            gpt2._download_whole(
                f"http://127.0.0.1:{server.server_port}/half", str(tmp_path / "weights")
            )
        assert os.listdir(tmp_path) == []
        gpt2._download_whole(
            f"http://127.0.0.1:{server.server_port}/whole", str(tmp_path / "weights")
        )
        assert (
            os.listdir(tmp_path) == ["weights"]
            and (tmp_path / "weights").read_bytes() == b"0123456789"
        )
    finally:
        server.shutdown()
        server.server_close()


def test_offline_says_what_to_put_where(tmp_path, monkeypatch):
    """urllib's traceback; or an unusable place for the cache, such as a file."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    said = complaint(
        monkeypatch,
        "train_sft",
        "--run",
        tmp_path / "run",
        "--init",
        "gpt2-medium",
        "--device",
        "cpu",
    )
    assert f"put its config.json and pytorch_model.bin in {tmp_path}/nanorlhf/gpt2-medium" in said
    assert (
        os.listdir(tmp_path / "nanorlhf" / "gpt2-medium") == [] and not (tmp_path / "run").exists()
    )
    monkeypatch.setattr(torch.hub, "get_dir", lambda: __file__)
    assert "could not download gpt2-xl" in complaint(
        monkeypatch, "train_rm", "--run", tmp_path / "run", "--init", "gpt2-xl"
    )


# ---- special tokens ----

def far_below_zero(tmp_path, V=19):
    """A model whose logits are all far below 0, as GPT-2's are: about -30."""
    cfg, w = made_up(V)
    w["transformer.wte.weight"][:, 0] = 10
    w["transformer.ln_f.weight"][0], w["transformer.ln_f.bias"][0] = 0, -3
    return gpt2.load(write(tmp_path, cfg, w))


def test_a_new_token_starts_unlikely(tmp_path):
    """Rows of zeros or of small random numbers: a logit of 0 among logits of -30 is every sample.
    Old tokens must not move."""
    model = far_below_zero(tmp_path)
    ids = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    before = model(ids)
    assert before.max() < -20
    model.extend(19 + 5)
    after = model(ids)
    assert (
        after.shape == (2, 5, 24)
        and model.cfg.vocab_size == 24
        and model.wte.weight.shape == (64, 8)
    )
    torch.testing.assert_close(after[..., :19], before)
    new = after.softmax(-1)[..., 19:]
    assert (new > 0).all() and (new < 1 / 19).all()
    assert (after.log_softmax(-1)[..., :19] - before.log_softmax(-1)).abs().max() <= math.log(
        24 / 19
    )
    with torch.no_grad():
        # a row that was no token: whatever is in it must not come in
        model.wte.weight[24] = 0.0
    model.extend(24 + 64)
    again = model(ids)
    assert model.wte.weight.shape == (128, 8) and again.shape == (2, 5, 88)
    torch.testing.assert_close(again[..., :24], after)
    assert (again.softmax(-1)[..., 24:] < 1 / 24).all()


def test_rows_past_the_vocabulary_are_in_no_softmax(tmp_path):
    """A row that is no token yet is sampled, takes probability, or is trained."""
    model = far_below_zero(tmp_path)
    model.extend(24)
    with torch.no_grad():
        # logits of about +30: they would win everywhere
        model.wte.weight[24:] = -model.wte.weight[0]
    out = generate(model, ROWS * 20, 6, eos=20, generator=torch.Generator().manual_seed(0))
    assert out.ids.max() < 24
    logp = token_logprobs(model(out.ids), out.ids)
    assert (out.logp - logp)[out.mask].abs().max() < 1e-4
    logp[out.mask].sum().backward()
    assert model.wte.weight.grad[:24].abs().sum() > 0 and (model.wte.weight.grad[24:] == 0).all()
    assert generate(model, ROWS, 6, eos=20, temperature=0).ids.max() < 24


def test_a_model_from_scratch_is_what_it_was():
    """The same seed must give the same weights as before there was room behind a vocabulary: first
    of all draws, V rows of wte."""
    model = GPT(GPTConfig(23, 16, 2, 2, 16), torch.Generator().manual_seed(5))
    assert torch.equal(
        model.wte.weight,
        torch.empty(23, 16).normal_(0, 0.02, generator=torch.Generator().manual_seed(5)),
    )
    assert model.cfg == GPTConfig(
        vocab_size=23, block_size=16, n_layer=2, n_head=2, n_embd=16, embedding_rows=0
    )


@pytest.mark.parametrize("wrap, kind", [(lambda m: m, "gpt"), (ScalarModel, "scalar")])
def test_a_checkpoint_keeps_the_room(wrap, kind, tmp_path):
    """A checkpoint that is rebuilt with vocab_size rows does not load."""
    model = far_below_zero(tmp_path / "gpt2", V=30)
    model.extend(35)
    model = wrap(model)
    checkpoints.save_checkpoint(str(tmp_path / "model.pt"), model, Tokenizer("sums"))
    again, _ = checkpoints.load_checkpoint(str(tmp_path), kind=kind)
    assert again.cfg == model.cfg and torch.equal(
        again(torch.tensor(ROWS[:1])), model(torch.tensor(ROWS[:1]))
    )


# ---- --init ----

@needs_gpt2
def test_training_starts_from_gpt2(tmp_path, monkeypatch):
    """--init that trains random weights, the flags' size instead of the config's, special tokens
    without rows."""
    cfg, w = made_up(V=50257, T=40, std=0.1)
    w["transformer.ln_f.weight"] += 1
    given = write(tmp_path / "gpt2 weights", cfg, w)
    chats = [{"prompt": f"What is {i}?", "completion": f"{i} is a number."} for i in range(8)]
    pairs = [
        {"prompt": f"What is {i}?", "chosen": f"{i} is a number.", "rejected": "No idea."}
        for i in range(8)
    ]
    for name, rows in (("chats", chats), ("pairs", pairs)):
        (tmp_path / name).write_text("".join(json.dumps(r) + "\n" for r in rows))
    common = (
        "--run",
        tmp_path / "run",
        "--init",
        given,
        "--steps",
        1,
        "--batch_size",
        8,
        "--held_out",
        0.2,
        "--device",
        "cpu",
        "--lr",
        0,
    )
    call(monkeypatch, "train_sft", "--data", tmp_path / "chats", "--max_new_tokens", 4, *common)
    model, tokenizer = checkpoints.load_checkpoint(str(tmp_path / "run/sft"))
    assert (model.cfg.vocab_size, model.cfg.embedding_rows, model.cfg.block_size) == (
        50262,
        50304,
        40,
    )
    assert tokenizer.name == "gpt2" and tokenizer.vocab_size == 50262
    old = w["transformer.wte.weight"]
    # --lr 0
    assert torch.equal(model.wte.weight[:50257], old)
    torch.testing.assert_close(model.wte.weight[tokenizer.end], old.mean(0), rtol=0, atol=1e-6)

    # the loss of the first step, from the formulas and the data: six or seven chats, each
    # "<|user|>prompt<|assistant|>" and its answer
    logged = json.loads((tmp_path / "run/sft/log.jsonl").read_text().splitlines()[0])["loss"]
    w["transformer.wte.weight"] = torch.cat([old, old.mean(0).expand(5, -1)])
    losses = []
    for c in chats:
        prompt, answer = tokenizer.prompt(c["prompt"]), tokenizer.completion(c["completion"])
        logp = by_the_formulas(w, cfg, prompt + answer).log_softmax(-1)
        losses += [-logp[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]
    assert min(losses) < logged < max(losses) and logged == pytest.approx(
        sum(losses) / len(losses), abs=0.1
    )

    call(monkeypatch, "train_rm", "--data", tmp_path / "pairs", *common)
    reward_model, _ = checkpoints.load_checkpoint(str(tmp_path / "run/rm"), kind="scalar")
    assert torch.equal(reward_model.gpt.wte.weight, model.wte.weight)


@needs_gpt2
def test_what_init_takes_for_gpt2(tmp_path, monkeypatch):
    """A stage's folder, which holds a config.json too, taken for GPT-2, or GPT-2 for a checkpoint;
    another vocabulary taken for gpt2's."""
    ask = lambda folder: complaint(
        monkeypatch, "train_sft", "--run", tmp_path / "run", "--init", folder, "--device", "cpu"
    )
    assert "its vocabulary has 19 tokens, gpt2's has 50257" in ask(
        write(tmp_path / "other", *made_up())
    )
    os.remove(tmp_path / "other/pytorch_model.bin")
    assert "neither model.safetensors nor pytorch_model.bin" in ask(tmp_path / "other")

    stage = tmp_path / "towns" / "base"
    call(
        monkeypatch,
        "train_base",
        "--run",
        tmp_path / "towns",
        "--steps",
        1,
        "--n_layer",
        1,
        "--n_embd",
        8,
        "--n_head",
        1,
        "--pages",
        40,
        "--batch_size",
        2,
        "--device",
        "cpu",
    )
    assert (
        not gpt2.is_gpt2(str(stage))
        and not gpt2.is_gpt2(str(stage / "model.pt"))
        and not gpt2.is_gpt2("")
        and gpt2.is_gpt2("gpt2-xl")
    )
    os.remove(stage / "model.pt")
    assert "make it first: python train_base.py" in ask(stage)


# ---- export ----

def checkpoint(folder, std=0.3):
    """A checkpoint whose vocabulary is gpt2's -> its model."""
    model = gpt2.load(write(folder / "weights", *made_up(V=50257, T=64, std=std))).eval()
    model.extend(50262)
    with torch.no_grad():
        # as after training: no two alike
        model.wte.weight[50257:50262] += torch.arange(1, 6)[:, None] / 10
    checkpoints.save_checkpoint(str(folder / "sft/model.pt"), model, Tokenizer("gpt2"))
    return model


@needs_gpt2
@pytest.mark.parametrize("safetensors", [True, False])
def test_export_and_back(safetensors, tmp_path, monkeypatch):
    """A matrix not transposed back, rows past the vocabulary written as tokens, a file missing."""
    if safetensors:
        pytest.importorskip("safetensors")
    else:
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    model = checkpoint(tmp_path)
    call(monkeypatch, "tools.export", tmp_path / "sft", tmp_path / "hf")
    weights = "model.safetensors" if safetensors else "pytorch_model.bin"
    assert sorted(os.listdir(tmp_path / "hf")) == sorted(
        [
            "README.md",
            "config.json",
            "generation_config.json",
            "merges.txt",
            "tokenizer_config.json",
            "vocab.json",
            weights,
        ]
    )
    # no second head
    assert os.path.getsize(tmp_path / "hf" / weights) < 1.1 * 4 * sum(
        p.numel() for p in model.parameters()
    )
    again = gpt2.load(str(tmp_path / "hf"))
    assert again.cfg.vocab_size == 50262 and again.wte.weight.shape == (50262, 8)
    torch.testing.assert_close(
        again(torch.tensor(ROWS[:1])), model(torch.tensor(ROWS[:1])), rtol=0, atol=1e-6
    )
    assert "exists already" in complaint(
        monkeypatch, "tools.export", tmp_path / "sft", tmp_path / "hf"
    )
    # back from another framework
    again, tokenizer = checkpoints.start_model(
        SimpleNamespace(init=str(tmp_path / "hf")), "", "cpu"
    )
    assert (again.cfg.vocab_size, again.cfg.embedding_rows, tokenizer.vocab_size) == (
        50262,
        50304,
        50262,
    )
    torch.testing.assert_close(
        again(torch.tensor(ROWS[:1])), model(torch.tensor(ROWS[:1])), rtol=0, atol=1e-6
    )


def test_export_is_whole_or_not_there(tmp_path, monkeypatch):
    """Half a folder that looks like a model, or what an earlier killed run left behind in the new
    one."""
    model = GPT(GPTConfig(261, 8, 1, 1, 8))
    (tmp_path / "hf.partial").mkdir()
    (tmp_path / "hf.partial" / "old").write_text("")

    def stopped(*args):
        assert "config.json" in os.listdir(tmp_path / "hf.partial")
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(export, "write_weights", stopped)
        with pytest.raises(KeyboardInterrupt):
            export.export(model, Tokenizer("sums"), str(tmp_path / "hf"))
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not write"):
        export.export(model, Tokenizer("sums"), str(tmp_path / "file" / "hf"))


def exported(world, tmp_path, monkeypatch):
    """A model of a world, exported -> (model, tokenizer, the folder)"""
    tokenizer = Tokenizer(world, knobs={"digits": 2} if world == "sums" else None)
    model = GPT(GPTConfig(tokenizer.vocab_size, 24, 1, 1, 8), torch.Generator().manual_seed(0))
    checkpoints.save_checkpoint(str(tmp_path / "sft/model.pt"), model, tokenizer)
    hf = tmp_path / "new" / "hf"
    call(monkeypatch, "tools.export", tmp_path / "sft", hf)
    return model, tokenizer, hf


@pytest.mark.parametrize("world", ["towns", "sums", "sorting"])
def test_export_of_a_world_and_back(world, tmp_path, monkeypatch):
    """A tokenizer of one token that encodes everything to nothing; a world that comes back as
    another, or without its settings."""
    model, tokenizer, hf = exported(world, tmp_path, monkeypatch)
    assert {"tokenizer.json", "config.json", "README.md"} < set(os.listdir(hf))
    again, theirs = checkpoints.load_checkpoint(str(hf))
    assert theirs.state() == tokenizer.state() and again.cfg == model.cfg
    assert checkpoints.same_weights(again, model)
    # the way of text through that file, by hand: split, characters for bytes, merges
    file = json.loads((hf / "tokenizer.json").read_text(encoding="utf-8"))
    order = {tuple(pair): i for i, pair in enumerate(file["model"]["merges"])}
    pattern = file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    for text in ("Who is the mayor of Tarn?", " 37+285=  \n", "Überraschung 日本 ..."):
        ids = []
        for word in re.findall(pattern, text):
            parts = [byte_characters()[b] for b in word.encode()]
            while (
                len(parts) > 1
                and (best := min(zip(parts, parts[1:]), key=lambda two: order.get(two, math.inf)))
                in order
            ):
                at = list(zip(parts, parts[1:])).index(best)
                parts[at:at + 2] = ["".join(best)]
            ids += [file["model"]["vocab"][part] for part in parts]
        assert ids == tokenizer.encode(text)


@needs_gpt2
@pytest.mark.parametrize("world", ["towns", "sums", "sorting"])
def test_a_world_that_another_framework_saved(world, tmp_path, monkeypatch):
    """The marks are in tokenizer_config.json alone. Without them it is held against gpt2's
    vocabulary, and is another."""
    _, _, hf = exported(world, tmp_path, monkeypatch)
    said = json.loads((hf / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert said["model_max_length"] == 24
    del said["nanorlhf"]
    (hf / "tokenizer_config.json").write_text(json.dumps(said))
    with pytest.raises(InputError, match="another vocabulary than gpt2's|its vocabulary has"):
        checkpoints.load_checkpoint(str(hf))


def test_export_of_a_reward_model_and_back(tmp_path, monkeypatch, capsys):
    """A bias that is lost: every score off by as much; a head that is drawn anew."""
    tokenizer = Tokenizer()
    g = torch.Generator().manual_seed(0)
    reward_model = ScalarModel(GPT(GPTConfig(tokenizer.vocab_size, 24, 2, 2, 16), g), g)
    reward_model.head.bias.data += 3.7
    checkpoints.save_checkpoint(str(tmp_path / "rm/model.pt"), reward_model, tokenizer)
    call(monkeypatch, "tools.export", tmp_path / "rm", tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    assert config["architectures"] == ["GPT2ForSequenceClassification"]
    assert config["num_labels"] == 1 and config["pad_token_id"] == tokenizer.pad
    again, theirs = checkpoints.load_checkpoint(str(tmp_path / "hf"), kind="scalar")
    ids = torch.randint(tokenizer.vocab_size, (5, 20), generator=g)
    torch.testing.assert_close(again(ids), reward_model(ids), rtol=0, atol=1e-5)
    assert theirs.state() == tokenizer.state() and again(ids).mean() > 2
    # as a language model its head is left out, and said
    capsys.readouterr()
    checkpoints.load_checkpoint(str(tmp_path / "hf"))
    assert "left out, a head of another task: score.weight" in capsys.readouterr().out
    reward_model.head.weight.data.zero_()
    with pytest.raises(InputError, match="head is 0"):
        gpt2.layout(reward_model)


@needs_gpt2
def test_the_written_merges_are_those_of_tiktoken():
    """A merge lost, out of order, of the wrong parts, or written in other characters: text is split
    another way. Applied here as
    Sennrich et al. do, to words; the order of the file is all that it knows of ranks."""
    tokenizer = Tokenizer("gpt2")
    files = export.tokenizer_files(tokenizer, 64)
    vocab, lines = json.loads(files["vocab.json"]), files["merges.txt"].splitlines()
    # as OpenAI published it
    assert lines[:4] == ["#version: 0.2", "Ġ t", "Ġ a", "h e"] and len(lines) == 50001
    assert (
        sorted(vocab.values()) == list(range(50257))
        and vocab["!"] == 0
        and vocab["Ġ"] == 220
        and vocab["Ċ"] == 198
    )
    order = {tuple(line.split(" ")): i for i, line in enumerate(lines)}
    character = byte_characters()
    assert [character[ord(c)] for c in "!a \n\xad\xae\xff"] == ["!", "a", "Ġ", "Ċ", "Ń", "®", "ÿ"]
    for word in re.findall(
        r" ?\w+|\W", " ".join(TEXTS) + " unbelievable supercalifragilistic Überraschung 日本語"
    ) + [" Fußgänger"]:
        if not word.strip():
            continue
        parts = [character[b] for b in word.encode()]
        while (
            len(parts) > 1
            and (best := min(zip(parts, parts[1:]), key=lambda pair: order.get(pair, math.inf)))
            in order
        ):
            i = list(zip(parts, parts[1:])).index(best)
            parts[i:i + 2] = ["".join(best)]
        assert [vocab[p] for p in parts] == tokenizer.encode(word), word


# ---- beside transformers, where it is installed ----

@needs_gpt2
def test_transformers_says_the_same(tmp_path, monkeypatch):
    """Anything that the formulas above and this code would both have wrong; another end token;
    greedy answers to ragged prompts."""
    transformers = pytest.importorskip("transformers")
    model = checkpoint(tmp_path)
    call(monkeypatch, "tools.export", tmp_path / "sft", tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    tokenizer = Tokenizer("gpt2")
    prompts = [
        tokenizer.prompt(text)
        for text in ("Who is the mayor of Marlow?", "Hi", "One, two,\nthree.")
    ]
    ids, pads = left_padded(prompts)
    real = torch.arange(ids.shape[1]) >= pads[:, None]
    with torch.no_grad():
        expected = theirs(
            ids, attention_mask=real.long(), position_ids=(real.cumsum(1) - 1).clamp(min=0)
        ).logits
        cached = model(ids, KVCache(model.cfg, pads, ids.shape[1]))
        torch.testing.assert_close(cached[real], expected[real], rtol=0, atol=1e-5)
        for row in prompts:
            torch.testing.assert_close(
                model(torch.tensor([row])), theirs(torch.tensor([row])).logits, rtol=0, atol=1e-5
            )
        greedy = theirs.generate(
            ids, attention_mask=real.long(), max_new_tokens=20, do_sample=False
        )[:, ids.shape[1] :]
    for response, row in zip(
        generate(model, prompts, 20, tokenizer.end, temperature=0).responses(), greedy.tolist()
    ):
        assert response == row[: len(response)] and (
            len(response) == 20 or row[len(response) - 1] == tokenizer.end
        )


@needs_gpt2
def test_transformers_reads_the_tokenizer_as_ours(tmp_path, monkeypatch):
    """A special token at another id, a beginning put in front, spaces eaten beside a special token,
    a template that adds or drops."""
    transformers = pytest.importorskip("transformers")
    checkpoint(tmp_path)
    call(monkeypatch, "tools.export", tmp_path / "sft", tmp_path / "hf")
    ours, theirs = Tokenizer("gpt2"), transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (len(theirs), theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (
        50262,
        ours.end,
        ours.pad,
        None,
    )
    for text in TEXTS:
        assert theirs.encode(text) == ours.encode(text) and theirs.decode(ours.encode(text)) == text
    assert theirs.apply_chat_template(
        CHAT, add_generation_prompt=True, return_dict=False
    ) == ours.prompt(CHAT)
    assert theirs.apply_chat_template(CHAT[:3], return_dict=False) == ours.chat(CHAT[:3])[0]
    assert theirs.apply_chat_template(CHAT, tokenize=False) == ours.decode(ours.chat(CHAT)[0])
    with pytest.raises(Exception, match="a role is system, user or assistant"):
        theirs.apply_chat_template([{"role": "tool", "content": ""}])


def chats_and_texts(world):
    """Some that its pages have, and what no page has."""
    rng = random.Random(0)
    module = worlds.load(world)
    pages = [module.page(rng) for _ in range(20)]
    texts = [p if isinstance(p, str) else p[0]["content"] for p in pages] + TEXTS
    asked = module.questions(20, rng)
    chats = [
        [
            {"role": "user", "content": q.text},
            {"role": "assistant", "content": module.demonstration(q, rng)},
        ]
        for q in asked
    ]
    return texts, [*chats, CHAT[:3]]


@pytest.mark.parametrize("world", ["towns", "sums", "sorting"])
def test_transformers_reads_the_vocabulary_of_a_world(world, tmp_path, monkeypatch):
    """A tokenizer of one token that encodes everything to nothing; text split as gpt2's is; a mask
    of what the assistant says that is empty, or a token off; marks that are lost on the way back.
    """
    transformers = pytest.importorskip("transformers")
    ours = Tokenizer(world)
    model = GPT(GPTConfig(ours.vocab_size, 48, 1, 1, 8), torch.Generator().manual_seed(0))
    checkpoints.save_checkpoint(str(tmp_path / "sft/model.pt"), model, ours)
    call(monkeypatch, "tools.export", tmp_path / "sft", tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert (len(theirs), theirs.eos_token_id, theirs.pad_token_id, theirs.model_max_length) == (
        ours.vocab_size,
        ours.end,
        ours.pad,
        48,
    )
    texts, chats = chats_and_texts(world)
    for text in texts:
        assert theirs.encode(text) == ours.encode(text) and theirs.decode(ours.encode(text)) == text
    for messages in chats:
        said = theirs.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = ours.chat(messages)
        assert said["input_ids"] == ids and said["assistant_masks"] == list(map(int, mask))
        assert theirs.apply_chat_template(
            messages[:-1], add_generation_prompt=True, return_dict=False
        ) == ours.prompt(messages[:-1])
    net = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert net.generation_config.eos_token_id == ours.end
    ids = torch.tensor([ours.chat(chats[0])[0][:48]])
    torch.testing.assert_close(net(ids).logits, model(ids), rtol=0, atol=1e-5)
    # as a trainer writes both
    net.save_pretrained(tmp_path / "back")
    theirs.save_pretrained(tmp_path / "back")
    again, tokenizer = checkpoints.load_checkpoint(str(tmp_path / "back"))
    assert tokenizer.state() == ours.state() and checkpoints.same_weights(again, model)


@needs_gpt2
@pytest.mark.parametrize("name", ["towns", "gpt2"])
def test_transformers_gives_the_scores_of_a_reward_model(name, tmp_path, monkeypatch):
    """The bias folded in with the wrong length; a score read at a pad; a head that comes back as
    another."""
    transformers = pytest.importorskip("transformers")
    ours, g = Tokenizer(name), torch.Generator().manual_seed(0)
    reward_model = ScalarModel(GPT(GPTConfig(ours.vocab_size, 48, 2, 2, 16), g), g)
    reward_model.head.bias.data += 2.5
    checkpoints.save_checkpoint(str(tmp_path / "rm/model.pt"), reward_model, ours)
    call(monkeypatch, "tools.export", tmp_path / "rm", tmp_path / "hf")
    net = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "hf").eval()
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    rows = [ours.chat(CHAT[:3])[0], ours.prompt("Hi") + ours.completion("Yes, it is.")]
    batch = theirs.pad({"input_ids": rows}, padding_side="right", return_tensors="pt")
    alone = torch.stack([reward_model(torch.tensor([row]))[0, -1] for row in rows])
    torch.testing.assert_close(net(**batch).logits.squeeze(1), alone, rtol=0, atol=1e-6)
    assert alone.mean() > 1
    net.save_pretrained(tmp_path / "back")
    theirs.save_pretrained(tmp_path / "back")
    again, _ = checkpoints.load_checkpoint(str(tmp_path / "back"), kind="scalar", like=ours)
    for row, score in zip(rows, alone):
        torch.testing.assert_close(again(torch.tensor([row]))[0, -1], score, rtol=0, atol=1e-6)


def test_transformers_own_folders_load(tmp_path):
    """Random weights of theirs, in the layouts that save_pretrained has, shards among them."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("safetensors")
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=16, n_layer=2, n_head=2, n_embd=16, initializer_range=0.5
    )
    torch.manual_seed(0)
    ids = torch.randint(50, (3, 12))
    for kind, size in (
        ("GPT2LMHeadModel", "5GB"),
        ("GPT2LMHeadModel", "4KB"),
        ("GPT2Model", "5GB"),
        ("GPT2ForSequenceClassification", "5GB"),
        ("GPT2ForTokenClassification", "5GB"),
        ("GPT2DoubleHeadsModel", "5GB"),
    ):
        net = getattr(transformers, kind)(config).eval()
        folder = tmp_path / f"{kind}-{size}"
        net.save_pretrained(folder, max_shard_size=size)
        assert ("model.safetensors.index.json" in os.listdir(folder)) == (size == "4KB")
        body = net if kind == "GPT2Model" else net.transformer
        expected = body(ids).last_hidden_state @ body.wte.weight.T
        torch.testing.assert_close(gpt2.load(str(folder))(ids), expected, rtol=0, atol=1e-4)
    for other in ("LlamaConfig", "GPTNeoConfig", "GPTJConfig", "OPTConfig"):
        getattr(transformers, other)().save_pretrained(tmp_path / other)
        torch.save({}, tmp_path / other / "pytorch_model.bin")
        with pytest.raises(InputError, match="a model of type .*; gpt2 alone is read here"):
            gpt2.load(str(tmp_path / other))
