"""Problems whose answer is a number: one grammar for the number in a file and in an answer.

A verifier that reads a label by one rule and an answer by another pays for what is wrong.
"""
import json
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A question whose answer must end in this number, as in GSM8K."""
    text: object        # the question; where more was said before it, messages
    answer: float

    @property
    def key(self):
        return self.text if isinstance(self.text, str) else json.dumps(self.text)


# What an answer to a Problem is worth: it ends in the right number; that stands in a last line
# of its own, "#### 42".
WORTH = {"correct": 1.0, "format": 0.1}


def final_number(text):
    """The number that an answer ends in, or None: the one grammar for labels and for answers.

    It stands behind the last ####, or in the last \\boxed{}, whichever comes later; where there is
    neither, behind the last #. Read whole or not at all, see read_number.
    """
    marks = [m.end() for m in re.finditer(r"####+", text)]
    boxes = [m.end() for m in re.finditer(r"\\boxed\s*\{", text)]
    if marks or boxes:
        start = max(marks + boxes)
        said = _inside_braces(text[start:]) if start in boxes else text[start:]
    else:
        # a # behind a letter is C#
        hashes = list(re.finditer(r"(?<![A-Za-z0-9#])#+", text))
        if not hashes:
            return None
        said = text[hashes[-1].end():]
    lines = said.strip().splitlines()
    return read_number(lines[0]) if lines else None


def _inside_braces(text):
    """What stands before the brace that closes a group begun already."""
    depth = 1
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return text[:i]
    return ""


# 18, 1,800, 0.5, .5, 1e6; then what may stand before and behind it
NUMERAL = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([-+]?[0-9]{1,2}))?"
MULTIPLES = re.compile(r"\b(hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)


def read_number(text):
    """The number that a text is, or None: 18, $1,800, -5, **18**, = 18, 18 apples, 18%, 3/4,
    2 1/2, 1e6, \\frac{3}{4}, \\boxed{18}.

    What goes on behind the number makes it none: 12:30, 18-3, 10^3, 18 or 19, 18 million.
    """
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\(?:boxed|text|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[,;! ]|\\[()\[\]]|[*_`]", "", text.replace("\\$", "$").replace("−", "-"))
    m = re.match(r"[\s=:]*([-+]?)\s*[$€£]?\s*([-+]?)" + NUMERAL, text, re.ASCII)
    if not m or len(m[3]) > 24:     # Python refuses to read numbers of thousands of digits
        return None
    value, rest = _value(m[3], m[4]), text[m.end():]
    if mixed := re.match(r"\s+([0-9]{1,9})\s*/\s*([0-9]{1,9})", rest, re.ASCII):     # 2 1/2
        if int(mixed[2]) == 0:
            return None
        value, rest = value + int(mixed[1]) / int(mixed[2]), rest[mixed.end():]
    elif fraction := re.match(r"\s*/\s*" + NUMERAL, rest, re.ASCII):
        below = _value(fraction[1], fraction[2]) if len(fraction[1]) <= 24 else 0
        if below == 0:
            return None
        value, rest = value / below, rest[fraction.end():]
    # another digit, or a sign of arithmetic glued to it, is more than this number
    if re.search(r"[0-9]", rest) or re.match(r"[-+^/:]", rest) or MULTIPLES.search(rest):
        return None
    if "-" in (m[1], m[2]):
        value = -value
    return int(value) if value == int(value) else value


def _value(digits, exponent):
    value = float(digits.replace(",", "")) if "." in digits else int(digits.replace(",", ""))
    return value * 10 ** int(exponent) if exponent else value


def correct(problem, answer):
    return final_number(answer) == problem.answer


def grade(problem, answer, finished=True):
    """The verifier's word: {"gold": 1.1, "correct": 1, "format": 1}."""
    parts = {
        "correct": int(finished and correct(problem, answer)),
        "format": int(finished and re.fullmatch(r".*\n#### \S+", answer, re.DOTALL) is not None),
    }
    return {"gold": sum(WORTH[part] * n for part, n in parts.items()), **parts}
