"""GPT-2's weights in Hugging Face's layout: reading, downloading, and the way back.

    load(place)                         a language model, of GPT2LMHeadModel's weights
    load(place, scalar=True)            a reward model, of GPT2ForSequenceClassification's
    layout(model)                       the way back, for either

What is read is checked: it is GPT-2's function, every tensor is there, finite and used, or it is
refused in a sentence that says what it is.
"""
import json
import os
import re
from http.client import HTTPException
from urllib.request import urlopen

import torch

from nanorlhf import InputError
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel

NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# what config.json may set and nanorlhf/gpt.py does not do: {name: (as it is done, ...)}, absent
# means the first
FIXED = {"activation_function": ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"),    # one function
         "layer_norm_epsilon": (1e-5,), "scale_attn_weights": (True,),
         "scale_attn_by_inverse_layer_idx": (False,), "tie_word_embeddings": (True,),
         "add_cross_attention": (False,), "quantization_config": (None,)}
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# tensors that a body does not need: causal masks, and heads of other tasks
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
HEADS = re.compile(r"(score|classifier|v_head|summary|multiple_choice_head)\..*|lm_head\.weight")


def is_gpt2(place):
    """One of GPT-2's names, or a directory in Hugging Face's layout. Stages here leave a
    config.json too, but with a log or a model.pt."""
    if os.path.isdir(place):
        there = set(os.listdir(place))
        known = {"config.json", "adapter_config.json", *WEIGHTS,
                 *(f"{name}.index.json" for name in WEIGHTS)}
        return bool(there & known) and not there & {"log.jsonl", "model.pt", "state.pt"}
    return place in NAMES


def is_reward_model(directory):
    """Whether its config.json says so: a sequence is classified, by one label."""
    try:
        with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
            return "GPT2ForSequenceClassification" in (json.load(f).get("architectures") or [])
    except (OSError, ValueError, AttributeError):
        return False        # what is wrong with it, load says


def load(place, scalar=False):
    """A directory, or gpt2 / gpt2-medium / -large / -xl, downloaded once into torch's cache -> GPT,
    or with `scalar` a ScalarModel whose score is the one label.

    InputError: nothing usable there, another function than GPT-2's, or no connection.
    """
    directory = place if os.path.isdir(place) else _download(place)
    cfg, weights = _config(directory), _weights(directory)
    model = GPT(cfg)
    state = model.state_dict()
    for ours, w in state.items():
        theirs = _gpt2_name(ours)
        if theirs not in weights:
            raise InputError(f"{directory}: not GPT-2 weights, {theirs} is missing")
        found = weights.pop(theirs)
        asked = w.t().shape if _is_conv1d(ours) else w.shape
        if found.shape != asked:
            raise InputError(f"{directory}: {theirs} is {tuple(found.shape)}, config.json asks for "
                             f"{tuple(asked)}")
        state[ours] = found.t() if _is_conv1d(ours) else found
    head = weights.pop("lm_head.weight", None)
    if head is not None and not torch.equal(head, state["wte.weight"]):
        raise InputError(f"{directory}: lm_head.weight is not wte.weight; GPT-2's head is its "
                         "token embedding")
    model.load_state_dict(state)
    if scalar:
        model = _with_score(model, weights, directory)
    left = [name for name in weights if not BUFFERS.fullmatch(name)]
    if unknown := [name for name in left if not HEADS.fullmatch(name)]:
        raise InputError(f"{directory}: not GPT-2's weights alone: {len(unknown)} tensors have no "
                         f"place here, the first is {unknown[0]}")
    if left:
        print(f"{directory}: left out, a head of another task: {', '.join(left)}")
    return model


def _with_score(model, weights, directory):
    head = weights.pop("score.weight", None)
    if head is None or head.shape != (1, model.cfg.n_embd):
        what = "no score.weight" if head is None else f"a score.weight of {tuple(head.shape)}"
        raise InputError(f"{directory}: {what}; a reward model is GPT2ForSequenceClassification "
                         f"with one label, (1, {model.cfg.n_embd})")
    scalar = ScalarModel(model)
    scalar.head.load_state_dict({"weight": head, "bias": torch.zeros(1)})
    return scalar


def _config(directory):
    """config.json -> GPTConfig. InputError where it asks for another function."""
    path = os.path.join(directory, "config.json")
    if os.path.exists(os.path.join(directory, "adapter_config.json")):
        raise InputError(f"{directory}: an adapter (LoRA), not a whole model; merge it first: "
                         "merge_and_unload() of peft, then save_pretrained")
    try:
        with open(path, encoding="utf-8") as f:
            hf = json.load(f)
        kind = hf.get("model_type", "gpt2")
    except FileNotFoundError:
        raise InputError(f"{directory}: weights, but no config.json beside them") from None
    except (OSError, ValueError, AttributeError) as e:
        raise InputError(f"{path}: no usable GPT-2 config.json there ({type(e).__name__}: {e})"
                         ) from None
    if kind != "gpt2":
        raise InputError(f"{path}: a model of type {kind!r}; gpt2 alone is read here")
    sizes = [hf.get(name) for name in ("vocab_size", "n_positions", "n_layer", "n_head", "n_embd")]
    if not all(type(n) is int and n >= 1 for n in sizes):
        raise InputError(f"{path}: no usable GPT-2 config.json there: vocab_size, n_positions, "
                         f"n_layer, n_head and n_embd are {sizes}")
    for name, values in FIXED.items():
        if hf.get(name, values[0]) not in values:
            raise InputError(f"{path}: {name} is {hf[name]!r}; GPT-2 here is only what has "
                             f"{values[0]!r}")
    return GPTConfig(*sizes)


def _weights(directory):
    """-> {name without "transformer.": float32 tensor}, of whatever file of weights is usable."""
    said = []
    for name in WEIGHTS:
        try:
            read = _read_weights(directory, name)
        except InputError as e:
            said.append(str(e))
            continue
        if read is not None:
            for problem in said:
                print(f"{problem}; read in its place: {name}")
            break
    else:
        raise InputError(said[0] if said else
                         f"{directory}: neither model.safetensors nor pytorch_model.bin there")
    weights = {}
    for name, w in read.items():
        place = os.path.join(directory, name)
        if not torch.is_tensor(w):
            raise InputError(f"{place} is {type(w).__name__}, not a tensor: no file of weights")
        short = name.removeprefix("transformer.")
        if short in weights:
            raise InputError(f"{directory}: {short} is there twice, with and without transformer.")
        if BUFFERS.fullmatch(short):
            continue
        if w.dtype not in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            raise InputError(f"{directory}: {name} is {w.dtype}, quantised or packed; give weights "
                             "in float32, float16 or bfloat16")
        weights[short] = w.float()
        if not weights[short].isfinite().all():
            raise InputError(f"{directory}: {name} has numbers that are not finite; these weights "
                             "are broken")
    return weights


def _read_weights(directory, name):
    """The tensors of model.safetensors or pytorch_model.bin, or of its shards; None where neither
    is there."""
    files, index = [name], os.path.join(directory, f"{name}.index.json")
    if os.path.exists(index):
        try:
            with open(index, encoding="utf-8") as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as e:
            raise InputError(f"{index} is no list of shards ({type(e).__name__})") from None
    elif not os.path.exists(os.path.join(directory, name)):
        return None
    weights = {}
    for file in files:
        path = os.path.join(directory, str(file))
        if not os.path.exists(path):
            raise InputError(f"{path}: a shard that is missing")
        weights |= _read_file(path)
    return weights


def _read_file(path):
    with open(path, "rb") as f:
        if f.read(7) == b"version":
            raise InputError(f"{path} is a pointer of git-lfs, not the weights; fetch them with: "
                             "git lfs pull")
    if path.endswith(".safetensors"):
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise InputError(f"{path}: reading it needs `pip install safetensors`") from None
        read = load_file
    else:
        # a pickle may hold code: never run it
        read = lambda path: torch.load(path, map_location="cpu", weights_only=True)
    try:
        weights = read(path)
    except Exception as e:  # either library raises half a dozen kinds
        raise InputError(f"{path} is not a whole file of weights ({type(e).__name__}); delete it "
                         "and download it again") from None
    if not isinstance(weights, dict):
        raise InputError(f"{path} holds a {type(weights).__name__}, not weights by name")
    return weights


def layout(model):
    """The way back -> (config, weights), two dicts as Hugging Face has them: of GPT2LMHeadModel,
    or for a ScalarModel of GPT2ForSequenceClassification; no rows past the vocabulary."""
    scalar = isinstance(model, ScalarModel)
    gpt, cfg = model.gpt if scalar else model, model.cfg
    config = {"architectures": ["GPT2ForSequenceClassification" if scalar else "GPT2LMHeadModel"],
              "model_type": "gpt2", "vocab_size": cfg.vocab_size, "n_positions": cfg.block_size,
              "n_layer": cfg.n_layer, "n_head": cfg.n_head, "n_embd": cfg.n_embd,
              **{name: values[0] for name, values in FIXED.items() if values[0] is not None}}
    state = {name: w.detach().cpu() for name, w in gpt.state_dict().items()}
    state["wte.weight"] = state["wte.weight"][:cfg.vocab_size]
    weights = {}
    for name, w in state.items():
        w = w.t() if _is_conv1d(name) else w
        # clone: a view would be saved with all that lies behind it
        weights[f"transformer.{_gpt2_name(name)}"] = w.clone(memory_format=torch.contiguous_format)
    if scalar:
        config |= {"num_labels": 1, "id2label": {"0": "score"}, "label2id": {"score": 0}}
        w, b = model.head.weight.detach().cpu(), model.head.bias.detach().cpu()     # (1, C), (1,)
        length = (w ** 2).sum()
        if length == 0:
            raise InputError("this reward model's head is 0: it has no score to write")
        # their head has no bias: what the last norm adds, along w, comes to the same
        weights["transformer.ln_f.bias"] += (b * w / length)[0]
        weights["score.weight"] = w.clone()
    return config, weights


def _is_conv1d(ours):
    """GPT-2's Conv1D keeps its matrices transposed."""
    return ours.endswith(("qkv.weight", "out.weight", "in.weight"))


def _gpt2_name(ours):
    parts = {"blocks": "h", "qkv": "attn.c_attn", "attn_out": "attn.c_proj", "mlp_in": "mlp.c_fc",
             "mlp_out": "mlp.c_proj"}
    return ".".join(parts.get(p, p) for p in ours.split("."))


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
