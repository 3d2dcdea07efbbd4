"""An AI judge: a language model and a written constitution say what an answer is worth.

    worth = sum over sentences and principles of weight * verdict,      -1 <= verdict <= 1

Bai et al. 2022 (Constitutional AI), Lee et al. 2023 (RLAIF). No world is known here: what is true
the model says, what is wanted the constitution. That is a TOML file of [[principle]] tables:

    name        what it is called where it objects
    ask         [" True", " False"]: the model is asked, 2 P(first) - 1 of the two continuations
                behind the sentence, whose full stop is left out; or
    against     a pattern: -1 where it is found; or
    for         a pattern: 1 where it is found
    of          a pattern: the sentences that it speaks of; without it, all
    weight      1 unless said

A pattern is a regular expression of Python's. It is searched in three lines: the question, the
answer so far, and the sentence. Each sentence is judged by itself, each answer alone, so there is
no order in which two answers could be shown.
"""
import re
import tomllib
from dataclasses import dataclass

import torch

from nanorlhf import InputError, batches

KINDS = ("ask", "against", "for")


@dataclass
class Principle:
    name: str
    kind: str               # one of KINDS
    said: object            # the two continuations, or the pattern
    of: re.Pattern
    weight: float = 1.0


def read(path):
    """A constitution -> [Principle]. InputError says which principle is wrong, and how."""
    try:
        with open(path, "rb") as f:
            tables = tomllib.load(f).get("principle")
    except OSError as e:
        raise InputError(f"could not read the constitution {path}: {e.strerror or e}") from None
    except tomllib.TOMLDecodeError as e:
        raise InputError(f"{path} is no TOML: {e}") from None
    if not isinstance(tables, list) or not tables:
        raise InputError(f"{path} has no [[principle]]; nanorlhf/judge.py says what one is")
    principles = [_principle(path, i, table) for i, table in enumerate(tables, 1)]
    names = [p.name for p in principles]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path} has two principles of the name {twice[0]!r}")
    return principles


def _principle(path, i, table):
    where = f"{path}, principle {i}"
    if unknown := set(table) - {"name", "of", "weight", *KINDS}:
        raise InputError(f"{where}: {min(unknown)!r} is nothing that a principle has")
    kinds = [kind for kind in KINDS if kind in table]
    if len(kinds) != 1 or not isinstance(table.get("name"), str):
        raise InputError(f"{where} needs a name, and one of {', '.join(KINDS)}")
    [kind], weight = kinds, table.get("weight", 1.0)
    if type(weight) not in (int, float):
        raise InputError(f"{where}: weight {weight!r} is no number")
    said = table[kind]
    if kind == "ask":
        if not (isinstance(said, list) and len(said) == 2 and all(
                isinstance(text, str) and text for text in said)):
            raise InputError(f"{where}: ask takes two texts, the first for yes")
    else:
        said = _pattern(where, kind, said)
    return Principle(table["name"], kind, said, _pattern(where, "of", table.get("of", "")),
                     float(weight))


def _pattern(where, field, text):
    try:
        return re.compile(text)
    except (re.error, TypeError) as e:
        raise InputError(f"{where}: {field} is no pattern: {e}") from None


def sentences(text):
    """[(start, end)] of the sentences of a text: each ends behind ., ! or ?, or where it ends."""
    return [m.span() for m in re.finditer(r"\S(?:.*?[.!?](?=\s|$)|.*)", text, re.DOTALL)]


@torch.no_grad()
def p_first(model, tokenizer, texts, first, second, device=None, batch_size=512):
    """{text: chance of the first continuation, of the two, behind it}, by their first tokens. Each
    text stands where a page begins. device: None is the model's. InputError where both
    continuations begin with the same token."""
    device = device or next(model.parameters()).device
    yes, no = (tokenizer.encode(continuation)[0] for continuation in (first, second))
    if yes == no:
        raise InputError(f"ask takes two texts that differ in their first token, not {first!r} and "
                         f"{second!r}")
    chances, texts = {}, sorted(set(texts))
    for start in range(0, len(texts), batch_size):
        some = texts[start:start + batch_size]
        rows = [tokenizer.before_page + tokenizer.encode(text) for text in some]
        logits = model(batches.pad_rows(rows, tokenizer.pad).to(device))            # (B, T, V)
        ends = torch.tensor([len(row) - 1 for row in rows])
        last = logits[torch.arange(len(rows)), ends]                                # (B, V)
        chances |= zip(some, (last[:, yes] - last[:, no]).sigmoid().tolist(), strict=True)
    return chances


def verdicts(model, tokenizer, principles, questions, answers):
    """What is said of each sentence of each answer (texts): [[(start, end, {name: verdict})]], the
    principles that have something to say."""
    shown = []              # (answer, start, end, three lines)
    for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        for start, end in sentences(answer):
            lines = [question, answer[:start], answer[start:end]]
            shown.append((i, start, end, "\n".join(" ".join(line.split()) for line in lines)))
    asked = {}              # {principle's name: {sentence: chance}}
    for p in principles:
        if p.kind == "ask":
            texts = [claim(lines) for *_, lines in shown if p.of.search(lines)]
            asked[p.name] = p_first(model, tokenizer, texts, *p.said)
    judged = [[] for _ in answers]
    for i, start, end, lines in shown:
        said = {}
        for p in principles:
            if not p.of.search(lines):
                continue
            if p.kind == "ask":
                said[p.name] = 2 * asked[p.name][claim(lines)] - 1
            elif p.said.search(lines):
                said[p.name] = 1.0 if p.kind == "for" else -1.0
        judged[i].append((start, end, said))
    return judged


def claim(lines):
    """The last of three lines without its full stop: a verdict comes right behind what it is about.
    """
    return lines.rpartition("\n")[2].rstrip(".!?")


def worth(principles, judged):
    """verdicts() -> [what each answer is worth]"""
    weights = {p.name: p.weight for p in principles}
    return [sum(weights[name] * verdict for _, _, said in sentences
                for name, verdict in said.items()) for sentences in judged]
