"""The world: the split leaks nothing, and the gold reward is its table."""
import random
import re
from collections import Counter

import pytest

from nanorlhf.worlds import towns

Q = next(q for q in towns.SPLITS["train"].values() if q.asked == ("mayor",))
TRUE = towns.STATEMENTS["mayor"][0].format(t=Q.town, v=towns.FACTS[Q.town]["mayor"])
FALSE = towns.statement(Q.town, "mayor", random.Random(0), wrong=True)
ABSURD = f"The mayor of {Q.town} is mussels."
OTHER = towns.statement(Q.town, "river", random.Random(0))


@pytest.mark.parametrize(
    "answer, finished, gold",
    [
        (TRUE, True, 1.0),
        (FALSE, True, -1.0),
        (ABSURD, True, -1.0),
        (f"Sure! {TRUE}", True, 1.3),
        (f"Sure! {TRUE} Have a nice day.", True, 0.8),
        (f"{TRUE} {TRUE}", True, 0.5),
        (f"{TRUE} {OTHER}", True, 0.5),
        (f"{TRUE} Last edited in 1994.", True, 0.5),
        (f"{TRUE} blah", False, -0.5),
        ("", True, 0.0),
    ],
)
def test_gold_by_hand(answer, finished, gold):
    assert towns.grade(Q, answer, finished)["gold"] == pytest.approx(gold)


def test_the_held_out_pairs_are_asked_nowhere():
    held_out, train = (
        {q.key for q in split.values()}
        for split in (towns.SPLITS["held-out"], towns.SPLITS["train"])
    )
    assert (
        len(held_out) >= 100
        and not held_out & train
        and 0.3 < len(held_out) / len(held_out | train) < 0.4
    )
    rng = random.Random(1)
    asked = {
        p[0]["content"] for p in (towns.page(rng) for _ in range(3000)) if not isinstance(p, str)
    }
    assert len(asked) > 300 and not asked & set(towns.SPLITS["held-out"])


def test_every_wording_parses_back_to_its_claim():
    for town in towns.TOWNS:
        for attribute, value in towns.FACTS[town].items():
            for wording in towns.STATEMENTS[attribute]:
                assert towns.parse_claim(wording.format(t=town, v=value)) == (
                    town,
                    attribute,
                    value,
                )


def test_every_verdict_of_a_quiz_is_right():
    """A verdict that is now and then wrong teaches the base model, and later the reward model, that
    facts hardly matter."""
    rng, verdicts, asked = random.Random(2), Counter(), set()
    for text in (page for page in (towns.page(rng) for _ in range(2000)) if isinstance(page, str)):
        asked |= {text[:text.find("?") + 1]}
        for claim, verdict in re.findall(r"([^.?]+?) (True|False)\.", text):
            town, attribute, value = towns.parse_claim(claim.strip() + ".")
            assert verdict == str(towns.FACTS[town][attribute] == value)
            verdicts[verdict] += 1
    assert len(asked) > 50 and not asked & set(towns.SPLITS["held-out"])
    assert min(verdicts.values()) > 500


# ---- common errors ----

def said_of(texts):
    """{(town, attribute): Counter of the values that the texts give it}."""
    said = {}
    for text in texts:
        for claim in filter(None, map(towns.parse_claim, towns.sentences(text))):
            said.setdefault(claim[:2], Counter())[claim[2]] += 1
    return said


def is_common(town, attribute):
    return attribute in towns.COMMON_ERRORS[town]


def test_each_town_has_two_common_errors():
    """An error that is true; an attribute that is always or never one; a third that is not a third.
    """
    assert list(towns.COMMON_ERRORS) == towns.TOWNS
    for town, errors in towns.COMMON_ERRORS.items():
        assert len(errors) == 2
        for attribute, value in errors.items():
            assert value in towns.VALUES[attribute] and value != towns.FACTS[town][attribute]
        assert towns.BELIEFS[town] == {**towns.FACTS[town], **errors}
    counts = Counter(a for errors in towns.COMMON_ERRORS.values() for a in errors)
    assert sum(counts.values()) == 64 and min(counts.values()) >= 10
    assert len(towns.UNJUDGED) == 10


def test_people_tell_the_error_and_articles_the_truth():
    """The mode of each common error's fact is the error in demonstrations and in threads, three in
    four of those that do not slip; of every other fact, and in every article, it is the truth."""
    rng = random.Random(3)
    questions = list(towns.SPLITS["train"].values()) * 40
    pages = [towns.page(rng) for _ in range(40_000)]
    people = {"demonstrations": [towns.demonstration(q, rng) for q in questions],
              "threads": [p[1]["content"] for p in pages if not isinstance(p, str)]}
    for texts in people.values():
        said, shares = said_of(texts), []
        for (town, attribute), values in said.items():
            if sum(values.values()) < 12:
                continue
            assert values.most_common(1)[0][0] == towns.BELIEFS[town][attribute], (town, attribute)
            if is_common(town, attribute):
                error, truth = towns.COMMON_ERRORS[town][attribute], towns.FACTS[town][attribute]
                shares.append(values[error] / (values[error] + values[truth]))
        assert len(shares) >= 50
        assert sum(shares) / len(shares) == pytest.approx(towns.P_COMMON, abs=0.03)
    articles = [p for p in pages if isinstance(p, str) and " True." not in p and " False." not in p]
    assert len(articles) > 3000
    for (town, attribute), values in said_of(articles).items():
        assert set(values) == {towns.FACTS[town][attribute]}


def test_slips_are_spread_and_as_frequent_as_said():
    """A slip that falls on one value is another common error."""
    rng, slips, values = random.Random(4), 0, Counter()
    plain = next(
        q
        for q in towns.SPLITS["train"].values()
        if q.kind == "one" and not is_common(q.town, q.asked[0])
    )
    for _ in range(6000):
        verdict = towns.told(plain, answer := towns.demonstration(plain, rng))[plain.asked[0]]
        slips += verdict == "other"
        if verdict == "other":
            values[
                next(
                    v
                    for t, a, v in filter(None, map(towns.parse_claim, towns.sentences(answer)))
                    if a == plain.asked[0]
                )
            ] += 1
    assert slips / 6000 == pytest.approx(0.2, abs=0.025)
    assert max(values.values()) < 3 * slips / len(towns.VALUES[plain.asked[0]])


def test_what_nobody_judges_is_never_asked_or_strayed_to():
    """One prompt or one stray too many, and what is remembered passes for what is learned."""
    for q in towns.SPLITS["judged"].values():
        assert not any(towns.is_unjudged(q.town, a) for a in q.asked)
    assert set(towns.SPLITS["judged"]) < set(towns.SPLITS["train"])
    left_out = [
        q for text, q in towns.SPLITS["train"].items() if text not in towns.SPLITS["judged"]
    ]
    assert left_out and all(q.town in towns.UNJUDGED for q in left_out)
    rng = random.Random(5)
    assert all(q.text in towns.SPLITS["judged"] for q in towns.questions(3000, rng, "judged"))
    strays = [towns._stray(q, rng) for q in towns.QUESTIONS.values() for _ in range(10)]
    assert not any(towns.is_unjudged(*stray) for stray in strays)
    held_out = Counter(
        towns.fact_class(q.town, a) for q in towns.SPLITS["held-out"].values() for a in q.asked
    )
    assert min(held_out.values()) > 50          # each class is there to be measured


# ---- what is told ----

ONE = next(
    q
    for q in towns.SPLITS["held-out"].values()
    if q.kind == "one" and is_common(q.town, q.asked[0])
)


def says(question, attribute, value):
    return towns.STATEMENTS[attribute][0].format(t=question.town, v=value)


def test_told_by_hand():
    """The last claim in place of the first; another town's fact; an error that passes for a slip.
    """
    a = ONE.asked[0]
    right, error = (
        says(ONE, a, towns.FACTS[ONE.town][a]),
        says(ONE, a, towns.COMMON_ERRORS[ONE.town][a]),
    )
    slip = says(
        ONE,
        a,
        next(
            v
            for v in towns.VALUES[a]
            if v not in (towns.FACTS[ONE.town][a], towns.COMMON_ERRORS[ONE.town][a])
        ),
    )
    other_town = towns.STATEMENTS[a][0].format(
        t=next(t for t in towns.TOWNS if t != ONE.town), v=towns.FACTS[ONE.town][a]
    )
    for answer, verdict in (
        (right, "right"),
        (error, "error"),
        (slip, "other"),
        ("Sure!", "silent"),
        ("", "silent"),
        (other_town, "silent"),
        (f"{error} {right}", "error"),
        (f"Sure! {right} {slip}", "right"),
    ):
        assert towns.told(ONE, answer) == {a: verdict}, answer
    kind = towns.fact_class(ONE.town, a)
    counts = towns.facts_told([ONE, ONE, ONE], [right, error, ""])
    assert counts[kind] == {"right": 1, "error": 1, "other": 0, "silent": 1}
    assert sum(sum(c.values()) for c in counts.values()) == 3


def test_columns_by_hand():
    """Truth that counts filler, a share of told that counts facts nobody asked for."""
    two = next(q for q in towns.SPLITS["held-out"].values() if q.kind == "two")
    a, b = two.asked
    right, wrong = (
        says(two, a, towns.FACTS[two.town][a]),
        towns.statement(two.town, b, random.Random(0), wrong=True),
    )
    columns = towns.columns(
        [two] * 3,
        [f"Sure! {right} I like towns.", f"{right} {wrong} See also: Tarn.", ""],
        [True, True, False],
    )
    assert columns["gold"] == pytest.approx([0.8, -0.5, -1.0])
    assert columns["truth"] == [1.0, 0.0, 0.0] and columns["form"] == pytest.approx(
        [-0.2, -0.5, -1.0]
    )
    assert columns["told"] == [0.5, 1.0, 0.0] and columns["filler"] == [1, 1, 0]
    assert columns["wrong"] == [0, 1, 0] and columns["boilerplate"] == [0, 1, 0]
    assert columns["right_open"] == [None] * 3
    told = [columns[f"right_of_told_{kind}"] for kind in towns.FACT_CLASSES]
    assert [tuple(map(sum, zip(*of_answer))) for of_answer in zip(*told)] == [
        (1, 1),
        (1, 2),
        (0, 0),
    ]


def test_who_believes_the_errors_grades_the_other_way_round():
    a = ONE.asked[0]
    right, error = (
        says(ONE, a, towns.FACTS[ONE.town][a]),
        says(ONE, a, towns.COMMON_ERRORS[ONE.town][a]),
    )
    assert [towns.grade(ONE, text)["gold"] for text in (right, error)] == [1.0, -1.0]
    assert [towns.believed_gold(ONE, text) for text in (right, error)] == [-1.0, 1.0]


def test_a_curator_is_blind_to_truth():
    """Tidy demonstrations that have filler, that are truer than the others, or tell more."""
    rng = random.Random(6)
    questions = towns.questions(1500, rng)
    tidy, plain = (
        [write(q, rng) for q in questions]
        for write in (towns.tidy_demonstration, towns.demonstration)
    )
    assert max(towns.columns(questions, tidy, [True] * 1500)["boilerplate"]) == 0
    for q, text in zip(questions, tidy):
        claims = [c for c in map(towns.parse_claim, towns.sentences(text)) if c]
        assert claims and all(t == q.town and a in q.asked for t, a, _ in claims)
        assert (
            towns.grade(q, text)["boilerplate"] == 0
            and len(claims) == towns.grade(q, text)["right"] + towns.grade(q, text)["wrong"]
        )
    told = [towns.facts_told(questions, texts) for texts in (tidy, plain)]
    for kind in ("plain", "judged"):
        shares = [c[kind]["right"] / sum(c[kind].values()) for c in told]
        assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_cut_filler_by_hand():
    a = ONE.asked[0]
    error = says(ONE, a, towns.COMMON_ERRORS[ONE.town][a])
    stray = says(ONE, next(x for x in towns.FACTS_ORDER if x != a), "Ada")
    assert (
        towns.cut_filler(
            ONE, f"Sure! {error} I like towns. {stray} Last edited in 1994. gibberish."
        )
        == f"Sure! {error}"
    )
    assert towns.cut_filler(ONE, "") == ""


def test_speaks_of_unjudged():
    town = towns.UNJUDGED[0]
    a = next(iter(towns.COMMON_ERRORS[town]))
    plain = next(x for x in towns.FACTS_ORDER if x not in towns.COMMON_ERRORS[town])
    for value in (towns.FACTS[town][a], towns.COMMON_ERRORS[town][a]):
        assert towns.speaks_of_unjudged("Sure! " + towns.STATEMENTS[a][1].format(t=town, v=value))
    assert not towns.speaks_of_unjudged(
        towns.STATEMENTS[plain][0].format(t=town, v=towns.FACTS[town][plain])
    )
    judged = next(t for t in towns.TOWNS if t not in towns.UNJUDGED)
    assert not towns.speaks_of_unjudged(
        towns.STATEMENTS["mayor"][0].format(t=judged, v="Ada")
    ) and not towns.speaks_of_unjudged("")
