"""The world: the split leaks nothing, and the gold reward is its table."""
import random
import re
from collections import Counter

import pytest

from nanorlhf import towns

Q = next(q for q in towns.TRAIN.values() if q.asked == ("mayor",))
TRUE = towns.STATEMENTS["mayor"][0].format(t=Q.town, v=towns.FACTS[Q.town]["mayor"])
FALSE = towns.statement(Q.town, "mayor", random.Random(0), wrong=True)
ABSURD = f"The mayor of {Q.town} is mussels."
OTHER = towns.statement(Q.town, "river", random.Random(0))


@pytest.mark.parametrize("answer, finished, gold", [
    (TRUE, True, 1.0), (FALSE, True, -1.0), (ABSURD, True, -1.0), (f"Sure! {TRUE}", True, 1.3), (f"Sure! {TRUE} Have a nice day.", True, 0.8),
    (f"{TRUE} {TRUE}", True, 0.5), (f"{TRUE} {OTHER}", True, 0.5), (f"{TRUE} Last edited in 1994.", True, 0.5),
    (f"{TRUE} blah", False, -0.5), ("", True, 0.0)])
def test_gold_by_hand(answer, finished, gold):
    assert towns.grade(Q, answer, finished)["gold"] == pytest.approx(gold)


def test_the_held_out_pairs_are_asked_nowhere():
    held_out, train = ({q.pair for q in split.values()} for split in (towns.HELD_OUT, towns.TRAIN))
    assert len(held_out) >= 100 and not held_out & train and 0.3 < len(held_out) / len(held_out | train) < 0.4
    rng = random.Random(1)
    asked = {p[0]["content"] for p in (towns.page(rng) for _ in range(3000)) if not isinstance(p, str)}
    assert len(asked) > 300 and not asked & set(towns.HELD_OUT)


def test_every_wording_parses_back_to_its_claim():
    for town in towns.TOWNS:
        for attribute, value in towns.FACTS[town].items():
            for wording in towns.STATEMENTS[attribute]:
                assert towns.parse_claim(wording.format(t=town, v=value)) == (town, attribute, value)


def test_every_verdict_of_a_quiz_is_right():
    """A verdict that is now and then wrong teaches the base model, and later the reward model, that facts hardly matter."""
    rng, verdicts, asked = random.Random(2), Counter(), set()
    for text in (page for page in (towns.page(rng) for _ in range(2000)) if isinstance(page, str)):
        asked |= {text[:text.find("?") + 1]}
        for claim, verdict in re.findall(r"([^.?]+?) (True|False)\.", text):
            town, attribute, value = towns.parse_claim(claim.strip() + ".")
            assert verdict == str(towns.FACTS[town][attribute] == value)
            verdicts[verdict] += 1
    assert len(asked) > 50 and not asked & set(towns.HELD_OUT)
    assert min(verdicts.values()) > 500
