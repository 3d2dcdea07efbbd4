"""For people: what training is about to read, and what the model answers before and after."""
import os
import sys
from itertools import groupby

import numpy as np

from nanorlhf import batches, seeds, worlds
from nanorlhf.rollout import answer_texts, generate

GREEN, CYAN, DIM, OFF = "\033[32m", "\033[36m", "\033[2m", "\033[0m"
COLOURS = {"trained on": (GREEN, OFF), "read": (CYAN, OFF), "padding": (DIM, OFF)}
# where colours would be junk: in a file, in a pipe
BRACKETS = {"trained on": ("[", "]"), "read": ("", ""), "padding": ("", "")}


def summary(what, rows, report):
    """A line: what there is, tokens a row, the share of all tokens that is trained on (of
    prompts alone: none), what became of the other rows, which columns nothing was made of.

    what: such as "chats.jsonl: 40 conversations"; rows: [(ids, mask)]; report: the files.Report
    that came with them. Each of the three lengths is one that occurs: 95% of the rows are no
    longer than the second.
    """
    lengths = [len(ids) for ids, _ in rows]
    median, most, longest = np.percentile(lengths, [50, 95, 100], method="inverted_cdf")
    line = f"{what} of {report.rows} rows"
    line += f"; tokens: median {median}, 95% up to {most}, longest {longest}"
    if trained := sum(sum(mask) for _, mask in rows) / sum(lengths):
        line += f", {trained:.0%} of all trained on"
    became = [f"{what}: {n} (first at {report.first[what]})" for what, n in report.items()]
    line += "; " + ("; ".join(became) or "none dropped")
    if report.unused:
        line += f"; not used: {', '.join(sorted(report.unused))}"
    return line


def pairs_summary(path, pairs, report):
    """summary of [Preference], each distinct answer a row: the line that every reader prints."""
    prompts, answers, *_ = batches.distinct_answers(pairs)
    rows = [row for row in batches.answer_rows(prompts, answers) if any(row[1])]
    alone = sum(not (pair.chosen and pair.rejected) for pair in pairs)
    what = f"{len(pairs) - alone} pairs" + (f", {alone} answers judged alone" if alone else "")
    return summary(f"{path}: {what}", rows, report)


def batch_text(tokenizer, ids, mask, chosen=(), rejected=(), colour=False):
    """ids (N, T), mask (N, T) bool -> a line for each row, tokens parted by "·", and one that
    says which row is preferred to which.

    chosen, rejected (B,): rows of ids, as batches.pair_batch gives them. colour: ANSI colours by
    the mask, else brackets around what is trained on. Both come from the mask alone, so that a
    mask which is wrong looks wrong.
    """
    marks = COLOURS if colour else BRACKETS

    def paint(kind, text):
        return text.join(marks[kind])

    def kind_of(token, trained):
        if trained:
            return "trained on"
        return "padding" if token == tokenizer.pad else "read"

    lines = [f"first batch: {paint('trained on', 'trained on')} {paint('read', 'read only')} "
             f"{paint('padding', 'padding')}"]
    for n, (row, trained) in enumerate(zip(ids.tolist(), mask.tolist(), strict=True)):
        line = ""
        tokens = [(kind_of(i, m), visible(tokenizer, i)) for i, m in zip(row, trained, strict=True)]
        for kind, span in groupby(tokens, lambda token: token[0]):
            texts = [text for _, text in span]
            padding = kind == "padding"
            line += paint(kind, f"{texts[0]} x {len(texts)}" if padding else "·".join(texts))
        lines.append(f"{n:3d} {line}")
    if len(chosen):
        # an answer judged alone stands beside one of no tokens
        said, there = [], mask.any(1).tolist()
        for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True):
            said.append(f"{c} > {r}" if there[c] and there[r] else
                        f"{c} liked" if there[c] else f"{r} disliked")
        lines.append("preferred: " + ", ".join(said))
    return "\n".join(lines)


def visible(tokenizer, i):
    """A token on one line: part of a character as its bytes, line ends and a terminal's control
    characters escaped."""
    if i >= tokenizer.encoding.n_vocab:
        return tokenizer.decode([i])
    text = tokenizer.encoding.decode_single_token_bytes(i).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_batch(*batch):
    print(batch_text(*batch, colour=sys.stdout.isatty()), flush=True)


def show_samples(folder, title, model, tokenizer, prompts, max_new_tokens, seed, remark=None):
    """Answer these prompts (lists of ids), print them and add them to <folder>/samples.txt.

    Always with the same draws, so that before and after differ by the model alone.
    remark(i, text, finished) adds a line.
    """
    device = next(model.parameters()).device
    out = generate(model, prompts, max_new_tokens, tokenizer.end,
                   generator=seeds.generator(seed, "samples", device), pad=tokenizer.pad)
    texts, finished = answer_texts(out, tokenizer), out.finished.tolist()
    lines = [f"--- {title}"]
    for i, (prompt, text, done) in enumerate(zip(prompts, texts, finished, strict=True)):
        lines.append(f"  {shortened(tokenizer.decode(prompt))}")
        lines.append(f"    {text}{'' if done else ' [cut off]'}")
        if remark:
            lines.append(f"    {remark(i, text, done)}")
    print("\n".join(lines), flush=True)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "samples.txt"), "a", encoding="utf-8") as f:
        f.write("\n".join(lines) + "\n")


def shortened(prompt, most=400):
    return prompt if len(prompt) <= most else f"[...] {prompt[-most:]}"


def show_answers(folder, title, model, tokenizer, max_new_tokens, seed, prompts=()):
    """show_samples of these prompts, or of the three held-out questions that the model's world
    always shows, with what each answer is worth."""
    if prompts:
        show_samples(folder, title, model, tokenizer, prompts, max_new_tokens, seed)
        return
    world = worlds.of(tokenizer)
    show_samples(folder, title, model, tokenizer, [tokenizer.prompt(q.text) for q in world.SHOWN],
                 max_new_tokens, seed,
                 lambda i, text, finished: world.explain(world.SHOWN[i], text, finished))
