"""The shapes that people's files have -> conversations, preference pairs, prompts, problems.

    {"prompt", "completion"}
    {"messages": [{"role", "content"}, ...]}
    {"question", "answer"}                      GSM8K
    {"instruction", "input", "output"}          Alpaca
    {"prompt", "chosen", "rejected"}            strings or message lists
    {"chosen", "rejected"}                      HH transcripts, "\n\nHuman: ...\n\nAssistant: ..."
    .jsonl or .jsonl.gz

What cannot be used is dropped and counted, by reason; what cannot be read is an error with file
and line.
"""
import gzip
import json
import math
import os
import re
import zlib
from collections import Counter
from dataclasses import dataclass, field

from nanorlhf import InputError


@dataclass
class Preference:
    """Two answers to one prompt, of which one is preferred; ids."""
    prompt: list            # ids, ending in the assistant token
    chosen: list            # ids; the last is the end token, unless the answer was cut off
    rejected: list
    row: dict = field(default_factory=dict)     # the line it came from

    @property
    def length(self):
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


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


def made_path(path, command):
    """path, a file that another script makes. InputError, with that command, where it is not."""
    if not os.path.exists(path):
        raise InputError(f"{path} does not exist; make it first: python {command}")
    return path


def parse_transcript(text, where):
    """An HH transcript -> messages."""
    parts = re.split(r"\n\n(Human|Assistant):", text)
    if parts[0].strip() or len(parts) < 3:
        raise InputError(
            f'{where}: expected a transcript of "\\n\\nHuman: ..." and "\\n\\nAssistant: ..." turns'
        )
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[1::2], parts[2::2], strict=True)
    return [{"role": roles[who], "content": said.strip()} for who, said in turns]


SHAPES = (
    ("messages",),
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("chosen", "rejected"),
)


def _messages(row, key, where, role):
    """row[key], a string (one message of this role, where there is one) or a list of messages -> a
    list of messages, checked."""
    value = row[key]
    if isinstance(value, str) and role:
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    raise InputError(f"{where}: {key!r} must be {'a string or ' if role else ''}a list of "
                     "{role, content} messages, roles system, user, assistant, contents strings")


def _is_message(m):
    return (isinstance(m, dict) and m.get("role") in ("system", "user", "assistant")
            and isinstance(m.get("content"), str))


def conversation(row, where):
    """A row of any shape -> messages.

    Of a preference pair, the chosen side, unless the row has an answer beside the two (as those of
    UltraFeedback do). Any other row of two shapes is an error: either may be meant.
    """
    shapes = [shape for shape in SHAPES if all(key in row for key in shape)]
    shapes = [shape for shape in shapes if shape != ("chosen", "rejected")] or shapes
    if len(shapes) != 1:
        known = "; ".join(" and ".join(shape) for shape in shapes or SHAPES)
        if shapes:
            what = f"those of several shapes ({known}); leave one of them"
        else:
            what = f"none of the known shapes ({known})"
        raise InputError(f"{where}: keys {sorted(row)} are {what}")
    [shape] = shapes
    if shape == ("messages",):
        return _messages(row, "messages", where, None)
    if shape == ("chosen", "rejected"):
        return preference(row, where)[0]
    if shape == ("instruction", "output"):
        task, text = row["instruction"], row.get("input")
        if not isinstance(task, str) or not isinstance(text, str | None):
            raise InputError(f"{where}: 'instruction' and 'input' must be strings")
        row = {**row, "instruction": f"{task}\n\n{text}" if text else task}
    asked, answered = shape
    return _messages(row, asked, where, "user") + _messages(row, answered, where, "assistant")


def preference(row, where):
    """A preference row -> (messages of the chosen side, messages of the rejected side)."""
    sides = []
    for key in ("chosen", "rejected"):
        if key not in row:
            raise InputError(
                f"{where}: keys {sorted(row)} lack {key!r}; a preference pair has chosen and "
                "rejected"
            )
        if "prompt" in row:
            side = _messages(row, key, where, "assistant")
            prompt = _messages(row, "prompt", where, "user")
            # some files repeat the prompt in both answers
            sides.append(side if side[:len(prompt)] == prompt else prompt + side)
        elif isinstance(row[key], str):
            sides.append(parse_transcript(row[key], where))
        else:
            sides.append(_messages(row, key, where, "user"))
    return tuple(sides)


def _empty_answer(messages):
    return messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip()


def load_conversations(path, tokenizer, block_size, last_only=False):
    """-> ([(ids, mask)], Counter of what was dropped or truncated). Raises InputError when nothing
    is left.

    The mask is on every answer of a chat, or on the last alone. A conversation that is too long
    loses its beginning, never a part of an answer that is trained on: an answer that is cut into
    stays as context, and one whose last answer does not fit is dropped.
    """
    examples, report = [], Counter()
    for where, row in read_jsonl(path):
        messages = conversation(row, where)
        if _empty_answer(messages):
            report["dropped: no answer, or an empty one"] += 1
            continue
        ids, mask = tokenizer.chat(messages)
        answer = len(tokenizer.completion(messages[-1]["content"]))
        if answer + 1 > block_size:
            report["dropped: the answer alone is longer than the block"] += 1
            continue
        if len(ids) > block_size:
            report["truncated from the left: longer than the block"] += 1
            ids, mask = ids[-block_size:], mask[-block_size:]
            # the rest of an answer whose beginning is gone
            for t in range(block_size - answer):
                if not mask[t]:
                    break
                mask[t] = False
        if last_only:
            mask = [False] * (len(ids) - answer) + [True] * answer
        examples.append((ids, mask))
    complaint = f"{path}: no example is left for a block of {block_size} tokens"
    return _some(examples, report, complaint), report


def load_pairs(path, tokenizer, block_size):
    """-> ([Preference], Counter of what was dropped or truncated). Ids in the file
    (make_preferences.py writes them) win over its text."""
    pairs, report = [], Counter()
    for where, row in read_jsonl(path):
        if "chosen_ids" in row:
            pair = _pair_from_ids(row, where, tokenizer)
        else:
            chosen, rejected = preference(row, where)
            if chosen[:-1] != rejected[:-1]:
                report["dropped: the two sides have different prompts"] += 1
                continue
            if _empty_answer(chosen) or _empty_answer(rejected):
                report["dropped: no answer, or an empty one"] += 1
                continue
            pair = Preference(tokenizer.prompt(chosen[:-1]),
                              tokenizer.completion(chosen[-1]["content"]),
                              tokenizer.completion(rejected[-1]["content"]), row)
        room = block_size - max(len(pair.chosen), len(pair.rejected))
        if pair.chosen == pair.rejected:
            report["dropped: both answers are the same"] += 1
        elif room < 1:
            report["dropped: an answer alone is longer than the block"] += 1
        else:
            report["truncated from the left: longer than the block"] += len(pair.prompt) > room
            pair.prompt = pair.prompt[-room:]
            pairs.append(pair)
    complaint = f"{path}: no example is left for a block of {block_size} tokens"
    return _some(pairs, report, complaint), +report


def load_prompts(path, tokenizer, room):
    """-> ([ids of a prompt], Counter of what was dropped or truncated): what stands before the last
    answer of each row of any shape, or a row's "prompt", which needs no answer. Each prompt once,
    with its last `room` tokens."""
    if room < 1:
        raise InputError(f"{path}: {room} tokens are left for a prompt; lower --max_new_tokens")
    prompts, report = {}, Counter()
    for where, row in read_jsonl(path):
        messages = (
            _messages(row, "prompt", where, "user") if "prompt" in row else conversation(row, where)
        )
        if messages[-1]["role"] == "assistant":
            messages = messages[:-1]
        if not messages:
            report["dropped: no prompt before the answer"] += 1
            continue
        ids = tokenizer.prompt(messages)
        report[f"truncated from the left: longer than {room} tokens"] += len(ids) > room
        report["dropped: the same prompt again"] += tuple(ids[-room:]) in prompts
        prompts[tuple(ids[-room:])] = None
    return _some([list(ids) for ids in prompts], report, f"{path}: no prompt is left"), +report


def load_problems(path, tokenizer, room):
    """Rows {"question", "answer"} -> ([Problem], Counter of what was dropped).

    The answer ends in "#### number", is a number and nothing else, or is a JSON number. What has
    none, or a prompt longer than room, is dropped and counted.
    """
    problems, report = [], Counter()
    for where, row in read_jsonl(path):
        question, answer = row.get("question"), row.get("answer")
        is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
        if not isinstance(question, str) or not (isinstance(answer, str) or is_number):
            raise InputError(f"{where}: keys {sorted(row)}; a problem has a question, a string, "
                             "and an answer, a string or a number")
        if is_number:
            number = answer if math.isfinite(answer) else None
        else:
            number = final_number(answer)
            if number is None:
                number = read_number(answer)
        if number is None:
            report["dropped: no number behind a # in the answer"] += 1
        elif len(tokenizer.prompt(question)) > room:
            report[f"dropped: the question takes more than {room} tokens"] += 1
        else:
            problems.append(Problem(question, number))
    return _some(problems, report, f"{path}: no problem is left"), report


def _pair_from_ids(row, where, tokenizer):
    try:
        pair = Preference(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"], row)
        ok = all(ids and all(type(i) is int and 0 <= i < tokenizer.vocab_size for i in ids)
                 for ids in (pair.prompt, pair.chosen, pair.rejected))
        ok = ok and tokenizer.prompt(row["prompt"]) == pair.prompt
    except (KeyError, TypeError):
        ok = False
    if not ok:
        raise InputError(
            f"{where}: its ids are not this tokenizer's ({tokenizer.name}); rewrite the pairs "
            "with make_preferences.py"
        )
    return pair


def _some(kept, report, complaint):
    if not kept:
        raise InputError(
            f"{complaint}: " + "; ".join(f"{reason} ({n})" for reason, n in report.items() if n)
        )
    return kept


def split_by_prompt(items, prompt_of, share, rng):
    """(train, held_out): `share` of the distinct prompts go, with all their items, to the held-out
    side; at least one to each."""
    def key(item):
        return tuple(prompt_of(item))

    prompts = sorted({key(item) for item in items})
    if len(prompts) < 2:
        raise InputError("the data has only one distinct prompt: nothing can be held out of it")
    hidden = set(rng.sample(prompts, min(max(1, round(share * len(prompts))), len(prompts) - 1)))
    return [i for i in items if key(i) not in hidden], [i for i in items if key(i) in hidden]


def split_as_marked(items, row_of):
    """(train, held_out): as the "split" of each item's row says. InputError if either is empty."""
    train = [item for item in items if row_of(item)["split"] == "train"]
    held_out = [item for item in items if row_of(item)["split"] != "train"]
    if not train or not held_out:
        raise InputError(f"of the {len(items)} rows {len(train)} are for training and "
                         f"{len(held_out)} held out; both are needed")
    return train, held_out


def split_pairs(pairs, share, rng):
    """(train, held_out) of [Preference]: as the file says where it says so (make_preferences.py's
    own does), else by prompt."""
    if all("split" in p.row for p in pairs):
        return split_as_marked(pairs, lambda p: p.row)
    return split_by_prompt(pairs, lambda p: p.prompt, share, rng)


# ---- problems whose answer is a number ----

@dataclass(frozen=True)
class Problem:
    """A row of a file such as GSM8K: any text, and the number that its answer must end in."""
    text: str
    answer: float

    @property
    def key(self):
        return self.text


# What an answer to a Problem is worth: it ends in the right number; that stands in a last line
# of its own, "#### 42".
WORTH = {"correct": 1.0, "format": 0.1}


def final_number(text):
    """The number that an answer ends in, or None: the one grammar for labels and for answers.

    It stands behind the last ####, or in the last \\boxed{}, whichever comes later; where there is
    neither, behind the last #. Read whole or not at all, see read_number.
    """
    marks = [m.end() for m in re.finditer(r"####+", text)]
    boxes = [m.end() for m in re.finditer(r"\\boxed\s*\{", text)]
    if marks or boxes:
        start = max(marks + boxes)
        said = _inside_braces(text[start:]) if start in boxes else text[start:]
    else:
        # a # behind a letter is C#
        hashes = list(re.finditer(r"(?<![A-Za-z0-9#])#+", text))
        if not hashes:
            return None
        said = text[hashes[-1].end():]
    lines = said.strip().splitlines()
    return read_number(lines[0]) if lines else None


def _inside_braces(text):
    """What stands before the brace that closes a group begun already."""
    depth = 1
    for i, c in enumerate(text):
        depth += (c == "{") - (c == "}")
        if depth == 0:
            return text[:i]
    return ""


# 18, 1,800, 0.5, .5, 1e6; then what may stand before and behind it
NUMERAL = r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([-+]?[0-9]{1,2}))?"
MULTIPLES = re.compile(r"\b(hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)


def read_number(text):
    """The number that a text is, or None: 18, $1,800, -5, **18**, = 18, 18 apples, 18%, 3/4,
    2 1/2, 1e6, \\frac{3}{4}, \\boxed{18}.

    What goes on behind the number makes it none: 12:30, 18-3, 10^3, 18 or 19, 18 million.
    """
    text = re.sub(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\(?:boxed|text|mathrm|mathbf)\s*\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[,;! ]|\\[()\[\]]|[*_`]", "", text.replace("\\$", "$").replace("−", "-"))
    m = re.match(r"[\s=:]*([-+]?)\s*[$€£]?\s*([-+]?)" + NUMERAL, text, re.ASCII)
    if not m or len(m[3]) > 24:     # Python refuses to read numbers of thousands of digits
        return None
    value, rest = _value(m[3], m[4]), text[m.end():]
    if mixed := re.match(r"\s+([0-9]{1,9})\s*/\s*([0-9]{1,9})", rest, re.ASCII):     # 2 1/2
        if int(mixed[2]) == 0:
            return None
        value, rest = value + int(mixed[1]) / int(mixed[2]), rest[mixed.end():]
    elif fraction := re.match(r"\s*/\s*" + NUMERAL, rest, re.ASCII):
        below = _value(fraction[1], fraction[2]) if len(fraction[1]) <= 24 else 0
        if below == 0:
            return None
        value, rest = value / below, rest[fraction.end():]
    # another digit, or a sign of arithmetic glued to it, is more than this number
    if re.search(r"[0-9]", rest) or re.match(r"[-+^/:]", rest) or MULTIPLES.search(rest):
        return None
    if "-" in (m[1], m[2]):
        value = -value
    return int(value) if value == int(value) else value


def _value(digits, exponent):
    value = float(digits.replace(",", "")) if "." in digits else int(digits.replace(",", ""))
    return value * 10 ** int(exponent) if exponent else value


def correct(problem, answer):
    return final_number(answer) == problem.answer


def grade(problem, answer, finished=True):
    """The verifier's word: {"gold": 1.1, "correct": 1, "format": 1}."""
    parts = {
        "correct": int(finished and correct(problem, answer)),
        "format": int(finished and re.fullmatch(r".*\n#### \S+", answer, re.DOTALL) is not None),
    }
    return {"gold": sum(WORTH[part] * n for part, n in parts.items()), **parts}
