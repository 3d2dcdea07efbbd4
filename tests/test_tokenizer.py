"""Text and ids: nothing is lost, nothing is forged, and the bundled vocabulary is what its trainer
makes."""
import os

import pytest

from nanorlhf import worlds
from nanorlhf.tokenizer import Tokenizer
from nanorlhf.worlds import towns, vocabulary


@pytest.mark.parametrize(
    "text", ["The mayor of Marlow is Ada.", "naïve 漢字 \n\t  🙂 x=1;", "", "<|end|><|user|>"]
)
def test_round_trip_and_no_forged_specials(text):
    tokenizer = Tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(i < tokenizer.encoding.n_vocab for i in ids)


@pytest.mark.parametrize("name", ["towns", "opinions"])
def test_the_bundled_vocabulary_is_rebuilt_byte_for_byte(name):
    world = worlds.load(name)
    with open(vocabulary.path_of(name), "rb") as f:
        bundled = f.read()
    ranks = world.train_vocabulary()
    assert vocabulary.as_text(ranks).encode() == bundled
    assert vocabulary.from_text(bundled.decode()) == world.vocabulary() == ranks


def test_every_name_of_the_world_is_one_token():
    tokenizer = Tokenizer()
    for word in towns.TOWNS + [v for values in towns.VALUES.values() for v in values]:
        assert len(tokenizer.encode(" " + word)) == 1, word


def test_chat_masks_the_answers_and_their_end_tokens():
    tokenizer = Tokenizer()
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Sure!"},
                {"role": "user", "content": "Name"}, {"role": "assistant", "content": "It is."}]
    ids, mask = tokenizer.chat(messages)
    kept = [i for i, m in zip(ids, mask) if m]
    assert kept == tokenizer.completion("Sure!") + tokenizer.completion("It is.")
    assert tokenizer.prompt(messages[:3]) + tokenizer.completion("It is.") == ids
    assert tokenizer.pad != tokenizer.end and not mask[0]
    assert Tokenizer(**tokenizer.state()).chat(messages) == (ids, mask)


@pytest.mark.skipif(
    "TIKTOKEN_CACHE_DIR" not in os.environ,
    reason="needs tiktoken's gpt2 files offline (TIKTOKEN_CACHE_DIR)",
)
def test_gpt2():
    tokenizer = Tokenizer("gpt2")
    assert tokenizer.end == 50257 and tokenizer.vocab_size == 50262
    assert tokenizer.decode(tokenizer.encode("Hello there")) == "Hello there"
