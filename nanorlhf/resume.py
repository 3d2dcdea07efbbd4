"""Runs that survive: all that a loop needs to go on exactly where it was, in <stage>/state.pt.

    saved = resume.load(cfg, folder)                       what --resume found, or None
    log = Log(folder, cfg, steps, cfg.log_every, saved)
    for step in resume.steps(log, policy, tokenizer, draws, {"optimizer": optimizer}, batches):

The state is written before the first step, every --save_every steps, after the last, and when
the run is asked to stop. It is whole or not there, so whenever a run is killed the last one can
be gone on with. It is a checkpoint too: --init <run>/<stage>/state.pt starts from its weights.
"""
import dataclasses
import os
import signal
import sys
import threading

from nanorlhf import InputError, Interrupted
from nanorlhf.checkpoints import fingerprint, read_checkpoint, save_checkpoint
from nanorlhf.seeds import Draws

# Settings that may differ from the first part of the run: where its folder lies now, and what
# does not change what is computed.
FREE = ("run", "resume", "save_every", "log_every", "sample_every", "device", "micro_batch")


def load(cfg, folder):
    """With --resume: the state in this folder, or None where there is none yet.

    InputError if other settings made it.
    """
    path = f"{folder}/state.pt"
    if not cfg.resume:
        return None
    if not os.path.exists(path):
        print(f"--resume: no {path} yet, so this run starts at its beginning")
        return None
    state = read_checkpoint(path)
    if "training" not in state:
        raise InputError(f"{path} holds weights, but nothing to go on from; "
                         "leave --resume out to start anew")
    made_with = state["training"]["config"]
    for name, value in dataclasses.asdict(cfg).items():
        if name not in FREE and made_with.get(name) != value:
            raise InputError(f"{path} was made with --{name} {made_with.get(name)!r}, not "
                             f"{value!r}: go on with the same settings, or leave --resume out "
                             "to start anew")
    return state


def steps(log, model, tokenizer, draws, parts, batches=None, read=None):
    """The numbers of the steps still to take, 1 to log.steps; between them the state is kept.

    draws: the seeds.Draws of the loop, with every source that it draws from.
    parts: {name: what else changes from step to step}, each a module, an optimizer or a dict of
    numbers. batches: an iterator, which is moved on to where it was.
    read: {name: what was read and stays as it is}, models and data beside the model itself. A
    state that was made from others is refused.
    Ctrl-C and SIGTERM are obeyed after the step, a second one at once.
    """
    if not isinstance(draws, Draws):
        raise TypeError("draws is a seeds.Draws: it keeps every source that the loop draws from")
    path, done = f"{log.folder}/state.pt", 0
    parts = {"draws": draws, **parts}
    prints = {name: fingerprint(part) for name, part in {"init": model, **(read or {})}.items()}
    device = next(model.parameters()).device.type

    def keep(step):
        log.settle()
        files = ("log.jsonl", "samples.txt")
        training = {"step": step, "config": dataclasses.asdict(log.cfg), "read": prints,
                    "device": device,
                    "sizes": {name: os.path.getsize(f"{log.folder}/{name}") for name in files},
                    "parts": {name: _state_of(part) for name, part in parts.items()}}
        save_checkpoint(path, model, tokenizer, training)

    if log.saved:
        training = log.saved["training"]
        if training.get("device", device) != device:
            log.close()
            raise InputError(f"{path} was made on {training['device']}, and its random numbers go "
                             f"on there alone: --device {training['device']}, or leave --resume "
                             "out to start anew")
        for name, before in training["read"].items():
            if prints.get(name) != before:
                log.close()
                raise InputError(f"{path} was made with another {name} than the one that is there "
                                 "now: go on with the same, or leave --resume out to start anew")
        done = training["step"]
        for _ in range(done if batches else 0):
            next(batches)
        model.load_state_dict(log.saved["model"])
        for name, part in parts.items():
            _restore(part, training["parts"][name])
        for name, size in training["sizes"].items():
            # what was written after the state was kept is written again
            os.truncate(f"{log.folder}/{name}", size)
        # weights and optimizer, once more in the memory
        log.saved.clear()
        print(f"resumed after step {done} of {log.steps}")
    else:
        keep(0)

    asked = []

    def ask(*_):
        if asked:
            raise KeyboardInterrupt
        asked.append(True)
        print("\nstopping after this step; once more stops at once", file=sys.stderr)

    # only the main thread may be told of signals
    listens = threading.current_thread() is threading.main_thread()
    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM) if listens}
    step = done
    try:
        for step in range(done + 1, log.steps + 1):
            yield step
            if asked or step % log.cfg.save_every == 0 or step == log.steps:
                keep(step)
                done = step
            if asked and step < log.steps:
                raise Interrupted(f"interrupted after step {step}, which {path} holds; "
                                  "--resume goes on from there")
    except GeneratorExit:
        # the step raised something: who reads it wants to know what is left
        print(f"stopped in step {step}; {path} holds step {done}", file=sys.stderr)
        raise
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
        if done < log.steps:
            log.close()


def _state_of(part):
    return dict(part) if isinstance(part, dict) else part.state_dict()


def _restore(part, state):
    if isinstance(part, dict):
        part.update(state)
    else:
        part.load_state_dict(state)
