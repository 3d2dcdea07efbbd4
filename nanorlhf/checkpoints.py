"""Files that are whole or not there, and the models in them."""
import dataclasses
import hashlib
import os
import threading

import torch

from nanorlhf import InputError, gpt2, hf_vocabulary
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.seeds import generator
from nanorlhf.tokenizer import Tokenizer

FORMAT = "nanorlhf-2"       # -1 had no knobs of the world, and its vocabulary elsewhere
# of train_<stage>.py
STAGES = ("base", "sft", "rm", "rejection", "ppo", "grpo", "dpo", "distill")


def write_atomically(path, write, mode="w"):
    """write(f) to a temporary file beside path, then rename.

    A reader sees the old file or the new one, never half of one.
    """
    # two runs that write the same file do not write into each other's
    partial = f"{path}.{os.getpid()}-{threading.get_ident()}.partial"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(partial, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial, path)
    except OSError as e:
        raise InputError(f"could not write {path}: {e.strerror or e}") from None
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def save_checkpoint(path, model, tokenizer, training=None):
    """One dict that rebuilds the model and its tokenizer: strings, numbers and tensors.

    training: what resume.py adds.
    """
    state = {"format": FORMAT, "kind": "scalar" if isinstance(model, ScalarModel) else "gpt",
             "config": dataclasses.asdict(model.cfg), "tokenizer": tokenizer.state(),
             "model": model.state_dict()}
    if training:
        state["training"] = training
    write_atomically(path, lambda f: torch.save(state, f), "wb")


def _not_whole(file, error):
    return InputError(f"{file} is not a whole nanorlhf checkpoint ({type(error).__name__}); "
                      "delete it and train that stage again")


def read_checkpoint(file):
    """The dict that save_checkpoint wrote, its tensors on the CPU. Never runs code in a file."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        version = state["format"]
    except Exception as e:      # torch.load alone raises half a dozen kinds
        raise _not_whole(file, e) from None
    if version != FORMAT:
        if version == "nanorlhf-1":
            raise InputError(f"{file} was written by an earlier version of nanorlhf; "
                             "train that stage again")
        raise _not_whole(file, ValueError())
    return state


def load_checkpoint(path, device="cpu", kind="gpt", like=None):
    """path: a model.pt or the folder it is in -> (model in eval mode, tokenizer).

    kind: "gpt" or "scalar"; None: whichever it holds. like: the tokenizer that its ids must share.
    A reward model with another vocabulary would read other words, silently. A folder in Hugging
    Face's layout, or gpt2's name, is read too.
    """
    if gpt2.is_gpt2(path):
        return _load_gpt2(path, device, kind, like)
    file = path if path.endswith(".pt") else os.path.join(path, "model.pt")
    if not os.path.exists(file):
        folder = os.path.dirname(file)
        stage, home = os.path.basename(folder), os.path.dirname(folder) or "."
        if stage in STAGES:
            raise InputError(f"{file} does not exist; make it first: "
                             f"python train_{stage}.py --run {home}")
        raise InputError(f"{file} does not exist; give the folder of a checkpoint, such as "
                         f"<run>/sft, a folder of GPT-2's weights, or {', '.join(gpt2.NAMES)}")
    state = read_checkpoint(file)
    try:
        tokenizer = Tokenizer(**state["tokenizer"])
        model = GPT(GPTConfig(**state["config"]))
        if state["kind"] == "scalar":
            model = ScalarModel(model)
        model.load_state_dict(state["model"])
    except InputError:
        raise
    except Exception as e:      # its format is ours, its content is not what this version writes
        raise _not_whole(file, e) from None
    if kind and state["kind"] != kind:
        names = {"gpt": "a language model", "scalar": "a reward model"}
        raise InputError(f"{file} holds {names[state['kind']]}; {names[kind]} is needed here")
    _check_like(file, tokenizer, like)
    return model.to(device).eval(), tokenizer


def _check_like(file, tokenizer, like):
    if like and tokenizer.state() != like.state():
        raise InputError(f"{file} has another vocabulary or world ({tokenizer.described()}) than "
                         f"the model it is to work with ({like.described()}); "
                         "both must come from one run")


def _load_gpt2(path, device, kind, like):
    """GPT-2, by name or by directory, with room for the special tokens -> as load_checkpoint."""
    scalar = kind == "scalar" if kind else gpt2.is_reward_model(path)
    model = gpt2.load(path, scalar)
    gpt = model.gpt if scalar else model
    if os.path.isdir(path):
        tokenizer, known = hf_vocabulary.recognise(path, gpt.cfg.vocab_size)
    else:
        tokenizer, known = Tokenizer("gpt2"), gpt.cfg.vocab_size
    _check_like(path, tokenizer, like)
    if gpt.cfg.vocab_size != tokenizer.vocab_size or tokenizer.name == "gpt2":
        gpt.extend(tokenizer.vocab_size, known)
    return model.to(device).eval(), tokenizer


def start_model(cfg, default, device, kind="gpt"):
    """--init -> (model, tokenizer). kind: as load_checkpoint has it.

    "scratch" for random weights of the size and tokenizer that cfg names; else as load_checkpoint,
    by default this one.
    """
    if cfg.init != "scratch":
        return load_checkpoint(cfg.init or default, device, kind)
    tokenizer = Tokenizer(cfg.tokenizer)
    size = GPTConfig(tokenizer.vocab_size, cfg.block_size, cfg.n_layer, cfg.n_head, cfg.n_embd)
    return GPT(size, generator(cfg.seed, "init")).to(device).eval(), tokenizer


def same_weights(a, b):
    """True where two models are the same function by construction: equal weights by name."""
    theirs = b.state_dict()
    return all(torch.equal(w, theirs[name]) for name, w in a.state_dict().items())


def fingerprint(part):
    """A model, or rows of data -> the same text for the same, and for nothing else."""
    digest = hashlib.sha256()
    if hasattr(part, "state_dict"):
        for name, w in part.state_dict().items():
            digest.update(name.encode() + w.detach().cpu().contiguous().numpy().tobytes())
    else:
        for row in part:
            digest.update(repr(row).encode())
    return digest.hexdigest()
