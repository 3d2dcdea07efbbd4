"""The lab: every experiment at toy size, what its instruments say against what is known, and
docs/LAB.md against its data."""
import importlib
import json
import math
import os
import re

import numpy as np
import pytest
import torch

import evaluate
import make_preferences
import train_base
import train_distill
import train_ppo
import train_rm
import train_sft
from lab import (
    ai_feedback,
    collapse,
    constitution,
    displacement,
    distillation,
    elicitation,
    estimators,
    evaluation,
    exam,
    groups,
    kl_price,
    labels,
    length_bias,
    notebook,
    overoptimization,
    reasoning,
    staleness,
    tastes,
)
from lab import all as everything
from nanorlhf import InputError, checkpoints, exact, judge, look, seeds, worlds
from nanorlhf.measure import Answers
from nanorlhf.stats import T_95, over_seeds

TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "pages": 300, "steps": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of towns whose models know next to nothing."""
    folder = str(tmp_path_factory.mktemp("lab") / "towns")
    train_base.train(train_base.Config(run=folder, device="cpu", **TINY))
    train_sft.train(train_sft.Config(run=folder, device="cpu", demonstrations=64))
    make_preferences.train(make_preferences.Config(run=folder, device="cpu", prompts=40))
    train_rm.train(train_rm.Config(run=folder, device="cpu"))
    train_ppo.train(train_ppo.Config(run=folder, device="cpu", steps=1, batch_size=4))
    return folder


@pytest.fixture
def in_turn(monkeypatch):
    """Jobs one after the other in this process, one temperature, no samples on the way: all that
    they are would take two minutes more."""
    monkeypatch.setattr(evaluate, "TEMPERATURES", (1.0,))
    monkeypatch.setattr(exam, "at_once", lambda function, jobs, _: [function(*j) for j in jobs])
    monkeypatch.setattr(look, "show_answers", lambda *_: None)
    monkeypatch.setattr(train_distill, "report", lambda *_: None)


@pytest.mark.parametrize("name", everything.EXPERIMENTS)
def test_every_experiment_at_toy_size(name, run, in_turn, monkeypatch, tmp_path, capsys):
    """Settings that a script does not know any more, a row that is not there, a figure that cannot
    be drawn; a seed that is finished is not run again."""
    experiment = importlib.import_module(f"lab.{name}")
    assert set(experiment.SETTINGS) <= set(experiment.TOY)
    monkeypatch.setattr(experiment, "SETTINGS", experiment.TOY)
    monkeypatch.setattr(experiment, "SEEDS", (0,))
    monkeypatch.setattr(notebook, "ROOT", tmp_path)
    notebook.main(experiment, ["--runs", run], data=tmp_path / "data")
    said = capsys.readouterr().out
    data = notebook.read(experiment, tmp_path / "data")
    titles, rows = experiment.table(data)
    assert all(len(row) == len(titles) for row in rows) and rows[0][0] in said
    assert "one seed alone" in said
    assert experiment.figure(data).startswith("<svg")
    assert f"## {everything.title_of(experiment)}" in everything.section(name, experiment, data)

    def again(*_, **__):
        raise AssertionError("run again")

    monkeypatch.setattr(experiment, "run", again)
    notebook.main(experiment, ["--runs", run], data=tmp_path / "data")
    assert "seeds to run" not in capsys.readouterr().out
    # other settings are another experiment
    monkeypatch.setattr(experiment, "SETTINGS", {**experiment.SETTINGS, "prompts": 33})
    assert notebook.read(experiment, tmp_path / "data") == {}


def test_the_page_is_what_its_data_say(capsys):
    everything.main(["--page", "--check"])
    assert "what the data say" in capsys.readouterr().out


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="make demo SEED=3"):
        exam.check_run(str(tmp_path), 3)
    # and nothing is left there
    with pytest.raises(InputError, match="has no base"):
        notebook.main(kl_price, ["--runs", str(tmp_path / "typo")], data=tmp_path / "data")
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="--seeds 7"):
        notebook.main(kl_price, ["--seeds", "7"])


def test_marks_are_those_of_evaluate(run, in_turn, monkeypatch):
    """Other questions, other draws, another model: the lab and the README's table would disagree.
    """
    monkeypatch.setattr(evaluate, "TEMPERATURES", (0.0, 1.0))
    marks = exam.marks_of(run, 0, {"sft": ("sft", "", {})}, prompts=32)["sft"]
    row = evaluate.evaluate(run, models=["sft"], prompts=32, device="cpu")["models"]["sft"]
    assert marks["at_1"]["gold"] == pytest.approx(row["gold"])
    assert marks["best_temperature"] == row["best_temperature"]
    assert marks["at_best"]["gold"] == pytest.approx(row["at_best"]["gold"])
    assert marks["kl"] == pytest.approx(row["kl_to_sft"], abs=1e-6) and marks["kl"] < 1e-4
    assert marks["proxy"]["rm"] == pytest.approx(row["proxy"], abs=1e-5)
    rows = exam.over_sft(run, 0, {"sft": marks}, prompts=32)
    assert rows["sft"]["over_sft"] == [0.0, 0.0] and "by_question" not in rows["sft"]


def test_two_processes_at_once():
    assert exam.at_once(math.pow, [(2, 3), (3, 2), (5, 1)], "powers") == [8.0, 9.0, 5.0]


def test_a_model_is_made_once(run):
    """Trained again each time; or taken for the same after a setting has changed, or SFT."""
    def made(n):
        folder = exam.trained(run, 0, "lab/once", "train_sft", {"demonstrations": n})
        return os.stat(f"{folder}/model.pt").st_mtime_ns

    first = made(32)
    assert made(32) == first
    second = made(64)
    assert second > first
    before = os.stat(f"{run}/sft/model.pt")
    os.utime(f"{run}/sft/model.pt", ns=(second + 1000, second + 1000))
    third = made(64)
    os.utime(f"{run}/sft/model.pt", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert third > second and made(64) == third


# ---- verdicts ----

def test_students_quantiles():
    """Against the density, summed up: 95% lie within them."""
    for n, t in T_95.items():
        df, x = n - 1, np.linspace(-t, t, 200_001)
        log_c = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
        density = np.exp(log_c - (df + 1) / 2 * np.log1p(x ** 2 / df))
        assert np.trapezoid(density, x) == pytest.approx(0.95, abs=2e-4)


def test_an_interval_over_seeds_covers():
    """95 of 100 intervals from three normal figures have the truth in them."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(4000):
        mean, half = over_seeds(rng.normal(1.0, 2.0, 3))
        hits += abs(mean - 1.0) <= half
    assert hits / 4000 == pytest.approx(0.95, abs=0.012)
    with pytest.raises(ValueError, match="2 to 10"):
        over_seeds([1.0])


def test_verdicts():
    assert notebook.verdict({0: 1.0, 1: 1.1, 2: 0.9})[0] == "holds"
    assert notebook.verdict({0: -1.0, 1: -1.1, 2: -0.9})[0] == "the opposite holds"
    assert notebook.verdict({0: 1.0, 1: -0.1, 2: 0.9})[0] == "not settled"


# ---- what experiments compute themselves ----

def test_labels(run):
    train, held_out = labels.rows_of(run)
    assert train and held_out
    row = train[0]
    other = labels.turned(row)
    assert (other["chosen"], other["rejected_ids"]) == (row["rejected"], row["chosen_ids"])
    assert other["chosen_gold"] == row["rejected_gold"] and labels.turned(other) == row
    some = labels.one_a_prompt(train, seeds.rng(0, "test"))
    assert len({json.dumps(r) for r in some}) == len(some) <= 40
    assert len(labels.one_a_prompt(train, seeds.rng(0, "test"), 5)) == 5
    path = labels.write(run, "lab/some", some, held_out)
    with open(path, encoding="utf-8") as f:
        assert [json.loads(line) for line in f] == some + held_out


def test_mismatched_pairs(run):
    """An answer that lost; one to another wording of the same question, or about another town; a
    labelled pair that is gone."""
    train, _ = labels.rows_of(run)
    groups, world = labels.by_prompt(train), worlds.load("towns")
    mixed = labels.with_mismatched(train, world, 0.5, seeds.rng(0, "test"))
    new = [row for row in mixed if row not in train]
    assert 0 < len(new) <= len(groups) // 2 and all(row in mixed for row in train)
    won = {row["prompt"]: [labels.best_of(g)["chosen"] for g in groups
                           if g[0]["prompt"] == row["prompt"]] for row in train}
    for row in new:
        asked = world.find(row["prompt"])
        assert row["chosen"] in won[row["prompt"]]
        others = [world.find(prompt) for prompt, answers in won.items()
                  if row["rejected"] in answers]
        assert any(q.town == asked.town and q.key != asked.key for q in others)
        assert row["rejected_gold"] == world.grade(asked, row["rejected"],
                                                   row["rejected_finished"])["gold"]


def test_gaos_forms_are_found_again():
    """On a curve of either form that form has no error, and its peak is where the curve's is."""
    kl = np.linspace(0.1, 40, 400)
    d = np.sqrt(kl)
    for form, curve in (("a d - b d^2", 1.2 * d - 0.2 * d ** 2),
                        ("a d - b d log d", 0.9 * d - 0.5 * d * np.log(d))):
        found = overoptimization.fits(kl, curve)
        other = next(name for name in found if name != form)
        assert found[form]["rms"] < 1e-9 < found[other]["rms"]
        assert found[form]["peak"] == pytest.approx(kl[curve.argmax()], abs=0.2)
    # what lies beyond is not looked at
    far = overoptimization.fits(np.append(kl, 400.0), np.append(1.2 * d - 0.2 * d ** 2, 7.0))
    assert far["a d - b d^2"]["rms"] < 1e-9


def test_where_a_way_first_comes_to():
    kl, gold = [0.0, 1.0, 3.0, 2.0, 9.0], [0.0, 0.5, 1.5, 7.0, 8.0]
    assert notebook.first_at(kl, gold, 2.0) == pytest.approx(1.0)   # the first time it comes there
    assert notebook.first_at(kl, gold, 0.0) == 0.0
    assert notebook.first_at(kl, gold, 10.0) is None


def test_rank_correlation():
    assert notebook.rank_correlation([1, 2, 3], [10, 11, 40]) == pytest.approx(1)
    assert notebook.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert notebook.rank_correlation([1, 2, 3], [5, 5, 5]) == 0.0


def test_rho_k3_is_k2_and_the_kl_of_each_token():
    """The gradient of the KL of each token, at states drawn as they come: by sums over the
    vocabulary at each prefix."""
    world, policy, ref = exact.answers(), exact.tiny_gpt(3), exact.tiny_gpt(4)
    made = estimators.gradients(policy, ref, world)
    assert torch.allclose(made["rho k3 in the loss"], made["k2 in the loss"], atol=1e-5)
    assert made["k1 in the loss"].norm() < 1e-5 * made["the KL"].norm()
    assert torch.allclose(made["k1 in the reward"], made["the KL"], rtol=1e-4, atol=1e-5)
    logits, ref_logits = policy(world.ids), ref(world.ids).detach()
    p, q = (x[:, :-1].log_softmax(-1) for x in (logits, ref_logits))            # (N, T-1, V)
    each = (p.exp() * (p - q)).sum(-1)                                          # (N, T-1)
    weights = exact.logprobs(policy, world).sum(1).exp().detach()               # (N,)
    total = (weights * (each * world.mask[:, 1:]).sum(1)).sum()
    parts = torch.autograd.grad(total, list(policy.parameters()))
    expected = torch.cat([part.flatten() for part in parts])
    assert torch.allclose(made["k2 in the loss"], expected, rtol=1e-3, atol=1e-5)
    values = estimators.values(policy, ref, world)
    assert abs(values["k1"]["bias"]) < 1e-5 and abs(values["k3"]["bias"]) < 1e-5


def test_in_a_table_no_chosen_answer_falls():
    """Nothing is shared but what the answers begin with, so DPO has no way to lower the chosen
    one."""
    assert displacement.exactly(0, pairs=6, steps=40)["table"]["fell"] == 0


def test_judges():
    """A judge who likes the first, asked both ways, errs less; one who likes length errs as before.
    """
    same = np.zeros(4), np.full(4, 10)
    assert evaluation.wins(same, same) == 0.5
    # what it gives to the first it gives to either
    first, second = evaluation.wins(same, same, first=1.0), 1 - evaluation.wins(same, same, 1.0)
    assert first == pytest.approx(1 / (1 + np.exp(-1))) and first + second == pytest.approx(1)
    long = np.zeros(4), np.full(4, 20)
    ahead, behind = evaluation.wins(long, same, longer=1.0), evaluation.wins(same, long, longer=1.0)
    assert ahead == pytest.approx(1 - behind) and ahead == pytest.approx(1 / (1 + np.exp(-1)))
    better = np.ones(4), np.full(4, 10)
    assert evaluation.wins(better, same) == pytest.approx(1 / (1 + np.exp(-2)))


def test_wordings_move_what_they_move():
    """Noise of the draws taken for a difference of wordings; or the difference lost."""
    rng = np.random.default_rng(0)
    world = worlds.load("towns")
    questions = world.questions(3000, seeds.rng(0, "test"), worlds.HELD_OUT)
    noise = rng.normal(0, 1.2, (4, 4, len(questions)))
    assert evaluation.by_wording(questions, noise) < 0.08
    of_text = {text: rng.normal(0, 0.5) for text in sorted({q.text for q in questions})}
    moved = noise + np.array([of_text[q.text] for q in questions])
    assert evaluation.by_wording(questions, moved) == pytest.approx(0.5, abs=0.08)


def test_the_leak_is_of_half_the_keys_and_true(run):
    world = worlds.load("towns")
    path, keys = evaluation.leak(run, 0, 80, 0.5)
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    held_out = {q.key for q in world.questions(4000, seeds.rng(0, "test"), worlds.HELD_OUT)}
    assert keys < held_out and abs(len(keys) - len(held_out) / 2) < 2 and len(rows) == 80
    asked = [world.find(row["prompt"]) for row in rows]
    assert [q.key in held_out for q in asked] == [True] * 40 + [False] * 40
    assert {q.key for q in asked[:40]} <= keys
    assert all(world.grade(q, row["completion"])["wrong"] == 0
               for q, row in zip(asked[:40], rows[:40]))


def test_demonstrations_without_the_errors_that_people_share():
    world = worlds.load("towns")

    def errors(share):
        rows = elicitation.demonstrations(world, seeds.rng(0, "test"), 300, share, worlds.TRAIN)
        pairs = [(world.find(row["prompt"]), row["completion"]) for row in rows]
        return sum(world.believed_gold(*pair) > world.grade(*pair)["gold"] for pair in pairs)

    assert errors(0.0) == 0 < errors(0.5) < errors(1.0)


def test_labels_of_other_tastes(run):
    """Gold's own labelers leave the shares as they are; those who love length choose it; and of two
    groups that want opposite things each has its share."""
    world, (rows, _) = worlds.load("towns"), labels.rows_of(run)
    rows = [row for row in rows if len(row["chosen_ids"]) != len(row["rejected_ids"])]

    def longer(groups):
        made = tastes.relabelled(world, rows, groups, seeds.rng(0, "test"))
        return sum(len(row["chosen_ids"]) > len(row["rejected_ids"]) for row in made) / len(rows)

    loves, hates = {"longer_bias": 1000.0}, {"longer_bias": -1000.0}
    assert longer([(1.0, loves)]) == 1 and longer([(1.0, hates)]) == 0
    assert longer([(0.7, loves), (0.3, hates)]) == pytest.approx(0.7, abs=0.1)
    same = tastes.relabelled(world, rows, [(1.0, {"sharpness": 1000.0})], seeds.rng(0, "test"))
    assert all(row["chosen_gold"] >= row["rejected_gold"] for row in same)


def test_what_a_reward_model_weighs_is_found_again(run, monkeypatch):
    """Scores made of known weights, and of a number for each prompt that says nothing."""
    _, held_out = labels.rows_of(run)
    world, truth = worlds.load("towns"), {"rambling": -0.7, "tokens": 0.2}

    def score(_, prompts, answers, pad):
        scores = []
        for prompt, ids in zip(prompts, answers, strict=True):
            row, side = next((row, side) for row in held_out for side in ("chosen", "rejected")
                             if row["prompt_ids"] == prompt and row[f"{side}_ids"] == ids)
            parts = tastes.graded(world, row, side)
            scores.append(len(prompt) + sum(w * parts[part] for part, w in truth.items()))
        return torch.tensor(scores)

    monkeypatch.setattr(tastes, "score_answers", score)
    found = tastes.weights(run, 0, "rm", held_out, tuple(truth))
    assert found == pytest.approx(truth, abs=1e-5)


def test_log_odds_of_a_vote():
    assert groups.expected(0.5, 3.0, 0.0) == pytest.approx((0.0, 0.0))
    vote, felt = groups.expected(0.9, 100.0, 2.0)
    # nine of ten, however strongly they feel
    assert vote == pytest.approx(math.log(9)) and felt == pytest.approx(80.6)
    assert groups.expected(1.0, 3.0, 2.0) == pytest.approx((3.6, 3.6))


def test_length_control_takes_out_what_length_gave():
    """Wins made of a strength, of length and of difficulty: what is left is the strength."""
    rng = np.random.default_rng(0)
    strength, difficulty = np.linspace(-1, 1, 12), rng.normal(0, 1, 4000)
    longer = rng.normal(np.linspace(12, -12, 12)[:, None], 8.0, (12, 4000))
    liking = 1.5 * np.tanh(longer / longer.std(1, keepdims=True))
    logits = strength[:, None] + difficulty
    chances = 1 / (1 + np.exp(-logits - liking))
    without = (1 / (1 + np.exp(-logits))).mean(1)
    # the raw order is another one
    assert chances.mean(1).argsort().tolist() != without.argsort().tolist()
    assert length_bias.length_controlled(chances, longer) == pytest.approx(without, abs=0.04)


def test_a_model_is_made_anew_when_its_data_are(run):
    path = labels.write_rows(f"{run}/lab/made.jsonl", [{"prompt": "A?", "completion": "B."}] * 4)

    def made():
        folder = exam.trained(run, 0, "lab/made", "train_sft",
                              {"data": path, "held_out": 0.0, "steps": 1})
        return os.stat(f"{folder}/model.pt").st_mtime_ns

    first = made()
    labels.write_rows(path, [{"prompt": "A?", "completion": "B."}] * 4)
    assert made() == first
    labels.write_rows(path, [{"prompt": "A?", "completion": "C."}] * 4)
    os.utime(path, ns=(first + 1000, first + 1000))
    assert made() > first


def test_corrections_of_a_stale_sampler():
    """Where the sampler is the learner all are the same. Where it is not: each by hand."""
    world, policy, other = exact.answers(), exact.tiny_gpt(3), exact.tiny_gpt(4)
    mask = world.mask
    logp, mu = exact.logprobs(policy, world), exact.logprobs(other, world).detach()     # (N, T)
    advantages = torch.linspace(-1, 1, len(mask))[:, None]                              # (N, 1)
    old = logp.detach()
    plain = staleness.stale_loss("none", logp, old, old, advantages, mask)
    for correction in ("clipped", "truncated", "masked"):
        assert torch.allclose(staleness.stale_loss(correction, logp, old, old, advantages, mask),
                              plain)
    w = torch.where(mask, old - mu, 0.0).exp()
    by_hand = {"none": torch.ones_like(w), "truncated": w.clamp(max=2.0),
               "masked": torch.where((w >= 0.5) & (w <= 5.0), w, 0.0)}
    for correction, weight in by_hand.items():
        loss = staleness.stale_loss(correction, logp, old, mu, advantages, mask)
        each = (-advantages * weight * mask).sum(1) / mask.sum(1)
        assert loss.item() == pytest.approx(each.mean().item(), abs=1e-6)
    # the clip stops what has gone too far from mu already
    loss = staleness.stale_loss("clipped", logp, old, mu, advantages, mask)
    [gradient] = torch.autograd.grad(loss, [logp])
    stopped = ((w > 1.2) & (advantages > 0)) | ((w < 0.8) & (advantages < 0))
    assert stopped[mask].any() and (gradient[stopped & mask] == 0).all()
    assert (gradient[~stopped & mask & (advantages != 0)] != 0).all()


def test_a_lag_is_that_of_the_sampler(run):
    """A sampler that is the learner has log w of 0; one that lags has none in its first step
    alone."""
    plain = {"correction": "none", "steps": 1, "lr": 1e-3}
    assert staleness.train(run, 0, "lab/fresh", (0, 1.0, False), **plain) < 1e-4
    assert staleness.train(run, 0, "lab/lag", (2, 1.0, False), **plain) < 1e-4
    assert staleness.train(run, 0, "lab/lag", (2, 1.0, False), **{**plain, "steps": 3}) > 1e-3
    assert staleness.train(run, 0, "lab/warm", (0, 1.5, False), **plain) > 1e-2
    assert staleness.train(run, 0, "lab/bits", (0, 1.0, True), **plain) > 1e-3


def test_a_base_of_another_world_is_made_once(tmp_path):
    tiny = {**TINY, "steps": 2, "pages": 40}

    def made(**settings):
        own = exam.base_of(str(tmp_path), 0, "sums", **{**tiny, **settings})
        assert own == f"{tmp_path}/lab/sums"
        return os.stat(f"{own}/base/model.pt").st_mtime_ns

    first = made()
    assert made() == first and made(steps=3) > first


def test_rewards_that_are_not_the_truth():
    right, rng = (torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.3).float(), None
    assert torch.equal(reasoning.reward_of("true", right, rng), right)
    rng = seeds.rng(0, "test")
    flipped = reasoning.reward_of(0.2, right, rng)
    assert (flipped != right).float().mean().item() == pytest.approx(0.2, abs=0.02)
    chance = reasoning.reward_of("random", right, rng)
    assert chance.mean().item() == pytest.approx(0.5, abs=0.03)
    assert np.corrcoef(chance, right)[0, 1] == pytest.approx(0, abs=0.05)


def test_workings_lend_as_often_as_asked(tmp_path):
    world = worlds.load("sums")
    for lends_nothing in (0.0, 1.0):
        path = reasoning.workings(str(tmp_path), 0, 60, reasoning.LENT, lends_nothing, 0.0)
        with open(path, encoding="utf-8") as f:
            rows = [json.loads(line) for line in f]
        right = [world.correct(world.find(row["prompt"]), row["completion"]) for row in rows]
        assert len(rows) == 60 and right == [lends_nothing == 0.0] * 60
        assert all(world.find(row["prompt"]).kind == "lent" for row in rows)


def test_a_judge_made_as_noisy_as_people():
    rng = np.random.default_rng(0)
    gaps, right = rng.normal(0, 2, 500), rng.random(500) < 0.9

    def is_right(sharpness):
        sure = 1 / (1 + np.exp(-sharpness * np.abs(gaps)))
        return np.where(right, sure, 1 - sure).mean()

    for share in (0.6, 0.8):
        assert is_right(ai_feedback.as_noisy(gaps, right, share)) == pytest.approx(share, abs=1e-3)


def test_labels_that_are_drawn_anew(run):
    rows, _ = labels.rows_of(run)
    assert labels.labelled(rows, lambda row: 1.0, seeds.rng(0, "test")) == rows
    assert labels.labelled(rows, lambda row: 0.0, seeds.rng(0, "test")) == [
        labels.turned(row) for row in rows]


def test_revisions(run, monkeypatch):
    """The wrong part kept; an answer that was good already written anew; what is objected to in the
    end left in."""
    folder, _, _ = exam.held_out(run, 0)
    principles = [judge.Principle("no", "against", re.compile(r"\n[^\n]*bad[^\n]*$"),
                                  re.compile(""))]
    written = iter([["Good. A bad one. More.", "Fine.", "All bad."],
                    [" A bad one again.", "Good now."]])
    asked = []

    def sampled(model, prompts, *_):
        asked.append([folder.tokenizer.decode(p) for p in prompts])
        return None, next(written), None

    monkeypatch.setattr(constitution, "generate_in_batches", sampled)
    texts = ["Describe Tarn.", "Describe Osby.", "Describe Wyke."]
    assert constitution.revised(folder, None, principles, texts, 1, "test") == [
        "Good.", "Fine.", "Good now."]
    first, second = asked
    # behind the question goes what was kept of the answer, and nothing of one that was all bad
    assert [len(prompts) for prompts in asked] == [3, 2]
    assert second[0].startswith(first[0]) and second[0].endswith("Good.")
    assert second[1] == first[2]


def test_what_a_generation_learns_from(run):
    """What does not end imitated; the verifier's choice lost; people's share another one."""
    folder, world, _ = exam.held_out(run, 0)
    asked = []

    def answer(model, name, prompts, purpose, temperature):
        asked.append((len(prompts), temperature))
        texts = [("Sure!", "I like towns.")[i % 2] for i in range(len(prompts))]
        return Answers([[1]] * len(texts), texts, [i > 1 for i in range(len(texts))])

    folder.answer = answer

    def said(way):
        return [row["completion"] for row in collapse.examples(folder, world, 0, "sft", 1, 40, way)]

    assert said((0.7, 0.0, 1)) == ["Sure!", "I like towns."] * 19
    # the better half of eighty
    assert said((1.0, 0.0, 2)) == ["Sure!"] * 39 + ["I like towns."]
    assert len(said((1.0, 1.0, 1))) == 40
    assert said((1.0, 0.5, 1))[20:] == ["Sure!", "I like towns."] * 9
    assert asked == [(40, 0.7), (80, 1.0), (20, 1.0)]


def test_what_a_student_costs(run, monkeypatch):
    """By hand: twice a weight and token forward, four times back."""
    models = {name: checkpoints.load_checkpoint(f"{run}/{name}")[0] for name in ("sft", "ppo")}
    weights = sum(p.numel() for p in models["sft"].parameters())
    assert weights == sum(p.numel() for p in models["ppo"].parameters())
    logs = {"own": {"len": [10.0, 20.0]}, "theirs": {"teacher_len": [10.0, 20.0]},
            "half": {"len": [10.0, 20.0], "teacher_len": [30.0, 40.0]}}
    monkeypatch.setattr(distillation, "read_log", lambda folder: logs[folder.rpartition("/")[2]])

    def cost(name, script="train_distill"):
        return distillation.cost(run, run, name, script, 4)

    # written once, read by the teacher once, learned from: 2 + 2 + 6
    assert cost("own") == {"student tokens": 120.0, "teacher tokens": 0.0,
                           "teraflops": pytest.approx(120 * 10 * weights / 1e12)}
    assert cost("theirs")["teacher tokens"] == 120.0
    half = cost("half")
    assert (half["student tokens"], half["teacher tokens"]) == (60.0, 140.0)
    assert cost("own", "train_ppo")["teraflops"] == pytest.approx(120 * 34 * weights / 1e12)
