"""pass@k and the vote, against counting everything."""
import itertools

import pytest

from nanorlhf.stats import majority_vote, pass_at_k


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_all_draws_with_a_right_one(n):
    """The plug-in 1 - (1 - c/n)^k, or draws with replacement."""
    for right in range(n + 1):
        answers = [1] * right + [0] * (n - right)
        for k in range(1, n + 1):
            draws = list(itertools.combinations(answers, k))
            assert pass_at_k(n, right, k) == pytest.approx(
                sum(map(max, draws)) / len(draws), abs=1e-12
            )


def test_pass_at_k_refuses_what_cannot_be():
    for n, right, k in ((4, 2, 5), (4, 2, 0), (4, 5, 2)):
        with pytest.raises(ValueError, match=f"pass@{k}"):
            pass_at_k(n, right, k)


def test_pass_at_k_is_unbiased():
    """Over all outcomes of n = 5 independent answers its mean is 1 - (1-p)^k exactly; the plug-in's
    is lower."""
    p, n = 0.3, 5
    for k in (1, 2, 4):
        mean = sum(
            pass_at_k(n, sum(o), k) * p ** sum(o) * (1 - p) ** (n - sum(o))
            for o in itertools.product((0, 1), repeat=n)
        )
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-12)


def test_majority_vote_against_every_order():
    """A tie that goes to the first or is lost: over all orders, the first of the most frequent is
    the truth as often as the vote says."""
    for answers in itertools.product((1, 2, None), repeat=4):
        orders = [[a for a in o if a is not None] for o in itertools.permutations(answers)]
        # max keeps the first of equals
        wins = [max(o, key=o.count) == 1 if o else False for o in orders]
        assert majority_vote(answers, 1) == pytest.approx(sum(wins) / len(wins)), answers


def test_majority_vote_by_hand():
    assert majority_vote([3, 3, 4], 3) == 1 and majority_vote([3, 4, 4], 3) == 0
    assert majority_vote([3, 4], 3) == 0.5 and majority_vote([None, None, 3], 3) == 1
    assert majority_vote([None], 3) == majority_vote([], 3) == 0
