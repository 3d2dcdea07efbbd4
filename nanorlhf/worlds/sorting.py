"""Sorting digits: the smallest world, and the worked example of how to make one.

    question    3 1 2 1=        answer      1 1 2 3

Most people, nine in ten, write a digit that is asked twice only once; one in five slips, two
neighbours the wrong way round. On the web both are rare, so the base model can sort. SFT's
likeliest answer mostly drops what stands twice; a check of the answer alone mends that.

    part        the answer                          worth
    correct     ends, and is the digits in order    +1
    digits      ends, and is digits and blanks      +0.1
"""
import hashlib
import random
import re
from dataclasses import dataclass

WORTH = {"correct": 1.0, "digits": 0.1}
KNOBS = {"length": 6}               # most digits that a question has
PAGES = "apart"                     # a digit is found by its place
SIZES = {"n_layer": 3, "n_embd": 96}
KINDS = ("apart", "twice")          # is some digit asked twice?
COLUMNS = [(f"{kind}: greedy", f"greedy_{kind}", "{:.2f}") for kind in KINDS]


@dataclass(frozen=True)
class Question:
    digits: tuple

    @property
    def text(self):
        return " ".join(map(str, self.digits)) + "="

    @property
    def key(self):      # what is held out: the digits, in whatever order
        return tuple(sorted(self.digits))

    @property
    def kind(self):
        return "apart" if len(set(self.digits)) == len(self.digits) else "twice"


def questions(n, rng, split="train", length=6):
    """A fifth is held out, by a hash that every process shares."""
    drawn = []
    while len(drawn) < n:
        question = Question(tuple(rng.choices(range(10), k=rng.randint(2, length))))
        held_out = hashlib.sha256(str(question.key).encode()).digest()[0] < 51      # 51 of 256
        if held_out == (split == "held-out"):
            drawn.append(question)
    return drawn


def demonstration(question, rng, p_drop=0.9, p_slip=0.2):
    answer = list(question.key)
    if rng.random() < p_drop:
        answer = sorted(set(answer))
    if rng.random() < p_slip and len(answer) > 1:
        i = rng.randrange(len(answer) - 1)
        answer[i], answer[i + 1] = answer[i + 1], answer[i]
    return " ".join(map(str, answer))


def page(rng, length=6):
    [question] = questions(1, rng, length=length)
    answer = demonstration(question, rng, p_drop=0.2, p_slip=0.1)
    return [{"role": "user", "content": question.text}, {"role": "assistant", "content": answer}]


def correct(question, answer):
    return answer == " ".join(map(str, question.key))


def grade(question, answer, finished=True):
    parts = {"correct": int(finished and correct(question, answer)),
             "digits": int(finished and re.fullmatch(r"[0-9]( [0-9])*", answer) is not None)}
    return {"gold": sum(WORTH[part] * n for part, n in parts.items()), **parts}


def best_gold(question):
    return sum(WORTH.values())


def probes(rng, length=6):
    """first: the smallest digit, where an answer begins."""
    asked = questions(256, rng, "held-out", length)
    return {"first": [((q.text, ""), str(q.key[0]), ()) for q in asked]}


SHOWN = questions(3, random.Random("shown"), "held-out")
