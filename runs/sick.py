"""Runs made sick on purpose, for docs/HEALTH.md and for the test of tools/doctor.py.

    python -m runs.sick out/towns           train what docs/data/health.json lacks, from that run
    python -m runs.sick out/towns --again over_optimization collapse    train these once more
    python -m runs.sick out/towns-1 --healthy       keep its stages as healthy ones, train nothing
    python -m runs.sick --page              write docs/HEALTH.md and its figures from the data

The healthy ones are the stages of the run itself. A sick one differs in one setting, or in one line
that is changed while it runs. Each takes a minute.
"""
import argparse
import contextlib
import copy
import json
import os
import pathlib
import textwrap
from dataclasses import dataclass
from unittest import mock

import numpy as np
import torch

import train_dpo
import train_grpo
import train_ppo
import train_sft
from nanorlhf import InputError, checkpoints, figures, settings
from nanorlhf.checkpoints import write_atomically
from tools import doctor
from tools.run_files import Stage, read_stages

ROOT = pathlib.Path(__file__).resolve().parent.parent
DATA, PAGE = ROOT / "docs/data/health.json", ROOT / "docs/HEALTH.md"
HEALTHY = {"base": "pretraining", "sft": "instruction tuning", "rm": "reward model", "ppo": "PPO",
           "grpo": "GRPO", "dpo": "DPO"}


@dataclass
class Case:
    name: str
    illness: str        # how tools/doctor.py calls it
    script: object
    change: dict        # settings
    columns: tuple      # what to look at
    patch: object = None        # a context manager for a line that is changed
    said: str = ""      # that line, in words


# ---- lines that are changed ----

@contextlib.contextmanager
def other_ratio():
    """Old log-probs at another temperature than the new ones. The script itself would stop at step
    1, so its check is left out."""
    plain = train_ppo.policy_loss
    with (mock.patch.object(train_ppo, "check_ratio", lambda *_: None),
          mock.patch.object(train_ppo, "policy_loss", lambda logp, old, *rest:
                            plain(logp, old * 1.05, *rest))):
        yield


@contextlib.contextmanager
def stale_sampling():
    """Answers are always those of the model that training started from."""
    plain_set_up, plain_generate, made = train_ppo.set_up, train_ppo.generate, {}

    def set_up(*args):
        made["setup"] = plain_set_up(*args)
        return made["setup"]

    with (mock.patch.object(train_ppo, "set_up", set_up),
          mock.patch.object(train_ppo, "generate", lambda policy, *args, **more:
                            plain_generate(made["setup"].ref, *args, **more))):
        yield


@contextlib.contextmanager
def moving_reference():
    """The reference is the policy itself."""
    plain = train_ppo.set_up

    def set_up(*args):
        made = plain(*args)
        made.ref = made.policy
        return made

    with mock.patch.object(train_ppo, "set_up", set_up):
        yield


@contextlib.contextmanager
def turned_reward():
    """A reward model that prefers what people reject."""
    plain = checkpoints.load_checkpoint

    def load(path, *args, **more):
        model, tokenizer = plain(path, *args, **more)
        if more.get("kind") == "scalar":
            with torch.no_grad():
                model.head.weight.neg_()
                model.head.bias.neg_()
        return model, tokenizer

    with mock.patch.object(checkpoints, "load_checkpoint", load):
        yield


@contextlib.contextmanager
def turned_score():
    """The loss has the sign of the advantage turned."""
    plain = train_ppo.policy_loss
    with mock.patch.object(train_ppo, "policy_loss", lambda logp, old, advantages, *rest:
                           plain(logp, old, -advantages, *rest)):
        yield


CASES = [
    Case("over_optimization", "over-optimization", train_ppo, {"beta": 0.0, "steps": 200,
                                                              "lr": 6e-4},
         ("score", "gold", "kl")),
    Case("turned_reward", "the gold falls from the beginning", train_ppo, {"steps": 60},
         ("score", "gold"), turned_reward, "the reward model's sign is turned"),
    Case("turned_loss", "the score falls from the beginning", train_ppo, {"steps": 60},
         ("score", "gold"), turned_score, "the advantage's sign is turned in the loss"),
    Case("other_ratio", "the ratio is not 1 at a step's first update", train_ppo,
         {"steps": 40, "device": "cpu"}, ("first_ratio_error",), other_ratio,
         "old log-probs are those of another temperature, and the check of step 1 is left out"),
    Case("negative_kl", "a negative KL", train_ppo, {"steps": 60}, ("kl",), stale_sampling,
         "answers are drawn from the reference, not from the policy"),
    Case("no_kl", "a KL of exactly 0 while the score moves", train_ppo, {"steps": 60},
         ("score", "kl"), moving_reference, "the reference is the policy"),
    Case("far_away", "the KL runs away", train_ppo, {"beta": 0.0, "lr": 3e-3, "steps": 100},
         ("kl", "gold")),
    Case("collapse", "collapse", train_grpo, {"beta": 0.0, "lr": 3e-3, "steps": 150},
         ("entropy", "distinct")),
    Case("does_not_move", "the policy does not move", train_ppo, {"lr": 1e-9, "steps": 60},
         ("score", "ratio_error")),
    Case("critic_blind", "a critic that knows nothing", train_ppo, {"critic_lr": 0.0,
                                                                  "steps": 60},
         ("explained_variance",)),
    Case("gradient", "gradients far over their bound", train_grpo, {"max_grad_norm": 0.02,
                                                                   "steps": 60},
         ("grad_norm",)),
    Case("never_ends", "no answer ends", train_ppo, {"max_new_tokens": 3, "steps": 40},
         ("finished", "len")),
    Case("stuck", "the loss stays at ln 2", train_dpo, {"lr": 1e-9, "steps": 100}, ("loss",)),
    Case("displaced", "chosen answers are pushed away", train_dpo,
         {"lr": 3e-3, "nll": 0.0, "beta": 0.05, "steps": 150},
         ("chosen", "nll")),
    Case("by_heart", "overfitting", train_sft, {"demonstrations": 64, "steps": 400},
         ("loss", "held_out")),
]


# ---- training ----

def thinned(stage):
    """A stage as the test keeps it: some hundred rows, three digits, the columns that a rule
    reads."""
    def short(x):
        return None if np.isnan(x) else float(f"{x:.3g}")

    each = max(1, len(stage.log["step"]) // 100)

    dropped = {"lr", "padding", "tokens", "policy_loss", "value_loss", "value_clip_fraction",
               "beta", "kl_k1", "kl_k2", "kl_k3", "chosen_logprob", "rejected_logprob", "z0"}
    log = {key: [short(x) for x in values[each - 1::each]] for key, values in stage.log.items()
           if key not in dropped}
    report = {key: value for key, value in stage.report.items() if key != "calibration"}
    # what is 0, empty or off goes without saying
    config = {key: value for key, value in stage.config.items() if value and key != "run"}
    return {"kind": stage.kind, "config": config, "log": log, "report": report}


def stage_of(name, kept):
    """The way back -> Stage"""
    log = {key: np.array([np.nan if x is None else x for x in values])
           for key, values in kept["log"].items()}
    return Stage(name, kept["kind"], kept["config"], log, kept["report"], [], True, 0.0)


def read_data():
    if not DATA.exists():
        return {"healthy": {}, "sick": {}}
    return json.loads(DATA.read_text(encoding="utf-8"))


def write_data(data):
    write_atomically(str(DATA), lambda f: f.write(json.dumps(data, separators=(",", ":")) + "\n"))


def keep_healthy(run, data):
    """The run's own stages, under "world-seed" -> its seed"""
    stages = {stage.name: stage for stage in read_stages(run)}
    if "base" not in stages:
        raise InputError(f"{run} has no base; make the whole run first: python demo.py --run {run}")
    config = stages["base"].config
    data["healthy"][f"{config['world']}-{config['seed']}"] = {
        name: thinned(stages[name]) for name in HEALTHY if name in stages}
    write_data(data)
    return config["seed"]


def train(run, again):
    data = read_data()
    seed = keep_healthy(run, data)
    for case in CASES:
        if case.name in data["sick"] and case.name not in again:
            continue
        print(f"\n=== {case.name}: {case.illness} ===", flush=True)
        with (case.patch or contextlib.nullcontext)():
            out = f"sick_{case.name}"
            case.script.train(case.script.Config(run=run, out=out, seed=seed,
                                                 **copy.deepcopy(case.change)))
        stage = next(s for s in read_stages(run) if s.name == out)
        data["sick"][case.name] = thinned(stage)
        write_data(data)
        doctor.say(stage, [stage])


# ---- the page ----

def command(case):
    script = case.script.__name__
    return f"python {script}.py " + " ".join(f"--{k} {v}" for k, v in case.change.items())


def page(data):
    """-> ({path: svg}, the text of docs/HEALTH.md)"""
    pictures, blocks = {}, []
    by_kind = {kind: name for name, kind in HEALTHY.items()}
    for case in CASES:
        stage = stage_of(case.name, data["sick"][case.name])
        well = stage_of("healthy", data["healthy"]["towns-0"][by_kind[stage.kind]])
        found = next(f for f in doctor.examine(stage, [stage]) if f.illness == case.illness)
        links = []
        for key in case.columns:
            lines = {who: (one.log["step"], one.log[key]) for who, one in
                     (("healthy", well), ("this run", stage)) if key in one.log}
            path = f"figures/health_{case.name}_{key}.svg"
            pictures[path] = figures.curves(key, "", lines)
            links.append(f'<img src="{path}" width="300" alt="{key}">')
        made = f"`{command(case)}`" + (f", where {case.said}" if case.said else "")
        points = (f"**Made by** {made}.", f"**The doctor sees** {found.seen}.",
                  f"**Usually**: {found.means}.", f"**Turn**: {found.turn}.")
        pictured = "\n".join(links)
        blocks.append(f"## {case.illness[0].upper()}{case.illness[1:]}\n\n{pictured}\n\n"
                      + "\n".join(textwrap.fill(f"* {point}", 100, subsequent_indent="  ",
                                                break_on_hyphens=False) for point in points)
                      + "\n")
    return pictures, HEAD + "\n".join(blocks)


HEAD = """# Is my run healthy?

    python -m tools.doctor out/towns/ppo
    python -m tools.doctor --all out/towns

The doctor reads a stage's log and says what it sees. The illnesses below were made on purpose, from
the demo's run with seed 0, and are drawn beside the healthy stage of that run:
`python -m runs.sick out/towns`. On the healthy stages of three seeds of towns, of one of sorting
and of one of sums the doctor finds nothing.

The lab's runs ([LAB.md](LAB.md), three seeds, another machine) were a test that no rule was made
for. Of 18 runs of PPO and GRPO that pay nothing for their KL, or pay it as k1 in the loss, it found
all 18 ill, and it found nothing in the 18 that pay.

Other rules were tried on logs made by hand alone (`tests/test_doctor.py`): clipping, the size of
updates, a critic that sees its token, length, and those of reward models. A minute of training did
not fall ill of them.

What looks ill and is not: an explained variance of -1 at step 1, a `ratio_error` of 2 (the mean
over a step's updates of the largest ratio), DPO's chosen and rejected log-ratios that both fall, an
entropy that halves, and a GRPO loss near 0 (advantages of a group add up to 0).

"""


def write_page():
    pictures, text = page(read_data())
    for path, svg in pictures.items():
        write_atomically(str(PAGE.parent / path),
                         lambda f, svg=svg: f.write(figures.standalone(svg) + "\n"))
    write_atomically(str(PAGE), lambda f: f.write(text))
    print(f"wrote {PAGE} and {len(pictures)} figures")


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="", help="a run that make demo has made")
    parser.add_argument("--again", nargs="+", default=(), help="names to train once more")
    parser.add_argument("--healthy", action="store_true", help="keep this run's stages as healthy")
    parser.add_argument("--page", action="store_true", help="write docs/HEALTH.md")
    args = parser.parse_args()
    if not args.run and not args.page:
        raise InputError("give a run's folder, or --page")
    if args.run and args.healthy:
        keep_healthy(os.path.normpath(args.run), read_data())
    elif args.run:
        train(os.path.normpath(args.run), args.again)
    if args.page:
        write_page()


if __name__ == "__main__":
    settings.script(main)
