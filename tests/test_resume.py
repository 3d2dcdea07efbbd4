"""A run that is stopped, killed or fails loses nothing: what --resume ends with is what an
uninterrupted run ends with, bit for bit.

    python tests/test_resume.py 50      kills and resumes one run fifty times, and compares
"""
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conftest
import pytest
import torch
from calling import call, complaint

import train_dpo
from nanorlhf import checkpoints, lock, optim, resume
from nanorlhf.log import Log

ROOT = conftest.ROOT
TINY = ("--device", "cpu", "--n_layer", 1, "--n_embd", 32, "--n_head", 2, "--pages", 300)
RL = ("--steps", 6, "--save_every", 4, "--device", "cpu")
# script and flags: 6 steps each, so that a state is kept after 4 and the run is stopped after 5
VARIANTS = {
    "base": ("train_base", *TINY, "--steps", 6, "--save_every", 4),
    "sft": ("train_sft", "--demonstrations", 64, *RL),
    "rm": ("train_rm", *RL),
    "orm": ("train_prm", "--data", "{run}/thumbs/answers.jsonl", *RL),
    "rejection": (
        "train_rejection",
        "--prompts",
        16,
        "--samples_per_prompt",
        16,
        "--batch_size",
        4,
        "--epochs",
        3,
        "--curve_prompts",
        2,
        *RL[2:],
    ),
    "ppo": ("train_ppo", "--batch_size", 4, "--target_kl", 0.1, "--ptx", 0.1, *RL),
    "grpo": (
        "train_grpo",
        "--prompts",
        2,
        "--samples_per_prompt",
        2,
        "--advantage",
        "reinforce",
        *RL,
    ),
    "dpo": ("train_dpo", "--batch_size", 2, *RL),
    "dpo kto": ("train_dpo", "--batch_size", 2, "--loss", "kto", *RL),
    "online_dpo": ("train_online_dpo", "--batch_size", 2, *RL),
    "distill": ("train_distill", "--teacher", "{run}/base", "--batch_size", 4, "--on_policy", 0.5,
                *RL),
}


def make_start(folder):
    """A run with base, sft and rm, for the others to start from."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for script, *args in (
            ("train_base", *TINY, "--steps", 10),
            ("train_sft", "--demonstrations", 64, "--device", "cpu"),
            ("make_preferences", "--prompts", 24, "--device", "cpu"),
            (
                "make_preferences",
                "--prompts",
                24,
                "--device",
                "cpu",
                "--labels",
                "thumbs",
                "--out",
                "thumbs",
            ),
            ("train_rm", "--device", "cpu"),
        ):
            call(monkeypatch, script, "--run", folder, *args)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return make_start(tmp_path_factory.mktemp("start") / "run")


def copy_of(start, tmp_path, name):
    return shutil.copytree(start, tmp_path / name, ignore=shutil.ignore_patterns("state.pt"))


def stop_after(monkeypatch, step, *signals):
    """The signals arrive while this step is at work. -> what undoes it"""
    def called(log, at, **stats):
        logged(log, at, **stats)
        for s in signals if at == step else ():
            signal.raise_signal(s)

    logged = Log.__call__
    monkeypatch.setattr(Log, "__call__", called)
    return lambda: monkeypatch.setattr(Log, "__call__", logged)


def outcome(folder):
    """What a run leaves: its weights, and its text files as bytes."""
    files = {name: (folder / name).read_bytes() for name in ("log.jsonl", "samples.txt")}
    return torch.load(folder / "model.pt", weights_only=True)["model"], files


def assert_same(one, other):
    (weights, files), (other_weights, other_files) = outcome(one), outcome(other)
    assert weights.keys() == other_weights.keys() and all(
        torch.equal(w, other_weights[name]) for name, w in weights.items()
    )
    assert files == other_files and files["log.jsonl"].count(b"\n") >= 6


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_equals_uninterrupted(variant, start, tmp_path, monkeypatch, capsys):
    """An optimizer, a generator, a place in the data, beta or a baseline that is not taken up
    again; a line logged twice; a sample lost."""
    script, *args = VARIANTS[variant]
    args = [str(arg).format(run=start) for arg in args]
    whole, parts = copy_of(start, tmp_path, "whole"), copy_of(start, tmp_path, "parts")
    call(monkeypatch, script, "--run", whole, *args)
    undo = stop_after(monkeypatch, 5, signal.SIGINT)
    with pytest.raises(
        SystemExit, match="interrupted after step 5, which .*/state.pt holds; --resume"
    ):
        call(monkeypatch, script, "--run", parts, *args)
    undo()
    stage = variant.split()[0]
    assert torch.load(parts / stage / "state.pt", weights_only=True)["training"]["step"] == 5
    call(monkeypatch, script, "--run", parts, *args, "--resume")
    assert "resumed after step 5 of" in capsys.readouterr().out
    assert_same(whole / stage, parts / stage)
    if variant == "rejection":
        assert_same(whole / "rejection_control", parts / "rejection_control")
    # a run that is done has nothing left to do
    call(monkeypatch, script, "--run", parts, *args, "--resume")
    assert_same(whole / stage, parts / stage)


def test_what_came_after_the_state_is_made_again(start, tmp_path, monkeypatch):
    """Killed between two states: rows of the log that would be there twice, and the half of one."""
    whole, parts = copy_of(start, tmp_path, "whole"), copy_of(start, tmp_path, "parts")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", whole, *args)

    class Killed(BaseException):
        pass

    def killed(log, at, **stats):
        logged(log, at, **stats)
        if at == 6:
            log.file.write('{"step": 7, "lo')
            log.file.flush()
            raise Killed

    logged = Log.__call__
    monkeypatch.setattr(Log, "__call__", killed)
    with pytest.raises(Killed):
        call(monkeypatch, script, "--run", parts, *args)
    monkeypatch.setattr(Log, "__call__", logged)
    assert (parts / "dpo/log.jsonl").read_bytes().count(b"\n") == 6
    call(monkeypatch, script, "--run", parts, *args, "--resume")
    assert_same(whole / "dpo", parts / "dpo")


def test_sigterm_and_a_second_signal(start, tmp_path, monkeypatch, capsys):
    """What a cluster sends before it kills; a run that cannot be stopped at once."""
    folder, handler = copy_of(start, tmp_path, "run"), signal.getsignal(signal.SIGTERM)
    script, *args = VARIANTS["dpo"]
    undo = stop_after(monkeypatch, 2, signal.SIGTERM)
    with pytest.raises(SystemExit, match="interrupted after step 2"):
        call(monkeypatch, script, "--run", folder, *args)
    undo()
    stop_after(monkeypatch, 2, signal.SIGINT, signal.SIGINT)
    with pytest.raises(
        SystemExit, match="interrupted: nothing was saved after the last complete file"
    ):
        call(monkeypatch, script, "--run", folder, *args)
    assert (
        "stopped in step 2" in capsys.readouterr().err
        and signal.getsignal(signal.SIGTERM) is handler
    )


def test_resume_without_a_state_starts_anew(start, tmp_path, monkeypatch, capsys):
    """A loop that restarts a job with --resume needs no first time of its own; a new run that would
    take up an old one's state."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args, "--resume")
    assert "no " in (said := capsys.readouterr().out) and "starts at its beginning" in said
    before = outcome(folder / "dpo")[1]
    call(monkeypatch, script, "--run", folder, *args)
    assert outcome(folder / "dpo")[1] == before
    monkeypatch.setattr(resume, "steps", lambda *_: sys.exit("stopped"))
    with pytest.raises(SystemExit):
        call(monkeypatch, script, "--run", folder, *args)
    assert not (folder / "dpo/state.pt").exists() and (folder / "dpo/model.pt").exists()


def test_a_state_of_other_settings(start, tmp_path, monkeypatch):
    """Half a run at one learning rate, half at another; how often states are kept may change, and
    where the run lies."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    log = (folder / "dpo/log.jsonl").read_bytes()
    said = complaint(monkeypatch, script, "--run", folder, *args, "--resume", "--lr", 1e-3)
    assert f"state.pt was made with --lr {train_dpo.Config.lr!r}, not 0.001" in said
    call(
        monkeypatch, script, "--run", folder, *args, "--resume", "--save_every", 1, "--log_every", 1
    )
    assert (folder / "dpo/log.jsonl").read_bytes() == log
    moved = folder.rename(tmp_path / "moved")
    call(monkeypatch, script, "--run", moved, *args, "--resume", "--micro_batch", 8)
    assert (moved / "dpo/log.jsonl").read_bytes() == log


@pytest.mark.parametrize("content", ["weights", "pickle", "half", "empty", "foreign"])
def test_a_state_that_is_none(content, start, tmp_path, monkeypatch):
    """A pickle that runs code, half a file, another program's: one sentence, and nothing is
    overwritten."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    state, log = folder / "dpo/state.pt", (folder / "dpo/log.jsonl").read_bytes()
    whole = state.read_bytes()
    if content == "weights":
        shutil.copy(folder / "dpo/model.pt", state)
    elif content == "pickle":
        torch.save({"format": checkpoints.FORMAT, "training": Trap(tmp_path / "trapped")}, state)
    elif content == "foreign":
        torch.save({"epoch": 3}, state)
    else:
        state.write_bytes(whole[:len(whole) // 2] if content == "half" else b"")
    said = complaint(monkeypatch, script, "--run", folder, *args, "--resume")
    assert "state.pt" in said and not (tmp_path / "trapped").exists()
    assert (folder / "dpo/log.jsonl").read_bytes() == log


class Trap:
    """Unpickled by torch.load without weights_only, it makes a file."""
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_state_starts_another_run(start, tmp_path, monkeypatch):
    """A state that is no checkpoint: after a gradient of NaN its weights are all that is left."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    model, _ = checkpoints.load_checkpoint(f"{folder}/dpo/state.pt")
    assert checkpoints.same_weights(model, checkpoints.load_checkpoint(f"{folder}/dpo")[0])


def test_a_gradient_of_nan_names_the_step_and_what_is_kept(start, tmp_path, monkeypatch, capsys):
    """Weights of NaN kept as the last state; an error that leaves the user to guess what there
    still is."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["sft"]
    step, update = [], optim.update

    def broken(model, *rest, **more):
        step.append(1)
        if len(step) == 6:
            next(model.parameters()).grad[0] = float("nan")
        return update(model, *rest, **more)

    monkeypatch.setattr(optim, "update", broken)
    said = complaint(monkeypatch, script, "--run", folder, *args)
    assert "the gradient became nan" in said
    assert f"stopped in step 6; {folder}/sft/state.pt holds step 4" in capsys.readouterr().err
    assert all(
        w.isfinite().all()
        for w in checkpoints.load_checkpoint(f"{folder}/sft/state.pt")[0].state_dict().values()
    )


def test_a_full_disk_loses_nothing(start, tmp_path, monkeypatch):
    """Half a state in place of the last whole one; a traceback of torch's writer."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["sft"]
    saved, save = [], torch.save

    def full(state, f):
        saved.append(1)
        if len(saved) < 2:
            return save(state, f)
        f.write(b"PK half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    said = complaint(monkeypatch, script, "--run", folder, *args)
    assert "state.pt: No space left on device" in said
    assert checkpoints.read_checkpoint(f"{folder}/sft/state.pt")["training"][
        "step"
    ] == 0 and not list((folder / "sft").glob("*.partial"))


def test_a_log_that_cannot_be_written(start, tmp_path, monkeypatch, capsys):
    """A full disk under the log: a traceback, and no word of the state that is left."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["sft"]
    write = Log.__call__

    def full(log, at, **stats):
        if at == 5:
            log.file = open("/dev/full", "w")
        write(log, at, **stats)

    monkeypatch.setattr(Log, "__call__", full)
    assert "could not write /dev/full: No space left on device" in complaint(
        monkeypatch, script, "--run", folder, *args
    )
    assert f"stopped in step 5; {folder}/sft/state.pt holds step 4" in capsys.readouterr().err


# ---- folders that two runs share, files that change in between ----

def test_two_runs_in_one_folder(start, tmp_path, monkeypatch):
    """A log of both and the last one's weights; a lock that outlives its run, or a failed one."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    before = outcome(folder / "dpo")
    held = lock.hold(str(folder / "dpo"))
    for more in ((), ("--resume",)):
        said = complaint(monkeypatch, script, "--run", folder, *args, *more)
        assert f"another run is at work in {folder}/dpo" in said
    weights, files = outcome(folder / "dpo")
    assert files == before[1] and all(
        torch.equal(w, before[0][name]) for name, w in weights.items()
    )
    call(monkeypatch, script, "--run", folder, *args, "--out", "other")
    held.close()
    call(monkeypatch, script, "--run", folder, *args)
    monkeypatch.setattr(train_dpo, "pair_losses", lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call(monkeypatch, script, "--run", folder, *args)


def test_a_second_process_gets_a_sentence(start, tmp_path):
    """A lock that only threads of one process know of."""
    folder = copy_of(start, tmp_path, "run")
    held = lock.hold(str(folder / "dpo"))
    script, *args = VARIANTS["dpo"]
    words = [sys.executable, f"{script}.py", "--run", folder, *args]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: another run is at work in ")
    held.close()


@pytest.mark.parametrize("changed", ["data", "ref", "init"])
def test_what_was_read_is_another_now(changed, start, tmp_path, monkeypatch):
    """Half a run on one file, half on another; a reference retrained in between, which moves every
    log-ratio."""
    folder = copy_of(start, tmp_path, "run")
    pairs = folder / "preferences/pairs.jsonl"
    shutil.copytree(folder / "sft", folder / "ref")
    script, *args = VARIANTS["dpo"]
    args += ["--ref", folder / "ref", "--init", folder / "sft"]
    stop = stop_after(monkeypatch, 5, signal.SIGINT)
    with pytest.raises(SystemExit, match="interrupted after step 5"):
        call(monkeypatch, script, "--run", folder, *args)
    stop()
    log = (folder / "dpo/log.jsonl").read_bytes()
    if changed == "data":
        lines = pairs.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = pairs.read_bytes()
        pairs.write_text("".join(lines[1:]), encoding="utf-8")
    else:
        place = folder / ("sft" if changed == "init" else "ref") / "model.pt"
        kept = place.read_bytes()
        model, tokenizer = checkpoints.load_checkpoint(str(place))
        with torch.no_grad():
            model.wpe.weight[0, 0] += 1e-3
        checkpoints.save_checkpoint(str(place), model, tokenizer)
    said = complaint(monkeypatch, script, "--run", folder, *args, "--resume")
    assert f"state.pt was made with another {changed} than the one that is there now" in said
    assert (folder / "dpo/log.jsonl").read_bytes() == log
    (pairs if changed == "data" else place).write_bytes(kept)
    call(monkeypatch, script, "--run", folder, *args, "--resume")
    assert (folder / "dpo/log.jsonl").read_bytes().startswith(log)


def test_a_state_of_another_device(start, tmp_path, monkeypatch):
    """A traceback of the generators, whose states are of another size there."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    path = folder / "dpo/state.pt"
    state = torch.load(path, weights_only=True)
    assert state["training"]["device"] == "cpu"
    state["training"]["device"] = "cuda"
    torch.save(state, path)
    log = (folder / "dpo/log.jsonl").read_bytes()
    said = complaint(monkeypatch, script, "--run", folder, *args, "--resume")
    assert "was made on cuda" in said and "--device cuda, or leave --resume out" in said
    assert (folder / "dpo/log.jsonl").read_bytes() == log
    state["training"]["device"] = "cpu"
    torch.save(state, path)
    call(monkeypatch, script, "--run", folder, *args, "--resume")


def test_a_resumed_run_keeps_nothing_twice(start, tmp_path, monkeypatch):
    """The state that was read, weights and optimizer, stays in the memory for the whole run."""
    folder = copy_of(start, tmp_path, "run")
    script, *args = VARIANTS["dpo"]
    call(monkeypatch, script, "--run", folder, *args)
    read, load = [], resume.load
    monkeypatch.setattr(resume, "load", lambda *a: read.append(load(*a)) or read[-1])
    call(monkeypatch, script, "--run", folder, *args, "--resume")
    assert read == [{}]


def test_a_fingerprint_tells_apart():
    """Two files with the same rows in another order; weights of another shape."""
    assert checkpoints.fingerprint([[1, 2], [3]]) != checkpoints.fingerprint([[3], [1, 2]])
    assert checkpoints.fingerprint([[1, 2], [3]]) == checkpoints.fingerprint([[1, 2], [3]])
    one, other = (torch.nn.Linear(2, 2, bias=False) for _ in range(2))
    assert checkpoints.fingerprint(one) != checkpoints.fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert checkpoints.fingerprint(one) == checkpoints.fingerprint(other)


def test_a_reader_that_goes_away(start, tmp_path):
    """python train_sft.py | head: a traceback of a broken pipe, twice."""
    folder = copy_of(start, tmp_path, "run")
    words = f"{sys.executable} train_sft.py --run {folder} --demonstrations 64 --device cpu"
    done = subprocess.run(["bash", "-c", f"{words} | head -1"], cwd=ROOT, text=True,
                          capture_output=True)
    assert done.stdout.count("\n") == 1 and "Traceback" not in done.stderr, done.stderr
    assert "BrokenPipe" not in done.stderr


# ---- kill -9 ----

LONG = (
    "train_dpo.py",
    "--device",
    "cpu",
    "--batch_size",
    "1",
    "--steps",
    "40",
    "--save_every",
    "2",
    "--log_every",
    "10",
)


def killed_and_resumed(start, folder, kills, rng):
    """Runs LONG, kills it `kills` times at a random moment of its training, resumes it each time;
    checks what is there in between."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    shutil.copytree(start, folder, ignore=shutil.ignore_patterns("state.pt"))
    words, state = [sys.executable, *LONG, "--run", folder], f"{folder}/dpo/state.pt"
    for _ in range(kills):
        before = os.stat(state).st_ino if os.path.exists(state) else None
        process = subprocess.Popen(
            [*words, "--resume"],
            cwd=ROOT,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and (
            not os.path.exists(state) or os.stat(state).st_ino == before
        ):
            # until it has begun to write: most of the time goes into starting Python
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.wait()
        # whole, whenever it was killed
        step = checkpoints.read_checkpoint(state)["training"]["step"]
        with open(f"{folder}/dpo/log.jsonl", "rb") as f:
            assert f.read().count(b"\n") >= step
    subprocess.run([*words, "--resume"], cwd=ROOT, env=env, check=True, capture_output=True)


def whole_and_killed(start, home, kills):
    """-> the folders of two runs of LONG"""
    whole = copy_of(start, home, "whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        call(monkeypatch, "train_dpo", "--run", whole, *LONG[1:])
    killed_and_resumed(start, home / "killed", kills, random.Random(0))
    return whole / "dpo", home / "killed/dpo"


def test_killed_three_times(start, tmp_path):
    """kill -9 in mid-step, in mid-save, in mid-line."""
    assert_same(*whole_and_killed(start, tmp_path, 3))


if __name__ == "__main__":
    kills = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as home:
        assert_same(*whole_and_killed(make_start(Path(home) / "start"), Path(home), kills))
    print(f"killed {kills} times, and the same to the last bit")
