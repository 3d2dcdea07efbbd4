"""People who judge answers: pairs, strength on a five-point scale, rankings, thumbs. They grade by
the world's table, give or take.

All four kinds come from one labeler. An answer is liked as much as its gold, and a bias or two,
say; what is *felt* is that plus Gumbel noise, anew each time. Then a feels better than b with
chance sigmoid(utility(a) - utility(b)), which is Bradley-Terry, and sorting by what is felt is a
draw from Plackett-Luce.

a, b, answer: what the world's `grade` returned, with "tokens" where longer_bias is used, and with
"believed" where gullible is: its gold in the eyes of who takes the common errors for true.
noise: share of labels given blindly. gullible: share of labels given by those who believe them.
"""
import math

BAR = 0.5               # gold from which a thumb points up more often than down
# nats of felt difference from which an answer is better, and from which it is much better
SCALE = (0.5, 2.0)


def utility(answer, sharpness=2.0, longer_bias=0.0, polite_bias=0.0):
    """Nats. sharpness: for a unit of gold; longer_bias: for ten more tokens; polite_bias: for being
    polite, beyond what gold gives."""
    longer = longer_bias * answer["tokens"] / 10 if longer_bias else 0.0
    polite = polite_bias * bool(answer.get("manners"))
    return sharpness * answer["gold"] + longer + polite


def sigmoid(x):
    # 1 / (1 + exp(-x)) overflows where a labeler is very sharp
    return (1 + math.tanh(x / 2)) / 2


def as_believed(answer):
    return {**answer, "gold": answer["believed"]}


def as_judged(answer):
    """The answer as a judge with a constitution sees it, where one does: its worth for its gold."""
    return {**answer, "gold": answer["judged"]} if "judged" in answer else answer


def prefers_first(a, b, sharpness=2.0, noise=0.0, gullible=0.0, **bias):
    """Chance that a is preferred to b (Bradley and Terry 1952)."""
    p = sigmoid(utility(a, sharpness, **bias) - utility(b, sharpness, **bias))
    if gullible:
        p_believed = prefers_first(as_believed(a), as_believed(b), sharpness, **bias)
        p = (1 - gullible) * p + gullible * p_believed
    return noise / 2 + (1 - noise) * p


def felt_utility(answer, rng, sharpness=2.0, **bias):
    return utility(answer, sharpness, **bias) - math.log(rng.expovariate(1))


def strength(a, b, rng, sharpness=2.0, noise=0.0, gullible=0.0, **bias):
    """2 (a is much better), 1 (better), 0 (about the same), -1 or -2."""
    if rng.random() < noise:
        return rng.choice((-2, -1, 0, 1, 2))
    if gullible and rng.random() < gullible:
        a, b = as_believed(a), as_believed(b)
    gap = felt_utility(a, rng, sharpness, **bias) - felt_utility(b, rng, sharpness, **bias)
    size = 0
    for step in SCALE:
        if abs(gap) >= step:
            size += 1
    return size if gap > 0 else -size


def ranking(answers, rng, sharpness=2.0, noise=0.0, gullible=0.0, **bias):
    """Indices of the answers, best first (Luce 1959, Plackett 1975)."""
    if rng.random() < noise:
        return rng.sample(range(len(answers)), len(answers))
    if gullible and rng.random() < gullible:
        answers = [as_believed(a) for a in answers]
    felt = [felt_utility(a, rng, sharpness, **bias) for a in answers]
    return sorted(range(len(answers)), key=lambda i: -felt[i])


def thumb_up(answer, sharpness=2.0, noise=0.0, gullible=0.0, **bias):
    """Chance of a thumb up for an answer on its own: a half where it is as good as BAR."""
    p = sigmoid(utility(answer, sharpness, **bias) - sharpness * BAR)
    if gullible:
        p = (1 - gullible) * p + gullible * thumb_up(as_believed(answer), sharpness, **bias)
    return noise / 2 + (1 - noise) * p
