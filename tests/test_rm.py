import math
import random
from itertools import permutations
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import make_preferences
from make_preferences import Config as Asking
from make_preferences import compare, judge_alone
from nanorlhf import InputError, worlds
from nanorlhf.batches import by_prompt, pair_batch
from nanorlhf.files import Preference
from nanorlhf.functional import last_token
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.reports import accuracy_report, score_pairs
from nanorlhf.rollout import score_answers
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import labelers, towns
from train_prm import judged_loss, verdicts
from train_rm import (
    Config,
    centring_loss,
    pairs_loss,
    plackett_luce_loss,
    preference_loss,
    ranked,
)


class LastId(nn.Module):
    """A reward model whose score is the last token's id."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, ids):
        return ids.float() * self.scale


def test_preference_loss_by_hand():
    """The sign: chosen above rejected is the good case."""
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, math.log(3)])
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + 3)) / 2
    assert preference_loss(chosen, rejected).item() == pytest.approx(expected, abs=1e-6)


def test_preference_loss_margin_makes_it_harder():
    """A margin added where it is to be subtracted; one margin per pair."""
    chosen, rejected = torch.tensor([2.0, 2.0]), torch.zeros(2)
    expected = (math.log(1 + math.exp(-1.5)) + math.log(1 + math.exp(-2))) / 2
    assert preference_loss(chosen, rejected, torch.tensor([0.5, 0.0])).item() == pytest.approx(
        expected, abs=1e-6
    )
    assert preference_loss(chosen, rejected, 0.5).item() == pytest.approx(
        math.log(1 + math.exp(-1.5)), abs=1e-6
    )


def test_preference_loss_gradient_is_minus_sigmoid_of_minus_d():
    """A detached side, or a sum in place of the mean."""
    chosen = torch.tensor([0.3, -2.0, 30.0], requires_grad=True)
    rejected = torch.tensor([0.9, 1.0, -30.0], requires_grad=True)
    preference_loss(chosen, rejected).backward()
    expected = [-1 / (1 + math.exp(d)) / 3 for d in (-0.6, -3.0, 60.0)]
    torch.testing.assert_close(chosen.grad, torch.tensor(expected))
    torch.testing.assert_close(rejected.grad, -torch.tensor(expected))


def test_accuracy_report_counts_a_tie_as_a_miss():
    """>= for >: a model that says the same of everything would be 100% right. Longer wins 1, 0, and
    a half for equal lengths."""
    pairs = [
        Preference([1], [2, 9], [3]),
        Preference([1], [4], [2, 4]),
        Preference([1], [3], [5]),
        Preference([1], [2, 2, 7], [6]),
    ]
    report = accuracy_report(LastId(), pairs, pad=0)
    assert report["pairs"] == 4
    assert report["accuracy"] == 0.5
    assert report["longer_wins"] == (1 + 0 + 0.5 + 1) / 4


def test_accuracy_report_calibration_and_ceiling():
    """A margin of 1 claims sigmoid(1) = 0.731; wrong ones claim just as much. Pairs of equal gold
    have no order to get right."""
    def row(certainty, chosen, rejected):
        return {"certainty": certainty, "chosen_gold": chosen, "rejected_gold": rejected}

    pairs = [
        Preference([1], [3], [2], row(0.9, 1.0, 0.0)),
        Preference([1], [2], [3], row(0.7, 1.0, 0.5)),
        Preference([1], [9], [1], row(0.5, 1.0, 1.0)),
        Preference([1], [4], [4], row(0.8, 0.0, 1.0)),
    ]
    report = accuracy_report(LastId(), pairs, pad=0)
    assert report["noise_ceiling"] == pytest.approx(0.725)
    # right, wrong, no order, and a tie that is "not above" as its gold is
    assert report["gold_order"] == pytest.approx(2 / 3)
    assert report["calibration"] == [
        {"pairs": 1, "claimed": 0.5, "right": 0.0},
        {"pairs": 2, "claimed": pytest.approx(1 / (1 + math.exp(-1))), "right": 0.5},
        {"pairs": 1, "claimed": pytest.approx(1 / (1 + math.exp(-8))), "right": 1.0},
    ]


def test_score_is_read_at_the_last_real_token():
    """A score read at the last column, a pad's, changes with the longest row of the batch."""
    model = ScalarModel(
        GPT(GPTConfig(13, 24, 1, 2, 16), torch.Generator().manual_seed(0)),
        torch.Generator().manual_seed(1),
    )
    prompts, answers = [[1, 2], [3], [4, 5, 6]], [[7], [8, 9, 10, 11, 12, 1], [2, 3]]
    alone = torch.cat([score_answers(model, [p], [a], pad=0) for p, a in zip(prompts, answers)])
    assert alone.std() > 1e-2
    for pad in (0, 5):
        torch.testing.assert_close(
            score_answers(model, prompts, answers, pad, batch_size=2), alone, rtol=0, atol=1e-5
        )
    with torch.no_grad():
        by_hand = torch.stack(
            [model(torch.tensor([p + a]))[0, -1] for p, a in zip(prompts, answers)]
        )
    torch.testing.assert_close(alone, by_hand, rtol=0, atol=1e-6)


def test_pair_batch_points_each_pair_at_its_answers():
    """Rows in another order would compare one prompt's answer with another's; an answer shared by
    pairs is computed once."""
    pairs = [
        Preference([1], [2, 3], [4]),
        Preference([5, 6], [7], [8, 9]),
        Preference([5], [4], [2, 3]),
        Preference([1], [4], [6]),
        Preference([5, 6], [3], [7]),
    ]
    ids, mask, chosen, rejected = pair_batch(pairs, 0, "cpu")
    last = last_token(ids.float(), mask)
    assert last[chosen].tolist() == [3, 7, 4, 4, 3] and last[rejected].tolist() == [4, 9, 3, 6, 7]
    assert len(ids) == 8        # ten sides, of which [1 | 4] and [5 6 | 7] stand twice
    for pair, c, r in zip(pairs, chosen, rejected):
        assert ids[c].tolist()[:len(pair.prompt + pair.chosen)] == pair.prompt + pair.chosen
        assert ids[r][mask[r]].tolist() == pair.rejected


def test_pairs_are_scored_as_their_answers_alone():
    """Sides mixed up, or a shared answer's score given to another: the accuracy would be that of
    other pairs."""
    model = ScalarModel(
        GPT(GPTConfig(13, 24, 1, 2, 16), torch.Generator().manual_seed(0)),
        torch.Generator().manual_seed(1),
    )
    pairs = [
        Preference([1], [2, 3], [4]),
        Preference([1], [4], [6]),
        Preference([5, 6], [7], [8, 9]),
        Preference([5, 6], [3], [7]),
        Preference([5], [4], [2, 3, 8]),
    ]
    for got, side in zip(score_pairs(model, pairs, 0), ("chosen", "rejected")):
        alone = score_answers(
            model, [p.prompt for p in pairs], [getattr(p, side) for p in pairs], 0
        )
        assert alone.std() > 1e-2
        torch.testing.assert_close(got, alone, rtol=0, atol=1e-5)


def test_pairs_of_a_prompt_are_a_batch_of_their_own():
    """Only neighbours counted as one prompt: in a file in any order, its weight grows. But the same
    question asked again, of a group of its own, has other answers."""
    pairs = [
        Preference([1], [2], [3]),
        Preference([1], [2], [4]),
        Preference([5], [2], [3]),
        Preference([1], [6], [7]),
    ]
    assert by_prompt(pairs) == [[*pairs[:2], pairs[3]], pairs[2:3]]
    for pair, group in zip(pairs, (1, 1, 2, 3)):
        pair.group = group
    assert by_prompt(pairs) == [pairs[:2], pairs[2:3], pairs[3:]]


# ---- what labelers say ----

class Says:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def answers(*golds):
    return [
        {
            "text": f"answer {n}",
            "ids": [n],
            "finished": n == 0,
            "tokens": 1,
            "gold": gold,
            "manners": 0,
        }
        for n, gold in enumerate(golds)
    ]


def test_a_pair_goes_to_the_first_with_the_labelers_probability():
    """p of the wrong side, or a certainty that is not the ceiling of any predictor. sigmoid(2.5 *
    (0 - 0.4)) = 0.2689."""
    question, tok, p = towns.SHOWN[0], Tokenizer(), 1 / (1 + math.e)

    def ask(labeler):
        [row], dropped = compare(
            question, answers(0.0, 0.4), Asking(sharpness=2.5), "pairs", labeler, "train", tok
        )
        assert not dropped
        return row

    first, second = ask(Says(p - 1e-6)), ask(Says(p + 1e-6))
    assert (first["chosen"], first["rejected"], first["chosen_ids"], first["rejected_ids"]) == (
        "answer 0",
        "answer 1",
        [0],
        [1],
    )
    assert (
        first["chosen_gold"],
        first["rejected_gold"],
        first["chosen_finished"],
        first["rejected_finished"],
    ) == (0.0, 0.4, True, False)
    assert (second["chosen"], second["rejected_gold"]) == ("answer 1", 0.0)
    assert first["certainty"] == second["certainty"] == pytest.approx(1 - p)
    assert first["prompt_ids"] == tok.prompt(question.text)
    rng = random.Random(0)
    share = sum(ask(rng)["chosen"] == "answer 0" for _ in range(4000)) / 4000
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 4000)


def test_every_two_answers_are_compared_once_and_identical_ones_dropped():
    """Pairs of an answer with itself, or in both orders: K = 4 with one repeat leaves 5 of 6."""
    four = answers(0.0, 1.0, 2.0, 1.0)
    four[3]["ids"] = four[1]["ids"]
    rows, dropped = compare(
        towns.SHOWN[0], four, Asking(), "pairs", random.Random(0), "train", Tokenizer()
    )
    pairs = [frozenset((row["chosen"], row["rejected"])) for row in rows]
    assert len(set(pairs)) == len(pairs) == 5 and dropped == {"both answers are the same": 1}


def test_a_pair_that_speaks_of_what_nobody_judges_is_dropped_and_counted():
    """One of the two is enough; identical answers are counted as such, whatever they speak of."""
    four = answers(0.0, 1.0, 2.0, 3.0)
    four[1]["unjudged"], four[3]["ids"] = True, four[2]["ids"]
    rows, dropped = compare(
        towns.SHOWN[0], four, Asking(), "pairs", random.Random(0), "train", Tokenizer()
    )
    assert dropped == {"an answer speaks of what nobody judges": 3, "both answers are the same": 1}
    assert {frozenset((r["chosen"], r["rejected"])) for r in rows} == {
        frozenset(("answer 0", f"answer {j}")) for j in (2, 3)
    }


@pytest.mark.parametrize(
    "judged, name, split",
    [("some", "train", "judged"), ("all", "train", "train"), ("some", "held-out", "held-out")],
)
def test_half_of_the_answers_are_cool(judged, name, split, monkeypatch):
    """The odd one of five at another temperature; answers behind the question of a neighbour;
    prompts of another split."""
    asked = []

    def echo(model, prompts, budget, tokenizer, generator, progress, temperature):
        asked.append((temperature, len(prompts)))
        texts = [f"{tokenizer.decode(p)} {temperature}" for p in prompts]
        return [[1, 2]] * len(prompts), texts, [True] * len(prompts)

    monkeypatch.setattr(make_preferences, "generate_in_batches", echo)
    cfg, tokenizer, world = (
        Asking(samples_per_prompt=5, cool=0.25, judged=judged, gullible=0.1),
        Tokenizer(),
        worlds.load("towns"),
    )
    sampled = make_preferences.sample_answers(
        cfg, None, tokenizer, world, 7, name, torch.device("cpu")
    )
    assert asked == [(1.0, 21), (0.25, 14)] and len(sampled) == 7
    for question, given in sampled:
        assert question.text in towns.SPLITS[split]
        assert [a["text"] for a in given] == [
            f"{tokenizer.decode(tokenizer.prompt(question.text))} {t}"
            for t in (1.0, 1.0, 1.0, 0.25, 0.25)
        ]
        assert all(("unjudged" in a) == ((judged, name) == ("some", "train")) for a in given)
        assert all(a["believed"] == a["gold"] for a in given)           # nothing is claimed


def test_a_ranking_becomes_pairs_that_agree_with_it():
    """Ranks of other answers than the pair's; pairs labelled anew, which need not fit together.
    Back in the batch: best first."""
    four = answers(1.0, 3.0, 0.0, 2.0)
    rows, _ = compare(
        towns.SHOWN[0], four, Asking(), "rankings", random.Random(1), "train", Tokenizer()
    )
    order = labelers.ranking(four, random.Random(1))
    for row in rows:
        assert [order.index(row[f"{side}_ids"][0]) for side in ("chosen", "rejected")] == [
            row["chosen_rank"],
            row["rejected_rank"],
        ]
    group = [
        Preference(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], row) for row in rows
    ]
    ids, mask, *sides = pair_batch(group, 0, "cpu")
    assert last_token(ids, mask)[ranked(group, *sides)].tolist() == order


def test_strengths_say_how_much_better():
    """A strength of the other side; a pair kept that the labeler cannot tell apart."""
    rng, kept, dropped = random.Random(3), [], 0
    for _ in range(200):
        rows, lost = compare(
            towns.SHOWN[0], answers(0, 0.6), Asking(), "strengths", rng, "train", Tokenizer()
        )
        kept += rows
        dropped += lost["neither is better"]
    assert (
        len(kept) + dropped == 200
        and 10 < dropped < 100
        and {row["strength"] for row in kept} == {1, 2}
    )
    better = [row["strength"] for row in kept if row["chosen_gold"] > row["rejected_gold"]]
    assert len(better) > 0.7 * len(kept)


def test_label_noise_is_half_a_coin_toss():
    """noise = 1 must be a fair coin, not a flipped label."""
    [row], _ = compare(
        towns.SHOWN[0],
        answers(0.0, 0.4),
        Asking(noise=1.0),
        "pairs",
        Says(0.499),
        "train",
        Tokenizer(),
    )
    assert row["certainty"] == pytest.approx(0.5) and row["chosen"] == "answer 0"


# ---- centring ----

def test_centring_sees_what_differences_do_not():
    """By hand; it forgives no offset of both scores, where Bradley-Terry forgives any; and the
    other way round for a difference."""
    chosen, rejected = torch.tensor([1.5, -2.0, 0.3]), torch.tensor([0.5, 1.0, -0.3])
    torch.testing.assert_close(centring_loss(chosen, rejected), torch.tensor([4.0, 1.0, 0.0]))
    torch.testing.assert_close(centring_loss(chosen + 0.7, rejected - 0.7),
                               centring_loss(chosen, rejected))
    offset = torch.tensor([3.0, -1.0, 0.5], requires_grad=True)
    args = chosen + offset, rejected + offset
    [slope] = torch.autograd.grad(preference_loss(*args), offset)
    assert slope.abs().max() < 1e-6
    [slope] = torch.autograd.grad(centring_loss(*args).sum(), offset)
    torch.testing.assert_close(slope, 4 * (args[0] + args[1]).detach())


def test_centring_is_weighed_as_the_pairs_are():
    """A prompt with four pairs that is centred four times as hard; a weight that is not the
    flag's."""
    few, many = ([Preference([1], [2], [3])],
                 [Preference([5], [a], [b]) for a, b in ((7, 6), (9, 8), (4, 2), (6, 1))])
    plain, with_it = (pairs_loss(LastId(), [few, many], Config(centring=c), 0, torch.device("cpu"))
                      for c in (0.0, 0.01))
    by_hand = (5 ** 2 + (13 ** 2 + 17 ** 2 + 6 ** 2 + 7 ** 2) / 4) / 2
    assert (with_it[0] - plain[0]).item() == pytest.approx(0.01 * by_hand, rel=1e-5)
    assert with_it[1] == plain[1]
    with pytest.raises(InputError, match="losses on pairs"):
        Config(loss="plackett_luce", centring=0.01)


# ---- rankings ----

def test_plackett_luce_of_two_is_bradley_terry():
    scores = torch.tensor([[0.3, -1.2], [2.0, 5.0], [-40.0, 60.0]], dtype=torch.float64)
    torch.testing.assert_close(
        plackett_luce_loss(scores), preference_loss(scores[:, 0], scores[:, 1])
    )


def test_plackett_luce_is_a_distribution_over_rankings():
    """Worst first, or the sum taken over those already ranked: the probabilities of all 24 rankings
    of four must add up to 1."""
    scores = torch.tensor([0.5, -1.0, 2.0, 0.1], dtype=torch.float64)
    chances = {
        order: math.exp(-plackett_luce_loss(scores[list(order)][None]).item())
        for order in permutations(range(4))
    }
    assert sum(chances.values()) == pytest.approx(1, abs=1e-12)
    e = scores.exp().tolist()
    assert chances[2, 0, 3, 1] == pytest.approx(
        e[2] / sum(e) * e[0] / (e[0] + e[3] + e[1]) * e[3] / (e[3] + e[1]), abs=1e-12
    )
    assert max(chances, key=chances.get) == (2, 0, 3, 1)


# ---- batches ----

def test_each_prompt_weighs_alike():
    """A mean over all pairs lets a prompt with six pairs outweigh five others; InstructGPT divides
    by K choose 2."""
    few, many = (
        [Preference([1], [2], [3])],
        [Preference([5], [a], [b]) for a, b in ((7, 6), (9, 8), (4, 2), (6, 1))],
    )
    loss, stats = pairs_loss(LastId(), [few, many], Config(), 0, torch.device("cpu"))
    by_hand = [
        sum(math.log(1 + math.exp(p.rejected[0] - p.chosen[0])) for p in group) / len(group)
        for group in (few, many)
    ]
    assert loss.item() == pytest.approx(sum(by_hand) / 2, abs=1e-6)
    assert stats["accuracy"] == pytest.approx(4 / 5)


def test_the_margin_grows_with_the_strength():
    groups = [
        [Preference([1], [3], [2], {"strength": 1}), Preference([1], [5], [2], {"strength": 2})]
    ]
    loss, _ = pairs_loss(
        LastId(), groups, Config(loss="margin", margin=0.4), 0, torch.device("cpu")
    )
    assert loss.item() == pytest.approx(
        (math.log(1 + math.exp(-0.6)) + math.log(1 + math.exp(-2.2))) / 2, abs=1e-6
    )


def test_the_token_loss_reads_the_judged_columns_only():
    """A column counted in the prompt, a verdict at the column before, a pad that is judged."""
    rows = [{"prompt_ids": [1, 1], "completion_ids": [5, 0, 7], "steps": [(0, True), (2, False)]},
            {"prompt_ids": [1], "completion_ids": [3], "steps": []}]
    loss, stats = judged_loss(LastId(), rows, "process", 9, torch.device("cpu"))
    assert loss.item() == pytest.approx(
        (math.log(1 + math.exp(-5)) + math.log(1 + math.exp(7))) / 2, abs=1e-5
    )
    assert stats == {"accuracy": 0.5, "right": 0.5, "judged": 2}


def test_an_outcome_stands_at_every_token_and_a_step_at_its_end():
    """A thumb drawn anew for each token; the end of a step counted from 1."""
    answer = {
        "text": "7+5=12 #12",
        "ids": list(range(11)),
        "finished": True,
        "gold": 0.0,
        "manners": 0,
        "tokens": 11,
    }
    question, tokenizer = SimpleNamespace(text="7+5="), Tokenizer()

    def judged(world, labeler=None, **more):
        return judge_alone(question, answer | more, Asking(), labeler, world, "train", tokenizer)

    # sigmoid(2 * (0 - 0.5)) = 0.2689
    for labeler, up in ((Says(0.26), True), (Says(0.27), False)):
        row = judged(worlds.load("towns"), labeler)
        assert (
            row["right"] == up
            and "steps" not in row
            and row["prompt_ids"] == tokenizer.prompt("7+5=")
        )
        assert verdicts(row, "outcome") == [(t, up) for t in range(11)]
    world = SimpleNamespace(
        correct=lambda question, text: True, steps=lambda question, text: [(7, True), (10, False)]
    )
    row = judged(world)
    assert row["right"] and verdicts(row, "outcome") == [(t, True) for t in range(11)]
    assert verdicts(row, "process") == [(6, True), (9, False)]
    assert not judged(world, finished=False)["right"]
    # a special token among them shows as several characters: its columns cannot be told, and must
    # not be guessed
    assert judged(world, ids=list(range(8)))["steps"] == []
