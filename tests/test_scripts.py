"""The scripts as a user runs them: the whole pipeline with tiny settings, their files, and what
they say when something is wrong."""
import gzip
import importlib
import json
import math
import os
import shutil
import subprocess
import sys
from itertools import groupby

import pytest
import torch
from calling import call, complaint
from test_gpt2 import needs_gpt2

from nanorlhf import batches, checkpoints
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.preference_losses import NAMES
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import towns

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HH = os.path.join(ROOT, "..", "shared", "data", "hh_harmless.jsonl.gz")
SCRIPTS = (
    "train_base",
    "train_sft",
    "make_preferences",
    "train_rm",
    "train_prm",
    "train_rejection",
    "train_ppo",
    "train_grpo",
    "train_dpo",
    "train_online_dpo",
    "train_distill",
    "evaluate",
    "chat",
    "tools.export",
)
STAGES = ("base", "sft", "rm", "rejection", "ppo", "grpo", "dpo", "distill")
PPO = ("--steps", "2", "--batch_size", "8")
SCRATCH = (
    "--init",
    "scratch",
    "--n_layer",
    "1",
    "--n_embd",
    "16",
    "--n_head",
    "2",
    "--block_size",
    "64",
    "--max_new_tokens",
    "16",
    "--batch_size",
    "2",
    "--steps",
    "2",
    "--device",
    "cpu",
)


def launch(script, *args, env=None):
    """The script in a process of its own -> CompletedProcess. One thread: models this small gain
    nothing from two, and on a busy
    machine threads that wait for each other take ten times as long."""
    return subprocess.run(
        [sys.executable, f"{script}.py", *map(str, args)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        timeout=300,
    )


def read_log(folder):
    with open(os.path.join(folder, "log.jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def weights(folder):
    return torch.load(os.path.join(folder, "model.pt"), weights_only=True)["model"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(w, b[name]) for name, w in a.items())


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("pipeline") / "tiny")
    for script, *args in (
        (
            "train_base",
            "--steps",
            20,
            "--n_layer",
            1,
            "--n_embd",
            32,
            "--n_head",
            2,
            "--pages",
            300,
        ),
        ("train_sft", "--demonstrations", 64),
        ("train_sft", "--demonstrations", 64, "--tidy", "--out", "sft_tidy"),
        ("make_preferences", "--prompts", 24),
        ("train_rm",),
        ("train_rejection", "--prompts", 8, "--samples_per_prompt", 4, "--curve_prompts", 4),
        ("train_ppo", *PPO),
        ("train_grpo", "--steps", 2, "--prompts", 2),
        ("train_dpo",),
        ("train_distill", "--steps", 2, "--batch_size", 4),
    ):
        done = launch(script, "--run", folder, "--device", "cpu", *args)
        assert done.returncode == 0, f"{script}: {done.stderr}"
    done = launch("evaluate", folder, "--prompts", 32, "--device", "cpu")
    assert done.returncode == 0, f"evaluate: {done.stderr}"
    return folder


@pytest.mark.parametrize("stage", STAGES + ("sft_tidy", "rejection_control"))
def test_every_stage_leaves_its_files(pipeline, stage):
    """A file missing or half-written, steps that skip or repeat, a NaN in the log."""
    folder = os.path.join(pipeline, stage)
    rows = read_log(folder)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(math.isfinite(v) for row in rows for v in row.values())
    assert "loss" in rows[0] or "policy_loss" in rows[0]
    with open(os.path.join(folder, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    assert config["run"] == pipeline and config["seed"] == 0
    assert not [name for name in os.listdir(folder) if name.endswith(".partial")]
    model, tokenizer = checkpoints.load_checkpoint(
        folder, kind="scalar" if stage == "rm" else "gpt"
    )
    assert model.cfg.n_embd == 32 and tokenizer.name == "towns"
    if stage != "rm":
        with open(os.path.join(folder, "samples.txt"), encoding="utf-8") as f:
            text = f.read()
        assert all(q.text in text for q in towns.SHOWN) and "gold " in text


def test_number_of_steps(pipeline):
    """steps = 0 means one epoch, its smaller last batch included: 64 demonstrations in 32s are 2,
    24 prompts in 5s 5, in 10s 3."""
    steps = {
        stage: len(read_log(f"{pipeline}/{stage}")) for stage in ("base", "sft", "rm", "ppo", "dpo")
    }
    with open(f"{pipeline}/preferences/pairs.jsonl", encoding="utf-8") as f:
        prompts = [
            prompt
            for prompt, _ in groupby(
                row["prompt"] for row in map(json.loads, f) if row["split"] == "train"
            )
        ]
    assert steps == {
        "base": 20,
        "sft": 2,
        "rm": -(-len(prompts) // 5),
        "ppo": 2,
        "dpo": -(-len(prompts) // 10),
    }


def test_pairs_file(pipeline):
    """Ids that are not those of the text's prompt; labels that lose the finished flags; held-out
    questions among the training pairs."""
    _, tokenizer = checkpoints.load_checkpoint(f"{pipeline}/sft")
    with open(f"{pipeline}/preferences/pairs.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    assert (
        24 * 13 <= sum(r["split"] == "train" for r in rows) <= 24 * 15
        and 16 * 13 <= sum(r["split"] != "train" for r in rows) <= 16 * 15
    )
    for row in rows:
        assert row["prompt_ids"] == tokenizer.prompt(row["prompt"])
        assert row["prompt"] in (
            towns.SPLITS["judged"] if row["split"] == "train" else towns.SPLITS["held-out"]
        )
        if row["split"] == "train":
            assert not towns.speaks_of_unjudged(row["chosen"]) and not towns.speaks_of_unjudged(
                row["rejected"]
            )
        for side in ("chosen", "rejected"):
            assert (row[f"{side}_ids"][-1] == tokenizer.end) == row[f"{side}_finished"]
            text = tokenizer.decode(
                row[f"{side}_ids"][:-1] if row[f"{side}_finished"] else row[f"{side}_ids"]
            )
            assert text == row[side]
            gold = towns.grade(towns.QUESTIONS[row["prompt"]], text, row[f"{side}_finished"])[
                "gold"
            ]
            assert gold == pytest.approx(row[f"{side}_gold"])
        assert 0.5 <= row["certainty"] <= 1


def test_best_of_n_curve(pipeline):
    """The proxy's own curve cannot fall with n; its KL bound is log n - (n-1)/n."""
    with open(f"{pipeline}/rejection/best_of_n.json", encoding="utf-8") as f:
        curve = json.load(f)
    assert [row["n"] for row in curve] == [1, 2, 4, 8, 16, 32, 64]
    assert (
        all(a["proxy"] <= b["proxy"] + 1e-9 for a, b in zip(curve, curve[1:]))
        and curve[0]["proxy"] < curve[-1]["proxy"]
    )
    for row in curve:
        assert row["kl_bound"] == pytest.approx(math.log(row["n"]) - (row["n"] - 1) / row["n"])


def test_results_file(pipeline):
    """The keys that the README and the plots read; a KL of sft to itself; shares outside 0..1."""
    with open(f"{pipeline}/results.json", encoding="utf-8") as f:
        results = json.load(f)
    assert results["prompts"] == 32 and results["seed"] == 0
    keys = {
        "gold",
        "gold_ci95",
        "win_rate_vs_sft",
        "win_rate_ci95",
        "kl_to_sft",
        "proxy",
        "tokens",
        "finished",
        "wrong_fact_rate",
        "boilerplate_rate",
        "right_facts_open",
    }
    temperatures = {"0", "0.3", "0.5", "0.7", "1"}
    for name in ("base", "sft", "sft_tidy", "best_of_16", "rejection", "ppo", "dpo"):
        row = results["models"][name]
        assert keys <= set(row), name
        there = {"1"} if name == "best_of_16" else temperatures
        for figure in ("gold", "wrong", "told", "facts", "unjudged_by_town"):
            assert set(row[f"{figure}_by_temperature"]) == there
        best = row["at_best"]
        assert f"{row['best_temperature']:g}" in there and 0 <= row["win_rate_vs_sharpened"] <= 1
        assert best["gold"] == pytest.approx(
            row["gold_by_temperature"][f"{row['best_temperature']:g}"]
        )
        assert best["gold"] == pytest.approx(best["truth"] + best["form"]) and row[
            "gold_by_temperature"
        ]["1"] == pytest.approx(row["gold"])
        assert set(best) == {
            "gold",
            "truth",
            "form",
            "told",
            "filler",
            "wrong",
            "boilerplate",
            "right_open",
        } | {f"right_of_told_{kind}" for kind in ("plain", "judged", "unjudged")} | {
            f"{what}_over_{other}{end}"
            for what in ("gold", "truth", "told")
            for other in ("tidy", "sharpened")
            for end in ("", "_ci95")
        }
        assert all(
            0 <= row[share] <= 1
            for share in ("win_rate_vs_sft", "finished", "wrong_fact_rate", "boilerplate_rate")
        )
        assert sum(row["win_tie_loss"]) == 32 * 4
        assert row["win_rate_vs_sft"] == pytest.approx(
            (row["win_tie_loss"][0] + row["win_tie_loss"][1] / 2) / (32 * 4)
        )
        assert 1 <= row["tokens"] <= 64 and row["gold_ci95"] >= 0
    models = results["models"]
    assert {
        "sft_sharpened",
        "sft_cut",
        "likeliest_of_16",
        "random_of_16",
        "believed_of_16",
        "rejection_control",
    } <= set(models)
    assert (
        models["sft_sharpened"]["gold"] == models["sft"]["at_best"]["gold"]
        and models["sft"]["at_best"]["gold_over_sharpened"] == 0
    )
    assert (
        models["sft_tidy"]["at_best"]["gold_over_tidy"]
        == 0
        == models["sft_tidy"]["at_best"]["gold_over_tidy_ci95"]
    )
    tidy = models["sft_tidy"]["at_best"]["gold"]
    assert models["ppo"]["at_best"]["gold_over_tidy"] == pytest.approx(
        models["ppo"]["at_best"]["gold"] - tidy
    )
    assert results["models"]["sft"]["kl_to_sft"] == pytest.approx(0, abs=1e-5)
    assert results["models"]["base"]["kl_to_sft"] > 1e-4
    assert results["models"]["best_of_16"]["kl_to_sft"] is None
    assert results["models"]["best_of_16"]["kl_bound"] == pytest.approx(math.log(16) - 15 / 16)


def test_each_stage_starts_from_the_one_before(pipeline):
    """A stage that trains from other weights than it says, or that does not train: neither equal
    nor far apart."""
    sft = weights(f"{pipeline}/sft")
    for stage in ("rejection", "ppo", "grpo", "dpo"):
        other = weights(f"{pipeline}/{stage}")
        moved = max((other[name] - w).abs().max().item() for name, w in sft.items())
        assert 0 < moved < 0.05, stage


def copy_run(pipeline, to):
    for stage in ("sft", "preferences", "rm"):
        shutil.copytree(f"{pipeline}/{stage}", f"{to}/{stage}")
    return str(to)


def test_the_same_seed_gives_the_same_weights(pipeline, tmp_path):
    """Randomness that does not come from the seed: another process, another folder, the same bits.
    """
    again = copy_run(pipeline, tmp_path / "again")
    done = launch("train_ppo", "--run", again, "--device", "cpu", *PPO)
    assert done.returncode == 0, done.stderr
    assert same(weights(f"{pipeline}/ppo"), weights(f"{again}/ppo"))


def test_another_seed_gives_other_weights(pipeline, tmp_path, monkeypatch):
    """A --seed that is parsed and then not used."""
    call(
        monkeypatch,
        "train_ppo",
        "--run",
        copy_run(pipeline, tmp_path / "other"),
        "--device",
        "cpu",
        "--seed",
        1,
        *PPO,
    )
    assert not same(weights(f"{pipeline}/ppo"), weights(tmp_path / "other" / "ppo"))


def test_ppo_whitens_after_the_returns_and_shifts_the_critic(pipeline, tmp_path, monkeypatch):
    """Returns taken from whitened advantages lose the rewards' scale; a critic that is not shifted
    has seen the token it judges."""
    import train_ppo
    seen = {"returns": [], "advantages": [], "values": [], "gae": []}
    gae, policy_loss, value_loss = train_ppo.gae, train_ppo.policy_loss, train_ppo.value_loss

    def spy_gae(rewards, values, mask, gamma, lam):
        advantages, returns = gae(rewards, values, mask, gamma, lam)
        seen["gae"].append((rewards, values, mask, advantages, returns))
        return advantages, returns

    def spy_policy(logp, old_logp, advantages, mask, clip):
        seen["advantages"].append((advantages, mask))
        return policy_loss(logp, old_logp, advantages, mask, clip)

    def spy_value(values, old_values, returns, mask, clip):
        seen["returns"].append(returns)
        return value_loss(values, old_values, returns, mask, clip)

    monkeypatch.setattr(train_ppo, "gae", spy_gae)
    monkeypatch.setattr(train_ppo, "policy_loss", spy_policy)
    monkeypatch.setattr(train_ppo, "value_loss", spy_value)
    call(
        monkeypatch,
        "train_ppo",
        "--run",
        copy_run(pipeline, tmp_path / "spied"),
        "--device",
        "cpu",
        "--steps",
        1,
        "--batch_size",
        8,
        "--minibatches",
        1,
        "--epochs",
        1,
    )
    rewards, values, mask, advantages, returns = seen["gae"][0]
    torch.testing.assert_close(returns, torch.where(mask, advantages + values, 0.0))
    # the minibatch is a shuffle of the rows
    order = [int((returns == row).all(1).nonzero()[0]) for row in seen["returns"][0]]
    assert sorted(order) == list(range(8))
    white, m = seen["advantages"][0]
    assert white[m].mean().abs() < 1e-4 and white[m].std(unbiased=False).item() == pytest.approx(
        1, abs=1e-3
    )
    raw = advantages[mask]
    torch.testing.assert_close(
        white,
        torch.where(m, (advantages[order] - raw.mean()) / raw.std(unbiased=False), 0.0),
        rtol=1e-3,
        atol=1e-3,
    )
    assert (values[:, 0] == 0).all() and values[mask].std() > 0


def test_ptx_keeps_the_pages(pipeline, tmp_path, monkeypatch):
    """The pretraining mix with its sign wrong, or without effect: where it weighs most, the loss on
    pages must fall."""
    folder, loss = copy_run(pipeline, tmp_path / "ptx"), {}
    for weight in (1e-6, 100):
        call(
            monkeypatch,
            "train_ppo",
            "--run",
            folder,
            "--device",
            "cpu",
            "--steps",
            4,
            "--batch_size",
            8,
            "--lr",
            1e-2,
            "--ptx",
            weight,
        )
        loss[weight] = [row["page_loss"] for row in read_log(f"{folder}/ppo")]
    assert loss[100][0] > loss[100][-1] + 0.3 and loss[100][-1] < loss[1e-6][-1] - 0.3


def test_the_nll_term_raises_the_chosen_answers(pipeline, tmp_path, monkeypatch):
    """With its sign wrong, or without effect: where it weighs most, the loss that training lowers
    is the chosen answers' own."""
    folder, nll = copy_run(pipeline, tmp_path / "nll"), {}
    for weight in (0, 100):
        call(
            monkeypatch,
            "train_dpo",
            "--run",
            folder,
            "--device",
            "cpu",
            "--steps",
            20,
            "--warmup",
            1,
            "--lr",
            1e-2,
            "--nll",
            weight,
        )
        rows = read_log(f"{folder}/dpo")
        nll[weight] = sum(row["nll"] for row in rows[-4:]) / 4
        assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert nll[100] < nll[0] - 0.2


@pytest.mark.parametrize(
    "labels, script, flags",
    [
        ("strengths", "train_rm", ("--loss", "margin")),
        ("rankings", "train_rm", ("--loss", "plackett_luce")),
        ("thumbs", "train_prm", ()),
    ],
)
def test_other_labels_for_the_reward_model(
    labels, script, flags, pipeline, tmp_path, monkeypatch, capsys
):
    """A loss that asks for labels which were not written down, or a report that lacks what makes
    variants comparable."""
    folder = copy_run(pipeline, tmp_path / labels)
    call(
        monkeypatch,
        "make_preferences",
        "--run",
        folder,
        "--device",
        "cpu",
        "--prompts",
        24,
        "--labels",
        labels,
        "--out",
        labels,
    )
    path = f"{folder}/{labels}/{'answers' if labels == 'thumbs' else 'pairs'}.jsonl"
    call(
        monkeypatch,
        script,
        "--run",
        folder,
        "--device",
        "cpu",
        *flags,
        "--data",
        path,
        "--out",
        "other",
        "--show_batch",
    )
    out = capsys.readouterr().out
    assert "<|assistant|>[" in out and ("preferred: " in out) == (labels != "thumbs")
    kept = {"strengths": "strength", "rankings": "chosen_rank", "thumbs": "right"}[labels]
    with open(path, encoding="utf-8") as f:
        assert all(kept in row for row in map(json.loads, f) if row["split"] == "train")
    # the held-out pairs are labelled plainly whatever else is: accuracies on labels of their own
    # kind could not be compared
    held_out = []
    for where in (labels, "preferences"):
        with open(f"{folder}/{where}/pairs.jsonl", encoding="utf-8") as f:
            held_out.append([row for row in map(json.loads, f) if row["split"] != "train"])
    assert held_out[0] == held_out[1] and held_out[0]
    assert all(math.isfinite(v) for row in read_log(f"{folder}/other") for v in row.values())
    with (
        open(f"{folder}/other/report.json", encoding="utf-8") as f,
        open(f"{pipeline}/rm/report.json", encoding="utf-8") as plain,
    ):
        report, plain = json.load(f), json.load(plain)
    assert (report["noise_ceiling"], report["pairs"]) == (plain["noise_ceiling"], plain["pairs"])
    checkpoints.load_checkpoint(f"{folder}/other", kind="scalar")


def test_labels_that_a_loss_cannot_use(pipeline, monkeypatch, tmp_path):
    where = ("--run", pipeline, "--out", "other", "--device", "cpu")
    said = complaint(
        monkeypatch,
        "train_rm",
        *where,
        "--loss",
        "margin",
        "--data",
        f"{pipeline}/preferences/pairs.jsonl",
    )
    assert "'strength'" in said and "--labels strengths" in said
    assert "--labels thumbs" in complaint(monkeypatch, "train_prm", *where)
    assert "lack 'label'; an answer judged alone" in complaint(
        monkeypatch, "train_prm", *where, "--data", f"{pipeline}/preferences/pairs.jsonl"
    )
    call(
        monkeypatch,
        "make_preferences",
        "--run",
        pipeline,
        "--device",
        "cpu",
        "--prompts",
        4,
        "--labels",
        "thumbs",
        "--out",
        "thumbs",
    )
    said = complaint(
        monkeypatch,
        "train_prm",
        *where,
        "--supervision",
        "process",
        "--data",
        f"{pipeline}/thumbs/answers.jsonl",
    )
    assert "steps that can be checked" in said


def test_tidy_and_gullible_need_a_world_that_has_them(pipeline, tmp_path, monkeypatch):
    """Demonstrations of sums taken for tidy as they are; labels that silently know better."""
    model = GPT(GPTConfig(261, 96, 1, 2, 16), torch.Generator().manual_seed(0))
    for stage in ("base", "sft"):
        checkpoints.save_checkpoint(f"{tmp_path}/{stage}/model.pt", model, Tokenizer("sums"))
    assert "no filler to leave out" in complaint(
        monkeypatch, "train_sft", "--run", tmp_path, "--tidy", "--device", "cpu"
    )
    assert "nobody believes errors" in complaint(
        monkeypatch, "make_preferences", "--run", tmp_path, "--gullible", 0.2, "--device", "cpu"
    )
    assert "--data brings its own" in complaint(
        monkeypatch,
        "train_sft",
        "--run",
        pipeline,
        "--tidy",
        "--data",
        "x.jsonl",
        "--device",
        "cpu",
    )


DPO = ("--device", "cpu", "--steps", 2, "--batch_size", 4)


@pytest.mark.parametrize("loss", [loss for loss in NAMES if loss != "dpo"])
def test_every_loss_of_dpo_trains(loss, pipeline, tmp_path, monkeypatch, capsys):
    """A loss that the script cannot reach, or whose first value is not what policy == reference
    makes it; a reference read in vain."""
    folder = copy_run(pipeline, tmp_path / "run")
    call(monkeypatch, "train_dpo", "--run", folder, "--loss", loss, "--out", f"dpo_{loss}", *DPO)
    rows = read_log(f"{folder}/dpo_{loss}")
    first = {"cdpo": math.log(2), "robust": math.log(2), "dpo_norm": math.log(2), "ipo": 25.0,
             "hinge": 1.0, "apo_zero": 1.0, "apo_down": 1.0, "kto": 0.5}.get(loss)
    assert [row["step"] for row in rows] == [1, 2] and all(
        math.isfinite(v) for row in rows for v in row.values()
    )
    assert rows[0]["loss"] == pytest.approx(first, rel=1e-5) if first else rows[0]["loss"] > 0
    assert os.path.exists(f"{folder}/dpo_{loss}/ref_logprobs.pt") == bool(
        first
    ) and not os.path.exists(f"{folder}/dpo")
    # nothing to be relative to: the log-probs themselves, and no 0 at the start
    if not first:
        assert (
            rows[0]["chosen"] == pytest.approx(rows[0]["chosen_logprob"])
            and rows[0]["rejected"] < -1
        )
    assert not same(weights(f"{folder}/sft"), weights(f"{folder}/dpo_{loss}"))
    assert "accuracy of the implicit reward" in capsys.readouterr().out


@pytest.mark.parametrize(
    "judge, loss",
    [("labeler", "dpo"), ("labeler", "kto"), ("reward_model", "dpo"), ("reward_model", "simpo")],
)
def test_online_pairs_are_the_policy_s_own(judge, loss, pipeline, tmp_path, monkeypatch):
    """Pairs of yesterday's policy or of other prompts, the worse answer chosen, equal answers kept,
    no pairs.jsonl needed."""
    folder, seen, pair_batch = copy_run(pipeline, tmp_path / "run"), [], batches.pair_batch
    shutil.rmtree(f"{folder}/preferences")
    monkeypatch.setattr(
        batches, "pair_batch", lambda pairs, *rest: seen.append(pairs) or pair_batch(pairs, *rest)
    )
    call(
        monkeypatch,
        "train_online_dpo",
        "--run",
        folder,
        "--judge",
        judge,
        "--loss",
        loss,
        "--samples_per_prompt",
        3,
        "--sharpness",
        100,
        *DPO,
    )
    rows = read_log(f"{folder}/online_dpo")
    assert [len(pairs) + row["same"] for pairs, row in zip(seen, rows)] == [4 * 3, 4 * 3]
    if loss != "simpo":
        assert rows[0]["loss"] == pytest.approx(math.log(2) if loss == "dpo" else 0.5, abs=1e-5)
    _, tokenizer = checkpoints.load_checkpoint(f"{folder}/sft")
    questions = {tuple(tokenizer.prompt(text)): q for text, q in towns.SPLITS["train"].items()}
    reward_model, _ = checkpoints.load_checkpoint(f"{folder}/rm", kind="scalar")

    def worth(pair, answer):
        done = answer[-1] == tokenizer.end
        if judge == "labeler":
            return towns.grade(
                questions[tuple(pair.prompt)],
                tokenizer.decode(answer[:-1] if done else answer),
                done,
            )["gold"]
        return reward_model(torch.tensor([pair.prompt + answer]))[0, -1].item() - 2.0 * (not done)

    for pair in seen[0] + seen[1]:
        assert pair.chosen != pair.rejected
        assert worth(pair, pair.chosen) >= worth(pair, pair.rejected) - 1e-4
    assert len({tuple(p.prompt) for p in seen[0]}) > 1 and {tuple(p.chosen) for p in seen[0]} != {
        tuple(p.chosen) for p in seen[1]
    }
    assert not same(weights(f"{folder}/sft"), weights(f"{folder}/online_dpo"))


def test_a_step_of_dpo_without_a_pair_is_skipped(pipeline, tmp_path, monkeypatch):
    """An empty batch, on which everything is NaN."""
    import train_online_dpo
    monkeypatch.setattr(train_online_dpo, "sample_pairs", lambda *_: ([], {"gold": 0.0, "same": 6}))
    folder = copy_run(pipeline, tmp_path / "run")
    call(monkeypatch, "train_online_dpo", "--run", folder, *DPO)
    assert [row["same"] for row in read_log(f"{folder}/online_dpo")] == [6, 6]
    assert same(weights(f"{folder}/sft"), weights(f"{folder}/online_dpo"))


def test_online_pairs_need_two_answers(monkeypatch):
    assert "two answers to make a pair" in complaint(
        monkeypatch, "train_online_dpo", "--samples_per_prompt", 1
    )


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--loss", "simpo", "--ref", "out/x"), "leave --ref out"),
        (("--loss", "orpo", "--ref", "out/x"), "leave --ref out"),
        (("--label_smoothing", 0.2), "belongs to --loss cdpo"),
        (("--loss", "orpo", "--gamma", 0), "belongs to --loss simpo"),
        (("--loss", "robust", "--label_smoothing", 0.5), "robust needs less than 0.5"),
    ],
)
def test_settings_of_dpo_that_contradict_each_other(flags, words, monkeypatch):
    """A flag that is silently without effect."""
    assert words in complaint(monkeypatch, "train_dpo", *flags)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script, monkeypatch, capsys):
    """A setting without help, a % that argparse trips over."""
    with pytest.raises(SystemExit) as stopped:
        call(monkeypatch, script, "-h")
    text = capsys.readouterr().out
    assert (
        stopped.value.code == 0
        and "usage:" in text
        and ("--seed" in text or script == "tools.export")
    )


@pytest.mark.parametrize("script", SCRIPTS)
def test_unknown_flag(script, monkeypatch, capsys):
    """A misspelt setting that is swallowed trains the default, silently; so does an abbreviation.
    """
    with pytest.raises(SystemExit) as stopped:
        call(
            monkeypatch,
            script,
            *(
                {
                    "evaluate": ["out/none"],
                    "chat": ["out/none"],
                    "tools.export": ["out/none", "out/no"],
                }.get(script, [])
            ),
            "--betta",
            "1",
        )
    assert stopped.value.code == 2 and "--betta" in capsys.readouterr().err


def test_wrong_value_is_an_error(monkeypatch, capsys):
    """A batch of 0 or a learning rate of NaN must stop before anything is made."""
    for flag, value in (
        ("--batch_size", "0"),
        ("--lr", "nan"),
        ("--lr", "inf"),
        ("--beta", "-0.1"),
    ):
        assert complaint(monkeypatch, "train_dpo", flag, value).startswith(
            f"error: {flag} {value}: "
        )
    for flag, value in (("--steps", "many"), ("--loss", "dop")):
        with pytest.raises(SystemExit) as stopped:
            call(monkeypatch, "train_dpo", flag, value)
        assert stopped.value.code == 2 and flag in capsys.readouterr().err


def test_ppo_needs_a_temperature(pipeline, monkeypatch):
    assert "--temperature 0" in complaint(
        monkeypatch, "train_ppo", "--run", pipeline, "--device", "cpu", "--temperature", 0
    )


def test_one_answer_makes_no_pair(pipeline, monkeypatch):
    assert "--samples_per_prompt" in complaint(
        monkeypatch,
        "make_preferences",
        "--run",
        pipeline,
        "--device",
        "cpu",
        "--samples_per_prompt",
        1,
    )


def test_missing_checkpoint_in_a_process(tmp_path):
    """What a user sees: one sentence, status 1, the command to run, no traceback."""
    done = launch("train_ppo", "--run", tmp_path, "--device", "cpu")
    assert done.returncode == 1
    assert f"python train_sft.py --run {tmp_path}" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "script, stage",
    [
        ("train_sft", "base"),
        ("train_rm", "sft"),
        ("train_rejection", "sft"),
        ("train_dpo", "sft"),
        ("train_distill", "sft"),
    ],
)
def test_missing_checkpoint_names_the_command(script, stage, tmp_path, monkeypatch):
    assert f"python train_{stage}.py --run {tmp_path}" in complaint(
        monkeypatch, script, "--run", tmp_path, "--device", "cpu"
    )


def test_missing_run_for_evaluate_and_chat(tmp_path, monkeypatch):
    command = f"python train_sft.py --run {tmp_path}"
    assert command in complaint(monkeypatch, "evaluate", tmp_path, "--device", "cpu")
    assert command in complaint(monkeypatch, "chat", f"{tmp_path}/sft", "--device", "cpu")


def test_missing_pairs_name_the_command(pipeline, tmp_path, monkeypatch):
    shutil.copytree(f"{pipeline}/sft", tmp_path / "sft")
    for script in ("train_rm", "train_dpo"):
        assert f"python make_preferences.py --run {tmp_path}" in complaint(
            monkeypatch, script, "--run", tmp_path, "--device", "cpu"
        )


def test_a_reward_model_of_another_vocabulary(pipeline, tmp_path, monkeypatch):
    """Its ids mean other words: the scores would be noise, and nobody would be told."""
    ranks = Tokenizer().ranks.splitlines(keepends=True)
    other = Tokenizer(ranks="".join(ranks[:-1]))
    gpt = GPT(GPTConfig(other.vocab_size, 96, 1, 2, 16))
    checkpoints.save_checkpoint(str(tmp_path / "rm" / "model.pt"), ScalarModel(gpt), other)
    for script in ("train_ppo", "train_rejection"):
        said = complaint(
            monkeypatch, script, "--run", pipeline, "--reward", tmp_path / "rm", "--device", "cpu"
        )
        assert "another vocabulary" in said and str(tmp_path / "rm") in said
    checkpoints.save_checkpoint(str(tmp_path / "ref" / "model.pt"), gpt, other)
    assert "another vocabulary" in complaint(
        monkeypatch, "train_dpo", "--run", pipeline, "--ref", tmp_path / "ref", "--device", "cpu"
    )


def test_a_stage_that_runs_again_starts_its_samples_anew(pipeline, tmp_path, monkeypatch):
    """Samples of a run of yesterday on top of today's log."""
    folder = copy_run(pipeline, tmp_path / "twice")
    for _ in range(2):
        call(monkeypatch, "train_ppo", "--run", folder, "--device", "cpu", *PPO)
    with open(f"{folder}/ppo/samples.txt", encoding="utf-8") as f:
        assert f.read().count("--- before ppo") == 1


def test_chat_answers_from_each_checkpoint_and_grades_them(pipeline):
    """One question of the world, two that are not in it. What is piped in must not wait for a
    terminal."""
    asked = f"{towns.SHOWN[0].text}\nWhy?\n\nAnd so?\n"
    done = subprocess.run(
        [sys.executable, "chat.py", f"{pipeline}/sft", f"{pipeline}/ppo", "--device", "cpu"],
        cwd=ROOT,
        input=asked,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [done.stdout.count(f"{pipeline}/{stage}: ") for stage in ("sft", "ppo")] == [3, 3]
    assert done.stdout.count("    gold ") == 2


def test_folders_of_hugging_face_wherever_a_checkpoint_goes(pipeline, tmp_path, monkeypatch):
    """"model.pt does not exist" for what another framework has trained; a reward model that comes
    back with a new head."""
    run, hf = copy_run(pipeline, tmp_path / "run"), tmp_path / "hf"
    for stage in ("sft", "rm"):
        call(monkeypatch, "tools.export", f"{pipeline}/{stage}", hf / stage)
    common = ("--run", run, "--device", "cpu")
    models = ("--init", hf / "sft", "--ref", hf / "sft", "--reward", hf / "rm")
    for script, args in (
        ("train_ppo", PPO),
        ("train_grpo", ("--steps", 2, "--prompts", 2)),
        ("train_online_dpo", ("--steps", 2, "--judge", "reward_model")),
    ):
        logs = []
        for more in ((), models):
            _, _, log = call(monkeypatch, script, *common, *args, *more)
            logs.append({key: log[key][0] for key in ("score", "kl", "nll", "len") if key in log})
        # the same weights, but for a reward model's bias, which is folded in and rounded
        assert logs[0] == pytest.approx(logs[1], abs=1e-4) and logs[0]
    for script in ("train_dpo", "train_sft"):
        args = ("--demonstrations", 32) if script == "train_sft" else ()
        call(monkeypatch, script, *common, "--init", hf / "sft", "--steps", 1, *args)
    call(monkeypatch, "train_rm", *common, "--init", hf / "rm", "--steps", 1, "--lr", 0)
    a, b = (checkpoints.load_checkpoint(p, kind="scalar")[0] for p in (f"{run}/rm", str(hf / "rm")))
    ids = torch.tensor([Tokenizer().prompt("Who?")])
    # centred once more, at a learning rate of 0
    assert (a(ids) - b(ids)).std() < 1e-5 and same(a.gpt.state_dict(), b.gpt.state_dict())
    shutil.rmtree(f"{run}/sft")
    shutil.copytree(hf / "sft", f"{run}/sft")
    call(monkeypatch, "evaluate", run, "--prompts", 32, "--device", "cpu", "--models", "sft",
         "--reward", hf / "rm")
    call(monkeypatch, "make_preferences", *common, "--prompts", 4)
    assert "holds a reward model" not in complaint(
        monkeypatch, "train_ppo", *common, "--reward", hf / "sft")


def test_a_reward_model_is_not_a_policy(pipeline, tmp_path, monkeypatch):
    """Scores read as logits, or logits as scores."""
    said = complaint(
        monkeypatch, "train_ppo", "--run", pipeline, "--init", f"{pipeline}/rm", "--device", "cpu"
    )
    assert "holds a reward model; a language model is needed" in said
    broken = tmp_path / "sft"
    broken.mkdir()
    with open(f"{pipeline}/sft/model.pt", "rb") as f:
        (broken / "model.pt").write_bytes(f.read()[:5000])
    assert "not a whole nanorlhf checkpoint" in complaint(
        monkeypatch, "train_ppo", "--run", pipeline, "--init", broken, "--device", "cpu"
    )


@pytest.mark.parametrize(
    "script, args",
    [
        ("train_rm", ()),
        ("train_ppo", PPO),
        ("train_grpo", ("--prompts", 4, "--steps", 2)),
        ("train_dpo", ("--steps", 2)),
        ("train_dpo", ("--steps", 2, "--loss", "kto")),
        ("train_distill", ("--steps", 2, "--batch_size", 8, "--teacher", "{run}/base")),
    ],
)
def test_a_micro_batch_changes_the_memory_alone(script, args, pipeline, tmp_path, monkeypatch):
    """A part that is dropped, counted twice or averaged for itself; a gradient that does not reach
    all of them."""
    def train(micro_batch):
        folder = copy_run(pipeline, tmp_path / str(micro_batch))
        call(
            monkeypatch,
            script,
            "--run",
            folder,
            "--device",
            "cpu",
            *(str(arg).format(run=pipeline) for arg in args),
            "--micro_batch",
            micro_batch,
        )
        stage = os.path.join(folder, script.removeprefix("train_"))
        return read_log(stage), weights(stage)

    (log, w), (log_of_parts, w_of_parts) = train(256), train(3)
    assert max(row["grad_norm"] for row in log) > 1e-3
    # where policy is reference a margin is rounding, and so is its sign
    if script == "train_dpo":
        log[0].pop("accuracy"), log_of_parts[0].pop("accuracy")
    for row, other in zip(log, log_of_parts, strict=True):
        assert other == pytest.approx(row, rel=1e-3, abs=1e-4)
    for name in w:
        torch.testing.assert_close(w_of_parts[name], w[name], rtol=0, atol=2e-4)


# ---- data of one's own ----

def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def conversations(n=10):
    return [{"prompt": f"What is {i} and {i}?", "completion": f"It is {2 * i}."} for i in range(n)]


def preferences(n=10):
    return [
        {"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": "Who knows?"}
        for i in range(n)
    ]


def from_file(tmp_path, script, path, *args):
    flags = list(SCRATCH)
    if script == "train_rm":            # it samples nothing
        at = flags.index("--max_new_tokens")
        del flags[at:at + 2]
    return script, "--run", tmp_path / "own", "--data", path, *flags, *args


def test_malformed_line_names_file_and_line(tmp_path, monkeypatch):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", \n')
    assert f"{path}:2: not JSON" in complaint(monkeypatch, *from_file(tmp_path, "train_sft", path))
    path.write_text('{"chosen": "a", "rejected": "b"}\n')
    assert f"{path}:1: " in complaint(monkeypatch, *from_file(tmp_path, "train_rm", path))


def test_empty_or_missing_file(tmp_path, monkeypatch):
    path = tmp_path / "empty.jsonl"
    for script in ("train_sft", "train_dpo"):
        path.write_text("")
        assert f"{path}: the file is empty" in complaint(
            monkeypatch, *from_file(tmp_path, script, path)
        )
        assert "no such file" in complaint(
            monkeypatch, *from_file(tmp_path, script, tmp_path / "none.jsonl")
        )


def test_an_example_longer_than_the_block(tmp_path, monkeypatch, capsys):
    """Cut off silently it teaches an answer without an end: it is dropped and counted, and an error
    when nothing else is there."""
    long = {"prompt": "Who?", "completion": "The mayor of Marlow is Ada. " * 9}
    small = ("--block_size", 16, "--max_new_tokens", 4)
    path = write(tmp_path / "long.jsonl", [long])
    said = complaint(monkeypatch, *from_file(tmp_path, "train_sft", path, *small))
    assert (
        f"{path}: no example is left, of 1: " in said
        and f"longer than the block (1, first at {path}:1)" in said
    )
    path = write(
        tmp_path / "mixed.jsonl",
        [long] + [{"prompt": f"Who {c}?", "completion": "Ada."} for c in "abcdefgh"],
    )
    call(monkeypatch, *from_file(tmp_path, "train_sft", path, *small))
    out = capsys.readouterr().out
    assert (
        "8 conversations of 9 rows; tokens: median " in out
        and f"; dropped: the answer alone is longer than the block: 1 (first at {path}:1)\n" in out
    )


def test_max_new_tokens_that_leave_no_room(tmp_path, monkeypatch):
    path = write(tmp_path / "data.jsonl", conversations())
    said = complaint(
        monkeypatch,
        *from_file(tmp_path, "train_sft", path, "--block_size", 16, "--max_new_tokens", 64),
    )
    assert "--max_new_tokens 64 leaves no room" in said


@pytest.mark.parametrize(
    "script, rows",
    [("train_sft", conversations()), ("train_rm", preferences()), ("train_dpo", preferences())],
)
def test_training_on_a_file(script, rows, tmp_path, monkeypatch):
    """A stage that asks for the made-up world, or for a checkpoint, where --data and --init scratch
    say it all."""
    call(monkeypatch, *from_file(tmp_path, script, write(tmp_path / "data.jsonl", rows)))
    folder = tmp_path / "own" / script.removeprefix("train_")
    log = read_log(folder)
    assert [row["step"] for row in log] == [1, 2] and all(math.isfinite(row["loss"]) for row in log)
    assert log[0]["grad_norm"] > 0 and (folder / "model.pt").exists()
    if script == "train_dpo":
        assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    if script == "train_sft":
        assert (
            abs(
                log[0]["loss"]
                - math.log(checkpoints.load_checkpoint(str(folder))[0].cfg.vocab_size)
            )
            < 0.5
        )


def test_the_mask_of_the_last_answer(tmp_path, monkeypatch):
    """A --mask that is parsed and then not used: of the 3 + 3 answer tokens of each chat, two to a
    batch, the last 3 are trained on."""
    chats = [
        [("user", f"{i}?"), ("assistant", "Yo"), ("user", "So?"), ("assistant", "Ok")]
        for i in range(9)
    ]
    rows = [
        {"messages": [{"role": role, "content": text} for role, text in chat]} for chat in chats
    ]
    for mask, tokens in (("all", 12), ("last", 6)):
        call(
            monkeypatch,
            *from_file(
                tmp_path,
                "train_sft",
                write(tmp_path / "data.jsonl", rows),
                "--tokenizer",
                "sums",
                "--mask",
                mask,
            ),
        )
        assert [row["tokens"] for row in read_log(tmp_path / "own" / "sft")] == [tokens, tokens]


@pytest.mark.parametrize(
    "script, rows",
    [("train_sft", conversations()), ("train_rm", preferences()), ("train_dpo", preferences())],
)
def test_show_batch(script, rows, tmp_path, monkeypatch, capsys):
    """A batch that is shown at every step or after the first, or that training does not get; a
    script that stops behind it."""
    command = from_file(
        tmp_path, script, write(tmp_path / "data.jsonl", rows), "--tokenizer", "sums"
    )
    folder = tmp_path / "own" / script.removeprefix("train_")
    call(monkeypatch, *command)
    assert "first batch" not in capsys.readouterr().out
    unseen = weights(folder)
    call(monkeypatch, *command, "--show_batch")
    assert same(unseen, weights(folder))
    before, _, after = capsys.readouterr().out.partition(
        "first batch: [trained on] read only padding\n"
    )
    assert "step    1/2" not in before and "first batch" not in after
    shown = after[:after.index("step    1/2")].splitlines()
    answers = shown if script == "train_sft" else shown[:-1]
    assert len(answers) == (2 if script == "train_sft" else 4)
    assert all(
        line[4:].startswith("<|user|>·W·h·a·t· ")
        and "<|assistant|>[" in line
        and "·<|end|>]" in line
        for line in answers
    )
    if script == "train_sft":
        assert (
            sum(line[line.index("[") : line.index("]")].count("·") + 1 for line in answers)
            == read_log(folder)[0]["tokens"]
        )
    else:
        assert ["[I·t· " in line for line in answers] == [True, False] * 2 and shown[
            -1
        ] == "preferred: 0 > 1, 2 > 3"


def test_gpt2_tokenizer_offline_is_one_sentence(tmp_path):
    """tiktoken's forty-line traceback of a failed download."""
    nowhere = {
        name: "http://127.0.0.1:9"
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    }
    done = launch(
        "train_sft",
        *from_file(tmp_path, "train_sft", write(tmp_path / "data.jsonl", conversations()))[1:],
        "--tokenizer",
        "gpt2",
        env={
            "TIKTOKEN_CACHE_DIR": str(tmp_path / "no_cache"),
            "NO_PROXY": "",
            "no_proxy": "",
            **nowhere,
        },
    )
    assert done.returncode == 1
    assert "--tokenizer gpt2" in done.stderr and "TIKTOKEN_CACHE_DIR" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(not os.path.exists(HH), reason="no hh_harmless.jsonl.gz beside the repository")
@needs_gpt2
@pytest.mark.parametrize(
    "script, batch",
    [
        ("train_sft", ("--batch_size", 4, "--micro_batch", 2)),
        ("train_rm", ("--batch_size", 4)),
        ("train_dpo", ("--batch_size", 2)),
    ],
)
def test_real_pairs_with_gpt2_tokens(script, batch, tmp_path, monkeypatch):
    """Transcripts as they are distributed: several turns, text beyond ASCII, answers of very
    different length."""
    with gzip.open(HH, "rt", encoding="utf-8") as f:
        lines = [next(f) for _ in range(40)]
    (tmp_path / "hh.jsonl").write_text("".join(lines), encoding="utf-8")
    call(
        monkeypatch,
        script,
        "--run",
        tmp_path / "hh",
        "--data",
        tmp_path / "hh.jsonl",
        "--tokenizer",
        "gpt2",
        "--init",
        "scratch",
        "--n_layer",
        1,
        "--n_head",
        1,
        "--n_embd",
        16,
        "--block_size",
        512,
        "--steps",
        1,
        "--device",
        "cpu",
        *batch,
    )
    folder = tmp_path / "hh" / script.removeprefix("train_")
    log = read_log(folder)
    first = {"train_sft": math.log(50262), "train_rm": None, "train_dpo": math.log(2)}[script]
    assert len(log) == 1 and math.isfinite(log[0]["loss"])
    if first:
        assert log[0]["loss"] == pytest.approx(first, abs=0.2 if script == "train_sft" else 1e-5)
    model, tokenizer = checkpoints.load_checkpoint(
        str(folder), kind="scalar" if script == "train_rm" else "gpt"
    )
    assert model.cfg.vocab_size == tokenizer.vocab_size == 50262


@pytest.mark.parametrize(
    "script, args",
    [("train_ppo", PPO), ("train_grpo", ("--prompts", 4, "--samples_per_prompt", 2, "--steps", 2))],
)
def test_rl_on_prompts_of_a_file(script, args, pipeline, tmp_path, monkeypatch, capsys):
    """Prompts of the world for those of the file, those held out among them, a gold that nobody
    knows, a prompt and its answer that do not fit the block."""
    folder, asked = copy_run(pipeline, tmp_path / "run"), []
    module = importlib.import_module(script)
    generate = module.generate
    monkeypatch.setattr(
        module,
        "generate",
        lambda policy, prompts, *a, **k: (
            asked.extend(prompts) or generate(policy, prompts, *a, **k)
        ),
    )
    rows = [
        {"prompt": f"Who is the mayor of {t}?", "chosen": "Ada.", "rejected": "Bob."}
        for t in ("Tarn", "Crewe")
    ] + [{"prompt": "Tarn? " * 40}]
    path = write(tmp_path / "prompts.jsonl", rows)
    mine = ("--run", folder, "--data", path, "--device", "cpu", *args)
    call(monkeypatch, script, *mine, "--held_out", 0)
    tok = Tokenizer("towns")
    # a block of 96 less 64 for the answer: the third has no room
    expected = {tuple(tok.prompt(row["prompt"])) for row in rows[:2]}
    assert {tuple(p) for p in asked} == expected
    asked.clear()
    call(monkeypatch, script, *mine, "--out", "other")
    assert len(set(map(tuple, asked))) == 1
    log = read_log(os.path.join(folder, script.removeprefix("train_")))
    assert len(log) == 2 and all("gold" not in row and math.isfinite(row["score"]) for row in log)
    assert f"{path}: 2 prompts of 3 rows; tokens: median " in capsys.readouterr().out
    other = ("--ptx", 0.1) if script == "train_ppo" else ("--filter", 8)
    assert (
        complaint(monkeypatch, script, "--run", folder, "--data", path, *other).split()[1]
        == other[0]
    )


def test_evaluation_by_pairs_of_a_file(pipeline, tmp_path, monkeypatch, capsys):
    """Pairs counted by the model's own log-probs and not by what it has gained on sft; a KL of
    other answers; a tie that counts as gained."""
    folder = shutil.copytree(pipeline, tmp_path / "run")
    towns_asked = [f"Who is the mayor of {t}?" for t in list(towns.TOWNS)[:20]]
    rows = [
        {"prompt": q, "chosen": f"The mayor is {a}.", "rejected": f"The mayor is {b}."}
        for q in towns_asked
        for a, b in (("Ada", "Boris"), ("Dora", "Umar"))
    ]
    call(
        monkeypatch,
        "evaluate",
        folder,
        "--data",
        write(tmp_path / "pairs.jsonl", rows),
        "--prompts",
        32,
        "--batch_size",
        7,
        "--device",
        "cpu",
    )
    with open(os.path.join(folder, "results.json"), encoding="utf-8") as f:
        results = json.load(f)
    assert (
        results["prompts"] == 20
        and results["pairs"] == 40
        and set(results["models"]) >= {"base", "sft", "ppo", "dpo"}
    )
    (sft, tok), (dpo, _) = (
        checkpoints.load_checkpoint(os.path.join(folder, stage)) for stage in ("sft", "dpo")
    )
    reward_model, _ = checkpoints.load_checkpoint(os.path.join(folder, "rm"), kind="scalar")

    @torch.no_grad()
    def says(model, row, side):
        prompt, answer = tok.prompt(row["prompt"]), tok.completion(row[side])
        ids = torch.tensor([prompt + answer])
        if isinstance(model, ScalarModel):
            return model(ids)[0, -1].item()
        return (
            model(ids)[0, len(prompt) - 1 : -1]
            .log_softmax(-1)
            .gather(1, torch.tensor(answer)[:, None])
            .sum()
            .item()
        )

    gained = [
        says(dpo, r, "chosen") - says(sft, r, "chosen")
        > says(dpo, r, "rejected") - says(sft, r, "rejected")
        for r in rows
    ]
    assert results["models"]["dpo"]["pairs"] == pytest.approx(sum(gained) / 40, abs=1 / 40)
    right = [says(reward_model, r, "chosen") > says(reward_model, r, "rejected") for r in rows]
    assert results["reward_model_pairs"] == pytest.approx(sum(right) / 40, abs=1 / 40)
    assert results["models"]["sft"]["pairs"] is None and results["models"]["sft"]["kl_to_sft"] == 0
    assert results["models"]["ppo"]["kl_to_sft"] > 0.01
    assert "The reward model, whose word proxy and wins are" in capsys.readouterr().out
