"""The boring part of every script: settings to command line, seeds, device, log, checkpoints."""
import argparse
import dataclasses
import hashlib
import inspect
import json
import math
import os
import random
import re
import sys
import time
import typing

import torch

from nanorlhf import InputError, gpt2, sums, towns
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.rollout import answer_texts, generate
from nanorlhf.tokenizer import Tokenizer

WORLDS = {"towns": towns, "sums": sums}


# ---- settings ----

def parse(Config, doc, argv=None):
    """A dataclass -> command line -> an instance. Each field's comment is its help text; Literal types become choices.

    Numbers are finite and not negative; an integer whose default is not 0 must not be 0 either (a batch, a count, a length).
    """
    comments = dict(re.findall(r"^ +(\w+):[^\n#]*# *(.*)$", inspect.getsource(Config), re.MULTILINE))
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    for f in dataclasses.fields(Config):
        how = {"help": comments.get(f.name, "").replace("%", "%%") + f" (default: {f.default})", "default": f.default}
        if f.type is bool:
            how["action"] = argparse.BooleanOptionalAction
        elif choices := typing.get_args(f.type):
            how["choices"] = choices
        else:
            how.update(type=f.type, metavar=f.type.__name__)
        parser.add_argument(f"--{f.name}", **how)
    cfg = Config(**vars(parser.parse_args(argv)))
    for f in dataclasses.fields(Config):
        value = getattr(cfg, f.name)
        least = 1 if f.default else 0
        if f.type is int and value < least:
            parser.error(f"argument --{f.name}: {value} is less than {least}")
        if f.type is float and not 0 <= value < math.inf:
            parser.error(f"argument --{f.name}: {value} is not a number from 0 on")
    return cfg


def script(main):
    """Run a script's main: what the user got wrong is one sentence and status 1, not a traceback."""
    try:
        main()
    except InputError as e:
        sys.exit(f"error: {e}")
    except torch.cuda.OutOfMemoryError as e:
        sys.exit(f"error: the GPU's memory is too small ({str(e).splitlines()[0]}); try a lower --micro_batch, and --resume if it had begun")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was saved after the last complete file")


# ---- randomness and device: one generator per purpose, so that printing samples does not shift training ----

def generator(seed, purpose, device="cpu"):
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def rng(seed, purpose):
    return random.Random(f"{seed}/{purpose}")


def pick_device(name):
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")      # TF32 where autocast does not reach: sampling, above all
    return torch.device("cuda")


def bf16(device):
    """Whether matrix products are made in bf16: on a GPU, where it is faster."""
    return device.type == "cuda"


def autocast(device):
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16(device))


def adamw(model, lr, weight_decay=0.0):
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay,
                             fused=True)


def update(model, optimizer, lr, max_grad_norm):
    """Clip what backward() left, step at this learning rate, clear. Returns the norm before clipping; InputError if not finite."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm).item()
    if not math.isfinite(norm):
        raise InputError(f"the gradient became {norm}: stopped before the weights were hurt; try a lower --lr")
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def linear(step, steps, lr, warmup=0):
    """Learning rate of this step (from 0): linear warm-up, then a straight line down to 0."""
    return lr * min((step + 1) / (warmup + 1), (steps - step) / max(1, steps - warmup))


# ---- files ----

def write_atomically(path, write, mode="w"):
    """write(f) to a temporary file beside path, then rename: a reader sees the old file or the new one, never half of one."""
    partial = f"{path}.partial"
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
    """One dict that rebuilds the model and its tokenizer; nothing in it but strings, numbers and tensors. training: what resume.py adds."""
    kind = "scalar" if isinstance(model, ScalarModel) else "gpt"
    state = {"format": "nanorlhf-1", "kind": kind, "config": dataclasses.asdict(model.cfg),
             "tokenizer": tokenizer.state(), "model": model.state_dict(), **({"training": training} if training else {})}
    write_atomically(path, lambda f: torch.save(state, f), "wb")


def _not_whole(file, error):
    return InputError(f"{file} is not a whole nanorlhf checkpoint ({type(error).__name__}); delete it and train that stage again")


def read_checkpoint(file):
    """The dict that save_checkpoint wrote, its tensors on the CPU. Never runs code that a file may hold."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if state["format"] != "nanorlhf-1":
            raise ValueError
        return state
    except Exception as e:      # torch.load alone raises half a dozen kinds
        raise _not_whole(file, e) from None


def load_checkpoint(path, device="cpu", kind="gpt", like=None):
    """path: a model.pt or the folder it is in -> (model in eval mode, tokenizer). kind: "gpt" or "scalar".

    like: the tokenizer that its ids must share. A reward model with another vocabulary would read other words, silently.
    """
    file = path if path.endswith(".pt") else os.path.join(path, "model.pt")
    if not os.path.exists(file):
        folder = os.path.dirname(file)
        stage, home = os.path.basename(folder), os.path.dirname(folder) or "."
        if stage in ("base", "sft", "rm", "rejection", "ppo", "grpo", "dpo"):
            raise InputError(f"{file} does not exist; make it first: python train_{stage}.py --run {home}")
        raise InputError(f"{file} does not exist; give the folder of a checkpoint, such as out/towns/sft")
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
    if state["kind"] != kind:
        names = {"gpt": "a language model", "scalar": "a reward model"}
        raise InputError(f"{file} holds {names[state['kind']]}; {names[kind]} is needed here")
    if like and tokenizer.state() != like.state():
        raise InputError(f"{file} has another vocabulary ({tokenizer.name}, {tokenizer.vocab_size} tokens) than the model it is to "
                         f"work with ({like.name}, {like.vocab_size}); both must come from one run")
    return model.to(device).eval(), tokenizer


def start_model(cfg, default, device):
    """--init -> (model, tokenizer): "scratch" for random weights of the size and tokenizer that cfg names; GPT-2, by name or by directory,
    with room for the special tokens; else a checkpoint, by default this one."""
    if gpt2.is_gpt2(cfg.init):
        model, tokenizer = gpt2.load(cfg.init), Tokenizer("gpt2")
        if model.cfg.vocab_size not in (tokenizer.encoding.n_vocab, tokenizer.vocab_size):          # the latter is what export.py writes
            raise InputError(f"--init {cfg.init}: its vocabulary has {model.cfg.vocab_size} tokens, gpt2's has {tokenizer.encoding.n_vocab}, "
                             "and what the others say is not known here; give weights with gpt2's own vocabulary")
        model.extend(tokenizer.vocab_size)
        return model.to(device).eval(), tokenizer
    if cfg.init != "scratch":
        return load_checkpoint(cfg.init or default, device)
    tokenizer = Tokenizer(cfg.tokenizer)
    size = GPTConfig(tokenizer.vocab_size, cfg.block_size, cfg.n_layer, cfg.n_head, cfg.n_embd)
    return GPT(size, generator(cfg.seed, "init")).to(device).eval(), tokenizer


def same_weights(a, b):
    """True where two models are the same function by construction: equal weights, name by name."""
    theirs = b.state_dict()
    return all(torch.equal(w, theirs[name]) for name, w in a.state_dict().items())


class Log:
    """<run>/<stage>/: config.json once, one row a step in log.jsonl and, every `every` steps, the same keys and the seconds a step
    took on the console.

    A stage that is run again starts its log and its samples anew; its old model.pt stays until there is a new one. saved: what resume.load
    found; log and samples are then added to.
    """

    def __init__(self, folder, cfg, steps, every, saved=None):
        self.folder, self.cfg, self.steps, self.every, self.saved = folder, cfg, steps, every, saved
        write_atomically(os.path.join(folder, "config.json"), lambda f: json.dump(dataclasses.asdict(cfg), f, indent=1))
        if not saved and os.path.exists(state := os.path.join(folder, "state.pt")):
            os.remove(state)            # of an older run: it must not be taken up with the log of this one
        mode = "a" if saved else "w"
        self.file = open(os.path.join(folder, "log.jsonl"), mode, encoding="utf-8")
        open(os.path.join(folder, "samples.txt"), mode).close()
        self.time, self.shown = time.perf_counter(), saved["training"]["step"] if saved else 0

    def __call__(self, step, **stats):
        """step counts from 1. Stats with an underscore in front go to the file only."""
        try:
            self.file.write(json.dumps({"step": step, **{k.lstrip("_"): v for k, v in stats.items()}}) + "\n")
            self.file.flush()
        except OSError as e:
            raise InputError(f"could not write {self.file.name}: {e.strerror or e}") from None
        if step == 1 or step % self.every == 0 or step == self.steps:
            shown = " | ".join(f"{k} {v:6.3f}" if isinstance(v, float) else f"{k} {v:4d}" for k, v in stats.items() if k[0] != "_")
            now = time.perf_counter()
            print(f"step {step:4d}/{self.steps} | {shown} | {(now - self.time) / (step - self.shown):.2f} s", flush=True)
            self.time, self.shown = now, step

    def settle(self):
        """What is written so far is on the disk."""
        os.fsync(self.file.fileno())


def show_samples(folder, title, model, tokenizer, prompts, max_new_tokens, seed, remark=None):
    """Answer these prompts (lists of ids), print them and add them to <folder>/samples.txt.

    Always with the same draws, so that before and after differ by the model alone. remark(i, text, finished) adds a line.
    """
    out = generate(model, prompts, max_new_tokens, tokenizer.end, generator=generator(seed, "samples", next(model.parameters()).device),
                   pad=tokenizer.pad)
    lines = [f"--- {title}"]
    for i, (prompt, text, done) in enumerate(zip(prompts, answer_texts(out, tokenizer), out.finished.tolist())):
        lines += [f"  {shortened(tokenizer.decode(prompt))}", f"    {text}{'' if done else ' [cut off]'}"]
        if remark:
            lines.append(f"    {remark(i, text, done)}")
    print("\n".join(lines), flush=True)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "samples.txt"), "a", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def shortened(prompt, most=400):
    return prompt if len(prompt) <= most else f"[...] {prompt[-most:]}"


def world_of(tokenizer):
    """The embedded world whose words this tokenizer speaks: a module with sample_questions, grade and explain."""
    if tokenizer.name not in WORLDS:
        raise InputError(f"this takes a model of an embedded world ({', '.join(WORLDS)}), whose answers can be graded; "
                         f"the checkpoint's vocabulary is {tokenizer.name}")
    return WORLDS[tokenizer.name]


def knobs(world, digits):
    """What the world's page() and sample_questions() take beside: sums have a difficulty, towns none."""
    return {"digits": digits} if world is sums else {}


def show_answers(folder, title, model, tokenizer, max_new_tokens, seed, prompts=()):
    """show_samples of these prompts, or of the same three held-out questions of the model's world, with what each answer is worth."""
    if prompts:
        return show_samples(folder, title, model, tokenizer, prompts, max_new_tokens, seed)
    world = world_of(tokenizer)
    show_samples(folder, title, model, tokenizer, [tokenizer.prompt(q.text) for q in world.SHOWN], max_new_tokens, seed,
                 lambda i, text, finished: world.explain(world.SHOWN[i], text, finished))
