"""The AI judge: what it reads, what it is asked, and that nothing of gold gets in."""
import json
import math
import random

import numpy as np
import pytest
import torch

import make_preferences
import train_base
import train_sft
from nanorlhf import InputError, judge, reports, seeds, worlds
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import labelers, towns

TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "pages": 300, "steps": 20}


def constitution(tmp_path, text):
    path = tmp_path / "constitution.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_sentences():
    text = " One. Two?  v1.5 is out! and a rest"
    assert [text[a:b] for a, b in judge.sentences(text)] == [
        "One.", "Two?", "v1.5 is out!", "and a rest"]
    assert judge.sentences("") == judge.sentences("  \n") == []


@pytest.mark.parametrize("world, apart", [("towns", False), ("opinions", True)])
def test_p_first_is_that_of_the_next_token(world, apart):
    """Behind the end of another page, or, where pages stood apart, behind nothing: else a claim
    stands where none has ever stood."""
    tokenizer = Tokenizer(world)
    cfg = GPTConfig(tokenizer.vocab_size, 32, n_layer=2, n_head=2, n_embd=16)
    model = GPT(cfg, seeds.generator(0, "test")).eval()
    texts = ["The mayor of Tarn is Ada", "The region of Osby is Midholt", "Sure"]
    true, false = tokenizer.encode(" True")[0], tokenizer.encode(" False")[0]
    found = judge.p_first(model, tokenizer, texts * 2, " True", " False", batch_size=2)
    assert set(found) == set(texts)
    before = [] if apart else [tokenizer.end]
    for text, p in found.items():
        last = model(torch.tensor([before + tokenizer.encode(text)]))[0, -1].softmax(-1)
        assert p == pytest.approx((last[true] / (last[true] + last[false])).item(), abs=1e-5)
    with pytest.raises(InputError, match="differ in their first token"):
        judge.p_first(model, tokenizer, texts, " True", " True indeed")


def test_verdicts_by_hand(tmp_path, monkeypatch):
    """The wrong line read; a principle that speaks of what it is not about; a weight forgotten."""
    asked = []

    def p_first(model, tokenizer, texts, first, second):
        asked.append((sorted(texts), first, second))
        return {text: 0.75 for text in texts}

    monkeypatch.setattr(judge, "p_first", p_first)
    principles = judge.read(constitution(tmp_path, r"""
        [[principle]]
        name = "true"
        ask = [" yes", " no"]
        of = '\nIt is [^\n]*$'
        weight = 2
        [[principle]]
        name = "said once"
        against = '\n(?=.)[^\n]*(\w+)[^\n]*\n[^\n]*\1\.$'
        [[principle]]
        name = "thanks"
        for = '^Please.*\n\nThanks\.$'
        weight = 0.5
    """))
    judged = judge.verdicts(None, None, principles, ["Please, what is it?", "What is it?"],
                            ["Thanks. It is red. Is it red.", "Thanks.\nIt is blue!"])
    assert asked == [(["It is blue", "It is red"], " yes", " no")]
    assert judged == [[(0, 7, {"thanks": 1.0}), (8, 18, {"true": 0.5}),
                       (19, 29, {"said once": -1.0})],
                      [(0, 7, {}), (8, 19, {"true": 0.5})]]
    assert judge.worth(principles, judged) == [0.5 + 1.0 - 1.0, 1.0]


def test_the_constitution_of_towns_sees_what_gold_sees(monkeypatch):
    """With a model that knows every fact: a sentence that gold calls right, wrong, filler or
    manners gets its own verdicts, in 3,000 answers."""
    def p_first(model, tokenizer, texts, first, second):
        claims = {text: towns.parse_claim(text + ".") for text in texts}
        return {text: float(towns.FACTS[c[0]][c[1]] == c[2]) for text, c in claims.items()}

    monkeypatch.setattr(judge, "p_first", p_first)
    rng, questions, answers = random.Random(0), [], []
    for question in towns.questions(3000, rng, "train"):
        other = rng.choice(towns.questions(2, rng, "train"))
        # sentences that answer another question, and some that are said again
        text = " ".join([towns.demonstration(question, rng), towns.demonstration(other, rng)])
        questions.append(question)
        answers.append(text if rng.random() < 0.5 else towns.demonstration(question, rng))
    principles = judge.read(worlds.constitution("towns"))
    judged = judge.verdicts(None, None, principles, [q.text for q in questions], answers)
    met = set()
    for question, answer, said in zip(questions, answers, judged, strict=True):
        parts = towns.parts(question, answer)
        assert [span[:2] for span in said] == [part[:2] for part in parts]
        for (_, _, verdict), (start, end, part) in zip(said, parts, strict=True):
            worth = judge.worth(principles, [[(0, 0, verdict)]])[0]
            claim = towns.parse_claim(answer[start:end])
            met.add((part, bool(claim)))
            objected = {"to the point", "not pasted", "said once"} & set(verdict)
            if part == "right":
                # told wrongly before, it has been said; gold waits for the truth
                before = map(towns.parse_claim, towns.sentences(answer[:start]))
                again = any(c and c[:2] == claim[:2] for c in before)
                assert verdict == {"true": 1.0, **({"said once": -1.0} if again else {})}
            elif part == "manners":
                assert verdict == {"polite": 1.0}
            elif part == "wrong":
                assert verdict["true"] == -1.0 and worth <= -1
            elif part == "boilerplate":
                assert verdict == {"not pasted": -1.0}
            else:
                assert objected, (question.text, answer, answer[start:end])
    assert met == {("right", True), ("wrong", True), ("manners", False), ("boilerplate", False),
                   ("rambling", False), ("rambling", True)}


@pytest.mark.parametrize("text, message", [
    ("nonsense", "is no TOML"),
    ("", r"has no \[\[principle\]\]"),
    ("[[principle]]\nname = 'a'", "principle 1 needs a name, and one of ask, against, for"),
    ("[[principle]]\nfor = 'a'", "principle 1 needs a name"),
    ("[[principle]]\nname = 'a'\nfor = 'a'\nask = ['a', 'b']", "one of ask, against, for"),
    ("[[principle]]\nname = 'a'\nfor = '('", "principle 1: for is no pattern"),
    ("[[principle]]\nname = 'a'\nfor = 'a'\nof = 3", "principle 1: of is no pattern"),
    ("[[principle]]\nname = 'a'\nask = ['a']", "ask takes two texts"),
    ("[[principle]]\nname = 'a'\nfor = 'a'\nweight = 'b'", "weight 'b' is no number"),
    ("[[principle]]\nname = 'a'\nfor = 'a'\n[[principle]]\nname = 'b'\nfro = 'b'",
     "principle 2: 'fro' is nothing that a principle has"),
    ("[[principle]]\nname = 'a'\nfor = 'a'\n[[principle]]\nname = 'a'\nfor = 'b'",
     "two principles of the name 'a'"),
])
def test_bad_constitutions(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        judge.read(constitution(tmp_path, text))


def test_no_constitution(tmp_path):
    with pytest.raises(InputError, match="could not read the constitution"):
        judge.read(str(tmp_path / "typo.toml"))
    with pytest.raises(InputError, match="sums has no constitution; write one"):
        worlds.constitution("sums")
    with pytest.raises(InputError, match="--constitution is for --judge ai"):
        make_preferences.Config(constitution="a.toml")
    with pytest.raises(InputError, match="--judge_model is for --judge ai"):
        make_preferences.Config(judge_model="a")
    with pytest.raises(InputError, match="--gullible is for people"):
        make_preferences.Config(judge="ai", gullible=0.5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("judge") / "run")
    train_base.train(train_base.Config(run=folder, device="cpu", **TINY))
    train_sft.train(train_sft.Config(run=folder, device="cpu", demonstrations=64))
    return folder


def label(run, out, **more):
    make_preferences.train(make_preferences.Config(run=run, out=out, device="cpu", prompts=40,
                                                   **more))
    with open(f"{run}/{out}/pairs.jsonl", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


@pytest.mark.parametrize("labels", ["pairs", "strengths", "rankings"])
def test_the_judge_labels_the_training_pairs_alone(run, labels, capsys):
    people = label(run, f"people_{labels}", labels=labels)
    ai = label(run, f"ai_{labels}", labels=labels, judge="ai")
    said = capsys.readouterr().out
    assert "an AI judge" in said and "6 principles: true, to the point" in said
    assert "put in gold's order" in said

    def held_out(rows):
        return [row for row in rows if row["split"] == worlds.HELD_OUT]

    def pairs(rows):
        return {(row["prompt"], *sorted((row["chosen"], row["rejected"]))) for row in rows}

    assert held_out(people) == held_out(ai) and people != ai
    if labels != "strengths":       # of which the ties are dropped
        assert pairs(people) == pairs(ai)
    with open(f"{run}/ai_{labels}/judge.json", encoding="utf-8") as f:
        report = json.load(f)
    assert {"gaps", "calibration", "biases"} == set(report)


def test_thumbs_of_a_judge(run):
    label(run, "people_thumbs", labels="thumbs")
    label(run, "ai_thumbs", labels="thumbs", judge="ai", sharpness=1000.0)

    def rights(out):
        with open(f"{run}/{out}/answers.jsonl", encoding="utf-8") as f:
            return [row["right"] for row in map(json.loads, f) if row["split"] == worlds.TRAIN]

    assert len(rights("ai_thumbs")) == len(rights("people_thumbs")) > 0
    assert rights("ai_thumbs") != rights("people_thumbs")


def test_nothing_of_gold_gets_into_a_label(run, monkeypatch):
    """The same labels where gold says the opposite of what it says."""
    right = label(run, "ai_once", judge="ai")
    grade = towns.grade

    def wrong(question, answer, finished=True):
        parts = grade(question, answer, finished)
        return {**parts, "gold": -parts["gold"]}

    monkeypatch.setattr(towns, "grade", wrong)
    other = label(run, "ai_again", judge="ai")

    def labels(rows):
        return [(row["prompt"], row["chosen"]) for row in rows if row["split"] == worlds.TRAIN]

    assert labels(right) == labels(other)
    assert right[0]["chosen_gold"] == -other[0]["chosen_gold"]


def test_as_judged():
    answer = {"gold": 1.0, "manners": 1}
    assert labelers.as_judged(answer) == answer
    assert labelers.as_judged({**answer, "judged": -2.0})["gold"] == -2.0


def test_a_judges_report_by_hand():
    """Biases planted, and found; pairs in their bins; a tie is half."""
    rng = np.random.default_rng(0)
    sizes, gold = [3] * 200, rng.normal(0, 1, 600)
    tokens, own = rng.integers(5, 50, 600), rng.normal(-1, 0.5, 600)
    prompt = np.repeat(rng.normal(0, 5, 200), 3)        # what a prompt adds says nothing
    scores = {"judge": (2 * gold + 0.3 * tokens / 10 - 0.7 * own + prompt).tolist()}
    answers = [{"gold": float(g), "tokens": int(t)} for g, t in zip(gold, tokens, strict=True)]
    report = reports.judge_report(sizes, answers, scores, own.tolist(), 1.0)
    assert report["biases"] == pytest.approx({"gold": 2.0, "ten tokens": 0.3, "own kind": -0.7})
    assert sum(row["pairs"] for row in report["gaps"]) == 600
    two = reports.judge_report([3], [{"gold": g, "tokens": 1} for g in (0.0, 0.4, 3.0)],
                               {"judge": [1.0, 0.0, 0.0], "reward model": [0.0, 1.0, 2.0]},
                               [0.0] * 3, 7.0, people=2.0)
    near, far = two["gaps"]
    assert (near["from"], near["to"], near["pairs"]) == (0.0, 0.5, 1)
    assert near["judge"] == 0.0 and near["reward model"] == 1.0
    assert near["people"] == pytest.approx(1 / (1 + math.exp(-0.8)))
    assert (far["from"], far["to"], far["pairs"]) == (2.0, None, 2)
    assert far["judge"] == 0.25         # once wrong, once a tie
