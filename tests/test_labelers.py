"""One labeler, four kinds of label: they must be the same person's."""
import math
import random
from collections import Counter

import pytest

from nanorlhf.worlds import labelers

A, B, C = (
    {"gold": 1.0, "manners": 0, "tokens": 20},
    {"gold": 0.0, "manners": 1, "tokens": 10},
    {"gold": 0.4, "manners": 0, "tokens": 30},
)
N = 20_000


def near(share, p):
    return abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / N)


def test_pairs():
    assert labelers.prefers_first(A, B, 2.0) == pytest.approx(0.8808, abs=1e-4)
    assert labelers.prefers_first(A, B) + labelers.prefers_first(B, A) == pytest.approx(1)
    assert labelers.prefers_first(A, B, noise=1.0) == 0.5
    assert labelers.prefers_first(A, B, 0.0, longer_bias=1.0) == pytest.approx(
        1 / (1 + math.exp(-1))
    )
    assert labelers.prefers_first(A, B, 0.0, polite_bias=2.0) == pytest.approx(
        1 / (1 + math.exp(2))
    )
    assert labelers.prefers_first(A, B, 1e6) == 1.0             # and no overflow on the way


def test_the_best_of_a_ranking_is_drawn_by_softmax():
    """Plackett-Luce: the first place goes by exp(utility); then the second among the rest. Noise of
    another shape fails both."""
    rng = random.Random(0)
    counts = Counter(tuple(labelers.ranking([A, B, C], rng, 1.5)) for _ in range(N))
    e = [math.exp(1.5 * x["gold"]) for x in (A, B, C)]
    for first, second, third in counts:
        p = e[first] / sum(e) * e[second] / (e[second] + e[third])
        assert near(counts[first, second, third] / N, p)
    assert len(counts) == 6


def test_strength_is_the_pair_label_with_a_tie_in_the_middle():
    """P(much better) = sigmoid(utility - utility - 2): the scale must not bend the preference, and
    turning the pair turns the answer."""
    rng = random.Random(1)
    counts = Counter(labelers.strength(A, C, rng, 1.5) for _ in range(N))
    gap, (better, much) = 1.5 * 0.6, labelers.SCALE
    expected = {
        2: labelers.sigmoid(gap - much),
        1: labelers.sigmoid(gap - better) - labelers.sigmoid(gap - much),
        -2: labelers.sigmoid(-gap - much),
        -1: labelers.sigmoid(-gap - better) - labelers.sigmoid(-gap - much),
    }
    expected[0] = 1 - sum(expected.values())
    assert set(counts) == set(expected) and all(near(counts[k] / N, p) for k, p in expected.items())
    assert (
        labelers.strength(A, C, random.Random(2), 1e9)
        == 2
        == -labelers.strength(C, A, random.Random(2), 1e9)
    )


def test_thumbs():
    assert labelers.thumb_up({"gold": labelers.BAR, "manners": 0}) == 0.5
    assert labelers.thumb_up(A, 2.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert labelers.thumb_up(A, noise=1.0) == 0.5 and labelers.thumb_up(
        B, 2.0, polite_bias=3.0
    ) == pytest.approx(1 / (1 + math.exp(-2)))


def test_noise_is_blind():
    rng = random.Random(3)
    assert near(
        sum(labelers.ranking([A, B, C], rng, 1e6, noise=1.0)[0] == 0 for _ in range(N)) / N, 1 / 3
    )
    assert near(
        sum(labelers.strength(A, B, rng, 1e6, noise=1.0) == -2 for _ in range(N)) / N, 1 / 5
    )


def test_the_gullible_go_by_what_they_believe():
    """A share that is applied to the wrong side, or that noise is counted twice in; the four kinds
    of label must agree."""
    a, b = {"gold": 1.0, "believed": -1.0}, {"gold": 0.0, "believed": 1.0}
    knows, believes = (
        labelers.prefers_first(a, b),
        labelers.prefers_first(labelers.as_believed(a), labelers.as_believed(b)),
    )
    assert knows == pytest.approx(1 / (1 + math.exp(-2))) and believes == pytest.approx(
        1 / (1 + math.exp(4))
    )
    assert labelers.prefers_first(a, b, gullible=0.3) == pytest.approx(0.7 * knows + 0.3 * believes)
    assert labelers.prefers_first(a, b, noise=0.5, gullible=1.0) == pytest.approx(
        0.25 + 0.5 * believes
    )
    assert labelers.thumb_up(a, gullible=1.0) == pytest.approx(labelers.thumb_up({"gold": -1.0}))
    rng = random.Random(4)
    first = sum(labelers.ranking([a, b], rng, gullible=0.3)[0] == 0 for _ in range(N)) / N
    assert near(first, 0.7 * knows + 0.3 * believes)
    much = sum(labelers.strength(a, b, rng, 1e6, gullible=0.3) == 2 for _ in range(N)) / N
    assert near(much, 0.7)
