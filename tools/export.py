"""Write a language model in Hugging Face's layout, so that a run can go on in TRL, vLLM or
OpenRLHF.

    python -m tools.export out/hh/sft out/hh-sft-hf

The folder gets config.json and the weights: model.safetensors where safetensors is installed, else
pytorch_model.bin. A model of gpt2's vocabulary brings its tokenizer and chat template along. The
vocabularies of the made-up worlds have no counterpart there: weights and config only, to be fed
with ids. gpt2.load reads the folder back. Left out: reward models, whose head and bias have no
place in that layout.
"""
import argparse
import json
import os
import shutil

import torch

from nanorlhf import InputError, checkpoints, gpt2, settings
from nanorlhf.tokenizer import SPECIALS

# Tokenizer.chat in one line: what is encoded apart here stays apart there, since a special token
# always splits the text.
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('a role is system, user or assistant') }}{% endif %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def byte_characters():
    """GPT-2's files are text: each of the 256 bytes is written as a character that can be seen ->
    {byte: character}."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    unseen = [b for b in range(256) if b not in seen]
    return {b: chr(b) for b in seen} | {b: chr(256 + i) for i, b in enumerate(unseen)}


def merges(tokens):
    """tokens: {bytes: rank} -> (left, right) of every token longer than a byte, in the order of
    their ranks.

    A token's bytes are merged as any text's would be, the pair of the lowest rank first, until two
    parts are left: those it is made of.
    """
    for token in sorted(tokens, key=tokens.get):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            i = min(
                range(len(parts) - 1),
                key=lambda i: tokens.get(parts[i] + parts[i + 1], len(tokens)),
            )
            parts[i:i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            yield parts


def gpt2_tokenizer(tokenizer):
    """{file name: text} of gpt2's tokenizer with the special tokens and the chat template of this
    one."""
    encoding, characters = tokenizer.encoding, byte_characters()
    # end-of-text comes behind them
    tokens = {encoding.decode_single_token_bytes(i): i for i in range(encoding.eot_token)}
    written = {token: "".join(characters[b] for b in token) for token in tokens}
    vocab = {written[token]: i for token, i in tokens.items()} | {
        "<|endoftext|>": encoding.eot_token
    }
    specials = {encoding.eot_token: "<|endoftext|>"} | {
        encoding.n_vocab + i: name for i, name in enumerate(SPECIALS)
    }
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        # nothing is put in front of a chat; its class would take end-of-text
        "bos_token": None,
        "eos_token": SPECIALS[0],
        "pad_token": SPECIALS[1],
        "unk_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {
            str(i): {
                "content": name,
                "special": True,
                "normalized": False,
                "lstrip": False,
                "rstrip": False,
                "single_word": False,
            }
            for i, name in specials.items()
        },
    }
    return {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "#version: 0.2\n"
        + "".join(f"{written[a]} {written[b]}\n" for a, b in merges(tokens)),
        "tokenizer_config.json": json.dumps(config, indent=1),
    }


def write_weights(weights, folder):
    try:
        from safetensors.torch import save
    except ImportError:
        checkpoints.write_atomically(
            os.path.join(folder, "pytorch_model.bin"), lambda f: torch.save(weights, f), "wb"
        )
    else:
        checkpoints.write_atomically(
            os.path.join(folder, "model.safetensors"),
            lambda f: f.write(save(weights, {"format": "pt"})),
            "wb",
        )


def export(model, tokenizer, folder):
    """The whole folder, or none: it has another name until it is whole. InputError when it is there
    already or cannot be written."""
    folder = os.path.normpath(folder)
    if os.path.exists(folder):
        raise InputError(f"{folder} exists already; give a new folder, or delete it first")
    config, weights = gpt2.layout(model)
    # the layout's defaults would put a beginning in front and drop out a tenth while training
    config |= {"bos_token_id": None, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad,
               "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    files = {
        "config.json": json.dumps(config, indent=1),
        **(gpt2_tokenizer(tokenizer) if tokenizer.name == "gpt2" else {}),
    }
    partial = f"{folder}.partial"
    shutil.rmtree(partial, ignore_errors=True)      # of a run that was killed
    try:
        for name, text in files.items():
            checkpoints.write_atomically(
                os.path.join(partial, name), lambda f, text=text: f.write(text)
            )
        write_weights(weights, partial)
        os.rename(partial, folder)
    except OSError as e:
        raise InputError(f"could not write {folder}: {e.strerror or e}") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "checkpoint", help="folder of a language model's checkpoint, such as out/hh/sft"
    )
    parser.add_argument("folder", help="where to write it; must not exist yet")
    args = parser.parse_args()
    model, tokenizer = checkpoints.load_checkpoint(args.checkpoint)
    export(model, tokenizer, args.folder)
    print(f"{args.folder}: {', '.join(sorted(os.listdir(args.folder)))}")
    if tokenizer.name != "gpt2":
        print(
            f"weights and config only: the vocabulary {tokenizer.name} has no tokenizer in that "
            "layout"
        )


if __name__ == "__main__":
    settings.script(main)
