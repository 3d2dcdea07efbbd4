"""What evaluate.py says about many answers: intervals, pass@k, the majority's vote."""
from collections import Counter
from math import comb

import numpy as np


def bootstrap(values, pairs, rng, draws=2000):
    """Half the width of the 95% interval of the mean of values (N,), resampling the distinct pairs
    with all their prompts."""
    _, index = np.unique([str(p) for p in pairs], return_inverse=True)
    totals, counts = np.bincount(index, values), np.bincount(index)
    picks = rng.integers(len(totals), size=(draws, len(totals)))
    means = totals[picks].sum(1) / counts[picks].sum(1)
    return float(np.subtract(*np.percentile(means, [97.5, 2.5])) / 2)


def pass_at_k(n, right, k):
    """Chance that of k answers, drawn without replacement from n of which `right` are right, at
    least one is: the unbiased estimate of
    pass@k. Chen et al. 2021, eq. 1. (1 - (1 - right/n)^k, from the same n answers, is too low.)"""
    if not 1 <= k <= n or not 0 <= right <= n:
        raise ValueError(
            f"pass@{k} needs at least {k} answers, and at most all of them right: not {right} of "
            f"{n}"
        )
    return 1 - comb(n - right, k) / comb(n, k)


def majority_vote(answers, truth):
    """Chance that the most frequent answer is the truth; where several are most frequent, one is
    drawn. None is no vote.

    Self-consistency, Wang et al. 2022.
    """
    votes = Counter(a for a in answers if a is not None)
    most = [a for a, n in votes.items() if n == max(votes.values())]
    return most.count(truth) / len(most) if most else 0.0


def within(values, groups):
    """values (N, ...), each less the mean of those of its group; groups: N labels."""
    _, index = np.unique(groups, return_inverse=True)
    totals = np.zeros((index.max() + 1, *values.shape[1:]))
    np.add.at(totals, index, values)
    counts = np.bincount(index).reshape(-1, *[1] * (values.ndim - 1))
    return values - (totals / counts)[index]


def average(values):
    """Mean over answers -> float or None. None among them is no value; pairs (hits, cases) are
    added up before they are divided."""
    values = [value for value in values if value is not None]
    if not values:
        return None
    if isinstance(values[0], tuple):
        hits, cases = (sum(part) for part in zip(*values, strict=True))
        return hits / cases if cases else None
    return float(np.mean(values))


# Student's t that 95% of its draws stay under in size, for n - 1 degrees of freedom
T_95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}


def over_seeds(values):
    """2 to 10 figures, one a seed -> (mean, half of the 95% interval of what more seeds would
    average to): t SD / sqrt(n), Student 1908."""
    n = len(values)
    if n not in T_95:
        raise ValueError(f"an interval over seeds takes 2 to 10 of them, not {n}")
    return float(np.mean(values)), float(T_95[n] * np.std(values, ddof=1) / np.sqrt(n))
