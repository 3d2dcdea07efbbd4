"""What ids mean in a folder of Hugging Face's layout, and how a vocabulary is written there.

A vocabulary of the same size may have other pieces, and would be trained with the wrong ids
without a word. So every token that is written down must have the id that it has here.
"""
import json
import os

from nanorlhf import InputError
from nanorlhf.tokenizer import SPECIALS, Tokenizer
from nanorlhf.worlds import vocabulary

FILES = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json")
# what tokenizer_config.json says of a made-up world, whose vocabulary no other file names
MARK = "nanorlhf"


def byte_characters():
    """GPT-2's files are text: each of the 256 bytes is written as a character that can be seen ->
    {byte: character}."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [b for b in range(256) if b not in seen]
    return {b: chr(b) for b in seen} | {b: chr(256 + i) for i, b in enumerate(unseen)}


def written(tokenizer):
    """{id: token as Hugging Face's files have it} of all a tokenizer's ids."""
    encoding, characters = tokenizer.encoding, byte_characters()
    tokens = {}
    for i in range(encoding.n_vocab):
        # tiktoken keeps end-of-text among the special tokens, as text
        special = tokenizer.name == "gpt2" and i == encoding.eot_token
        tokens[i] = "<|endoftext|>" if special else "".join(
            characters[b] for b in encoding.decode_single_token_bytes(i))
    return tokens | {encoding.n_vocab + i: name for i, name in enumerate(SPECIALS)}


def recognise(directory, rows):
    """A folder whose embedding has so many rows -> (Tokenizer, how many of the rows it knows).

    Rows behind those are other people's tokens, or none; they are named in a line. InputError where
    a token has another id than here, and where nothing says what the ids are.
    """
    theirs, config = _read(directory)
    if not theirs:
        tokenizer = Tokenizer("gpt2")
        if rows != tokenizer.encoding.n_vocab:
            raise InputError(f"{directory}: its vocabulary has {rows} tokens, gpt2's has "
                             f"{tokenizer.encoding.n_vocab}, and no tokenizer.json or vocab.json "
                             "says what they are; put its tokenizer's files beside the weights")
        print(f"{directory}: no file of a vocabulary; {rows} tokens are taken for gpt2's own")
        return tokenizer, rows
    tokenizer = _made_up(config[MARK], theirs, directory) if MARK in config else Tokenizer("gpt2")
    ours, n = written(tokenizer), tokenizer.encoding.n_vocab
    if rows < n:
        raise InputError(f"{directory}: its vocabulary has {rows} tokens, {tokenizer.name}'s has "
                         f"{n}, and what is trained here is written in all of them")
    for i in range(n):
        if theirs.get(i) != ours[i]:
            raise InputError(f"{directory}: another vocabulary than {tokenizer.name}'s: token {i} "
                             f"is {theirs.get(i)!r} there and {ours[i]!r} here")
    known = n
    while known < min(rows, tokenizer.vocab_size) and theirs.get(known) == ours[known]:
        known += 1
    if known < rows:
        names = [theirs[i] for i in range(known, rows) if i in theirs]
        print(f"{directory}: {rows - known} rows behind {tokenizer.name}'s vocabulary are left "
              f"out{': ' if names else ''}{', '.join(names)}")
    return tokenizer, known


def _made_up(mark, theirs, directory):
    """The Tokenizer of a made-up world: the tokens that stand before its special ones."""
    byte_of = {c: b for b, c in byte_characters().items()}
    try:
        n = next(i for i in theirs if theirs[i] == SPECIALS[0])
        ranks = {bytes(byte_of[c] for c in theirs[i]): i for i in range(n)}
        return Tokenizer(mark["world"], vocabulary.as_text(ranks), mark["knobs"])
    except (StopIteration, KeyError, TypeError, AttributeError, ValueError) as e:
        raise InputError(f"{directory}: its files say that it is a vocabulary of a made-up world, "
                         f"and are not ({type(e).__name__}: {e})") from None


def _read(directory):
    """-> ({id: token} of all files that say it, tokenizer_config.json as a dict)"""
    found, texts = {}, {}

    def add(i, token, file):
        if found.setdefault(int(i), token) != token:
            raise InputError(f"{directory}: token {i} is {found[int(i)]!r} in one file and "
                             f"{token!r} in {file}")

    for file in FILES:
        path = os.path.join(directory, file)
        if os.path.exists(path):
            try:
                with open(path, encoding="utf-8") as f:
                    texts[file] = json.load(f)
                for i, token in _tokens(file, texts[file]):
                    add(i, token, file)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
                raise InputError(f"{path}: not a tokenizer's file ({type(e).__name__}: {e})"
                                 ) from None
    return found, texts.get("tokenizer_config.json", {})


def _tokens(file, content):
    """Yields (id, token) of one file."""
    if file == "tokenizer.json":
        vocab = content["model"]["vocab"]
        # Unigram has a list of [token, score]
        yield from (((i, row[0]) for i, row in enumerate(vocab)) if isinstance(vocab, list) else
                    ((i, token) for token, i in vocab.items()))
        yield from ((row["id"], row["content"]) for row in content.get("added_tokens") or [])
    elif file == "tokenizer_config.json":
        for i, row in (content.get("added_tokens_decoder") or {}).items():
            yield i, row["content"]
    else:
        yield from ((i, token) for token, i in content.items())
