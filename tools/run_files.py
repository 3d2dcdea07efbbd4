"""What the stages of a run have left behind, read again by the tools."""
import json
import os
from dataclasses import dataclass

from nanorlhf import InputError
from nanorlhf.log import read_log

# {kind of stage: a setting that it alone has}, in the order of the pipeline
KINDS = {"pretraining": "world",
         "instruction tuning": "demonstrations",
         "reward model": "margin",
         "outcome or process reward model": "supervision",
         "rejection sampling": "curve_prompts",
         "PPO": "critic_lr",
         "GRPO": "advantage",
         "DPO": "lambda_D",
         "online DPO": "judge",
         "distillation": "teacher_sees"}


@dataclass
class Stage:
    name: str       # of its folder
    kind: str
    config: dict
    log: dict       # {key: array over the steps}
    report: dict    # report.json, {} where there is none
    curve: list     # best_of_n.json
    ended: bool
    seconds: float  # from its start to its model, by the clock of the files; 0 where it runs


def read_json(path, otherwise):
    if not os.path.exists(path):
        return otherwise
    try:
        with open(path, encoding="utf-8") as f:
            return json.load(f)
    except ValueError:
        raise InputError(f"{path}: not JSON; delete it, or make it again") from None


def read_stages(run):
    """-> [Stage] in the order of the pipeline."""
    if not os.path.isdir(run):
        raise InputError(f"{run}: no such folder; give a run's, such as out/towns")
    stages = []
    for name in sorted(os.listdir(run)):
        folder = os.path.join(run, name)
        config = read_json(f"{folder}/config.json", {})
        kind = next((k for k, key in KINDS.items() if key in config), None)
        if kind is None or not os.path.exists(f"{folder}/log.jsonl"):
            continue
        model, seconds = f"{folder}/model.pt", 0.0
        if ended := os.path.exists(model):
            seconds = os.path.getmtime(model) - os.path.getmtime(f"{folder}/config.json")
        stages.append(Stage(name, kind, config, read_log(folder),
                            read_json(f"{folder}/report.json", {}),
                            read_json(f"{folder}/best_of_n.json", []), ended, seconds))
    order = list(KINDS)
    # of one kind the plain one first
    return sorted(stages, key=lambda s: (order.index(s.kind), len(s.name), s.name))
