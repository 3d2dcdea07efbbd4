"""Every world keeps what nanorlhf/worlds promises: a new one gets these tests for nothing."""
import ast
import random
from collections import Counter
from pathlib import Path

import pytest

from nanorlhf import InputError, worlds
from nanorlhf.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
WORLDS = worlds.names()


def texts_of(page):
    return [page] if isinstance(page, str) else [message["content"] for message in page]


@pytest.fixture(params=WORLDS)
def world(request):
    return worlds.load(request.param)


def test_there_are_worlds():
    assert {"towns", "sums", "sorting", "opinions", "calculator"} <= set(WORLDS)
    assert worlds.DEFAULT in WORLDS
    assert not set(worlds.HELPERS) & set(WORLDS)


def test_splits_are_disjoint_and_reproducible(world):
    """A question that is trained on and evaluated; draws that do not come from the rng."""
    drawn = {split: world.questions(1500, random.Random(0), split)
             for split in ("train", "held-out", world.JUDGED)}
    keys = {split: {q.key for q in questions} for split, questions in drawn.items()}
    assert min(len(k) for k in keys.values()) > 20
    assert not keys["held-out"] & (keys["train"] | keys[world.JUDGED])
    again = world.questions(1500, random.Random(0), "held-out")
    assert [q.text for q in again] == [q.text for q in drawn["held-out"]]
    assert len(world.questions(7, random.Random(1))) == 7


def test_nothing_held_out_is_read_or_shown_in_training(world):
    """A page that asks a held-out question gives the evaluation away."""
    rng = random.Random(2)
    held_out = {q.text for q in world.questions(3000, random.Random(0), "held-out")}
    asked = Counter()
    for page in (world.page(rng) for _ in range(2000)):
        if not isinstance(page, str):
            asked[page[0]["content"]] += 1
    assert sum(asked.values()) > 100 and not held_out & set(asked)


def test_the_best_answer_is_the_most_there_is_to_earn(world):
    """A table of worth and a judge that differ; an answer that does not end and is paid in full."""
    rng = random.Random(3)
    for question in world.questions(60, rng) + list(world.SHOWN):
        most = world.best_gold(question)
        for _ in range(10):
            text = world.demonstration(question, rng)
            parts = world.grade(question, text)
            assert parts["gold"] <= most + 1e-9
            assert parts["gold"] == pytest.approx(sum(w * parts[p] for p, w in world.WORTH.items()))
            assert world.grade(question, text, False)["gold"] <= parts["gold"]
            if world.correct:
                assert world.correct(question, text) == bool(parts["correct"])
        assert world.explain(question, text).startswith("gold ")


def test_a_demonstration_is_the_best_now_and_then(world):
    """A best that nobody can reach."""
    rng, reached = random.Random(4), 0
    for question in world.questions(300, rng):
        for _ in range(10):
            gold = world.grade(question, world.demonstration(question, rng))["gold"]
            reached += gold >= world.best_gold(question) - 0.31      # manners are a matter of taste
    assert reached > 30


def test_everything_fits(world):
    """A question and its answer, in tokens, within the block that the world asks for."""
    tokenizer, rng = Tokenizer(world.name), random.Random(5)
    block = world.SIZES["block_size"]
    for question in world.questions(200, rng) + world.questions(200, rng, "held-out"):
        prompt = tokenizer.prompt(question.text)
        assert len(prompt) + 64 <= block
        assert len(tokenizer.completion(world.demonstration(question, rng))) <= 64
    for page in (world.page(rng) for _ in range(300)):
        for text in texts_of(page):
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_shown_questions_are_held_out(world):
    trained_on = {q.key for q in world.questions(20_000, random.Random(0))}
    assert len(world.SHOWN) == 3 and not {q.key for q in world.SHOWN} & trained_on
    for question in world.SHOWN:
        assert world.find(question.text) in (question, None)


def test_columns_have_an_entry_for_each_answer(world):
    rng = random.Random(6)
    questions = world.questions(20, rng)
    answers = [world.demonstration(q, rng) for q in questions]
    columns = world.columns(questions, answers, [True] * 20)
    assert columns and all(len(values) == 20 for values in columns.values())
    assert set(world.COMPARED) <= set(columns) and set(world.IN_RESULTS) <= set(columns)
    for _, _, form in world.COLUMNS:
        assert form.format(0.5)
    assert {getattr(q, "kind", None) for q in world.questions(500, rng)} >= set(world.KINDS)


def test_claims_come_with_what_they_are_worth(world):
    """evaluate.py asks what an answer is worth in a model's eyes: both, or neither."""
    assert (world.claims is None) == (world.believed_worth is None)


def test_probes_can_be_asked(world):
    """A right continuation that begins as a wrong one does cannot be told from it."""
    tokenizer = Tokenizer(world.name)
    for name, items in world.probes(random.Random(7)).items():
        assert items, name
        for _, right, wrongs in items:
            first, *others = (tokenizer.encode(text)[0] for text in (right, *wrongs))
            assert first not in others


def test_steps_end_inside_the_answer(world):
    if not world.steps:
        pytest.skip("this world has no steps")
    rng = random.Random(8)
    for question in world.questions(50, rng):
        text = world.demonstration(question, rng)
        ends = [end for end, _ in world.steps(question, text)]
        assert ends == sorted(ends) and 0 < ends[0] and ends[-1] <= len(text)


def test_knobs(world):
    """A knob that is ignored, or a wrong one that is."""
    for knob, default in world.KNOBS.items():
        other = worlds.load(world.name, {knob: default + 1})
        assert other.knobs[knob] == default + 1
        texts = [
            max(len(q.text) for q in w.questions(300, random.Random(0))) for w in (world, other)
        ]
        assert texts[0] < texts[1]
    with pytest.raises(InputError, match="has no knob 'colour'"):
        worlds.load(world.name, {"colour": 3})


def test_what_is_no_world():
    """A name from a file that imports anything; a knob that is no number."""
    for name in ("os", "labelers", "../towns", "vocabulary", ""):
        with pytest.raises(InputError, match="calculator, opinions, sorting, sums, towns"):
            worlds.load(name)
    assert worlds.parse_knobs("") == {} and worlds.parse_knobs("digits=4,b=1") == {
        "digits": 4,
        "b": 1,
    }
    for text in ("digits", "digits=x", "digits=0", "digits=-1"):
        with pytest.raises(InputError, match="is not name=number"):
            worlds.parse_knobs(text)


def test_a_world_that_lacks_something(monkeypatch):
    from nanorlhf.worlds import sorting
    monkeypatch.delattr(sorting, "grade")
    with pytest.raises(InputError, match="the world of sorting lacks grade"):
        worlds.load("sorting")


ELSEWHERE = ("tests", "runs", "lab", "tools", "exercises", "out", ".venv", "build")
SOURCES = [path for path in ROOT.rglob("*.py") if path.parent != ROOT / "nanorlhf/worlds"
           and path.relative_to(ROOT).parts[0] not in ELSEWHERE and path.name != "demo.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_no_code_outside_asks_which_world_it_is(path):
    """A new world that is refused until three modules are edited. Defaults of settings may name
    one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
            allowed.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in allowed:
            assert node.value not in WORLDS, f"{path}:{node.lineno}"
        names = [getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "arg", None)]
        if isinstance(node, ast.alias):
            names += node.name.split(".") + [node.asname]
        assert not set(names) & set(WORLDS), f"{path}:{node.lineno}"


def test_the_sources_are_found():
    assert len(SOURCES) > 30
