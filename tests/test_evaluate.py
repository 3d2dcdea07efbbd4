import numpy as np
import pytest
import torch

from evaluate import bootstrap, judge, kl_per_answer
from nanorlhf import towns
from nanorlhf.gpt import GPT, GPTConfig

CPU = torch.device("cpu")


def rng():
    return np.random.default_rng(0)


def tiny(seed):
    model = GPT(GPTConfig(13, 24, 1, 2, 16), torch.Generator().manual_seed(seed)).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(8)
    return model


# ---- intervals ----

def test_bootstrap_of_a_constant_has_no_width():
    """Clusters of unequal size weighed as if equal would still pass; a sum in place of the mean would not."""
    assert bootstrap(np.full(7, 0.3), ["a", "a", "a", "b", "c", "c", "d"], rng()) == pytest.approx(0, abs=1e-12)


def test_bootstrap_of_independent_values_is_the_usual_interval():
    """Half the width, not all of it: 1.96 standard errors."""
    values = np.random.default_rng(1).normal(size=400)
    half = bootstrap(values, list(range(400)), rng())
    assert half == pytest.approx(1.96 * values.std() / 20, rel=0.08)


def test_repeats_of_a_pair_are_no_new_evidence():
    """Resampling prompts instead of pairs: four copies of each value would halve the interval."""
    values, pairs = np.random.default_rng(2).normal(size=60), [("Marlow", (str(i),)) for i in range(60)]
    once = bootstrap(values, pairs, rng())
    clustered = bootstrap(np.repeat(values, 4), [p for p in pairs for _ in range(4)], rng())
    naive = bootstrap(np.repeat(values, 4), list(range(240)), rng())
    assert clustered == pytest.approx(once, rel=1e-6)
    assert naive == pytest.approx(once / 2, rel=0.1)


def test_bootstrap_weighs_each_prompt_alike():
    """Two pairs, of three prompts and of one: resampled means are 0, 1/4, 1. A mean of pair means would give 1/2 for 1/4."""
    assert bootstrap(np.array([0.0, 0.0, 0.0, 1.0]), ["a", "a", "a", "b"], rng()) == pytest.approx(0.5)
    assert bootstrap(np.array([0.0, 2.0, 1.0, 1.0]), ["a", "a", "b", "b"], rng()) == pytest.approx(0, abs=1e-12)


# ---- KL ----

PROMPTS, ANSWERS = [[1, 2], [3], [4, 5, 6]], [[7, 8, 0], [9, 1, 2, 3, 4, 5, 6, 0], [10]]


def test_kl_of_a_model_to_itself_is_zero():
    assert kl_per_answer(tiny(0), tiny(0), PROMPTS, ANSWERS, 12, CPU) == pytest.approx(np.zeros(3), abs=1e-6)


@pytest.mark.parametrize("batch_size", [128, 2])
def test_kl_per_answer_against_a_loop(batch_size):
    """KL(sft || model) for KL(model || sft); prompt states or the state after the end counted in; a mean for the sum."""
    model, sft = tiny(0), tiny(1)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS):
        total = 0.0
        for t in range(len(answer)):
            seen = torch.tensor([prompt + answer[:t]])
            with torch.no_grad():
                p, q = (m(seen)[0, -1].log_softmax(-1) for m in (model, sft))
            total += sum(a.exp().item() * (a - b).item() for a, b in zip(p, q))
        expected.append(total)
    got = kl_per_answer(model, sft, PROMPTS, ANSWERS, 12, CPU, batch_size)
    assert min(expected) > 1e-2
    assert got == pytest.approx(np.array(expected), rel=1e-4)


# ---- the table ----

def test_judge_counts_a_tie_as_half_a_win():
    """Win rates that drop ties, or count them as wins; parts of the grade under the wrong name."""
    one, two, open_ = towns.SHOWN
    right = [towns.STATEMENTS[a][0].format(t=q.town, v=towns.FACTS[q.town][a]) for q in (one, open_) for a in q.asked]
    lie = towns.STATEMENTS["mayor"][0].format(t=two.town, v=next(v for v in towns.VALUES["mayor"] if v != towns.FACTS[two.town]["mayor"]))
    texts = [right[0], f"{lie} {towns.BOILERPLATE[0]}", " ".join(right[1:4]), "Sure!"]
    questions, finished, ids = [one, two, open_, one], [True, False, True, True], [[1], [1, 2], [1, 2, 3], [1, 2]]
    worth = towns.WORTH
    gold = [worth["right"], worth["wrong"] + worth["boilerplate"] + worth["unfinished"], 3 * worth["right"], worth["manners"]]
    row = judge(questions, texts, finished, ids, rival_gold=np.array([[gold[0] - 0.5, gold[1], gold[2] + 0.2, gold[3]],
                                                                                     [gold[0] - 0.5, gold[1] - 1, gold[2] + 0.2, gold[3]]]))
    assert row["gold"] == pytest.approx(sum(gold) / 4)
    assert row["win_tie_loss"] == [3, 3, 2]
    assert row["win_rate_vs_sft"] == pytest.approx((3 + 3 / 2) / 8)
    assert row["tokens"] == 2.0 and row["finished"] == 0.75
    assert row["wrong_fact_rate"] == 0.25 and row["boilerplate_rate"] == 0.25
    assert row["right_facts_open"] == 3.0 and row["right_facts_open_ci95"] == 0.0      # one open question, three of its facts
    assert row["gold_ci95"] > 0 and row["win_rate_ci95"] > 0


def test_judge_against_oneself_is_one_half():
    """An answer can only tie with itself, whatever float sums leave behind."""
    questions = towns.SHOWN * 2
    texts = ["Sure! I like towns. My dog is called Patch."] * 6
    gold = np.array([towns.grade(q, t)["gold"] for q, t in zip(questions, texts)])
    row = judge(questions, texts, [True] * 6, [[1]] * 6, gold[None] + 1e-12)
    assert row["win_rate_vs_sft"] == 0.5 and row["win_tie_loss"] == [0, 6, 0] and row["win_rate_ci95"] == 0.0
