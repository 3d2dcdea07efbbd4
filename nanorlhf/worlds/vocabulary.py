"""Vocabularies: a short byte-pair trainer, and tiktoken's file format, a line `base64 rank`."""
import base64
import os
import re
from collections import Counter

# Words with their leading space, numbers, runs of punctuation, white space: every character
# falls in one of the four.
PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+"
BYTES = {bytes([b]): b for b in range(256)}     # the smallest vocabulary that can write all text


def as_text(ranks):
    """{token: rank} -> the text of a file, in the order of the ranks."""
    rows = sorted(ranks.items(), key=lambda row: row[1])
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in rows)


def from_text(text):
    """The way back -> {token: rank}"""
    rows = (line.split() for line in text.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in rows}


def train_bpe(texts, vocab_size):
    """Byte-pair encoding (Sennrich et al. 2016). texts: iterable of str -> {token: rank}.

    Merges the most frequent pair of neighbours until there are vocab_size tokens; ties go to the
    pair that sorts first, so the result depends on the text alone. Stops early where nothing is
    left to merge.
    """
    counts = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    words = [([bytes([b]) for b in piece.encode()], n) for piece, n in sorted(counts.items())]
    vocab = list(BYTES)
    while len(vocab) < vocab_size:
        pairs = Counter()
        for parts, n in words:
            for pair in zip(parts, parts[1:], strict=False):
                pairs[pair] += n
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        vocab.append(best[0] + best[1])
        for parts, _ in words:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i:i + 2] = [best[0] + best[1]]
                i += 1
    return {token: rank for rank, token in enumerate(vocab)}


def path_of(name):
    """<name>.tiktoken, which lies beside this file."""
    return os.path.join(os.path.dirname(__file__), f"{name}.tiktoken")


def bundled(name):
    """{token: rank} of the file of that name."""
    with open(path_of(name), encoding="ascii") as f:
        return from_text(f.read())


def rebuild(name, ranks):
    """Write {token: rank} to the file of that name, and say so."""
    with open(path_of(name), "w", encoding="ascii", newline="\n") as f:
        f.write(as_text(ranks))
    print(f"wrote {path_of(name)}: {len(bundled(name))} tokens")
