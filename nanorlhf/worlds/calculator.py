"""A made-up world with a tool: products of two numbers, and a calculator that may be called.

    07*06=      #0042                           by heart
    47*86=      (47*86=4042)#4042               by the calculator, which writes 4042)

The tables up to nine can be learned, the web has them. Products of two-digit numbers cannot, by a
model this small: it guesses, or it calls. `tool` is what rollout.generate(after_token=...) takes.
Where there is no tool the model writes a result itself, and invents it.

    part      the answer                                            worth
    correct   ends, and the number behind its last # is the product   +1
    call      each call                                              -0.1

People guess three hard products in four, and call for one easy one in four, too. So what is to be
learned is not how to call, which the web shows, but when.
"""
import hashlib
import random
import re
from dataclasses import dataclass

WORTH = {"correct": 1.0, "call": -0.1}
PAGES = "apart"         # a digit is found by its place
SIZES = {"n_layer": 3, "n_embd": 96, "block_size": 80}
KINDS = ("easy", "hard")
P_CALL, P_CALL_ON_THE_WEB = 0.25, 0.5
CALL = re.compile(r"\(([0-9]{2})\*([0-9]{2})=$")


@dataclass(frozen=True)
class Question:
    a: int
    b: int

    @property
    def text(self):
        return f"{self.a:02}*{self.b:02}="

    @property
    def key(self):      # what is held out: 47*86 is the same as 86*47
        return tuple(sorted((self.a, self.b)))

    @property
    def kind(self):
        return "easy" if max(self.a, self.b) < 10 else "hard"

    @property
    def answer(self):
        return self.a * self.b


def questions(n, rng, split="train"):
    """n Questions, easy and hard alike. A fifth is held out, by a hash that every process shares:
    nobody asks them on the web, though its tables have the easy ones."""
    drawn = []
    while len(drawn) < n:
        low, high = rng.choice(((2, 10), (10, 100)))
        question = Question(rng.randrange(low, high), rng.randrange(low, high))
        if is_held_out(question) == (split == "held-out"):
            drawn.append(question)
    return drawn


def is_held_out(question):
    return hashlib.sha256(str(question.key).encode()).digest()[0] < 51      # 51 of 256


def find(text):
    """The Question that this text asks, or None."""
    m = re.fullmatch(r"([0-9]{2})\*([0-9]{2})=", text)
    return Question(int(m[1]), int(m[2])) if m else None


def tool(text):
    """What the calculator writes behind an answer so far: nothing, or the result of the call that
    is open."""
    m = CALL.search(text)
    return f"{int(m[1]) * int(m[2]):04})" if m else ""


# ---- what people write ----

def with_call(question):
    return f"({question.text}{question.answer:04})#{question.answer:04}"


def by_heart(question, rng):
    """The product where it is easy; else a guess of its size."""
    if question.kind == "easy":
        return f"#{question.answer:04}"
    return f"#{rng.randrange(100, 9802):04}"


def demonstration(question, rng, p_call=P_CALL):
    return with_call(question) if rng.random() < p_call else by_heart(question, rng)


def page(rng):
    """A page of the web: a piece of the tables (a str), or a product that is asked (chat
    messages)."""
    if rng.random() < 0.2:
        products = [Question(rng.randrange(2, 10), rng.randrange(2, 10)) for _ in range(3)]
        return " ".join(q.text + by_heart(q, rng) for q in products)
    [question] = questions(1, rng)
    answer = demonstration(question, rng, P_CALL_ON_THE_WEB)
    return [{"role": "user", "content": question.text}, {"role": "assistant", "content": answer}]


# ---- what an answer is worth ----

def final(question, answer):
    """The number behind the last #, or None."""
    m = re.search(r"#([0-9]{1,8})$", answer)
    return int(m[1]) if m else None


def correct(question, answer):
    return final(question, answer) == question.answer


def calls(answer):
    """[(what was asked, the result that stands there or None)] of each call: two numbers, a text.
    """
    return [((int(a), int(b)), result or None) for a, b, result in
            re.findall(r"\(([0-9]{2})\*([0-9]{2})=([0-9]*)", answer)]


def grade(question, answer, finished=True):
    """The gold reward and its parts: {"gold": 0.9, "correct": 1, "call": 1}."""
    parts = {"correct": int(finished and correct(question, answer)), "call": len(calls(answer))}
    return {"gold": sum(WORTH[part] * n for part, n in parts.items()), **parts}


def best_gold(question):
    """What the best possible answer earns: right, and without a call."""
    return WORTH["correct"]


def columns(questions, answers, finished):
    """{column: one entry for each answer}: call, whether there is any, and the same of easy and of
    hard products; invented, (hits, cases): of the results that stand there, those that are wrong.
    """
    rows = []
    for question, answer in zip(questions, answers, strict=True):
        made = calls(answer)
        results = [(a * b, result) for (a, b), result in made if result]
        wrong = [result for product, result in results if int(result) != product]
        rows.append({"call": int(bool(made)), "invented": (len(wrong), len(results)),
                     **{f"call_{kind}": (int(bool(made) and question.kind == kind),
                                         int(question.kind == kind)) for kind in KINDS}})
    return {name: [row[name] for row in rows] for name in rows[0]}


COLUMNS = [(f"{kind}: greedy", f"greedy_{kind}", "{:.2f}") for kind in KINDS] + [
    (f"{kind}: calls", f"call_{kind}", "{:.0%}") for kind in KINDS] + [
    ("results invented", "invented", "{:.0%}")]
LEGEND = "results invented: of the results of calls the share that is wrong; no tool answers here."


def probes(rng):
    """tables: the product of easy questions, where an answer by heart begins. copied: the product
    behind a call and its result."""
    easy = [q for q in questions(256, rng) if q.kind == "easy"]
    hard = [q for q in questions(256, rng, "held-out") if q.kind == "hard"]
    return {"tables": [((q.text, f"#{q.answer:04}"[:-1]), f"{q.answer:04}"[-1], ())
                       for q in easy],
            "copied": [((q.text, with_call(q)[:-1]), f"{q.answer:04}"[-1], ()) for q in hard]}


SHOWN = [next(q for q in questions(200, random.Random("shown"), "held-out") if q.kind == kind)
         for kind in ("easy", "hard", "hard")]
