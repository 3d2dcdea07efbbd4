"""Write a model in Hugging Face's layout, so that a run can go on in TRL, vLLM or OpenRLHF.

    python -m tools.export out/hh/sft out/hh-sft-hf
    python -m tools.export out/hh/rm out/hh-rm-hf       a reward model

The folder gets config.json, generation_config.json, the weights (model.safetensors where
safetensors is installed, else pytorch_model.bin), the tokenizer with its chat template, and a model
card. A reward model becomes a GPT2ForSequenceClassification with one label, its head's bias folded
into the last norm's. What another framework has made of the folder comes back by --init, --ref or
--reward.
"""
import argparse
import json
import os
import shutil

import torch

from nanorlhf import InputError, checkpoints, gpt2, settings
from nanorlhf.gpt import ScalarModel
from nanorlhf.hf_vocabulary import MARK, byte_characters, written
from nanorlhf.tokenizer import SPECIALS
from nanorlhf.worlds import vocabulary

# Tokenizer.chat in one line: what is encoded apart here stays apart there, since a special token
# always splits the text. What stands between the generation marks is what is imitated.
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('a role is system, user or assistant') }}{% endif %}"
    "{{ '<|' + m['role'] + '|>' }}"
    "{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


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


def tokenizer_files(tokenizer, longest):
    """{file name: text} of a tokenizer with the special tokens and the chat template of this one.

    longest: tokens that the model's block holds.
    """
    tokens, n = written(tokenizer), tokenizer.encoding.n_vocab
    gpt2s = tokenizer.name == "gpt2"
    specials = {i: tokens[i] for i in range(n - gpt2s, n + len(SPECIALS))}
    added = [{"id": i, "content": name, "special": True, "normalized": False, "lstrip": False,
              "rstrip": False, "single_word": False} for i, name in specials.items()]
    config = {
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
        # nothing is put in front of a chat; gpt2's class would take end-of-text
        "bos_token": None,
        "eos_token": SPECIALS[0],
        "pad_token": SPECIALS[1],
        "unk_token": specials[n - 1] if gpt2s else None,
        "chat_template": CHAT_TEMPLATE,
        "added_tokens_decoder": {str(row["id"]): {k: v for k, v in row.items() if k != "id"}
                                 for row in added},
    }
    # end-of-text is made of no parts
    whole = range(n - gpt2s)
    parts = merges({tokenizer.encoding.decode_single_token_bytes(i): i for i in whole})
    characters = byte_characters()
    pairs = [["".join(characters[b] for b in part) for part in pair] for pair in parts]
    vocab = {tokens[i]: i for i in range(n)}
    if gpt2s:
        config["tokenizer_class"] = "GPT2Tokenizer"
        files = {"vocab.json": json.dumps(vocab, ensure_ascii=False),
                 "merges.txt": "".join(f"{line}\n" for line in
                                       ["#version: 0.2", *(f"{a} {b}" for a, b in pairs)])}
    else:
        config |= {"tokenizer_class": "PreTrainedTokenizerFast",
                   MARK: {"world": tokenizer.name, "knobs": tokenizer.knobs}}
        # the world's own split; ByteLevel's would be gpt2's
        split = {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": vocabulary.PATTERN}, "behavior": "Isolated",
             "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
             "use_regex": False}]}
        model = {"type": "BPE", "vocab": vocab, "merges": pairs, "dropout": None,
                 "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                 "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
        files = {"tokenizer.json": json.dumps(
            {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
             "normalizer": None, "pre_tokenizer": split, "post_processor": None,
             "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
                         "use_regex": False}, "model": model}, ensure_ascii=False)}
    return files | {"tokenizer_config.json": json.dumps(config, indent=1)}


def model_card(model, tokenizer, name):
    scalar, cfg = isinstance(model, ScalarModel), model.cfg
    task = "text-classification" if scalar else "text-generation"
    size = sum(p.numel() for p in model.parameters()) / 1e6
    what = ("A reward model: its one label is the score of the last message of a chat." if scalar
            else "A language model that answers chats.")
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags: [nanorlhf]
---
# {name}

{what} Trained with nanorlhf, an educational implementation of RLHF.

GPT-2's function, {size:.1f} M parameters, {cfg.n_layer} layers of width {cfg.n_embd}, a block of
{cfg.block_size} tokens, the vocabulary of {tokenizer.described()}. The tokenizer's chat template is
the format that it was trained on. It is made to learn from, and not to be relied upon.
"""


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
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.end, "pad_token_id": tokenizer.pad}
    # the layout's defaults would put a beginning in front and drop out a tenth while training
    config |= {**ends, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    files = {"config.json": json.dumps(config, indent=1),
             **tokenizer_files(tokenizer, model.cfg.block_size),
             "README.md": model_card(model, tokenizer, os.path.basename(folder))}
    if not isinstance(model, ScalarModel):
        files["generation_config.json"] = json.dumps({**ends, "do_sample": True}, indent=1)
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
        "checkpoint", help="folder of a checkpoint, such as out/hh/sft or out/hh/rm"
    )
    parser.add_argument("folder", help="where to write it; must not exist yet")
    args = parser.parse_args()
    model, tokenizer = checkpoints.load_checkpoint(args.checkpoint, kind=None)
    export(model, tokenizer, args.folder)
    print(f"{args.folder}: {', '.join(sorted(os.listdir(args.folder)))}")


if __name__ == "__main__":
    settings.script(main)
