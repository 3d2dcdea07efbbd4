"""A thin wrapper over tiktoken: special tokens, a chat template that returns ids and mask together, and a short BPE trainer.

    python -m nanorlhf.tokenizer        rebuilds towns.tiktoken, the bundled vocabulary, from the made-up world's text
"""
import base64
import os
import re
from collections import Counter

import tiktoken

from nanorlhf import InputError

TOWNS_RANKS = os.path.join(os.path.dirname(__file__), "towns.tiktoken")
# Words with their leading space, numbers, runs of punctuation, white space: every character falls in one of the four.
PATTERN = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+"
SPECIALS = ("<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>")


class Tokenizer:
    """`end` closes an assistant turn and a page; `pad` is another token, so that masks never swallow the end.

    Special tokens are ids from the encoding's n_vocab on (gpt2's own end-of-text keeps its id): text goes through
    `encode_ordinary`, so nobody can write one.
    """

    def __init__(self, name="towns", ranks=None):
        self.name = name
        if name == "towns":
            self.ranks = ranks if ranks is not None else open(TOWNS_RANKS, encoding="ascii").read()
            # tiktoken's own file loader caches by path, and would go on serving a vocabulary that has been rebuilt
            pairs = (line.split() for line in self.ranks.splitlines())
            merges = {base64.b64decode(token): int(rank) for token, rank in pairs}
            self.encoding = tiktoken.Encoding("towns", pat_str=PATTERN, mergeable_ranks=merges, special_tokens={})
        elif name == "sums":        # a token is a byte: a digit can be looked at, and no text is unknown
            self.ranks = None
            self.encoding = tiktoken.Encoding("sums", pat_str=PATTERN, mergeable_ranks={bytes([b]): b for b in range(256)}, special_tokens={})
        elif name == "gpt2":
            self.ranks = None
            try:
                self.encoding = tiktoken.get_encoding("gpt2")
            except Exception as e:      # requests' own errors, and whatever a proxy makes of them
                raise InputError("--tokenizer gpt2: tiktoken could neither find nor download its vocabulary "
                                 f"({type(e).__name__}); go online once, or set TIKTOKEN_CACHE_DIR to a folder that holds it") from None
        else:
            raise InputError(f"--tokenizer is towns, sums or gpt2, not {name!r}")
        n = self.encoding.n_vocab
        self.end, self.pad, self.user, self.assistant, self.system = range(n, n + len(SPECIALS))
        self.vocab_size = n + len(SPECIALS)

    def state(self):
        """What a checkpoint keeps: enough to rebuild this tokenizer without its file."""
        return {"name": self.name, "ranks": self.ranks}

    def encode(self, text):
        return self.encoding.encode_ordinary(text)

    def decode(self, ids):
        """Text of ids; special tokens show as <|name|>, so that a sample hides nothing."""
        n, out, run = self.encoding.n_vocab, [], []
        for i in [*ids, n]:
            if i < n:
                run.append(i)
            else:
                out += [self.encoding.decode(run), SPECIALS[i - n]]
                run = []
        return "".join(out[:-1])

    def chat(self, messages):
        """[{"role", "content"}, ...] -> (ids, mask), two lists of equal length.

            <|user|>text<|assistant|>text<|end|><|user|>...      mask is True on assistant text and its <|end|>

        A user turn needs no end: the next role token closes it. Each part is encoded apart, so the tokens of a prompt do
        not depend on what is answered.
        """
        roles = {"user": self.user, "assistant": self.assistant, "system": self.system}
        ids, mask = [], []
        for m in messages:
            if m["role"] not in roles:
                raise InputError(f"unknown role {m['role']!r}; a message is from system, user or assistant")
            answer = m["role"] == "assistant"
            text = self.encode(m["content"]) + [self.end] * answer
            ids += [roles[m["role"]]] + text
            mask += [False] + [answer] * len(text)
        return ids, mask

    def prompt(self, messages):
        """Ids of a conversation that waits for the assistant; a string is one user message."""
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return self.chat(messages)[0] + [self.assistant]

    def completion(self, text):
        """Ids of an assistant's text and its end token."""
        return self.encode(text) + [self.end]


def train_bpe(texts, vocab_size):
    """Byte-pair encoding (Sennrich et al. 2016) on bytes. texts: iterable of str -> the ranks file, a str.

    Merges the most frequent pair of neighbours until there are vocab_size tokens; ties go to the pair that sorts first, so the
    result depends on the text alone. Stops early where nothing is left to merge.
    """
    counts = Counter(piece for text in texts for piece in re.findall(PATTERN, text))
    words = [([bytes([b]) for b in piece.encode()], n) for piece, n in sorted(counts.items())]
    vocab = [bytes([b]) for b in range(256)]
    while len(vocab) < vocab_size:
        pairs = Counter()
        for parts, n in words:
            for pair in zip(parts, parts[1:]):
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
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(vocab))


def towns_ranks():
    """The bundled vocabulary, made anew from a fixed sample of the world's text."""
    from nanorlhf import towns
    return train_bpe(towns.vocabulary_text(), vocab_size=4096)      # it runs out of merges first: every word is one token


if __name__ == "__main__":
    with open(TOWNS_RANKS, "w", encoding="ascii", newline="\n") as f:
        f.write(towns_ranks())
    print(f"wrote {TOWNS_RANKS}: {Tokenizer().encoding.n_vocab} tokens")
