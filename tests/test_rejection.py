import itertools
import math
import random

import pytest
import torch

from train_rejection import expected_best_of, top_k_overall, top_per_prompt

# five prompts x four answers, as in the book's chapter on rejection sampling
SCORES = torch.tensor([[0.7, 0.3, 0.5, 0.2],
                       [0.4, 0.8, 0.6, 0.5],
                       [0.9, 0.3, 0.4, 0.7],
                       [0.2, 0.5, 0.8, 0.6],
                       [0.5, 0.4, 0.3, 0.6]])
INF = math.inf


def test_worked_example_top_per_prompt():
    """The argmax over the wrong axis."""
    assert top_per_prompt(SCORES).tolist() == [0, 1, 0, 2, 3]


def test_worked_example_top_k_overall():
    """Several of one prompt (two of the third), none of the last; equal scores in reading order;
    rows and columns not swapped."""
    assert top_k_overall(SCORES, 5) == [(2, 0), (1, 1), (3, 2), (0, 0), (2, 3)]


def test_an_unfinished_answer_is_never_chosen():
    """-inf chosen because a row has nothing else, or because k is larger than what there is."""
    scores = torch.tensor([[-INF, -3.0], [-INF, -INF], [1.0, -INF]])
    assert top_per_prompt(scores).tolist() == [1, -1, 0]
    assert top_k_overall(scores, 6) == [(2, 0), (0, 1)]


def brute_force(scores, n, values):
    """Mean over subsets of the value of the best; where several share the best score, the mean over
    them."""
    total, count = 0.0, 0
    for subset in itertools.combinations(range(len(scores)), n):
        best = max(scores[j] for j in subset)
        tied = [values[j] for j in subset if scores[j] == best]
        total += sum(tied) / len(tied)
        count += 1
    return total / count


@pytest.mark.parametrize("seed", range(4))
def test_expected_best_of_equals_all_subsets(seed):
    """A rank off by one; values sorted by themselves instead of by score. Odd seeds have ties."""
    rng = random.Random(seed)
    scores = [rng.randrange(3) if seed % 2 else rng.random() for _ in range(7)]
    gold = [rng.gauss(0, 1) for _ in range(7)]
    for n in range(1, 8):
        assert expected_best_of(torch.tensor(scores, dtype=torch.float64), n) == pytest.approx(
            brute_force(scores, n, scores), abs=1e-12
        )
        assert expected_best_of(scores, n, gold) == pytest.approx(
            brute_force(scores, n, gold), abs=1e-12
        )


def test_expected_best_of_limits():
    """n = 1 is the mean; n = K is what the proxy's favourite is worth, not the best gold."""
    scores, gold = [0.1, 2.0, -1.0, 0.5], [3.0, -4.0, 1.0, 2.0]
    assert expected_best_of(scores, 1) == pytest.approx(0.4)
    assert expected_best_of(scores, 1, gold) == pytest.approx(0.5)
    assert expected_best_of(scores, 4) == pytest.approx(2.0)
    assert expected_best_of(scores, 4, gold) == pytest.approx(-4.0)
    # 0 * -inf is NaN where it is not left out
    assert expected_best_of([-INF, 1.0, 2.0], 2) == pytest.approx(5 / 3)


def test_expected_best_of_refuses_what_cannot_be():
    """n outside 1..K, or values of another length, must not give a number."""
    for n, values in ((0, None), (4, None), (2, [1.0])):
        with pytest.raises(ValueError, match=f"best of {n}"):
            expected_best_of([1.0, 2.0, 3.0], n, values)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_kl_of_best_of_n_is_under_its_bound(n):
    """Every way to draw n of four answers, through top_per_prompt: P(best is i) = F(i)^n -
    F(i-1)^n, its KL < log n - (n-1)/n."""
    p = [0.1, 0.2, 0.4, 0.3]                        # answer i has score i
    draws = torch.cartesian_prod(*[torch.arange(4)] * n)
    picked = draws.gather(1, top_per_prompt(draws.float())[:, None]).squeeze(1)
    weight = torch.tensor(p, dtype=torch.float64)[draws].prod(1)
    best = torch.zeros(4, dtype=torch.float64).index_add(0, picked, weight).tolist()
    F = [0, 0.1, 0.3, 0.7, 1.0]
    assert best == pytest.approx([F[i + 1] ** n - F[i] ** n for i in range(4)], abs=1e-12)
    kl = sum(b * math.log(b / q) for b, q in zip(best, p))
    assert 0 < kl < math.log(n) - (n - 1) / n


def test_expected_best_of_kl_reaches_the_bound_only_without_repeats():
    """With many distinct answers the KL of the picked rank comes up to log n - (n-1)/n; with the
    weights of best of n+1 it overshoots."""
    K, n = 400, 4
    scores = list(range(K))
    chance = [expected_best_of(scores, n, [float(i == j) for j in range(K)]) for i in range(K)]
    assert sum(chance) == pytest.approx(1.0)
    kl = sum(c * math.log(c * K) for c in chance if c)
    assert kl == pytest.approx(math.log(n) - (n - 1) / n, abs=0.02)
