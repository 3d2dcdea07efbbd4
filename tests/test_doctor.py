"""tools/doctor.py on logs made by hand: each illness is seen, and a healthy log says nothing."""

import dataclasses
import json

import numpy as np
import pytest
from calling import call, complaint

import train_dpo
import train_grpo
import train_ppo
import train_rm
import train_sft
from runs import sick
from tools import doctor
from tools.run_files import Stage

N = 100
STEP = np.arange(1, N + 1)
NOISE = np.random.default_rng(0).normal(size=(20, N))
SCRIPTS = {
    "PPO": train_ppo,
    "GRPO": train_grpo,
    "DPO": train_dpo,
    "reward model": train_rm,
    "instruction tuning": train_sft,
}


def rising(low, high):
    return low + (high - low) * STEP / N


# as a run of towns has them, noise and all
HEALTHY = {
    "PPO": {
        "score": rising(-0.5, 1.9) + 0.3 * NOISE[0],
        "gold": rising(0, 1.2) + 0.2 * NOISE[1],
        "kl": rising(0, 3.5) + 0.3 * NOISE[2],
        "entropy": rising(0.6, 0.3),
        "clip_fraction": 0.02 + 0.005 * NOISE[3],
        "approx_kl": 0.004 + 0 * STEP,
        "explained_variance": np.minimum(0.4, rising(-1, 2)),
        "len": rising(18, 14),
        "finished": 0.97 + 0 * STEP,
        "ratio_error": 2 + 0.5 * NOISE[4],
        "grad_norm": 0.8 + 0.1 * NOISE[5],
        "first_ratio_error": 1e-6 + 0 * STEP,
        "distinct": rising(0.9, 0.6),
    },
    "DPO": {
        "loss": rising(0.69, 0.45),
        "chosen": rising(0, -1.9),
        "nll": rising(1.2, 1.1),
        "grad_norm": 0.9 + 0.2 * NOISE[6],
    },
    "reward model": {"loss": rising(0.7, 0.45)},
    "instruction tuning": {
        "loss": rising(1.6, 1.1),
        "held_out": np.where(STEP % 20 == 0, rising(1.6, 1.2), np.nan),
    },
    "pretraining": {"loss": rising(6, 0.7)},
}
HEALTHY["GRPO"] = {
    key: x
    for key, x in HEALTHY["PPO"].items()
    if key not in ("clip_fraction", "explained_variance")
} | {
    "clip_low": 0.01 + 0 * STEP,
    "clip_high": 0.01 + 0 * STEP,
    "flat": 0.1 + 0 * STEP,
    "loss": 1e-4 * NOISE[7],
}
REPORT = {
    "accuracy": 0.77,
    "pairs": 900,
    "noise_ceiling": 0.85,
    "longer_wins": 0.43,
    "score_std": 1.3,
}


def stage(kind, config=None, report=None, **columns):
    script = SCRIPTS.get(kind)
    settings = dataclasses.asdict(script.Config(**(config or {}))) if script else {"lr": 1e-3}
    log = {"step": STEP, **HEALTHY[kind], **columns}
    log = {key: np.asarray(x, float) for key, x in log.items()}
    return Stage(kind, kind, settings, log, REPORT if report is None else report, [], True, 1.0)


@pytest.mark.parametrize("kind", sorted(HEALTHY))
def test_a_healthy_log_says_nothing(kind):
    """A doctor who finds something in everybody."""
    one = stage(kind)
    assert doctor.examine(one, [one]) == []


BUMP = np.where(STEP < 50, 1.0, 0.3)
SICK = [
    ("PPO", {}, {"gold": BUMP}, "over-optimization"),
    ("GRPO", {}, {"gold": BUMP}, "over-optimization"),
    ("PPO", {}, {"gold": np.nan * STEP, "kl": rising(0, 16)}, "over-optimization, probably"),
    ("PPO", {}, {"score": rising(0.5, -1)}, "the score falls from the beginning"),
    ("GRPO", {}, {"gold": rising(0.5, -1)}, "the gold falls from the beginning"),
    ("PPO", {"device": "cpu"}, {"first_ratio_error": 0.01 + 0 * STEP}, "the ratio is not 1 at"),
    ("GRPO", {}, {"first_ratio_error": 0.9 + 0 * STEP}, "the ratio is not 1 at"),
    ("PPO", {}, {"kl": -0.5 + 0.2 * NOISE[8]}, "a negative KL"),
    ("PPO", {}, {"kl": 0 * STEP}, "a KL of exactly 0 while the score moves"),
    ("PPO", {}, {"kl": rising(0, 90)}, "the KL runs away"),
    ("GRPO", {}, {"kl": 2.0 ** (STEP / 14)}, "the KL runs away"),
    ("PPO", {}, {"entropy": rising(0.5, 0.01), "distinct": rising(0.9, 0.05)}, "collapse"),
    ("PPO", {}, {"clip_fraction": np.where(STEP > 60, 0.3, 0.02)}, "too much is clipped"),
    ("GRPO", {}, {"clip_high": 0.2 + 0 * STEP}, "too much is clipped"),
    ("PPO", {}, {"approx_kl": 0.2 + 0 * STEP}, "updates that are too large"),
    (
        "PPO",
        {},
        {"clip_fraction": 0 * STEP, "ratio_error": 1e-5 + 0 * STEP},
        "the policy does not move",
    ),
    ("PPO", {}, {"explained_variance": 0.99 + 0 * STEP}, "a critic that knows too much"),
    ("PPO", {}, {"explained_variance": -0.2 + 0 * STEP}, "a critic that knows nothing"),
    ("GRPO", {}, {"flat": 0.95 + 0 * STEP, "score": 1.1 + 0 * STEP}, "groups without a difference"),
    ("PPO", {}, {"grad_norm": 9 + 0 * STEP}, "gradients far over their bound"),
    (
        "PPO",
        {},
        {
            "grad_norm": np.where(STEP == 50, 60, 0.8),
            "score": np.where(STEP < 50, 2, 0),
            "gold": np.nan * STEP,
        },
        "a spike",
    ),
    ("PPO", {}, {"finished": 0 * STEP}, "no answer ends"),
    ("PPO", {}, {"finished": 0.01 + 0 * STEP, "len": rising(20, 80)}, "answers as long as"),
    ("GRPO", {}, {"len": np.maximum(1, rising(20, -20))}, "answers shrink to nothing"),
    ("DPO", {}, {"loss": 0.6931 + 0.001 * NOISE[9]}, "the loss stays at ln 2"),
    ("DPO", {}, {"chosen": rising(0, -12), "nll": rising(1.0, 1.8)}, "chosen answers are pushed"),
    (
        "instruction tuning",
        {},
        {"held_out": np.where(STEP % 20 == 0, 1.2 + (STEP - 40) ** 2 / 9000, np.nan)},
        "overfitting",
    ),
    ("instruction tuning", {}, {"loss": 1.6 + 0 * STEP}, "the loss does not fall"),
    ("pretraining", {}, {"loss": rising(6.5, 7)}, "the loss does not fall"),
]


@pytest.mark.parametrize("kind, config, columns, illness", SICK)
def test_each_illness_is_found(kind, config, columns, illness):
    one = stage(kind, config, **columns)
    found = [finding.illness for finding in doctor.examine(one, [one])]
    assert any(name.startswith(illness) for name in found), found


@pytest.mark.parametrize(
    "report, illness",
    [
        ({"accuracy": 0.51}, "a reward model that guesses"),
        ({"accuracy": 0.3}, "a reward model the wrong way round"),
        ({"accuracy": 0.93}, "a reward model that is too good"),
        ({"accuracy": 0.72, "longer_wins": 0.71}, "length explains the preferences"),
        ({"score_std": 0.01}, "scores without a spread"),
    ],
)
def test_reward_models(report, illness):
    one = stage("reward model", report=REPORT | report)
    [finding] = doctor.examine(one, [one])
    assert finding.illness == illness


def test_what_is_not_an_illness():
    """A KL of 0 at step 1, an explained variance of -1, both log-ratios of DPO falling, an entropy
    that halves, a short log."""
    for kind, columns in (
        ("PPO", {"explained_variance": rising(-1, 0.5), "entropy": rising(0.54, 0.12)}),
        ("DPO", {"chosen": rising(0, -3), "rejected": rising(0, -9)}),
    ):
        one = stage(kind, **columns)
        assert doctor.examine(one, [one]) == []
    short = stage("PPO", score=rising(1, -9))
    short.log = {key: x[:8] for key, x in short.log.items()}
    assert doctor.examine(short, [short]) == []
    assert "Not an illness" in doctor.note(stage("GRPO", {"aggregate": "sequence"}))
    assert doctor.note(stage("PPO")) == ""


def test_the_best_of_many_is_what_a_score_is_compared_with():
    one = stage("PPO", gold=np.nan * STEP)
    other = stage("reward model")
    other.curve = [{"n": 64, "proxy": 1.2, "gold": 1.0}]
    [finding] = doctor.examine(one, [one, other])
    assert finding.illness == "over-optimization, probably" and "1.20" in finding.seen


def test_the_command(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    for name, config, columns in (
        ("ppo", train_ppo.Config(), HEALTHY["PPO"] | {"gold": BUMP}),
        ("grpo", train_grpo.Config(), HEALTHY["GRPO"]),
    ):
        (run / name).mkdir(parents=True)
        (run / name / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
        rows = [
            {"step": int(i), **{key: float(x[i - 1]) for key, x in columns.items()}} for i in STEP
        ]
        # still running: its last line is half written
        (run / name / "log.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 101, "sc'
        )
    call(monkeypatch, "tools.doctor", run / "ppo")
    out = capsys.readouterr().out
    assert out.startswith("ppo (PPO, 100 rows): 1 to look at\n  over-optimization: gold was 1.00")
    assert "grpo" not in out and "Turn: raise --beta" in out
    call(monkeypatch, "tools.doctor", "--all", run)
    out = capsys.readouterr().out
    assert "grpo (GRPO, 100 rows): nothing found" in out and "ppo (PPO" in out
    for place in (run / "none", tmp_path / "nowhere" / "ppo", run):
        assert "give a" in complaint(monkeypatch, "tools.doctor", place)


# ---- real logs: docs/data/health.json, which runs/sick.py makes ----

DATA = sick.read_data()


@pytest.mark.parametrize("case", sick.CASES, ids=lambda case: case.name)
def test_runs_made_sick_are_found_out(case):
    kept = sick.stage_of(case.name, DATA["sick"][case.name])
    assert case.illness in [finding.illness for finding in doctor.examine(kept, [kept])]


@pytest.mark.parametrize(
    "run, name", [(run, name) for run, stages in DATA["healthy"].items() for name in stages]
)
def test_healthy_runs_are_left_alone(run, name):
    kept = sick.stage_of(name, DATA["healthy"][run][name])
    assert doctor.examine(kept, [kept]) == []


def test_the_page_is_made_from_the_data():
    """A figure or a number that is typed by hand, or of another run."""
    pytest.importorskip("matplotlib")
    pictures, text = sick.page(DATA)
    assert sick.PAGE.read_text(encoding="utf-8") == text
    for path in pictures:
        assert (sick.PAGE.parent / path).exists(), path
    assert sick.DATA.stat().st_size < 400_000 and len(DATA["sick"]) >= 14
