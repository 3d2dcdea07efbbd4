"""JSONL files -> what a script trains on, in ids: conversations, pairs, thumbs, prompts, problems.

Which layouts a row may have, and what its messages are, is layouts.py's. What is left here: lines,
tokens, what fits a block, and a report that says of every row what became of it. What cannot be
used is dropped and counted, by reason; what cannot be read is an error with file and line.
"""
import gzip
import hashlib
import json
import math
import os
import zlib
from collections import Counter
from dataclasses import dataclass, field

from nanorlhf import InputError, layouts
from nanorlhf.layouts import Dropped

# re-exported: what a verifier reads from files and answers
from nanorlhf.numbers import Problem, correct, final_number, grade, read_number

__all__ = ["Problem", "correct", "final_number", "grade", "read_number"]


@dataclass
class Preference:
    """Two answers to one prompt, of which one is preferred; ids. Where an answer was judged alone
    (a thumb, of which KTO learns), the other is []."""
    prompt: list            # ids, ending in the assistant token
    chosen: list            # ids; the last is the end token, unless the answer was cut off
    rejected: list
    row: dict = field(default_factory=dict)     # the columns that it came from
    group: object = None    # what pairs of one prompt have in common, before it was truncated

    @property
    def length(self):
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass
class Source:
    """Where an example comes from, for the split."""
    conversation: str       # what it is about, see layouts.conversation
    split: str | None       # "train" or "held-out", where the row says so


class Report(Counter):
    """What became of the rows of a file: {what was done: how many}."""
    def __init__(self, path=""):
        super().__init__()
        self.path, self.rows, self.broken = path, 0, 0
        self.first = {}         # {what was done: where it was first}
        self.unused = set()     # columns that nothing was made of
        self.kept = []          # the Source of each example, in their order

    def note(self, what, where):
        self[what] += 1
        self.first.setdefault(what, where)

    def keep(self, row, messages):
        self.kept.append(Source(json.dumps(layouts.conversation(messages)),
                                layouts.split_of(row.get("split"))))


def read_jsonl(path):
    """Yields (where, row) for each line, where = "file:line" for messages. Raises InputError on a
    line that is not an object.

    Blank lines, which editors leave at the end of a file, and the mark with which some begin one
    (a BOM) hold nothing: they are skipped.
    """
    number, rows = 0, 0
    try:
        with (gzip.open if str(path).endswith(".gz") else open)(path, "rb") as f:
            for number, line in enumerate(f, 1):
                where = f"{path}:{number}"
                if number == 1:
                    _refuse_formats(path, line)
                try:
                    text = line.decode("utf-8-sig")
                    if not text.strip():
                        continue
                    row = json.loads(text)
                except UnicodeDecodeError:
                    raise InputError(
                        f"{where}: not UTF-8 text (the name of a gzipped file must end in .gz)"
                    ) from None
                except json.JSONDecodeError as e:
                    raise InputError(
                        f"{where}: not JSON ({e.msg} at column {e.colno}); each line must be one "
                        "object"
                    ) from None
                if not isinstance(row, dict):
                    raise InputError(
                        f"{where}: a line must be one JSON object, this is {type(row).__name__}"
                    )
                rows += 1
                yield where, row
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as e:
        raise InputError(f"{path}: cannot be read past line {number} ({e})") from None
    if rows == 0:
        raise InputError(f"{path}: the file is empty")


def format_of(line):
    """The first line of a file -> what tools/convert.py calls its format; None for JSONL."""
    line = line.removeprefix(b"\xef\xbb\xbf").strip()
    if line.startswith(b"PAR1"):
        return "parquet"
    if line.startswith(b"["):
        return "a JSON array"
    if not line.startswith(b"{") and (b"," in line or b"\t" in line) and line.isascii():
        return "a table (CSV)"
    return None


def _refuse_formats(path, line):
    if line.startswith(b"PK\x03\x04"):
        raise InputError(f"{path}: a zip archive, which a spreadsheet (.xlsx) is, too; export it "
                         "as CSV")
    if kind := format_of(line):
        raise InputError(f"{path}: {kind}, not JSONL, a JSON object on each line; that is made "
                         f"by: python -m tools.convert {path} > out.jsonl")


def made_path(path, command):
    """path, a file that another script makes. InputError, with that command, where it is not."""
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist; make it first: python {command}")
    return path


# ---- what every loader does ----

def _read(path, make):
    """-> ([what make(row, report) returns] of the rows of a file that are not Dropped, Report).

    InputError where nothing is left, or where more than half of the rows are broken: they may well
    be in a layout that is read wrongly.
    """
    items, report = [], Report(path)
    for where, columns in read_jsonl(path):
        report.rows += 1
        try:
            row = layouts.read_row(columns, where, path)
            items.append(make(row, report))
            report.unused |= row.unused
        except Dropped as e:
            report.note(f"dropped: {e.reason}", f"{where}, {e.place}" if e.place else where)
            report.broken += e.broken
    if not items or report.broken > report.rows / 2:
        left = "more than half of the rows are no examples" if items else "no example is left"
        why = "; ".join(f"{what} ({n}, first at {report.first[what]})"
                        for what, n in report.items())
        raise InputError(f"{path}: {left}, of {report.rows}: {why}")
    return items, report


def _fitted(messages, encode, room, row, report):
    """encode(messages), (ids, mask), of at most `room` ids: without the oldest turns where they are
    too long. What is left begins with a user turn, and the system message stays.

    Cut anywhere else, a question would lose its beginning, or an answer its question. Dropped where
    the last user turn does not fit.
    """
    system = messages[:1] if messages[0]["role"] == "system" else []
    last = max(i for i, m in enumerate(messages) if m["role"] == "user")
    starts = [i for i, m in enumerate(messages) if m["role"] == "user" and 0 < i <= last]
    made = encode(messages)
    if len(made[0]) <= room:
        return made
    for start in starts:
        made = encode(system + messages[start:])
        if len(made[0]) <= room:
            report.note("truncated: the oldest turns left out", row.where)
            return made
    raise Dropped("the last user turn does not fit", broken=False)


def _fitted_prompt(messages, tokenizer, room, row, report):
    return _fitted(messages, lambda some: (tokenizer.prompt(some), None), room, row, report)[0]


# ---- what the scripts read ----

def load_conversations(path, tokenizer, block_size, last_only=False):
    """-> ([(ids, mask)], Report). Raises InputError when nothing is left.

    The mask is on every answer of a chat that may be imitated, or on the last alone. A chat that is
    too long loses its oldest turns, never a part of one.
    """
    def make(row, report):
        messages = layouts.chat(row)
        if last_only:
            if not layouts.imitated(messages[-1]):
                raise Dropped("weight 0", broken=False)
            messages = [{**m, "weight": 0} for m in messages[:-1]] + messages[-1:]
        if len(tokenizer.completion(messages[-1]["content"])) + 1 > block_size:
            raise Dropped("the answer alone is longer than the block", broken=False)
        ids, mask = _fitted(messages, tokenizer.chat, block_size, row, report)
        if not any(mask):
            raise Dropped("weight 0", broken=False)
        report.keep(row, messages)
        return ids, mask

    return _read(path, make)


def load_pairs(path, tokenizer, block_size, uses=(), thumbs=False):
    """-> ([Preference], Report). Ids in the file (make_preferences.py writes them) win over its
    text.

    uses: columns beside the answers that the script makes something of. thumbs: an answer that was
    judged alone ("label") is a Preference of one side.
    """
    last = {"prompt": None, "ranked": {}, "group": 0}

    def make(row, report):
        row.used.update(uses)
        if "chosen_ids" in row:
            pair, messages = _pair_from_ids(row, tokenizer)
            # a prompt that is asked twice gets two sets of answers, each labelled by itself; two
            # rankings of it may stand one behind the other
            ranked = {row[f"{side}_rank"]: row[f"{side}_ids"] for side in ("chosen", "rejected")
                      if f"{side}_rank" in row}
            clash = any(last["ranked"].get(rank, ids) != ids for rank, ids in ranked.items())
            if pair.prompt != last["prompt"] or clash:
                last.update(prompt=pair.prompt, ranked={}, group=last["group"] + 1)
            last["ranked"] |= ranked
            pair.group = last["group"]
        elif thumbs and "chosen" not in row:
            messages, answer, label = layouts.thumb(row)
            answer = tokenizer.completion(answer["content"])
            sides = (answer, []) if label else ([], answer)
            pair = Preference([], *sides, row, json.dumps(messages))
        else:
            messages, *sides = layouts.pair(row)
            sides = [tokenizer.completion(side["content"]) for side in sides]
            pair = Preference([], *sides, row, json.dumps(messages))
        if pair.chosen == pair.rejected:
            raise Dropped("both answers are the same")
        room = block_size - max(len(pair.chosen), len(pair.rejected))
        if room < 1:
            raise Dropped("an answer alone is longer than the block", broken=False)
        pair.prompt = _fitted_prompt(messages, tokenizer, room, row, report)
        report.keep(row, messages)
        return pair

    return _read(path, make)


def _pair_from_ids(row, tokenizer):
    try:
        pair = Preference(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], row)
        ok = all(ids and all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
                 for ids in (pair.prompt, pair.chosen, pair.rejected))
        ok = ok and tokenizer.prompt(row["prompt"]) == pair.prompt
    except (KeyError, TypeError):
        ok = False
    if not ok:
        raise row.error(f"its ids are not this tokenizer's ({tokenizer.name}); rewrite the pairs "
                        "with make_preferences.py")
    row.used |= set(row)        # its columns are known: the rest is what only a made-up world knows
    return pair, [{"role": "user", "content": row["prompt"]}]


def load_prompts(path, tokenizer, room):
    """-> ([ids of a prompt], Report): what stands before the last answer of each row of any layout,
    which needs no answer. Each prompt once; of one that is too long, its last turns."""
    if room < 1:
        raise InputError(f"{path}: {room} tokens are left for a prompt; lower --max_new_tokens")
    seen = set()

    def make(row, report):
        messages = layouts.prompt(row)
        key = json.dumps([[m["role"], m["content"]] for m in messages])
        if key in seen:
            raise Dropped("the same prompt again", broken=False)
        seen.add(key)
        prompt = _fitted_prompt(messages, tokenizer, room, row, report)
        report.keep(row, messages)
        return prompt

    return _read(path, make)


def load_problems(path, tokenizer, room):
    """-> ([Problem], Report): questions whose answer ends in "#### number" or in \\boxed{number},
    is a number and nothing else, or is a JSON number. What has none, or a prompt longer than room,
    is dropped and counted."""
    def make(row, report):
        answer = next((row.take(name) for name in layouts.ANSWERS if name in row), None)
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            messages, number = layouts.prompt(row), answer if math.isfinite(answer) else None
        else:
            messages = layouts.chat(row)
            said, messages = messages[-1]["content"], messages[:-1]
            number = final_number(said)
            if number is None:
                number = read_number(said)
        if number is None:
            raise Dropped("no number at the end of the answer")
        if len(tokenizer.prompt(messages)) > room:
            raise Dropped(f"the question takes more than {room} tokens", broken=False)
        report.keep(row, messages)
        alone = len(messages) == 1
        return Problem(messages[0]["content"] if alone else messages, number)

    return _read(path, make)


def load_judged(path, tokenizer, block_size, supervision):
    """-> ([{"prompt_ids", "completion_ids", "right", "steps"}], Report): answers that were judged
    alone ("label"; for outcomes), or step by step ("labels"; for processes), and those of
    make_preferences.py, which are both."""
    def make(row, report):
        if "completion_ids" in row:
            return _judged_from_ids(row, report, tokenizer, supervision)
        if supervision == "process":
            messages, steps = layouts.steps(row)
            answer = {"completion_ids": [], "steps": []}
            ids = answer["completion_ids"]
            for step, ok in steps:
                # each step apart, so that it ends where a token does
                ids += (tokenizer.encode("\n") if ids else []) + tokenizer.encode(step)
                answer["steps"].append((len(ids) - 1, ok))
            ids.append(tokenizer.end)
        else:
            messages, said, right = layouts.thumb(row)
            answer = {"completion_ids": tokenizer.completion(said["content"]), "right": right}
        room = block_size - len(answer["completion_ids"])
        if room < 1:
            raise Dropped("the answer alone is longer than the block", broken=False)
        prompt = _fitted_prompt(messages, tokenizer, room, row, report)
        report.keep(row, messages)
        return {**answer, "prompt_ids": prompt}

    return _read(path, make)


def _judged_from_ids(row, report, tokenizer, supervision):
    if not {"prompt", "prompt_ids", "right", "split"} <= set(row):
        raise row.error(f"its keys {sorted(row)} are not those of a judged answer; see "
                        "make_preferences.py --labels thumbs")
    if supervision == "process" and "steps" not in row:
        raise row.error("--supervision process needs answers in steps that can be checked; this "
                        "world has none")
    row.used |= set(row)
    report.keep(row, [{"role": "user", "content": row["prompt"]}])
    return dict(row)


# ---- what is held out ----

def split(items, report, share, seed):
    """(train, held_out): the conversations of which the file marks a row as held out, where it
    marks any; else those whose hash falls below `share`; with all their rows.

    The hash is of seed and conversation alone. So every script that reads a file holds out the same
    of it, a smaller share is a part of a larger one, and the order of rows does not matter. At
    least one conversation goes to each side; a share of 0 holds nothing out.
    """
    if not 0 <= share < 1:
        raise InputError(f"--held_out {share:g}: a share of the conversations, from 0 to below 1")
    hidden = {source.conversation for source in report.kept if source.split == "held-out"}
    if not hidden:
        place = {source.conversation: _place(source.conversation, seed) for source in report.kept}
        hidden = {c for c, x in place.items() if x < share}
        if share and not hidden:
            hidden = {min(place, key=place.get)}
        if hidden and len(hidden) == len(place):
            hidden.remove(max(place, key=place.get))
        if share and not hidden:
            raise InputError(f"{report.path}: there is only one conversation, and of one nothing "
                             "can be held out; --held_out 0 trains on all there is")
    held = [source.conversation in hidden for source in report.kept]
    if all(held):
        raise InputError(f"{report.path}: all {len(items)} examples are held out by their 'split': "
                         "none is left to train on")
    return ([item for item, out in zip(items, held, strict=True) if not out],
            [item for item, out in zip(items, held, strict=True) if out])


def _place(conversation, seed):
    """A number from 0 to 1 that only depends on these two."""
    digest = hashlib.sha256(f"{seed} {conversation}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2 ** 64
