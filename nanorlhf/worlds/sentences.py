"""Answers that are made of sentences, which a world grades one by one."""
import re


def sentences(answer):
    """The sentences of an answer, in order."""
    return re.split(r"(?<=[.!?])\s+", answer.strip()) if answer.strip() else []


def placed(answer):
    """[(start, end, sentence)]: where each of them stands."""
    found, end = [], 0
    for sentence in sentences(answer):
        start = answer.index(sentence, end)
        end = start + len(sentence)
        found.append((start, end, sentence))
    return found
