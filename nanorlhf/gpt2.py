"""GPT-2's weights in Hugging Face's layout: reading, downloading, and the way back."""
import json
import os
from http.client import HTTPException
from urllib.request import urlopen

import torch

from nanorlhf import InputError
from nanorlhf.gpt import GPT, GPTConfig

NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# What config.json may set and nanorlhf/gpt.py does not do; absent means as written here, as it does
# there.
FIXED = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "scale_attn_weights": True,
         "scale_attn_by_inverse_layer_idx": False, "tie_word_embeddings": True}


def is_gpt2(init):
    """One of GPT-2's names, or a directory in Hugging Face's layout. Stages here leave a
    config.json too, but with a log or a model.pt."""
    if os.path.isdir(init):
        there = set(os.listdir(init))
        return "config.json" in there and not there & {"log.jsonl", "model.pt"}
    return init in NAMES


def load(name_or_directory):
    """GPT-2 weights in Hugging Face's layout: a directory, or gpt2 / gpt2-medium / -large / -xl,
    downloaded once into torch's cache.

    InputError: nothing usable there, another function than GPT-2's, or no connection.
    """
    directory = name_or_directory
    if not os.path.isdir(directory):
        directory = _download(name_or_directory)
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
            hf = json.load(f)
        sizes = ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")
        cfg = GPTConfig(*(int(hf[name]) for name in sizes))
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{directory}: no usable GPT-2 config.json there ({type(e).__name__}: {e})"
        ) from None
    for name, value in FIXED.items():
        if hf.get(name, value) != value:
            raise InputError(
                f"{directory}/config.json: {name} is {hf[name]!r}; GPT-2 here is only what has "
                f"{value!r}"
            )
    weights = {name.removeprefix("transformer."): w for name, w in _read_weights(directory).items()}
    model = GPT(cfg)
    state = model.state_dict()
    for ours in state:
        theirs = _gpt2_name(ours)
        if theirs not in weights:
            raise InputError(f"{directory}: not GPT-2 weights, {theirs} is missing")
        w = weights[theirs].t() if _is_conv1d(ours) else weights[theirs]
        if w.shape != state[ours].shape:
            raise InputError(
                f"{directory}: {theirs} is {tuple(w.shape)}, config.json asks for "
                f"{tuple(state[ours].shape)}"
            )
        state[ours] = w.float()
    if not torch.equal(weights.get("lm_head.weight", weights["wte.weight"]), weights["wte.weight"]):
        raise InputError(
            f"{directory}: lm_head.weight is not wte.weight; GPT-2's head is its token embedding"
        )
    model.load_state_dict(state)
    return model


def layout(model):
    """The way back -> (config, weights), two dicts as Hugging Face's GPT2LMHeadModel has them; no
    rows past the vocabulary."""
    cfg = model.cfg
    config = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": cfg.vocab_size,
        "n_positions": cfg.block_size,
        "n_layer": cfg.n_layer,
        "n_head": cfg.n_head,
        "n_embd": cfg.n_embd,
        **FIXED,
    }
    state = {name: w.detach().cpu() for name, w in model.state_dict().items()}
    state["wte.weight"] = state["wte.weight"][:cfg.vocab_size]
    weights = {}
    for name, w in state.items():
        w = w.t() if _is_conv1d(name) else w
        # clone: a view would be saved with all that lies behind it
        w = w.clone(memory_format=torch.contiguous_format)
        weights[f"transformer.{_gpt2_name(name)}"] = w
    return config, weights


def _is_conv1d(ours):
    """GPT-2's Conv1D keeps its matrices transposed."""
    return ours.endswith(("qkv.weight", "out.weight", "in.weight"))


def _gpt2_name(ours):
    parts = {
        "blocks": "h",
        "qkv": "attn.c_attn",
        "attn_out": "attn.c_proj",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    }
    return ".".join(parts.get(p, p) for p in ours.split("."))


def _read_weights(directory):
    if os.path.exists(path := os.path.join(directory, "model.safetensors")):
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise InputError(f"{path}: reading it needs `pip install safetensors`") from None
        read = load_file
    elif os.path.exists(path := os.path.join(directory, "pytorch_model.bin")):
        # a pickle may hold code: never run it
        read = lambda path: torch.load(path, map_location="cpu", weights_only=True)
    else:
        raise InputError(f"{directory}: neither model.safetensors nor pytorch_model.bin there")
    try:
        return dict(read(path))
    except Exception as e:  # either library raises half a dozen kinds
        raise InputError(
            f"{path} is not a whole file of weights ({type(e).__name__}); delete it and download "
            "it again"
        ) from None


def _download(name):
    """The folder that holds this GPT-2; what is not there yet is downloaded."""
    if name not in NAMES:
        raise InputError(f"{name}: not a directory, nor one of {', '.join(NAMES)}")
    directory = os.path.join(torch.hub.get_dir(), "nanorlhf", name)
    for file in ("config.json", "pytorch_model.bin"):
        if not os.path.exists(path := os.path.join(directory, file)):
            try:
                os.makedirs(directory, exist_ok=True)
                _download_whole(
                    f"https://huggingface.co/openai-community/{name}/resolve/main/{file}", path
                )
            except (OSError, HTTPException) as e:
                raise InputError(
                    f"could not download {name} ({e}); put its config.json and pytorch_model.bin "
                    f"in {directory}"
                ) from None
    return directory


def _download_whole(url, path):
    """torch's download, under another name until it is whole: a connection that breaks off looks to
    torch like the end of the file."""
    partial = f"{path}.partial"
    try:
        with urlopen(url) as reply:
            # without one it comes in chunks, and Python itself notices that the last is missing
            size = reply.headers["Content-Length"]
        torch.hub.download_url_to_file(url, partial)
        if size and os.path.getsize(partial) != int(size):
            raise OSError(f"it broke off after {os.path.getsize(partial)} of {size} bytes")
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)
