"""The second made-up world: sums worked out column by column, so that not only the answer but every
step of it can be checked.

    347+285=    7+5+0=12 4+8+1=13 3+2+1=06 #0632
    402-395=    12-5-0=7 10-9-1=0 04-3-1=0 #007

From the right. A sum's third number is what is carried. A difference's first is the minuend's digit
with the ten it borrowed, its third what was lent.

Every column takes eight characters, and every number is written out to its full width (7+28= is
asked as 007+028=): where a character stands says what it is about. A model this small, which knows
places and not distances, learns that several times faster than a ragged working.

A verifier reads the number behind the last #. The gold reward keeps being right and looking right
apart:

    part      the answer                                                             worth
    correct   ends, and the number behind its last # is the sum                      +1
    format    ends, and is written as above: columns, a blank between, # and number  +0.1

People err in two ways. Some slip, each in another place, and go on from there. And most share a
misconception: where a column would have to borrow they take the smaller digit from the larger and
lend nothing (Brown and Burton 1978, the smaller-from-larger bug):

    402-395=    02-5-0=3 00-9-0=9 04-3-0=1 #193          well written, and wrong

So of the sums in which something is lent (Question.kind is "lent") the most frequent answer is the
error: SFT's likeliest answer, and the vote of many. No temperature mends that. On the web most
people borrow, so the base model can; a check of the answer alone brings it back.

How hard a sum is depends on `digits`, the most that a number may have. A fifth of all sums is held
out, by a hash that every stage shares; a+b goes with b+a. The sums of one digit need no exception:
3+5 is also a column of 13+25.
"""
import hashlib
import random
import re
from dataclasses import dataclass
from typing import ClassVar

WORTH = {"correct": 1.0, "format": 0.1}
# Shares of demonstrations with a slip, and of those to sums that need it which lend nothing. The
# web has fewer of both, and now and then no working: with as many, a base model takes far longer to
# find out how columns are added, and would not know how to lend.
P_SLIP, P_SLIP_ON_THE_WEB, P_BARE = 0.25, 0.2, 0.15
P_COMMON, P_COMMON_ON_THE_WEB = 0.8, 0.25
P_MARKED = 0.5          # share of the pages that are marked homework
CROSS, TICK = "x", "v"  # behind what is wrong there, and behind what is right


@dataclass(frozen=True)
class Question:
    a: int
    sign: str           # + or -; then a >= b
    b: int
    width: int = 3  # digits that both are written with
    form: ClassVar = re.compile(
        r"(?:[0-9]\+[0-9]\+[0-9]=[0-9]{2} )+#[0-9]+|(?:[0-9]{2}-[0-9]-[0-9]=[0-9] )+#[0-9]+"
    )

    @property
    def text(self):
        return f"{self.a:0{self.width}}{self.sign}{self.b:0{self.width}}="

    @property
    def key(self):      # what is held out: 347+285 is the same as 285+347
        a, b = (self.a, self.b) if self.sign == "-" else sorted((self.a, self.b))
        return self.sign, a, b

    @property
    def kind(self):
        """plus, minus, or lent: a minus in which some column has to borrow."""
        if self.sign == "+":
            return "plus"
        lows = (10 ** i for i in range(1, self.width + 1))
        return "lent" if any(self.a % low < self.b % low for low in lows) else "minus"

    @property
    def answer(self):
        return self.a + self.b if self.sign == "+" else self.a - self.b


def split_of(question):
    """The built-in hash of a string is another one in every process, so this one."""
    held_out = hashlib.sha256(str(question.key).encode()).digest()[0] < 51     # 51 of 256
    return "held-out" if held_out else "train"


def questions(n, rng, split="train", digits=3):
    """n Questions, drawn with replacement: sums and differences alike, of numbers up to 10,
    100, ... 10 ** digits alike."""
    drawn = []
    while len(drawn) < n:
        size = rng.randint(1, digits)
        a, b = rng.randrange(10 ** size), rng.randrange(10 ** size)
        sign = rng.choice("+-")
        if sign == "-":
            a, b = max(a, b), min(a, b)
        question = Question(a, sign, b, width=digits)
        if split_of(question) == split:
            drawn.append(question)
    return drawn


def find(text):
    """The Question that this text asks, or None."""
    m = re.fullmatch(r"([0-9]{1,18})([+-])([0-9]{1,18})=", text)
    if not m or len(m[1]) != len(m[3]):
        return None
    question = Question(int(m[1]), m[2], int(m[3]), width=len(m[1]))
    return question if question.answer >= 0 else None


# ---- what people write ----

def work(question, slip=None, rng=None, lends=True):
    """The working as a list: one text per column, then "#answer". slip: which of them goes wrong;
    what follows goes on from there.

    lends: False for the misconception, the smaller digit of each column taken from the larger.
    """
    width = question.width
    a, b = (str(n).zfill(width)[::-1] for n in (question.a, question.b))
    written, digits, carry = [], "", 0
    for i, (x, y) in enumerate(zip(map(int, a), map(int, b), strict=True)):
        kind = None
        if i == slip:       # who lends nothing has no carry to get wrong
            kind = rng.choice(("digit", "carry", "result") if lends else ("digit", "result"))
        if kind == "digit":
            x = (x + rng.randint(1, 9)) % 10
        elif kind == "carry":
            carry = 1 - carry
        if question.sign == "+":
            result = x + y + carry
        else:
            if lends and x < y + carry:
                x += 10
            result = abs(x - y - carry)
        if kind == "result":
            up = result == 0 or result < 9 and rng.random() < 0.5
            result += 1 if up else -1
        if question.sign == "+":
            written.append(f"{x}+{y}+{carry}={result:02}")
            carry = int(result > 9)
        else:
            written.append(f"{x:02}-{y}-{carry}={result}")
            carry = int(x > 9)
        # a column gives the answer its last digit, the leftmost all that is written there
        result_text = written[-1].partition("=")[2]
        digits = (result_text if i + 1 == width else result_text[-1]) + digits
    if slip == width:
        i = rng.randrange(len(digits))
        digits = digits[:i] + str((int(digits[i]) + rng.randint(1, 9)) % 10) + digits[i + 1:]
    return written + [f"#{digits}"]


def demonstration(question, rng, p_slip=P_SLIP, p_common=P_COMMON):
    """A person's working: where something is to be lent most lend nothing; one in four slips."""
    lends = question.kind != "lent" or rng.random() >= p_common
    slip = rng.randrange(question.width + 1) if rng.random() < p_slip else None
    return " ".join(work(question, slip, rng, lends))


def homework(question, rng):
    """A working as it comes back, "7v5v0v12v4v8v0x12x3v3x1v07x#0632v": each column and the
    answer right or wrong by itself, half of them.

    A mark behind each number of a column says whether that number belongs there, the last one
    whether the column is right as a whole.
    """
    marked = ""
    for i, right in enumerate(work(question)):
        step = right
        if rng.random() < 0.5:
            step = work(question, i, rng)[i]
        numbers, true = re.split("[-+=]", step), re.split("[-+=]", right)
        for number, true_number in zip(numbers[:-1], true, strict=False):
            marked += number + _mark(number == true_number)
        marked += numbers[-1] + _mark(step == right)
    return marked


def _mark(right):
    return TICK if right else CROSS


def page(rng, digits=3):
    """One page of the web (a list of chat messages): a sum that is asked, and answered with working
    or without, or marked homework.

    To predict a mark, a model must compare what it reads with what it would have written: the
    skill that reward models of outcomes and of steps are made of, and too hard to learn from some
    thousand answers. With marks behind whole columns alone half of the slips are still missed
    after 2500 steps. A mark takes the place of the sign or the blank behind a number, so that the
    digits stand where they stand in a working without marks.
    """
    [question] = questions(1, rng, digits=digits)
    if rng.random() < P_MARKED:
        answer = homework(question, rng)
    else:
        answer = (str(question.answer) if rng.random() < P_BARE else
                  demonstration(question, rng, P_SLIP_ON_THE_WEB, P_COMMON_ON_THE_WEB))
    return [{"role": "user", "content": question.text}, {"role": "assistant", "content": answer}]


# ---- what an answer is worth ----

def number_behind(text):
    """The number behind the last run of #, or None. An earlier one does not count."""
    if "#" not in text:
        return None
    m = re.match(r"\s*(-?)([0-9]{1,24})(?![0-9])", text.rpartition("#")[2])
    return int(m[1] + m[2]) if m else None


def final(question, answer):
    """What a vote is cast for: the number behind the last #, or None."""
    return number_behind(answer)


def correct(question, answer):
    return number_behind(answer) == question.answer


def grade(question, answer, finished=True):
    """The gold reward and its parts: {"gold": 1.1, "correct": 1, "format": 1}; the table at the top
    of this file."""
    parts = {"correct": int(finished and correct(question, answer)),
             "format": int(finished and question.form.fullmatch(answer) is not None)}
    return {"gold": sum(WORTH[p] * n for p, n in parts.items()), **parts}


def steps(question, answer):
    """[(end, right)] for each step of the working, the final answer included.

    end is the index behind its last character. Right is the step that the question asks for: a
    slip, a miscopied digit and a wrong carry are wrong, and so is what is built on them.
    """
    expected, judged = work(question), []
    for i, m in enumerate(re.finditer(r"\S+", answer)):
        if "#" in m[0]:
            right = correct(question, m[0])
        else:
            right = i < len(expected) and m[0] == expected[i]
        judged.append((m.end(), right))
    return judged


def parts(question, answer):
    """[(start, end, part)]: the steps of the working."""
    judged, start = [], 0
    for end, right in steps(question, answer):
        judged.append((start, end, "right" if right else "wrong"))
        start = end
    return judged


def explain(question, answer, finished=True):
    """The grade in a line: "gold +0.10 = format; 2 of 4 steps are right"."""
    parts, rights = (
        grade(question, answer, finished),
        [right for _, right in steps(question, answer)],
    )
    earned = ", ".join(part for part in WORTH if parts[part])
    return (f"gold {parts['gold']:+.2f} = {earned or 'nothing'}; "
            f"{sum(rights)} of {len(rights)} steps are right")


def best_gold(question):
    """What the best possible answer earns."""
    return sum(WORTH.values())


def _shown(size, sign):
    """The first of many held-out questions of this size that has something to carry or lend."""
    for q in questions(1000, random.Random("shown"), "held-out"):
        if (len(str(max(q.a, q.b))), q.sign) == (size, sign) and f"{sign}1=" in " ".join(work(q)):
            return q


# The same three held-out questions in every stage's samples.
SHOWN = [_shown(2, "+"), _shown(3, "+"), _shown(3, "-")]


# ---- for the scripts ----

KNOBS = {"digits": 3}       # of the longest numbers
# A page a row. A digit of a sum is found by its place; in a window cut from pages laid end to
# end the places shift, and that takes far longer to learn.
PAGES = "apart"
SIZES = {"n_layer": 3, "n_embd": 96}
KINDS = ("plus", "minus", "lent")
COLUMNS = [*((f"{kind}: greedy", f"greedy_{kind}", "{:.2f}") for kind in KINDS),
           ("lent: accuracy", "accuracy_lent", "{:.2f}"),
           ("lent: majority@8", "majority@8_lent", "{:.2f}")]
LEGEND = (
    "plus, minus: without anything lent; lent: of the subtractions that borrow, in which most "
    "people lend nothing."
)
GUIDE = ("solved: share of held-out sums whose likeliest answer is right; judged: share of the "
         "marks in homework that it would give so too")


def columns(questions, answers, finished):
    """{"format": whether each is written as it should be}"""
    graded = map(grade, questions, answers, finished)
    return {"format": [parts["format"] for parts in graded]}


def probes(rng, digits=3):
    """judged: the mark behind each number of 256 pieces of homework, a tick or a cross."""
    judged = []
    for q in questions(256, rng, "held-out", digits):
        text = homework(q, rng)
        for m in re.finditer(f"{TICK}|{CROSS}", text):
            wrong = CROSS if m[0] == TICK else TICK
            judged.append(((q.text, text[:m.start()]), m[0], [wrong]))
    return {"judged": judged}
