"""A row of anybody's file -> the messages that it means. No tokens in here.

    {"messages": [{"role", "content"}, ...]}        a whole chat; ShareGPT's from and value, too
    {"prompt", "completion"}                        a column that asks and one that answers
    {"prompt", "chosen", "rejected"}                two answers; without a prompt, two whole chats
    {"prompt", "completion", "label"}               an answer that was judged alone
    {"prompt", "completions", "labels"}             the steps of an answer, each judged
    "system" and "history" beside any of them

Whatever the layout, a text may be a transcript ("\\n\\nHuman: ...\\n\\nAssistant: ..."), a string
or a list of messages. docs/YOUR_DATA.md has a row of each. What comes out is a list of messages,
{"role", "content"}, and "weight": 0 on what is read and never imitated, as OpenAI's format has it.

A row that is no chat is Dropped, and counted by its reason. A row that could be meant in two ways,
or whose columns have a wrong type, is an InputError with file and line.
"""
import math
import re

from nanorlhf import InputError

CHATS = ("messages", "conversations", "conversation", "text")
ASKS = ("prompt", "question", "instruction", "input", "query")
ANSWERS = ("completion", "response", "answer", "output")
PAIR = ("chosen", "rejected")
ROLES = {"system": "system", "developer": "system",
         "user": "user", "human": "user", "prompter": "user",
         "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
         "model": "assistant", "ai": "assistant"}
# Layouts that tools/convert.py reads: {name: keys by which it is known}
FOREIGN = {
    "SHP": ("history", "human_ref_A", "human_ref_B", "labels"),
    "PKU-SafeRLHF": ("prompt", "response_0", "response_1", "better_response_id"),
    "HelpSteer2": ("prompt", "response", "helpfulness", "correctness"),
    "HelpSteer2 preferences": ("prompt", "response_1", "response_2", "preference_strength"),
    "HelpSteer3": ("context", "response1", "response2", "overall_preference"),
    "summarize-from-feedback": ("info", "summaries", "choice"),
}


class Dropped(Exception):
    """This row is no example. reason; place: where in the row; broken: false where the row says
    itself that it is not meant to be one, as a label of false does."""
    def __init__(self, reason, place="", broken=True):
        super().__init__(reason)
        self.reason, self.place, self.broken = reason, place, broken


class Row(dict):
    """The columns of a line without its nulls, "\\n" at line ends. It remembers which were used."""
    def __init__(self, columns, where):
        super().__init__(_without_nulls(columns))
        self.where, self.nulls = where, sorted(set(columns) - set(self))
        self.used, self.keys_of_messages = set(), set()

    def take(self, name):
        self.used.add(name)
        return self[name]

    def error(self, what):
        return InputError(f"{self.where}: {what}")

    @property
    def unused(self):
        """Names of columns that nothing was made of, "messages.name" for a key of messages."""
        return set(self) - self.used | self.keys_of_messages


def _without_nulls(value):
    """Tables write a null, and pandas a NaN, for what a row lacks."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items()
                if v is not None and not (isinstance(v, float) and math.isnan(v))}
    if isinstance(value, list):
        return [_without_nulls(v) for v in value]
    if isinstance(value, str):
        return value.replace("\r\n", "\n").replace("\r", "\n")
    return value


# ---- columns that change what a row means: {name: (is this value one? what it must be)} ----

def _number(value):
    return (isinstance(value, int | float) and not isinstance(value, bool)
            and math.isfinite(value))


def _yes_or_no(value):
    return isinstance(value, bool) or (_number(value) and value in (0, 1))


def _rank(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def split_of(mark):
    """"train" or "held-out": what the column "split" says; None for a word that is not known."""
    word = re.match(r"[a-z]*", mark.lower())[0] if isinstance(mark, str) else ""
    if word in ("train", "training"):
        return "train"
    held_out = ("test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation",
                "held", "heldout", "holdout")
    return "held-out" if word in held_out else None


COLUMNS = {
    "label": (_yes_or_no, "true or false"),
    "weight": (_yes_or_no, "0 or 1: 0 is read and not imitated"),
    "strength": (lambda v: _number(v) and v >= 0, "a number from 0 on"),
    "margin": (lambda v: _number(v) and v >= 0, "a number from 0 on"),
    "score_chosen": (_number, "a number"),
    "score_rejected": (_number, "a number"),
    "chosen_rank": (_rank, "a whole number, 0 or 1 for the best"),
    "rejected_rank": (_rank, "a whole number, 0 or 1 for the best"),
    "system": (lambda v: isinstance(v, str), "a text"),
    "history": (lambda v: isinstance(v, list), "a list of [question, answer] or of messages"),
    "tools": (lambda v: isinstance(v, str | list | dict), "a list of tools"),
    "split": (split_of, "train, test, validation or the like"),
}
ALIASES = {"system_prompt": "system", "chosen_score": "score_chosen",
           "rejected_score": "score_rejected", "chosen_rating": "score_chosen",
           "rejected_rating": "score_rejected", "functions": "tools"}


def read_row(columns, where, file=""):
    """A line's object -> Row, its columns checked. InputError, Dropped."""
    row = Row(columns, where)
    for alias, name in ALIASES.items():
        if alias in row:
            if name in row:
                raise row.error(f"{alias!r} and {name!r} mean the same; leave one of them")
            row[name] = row.pop(alias)
    for name, keys in FOREIGN.items():
        if all(key in columns for key in keys):
            raise row.error(f"this is the layout of {name}; what can be read is made by: "
                            f"python -m tools.convert {file} > out.jsonl")
    for name, (fits, wanted) in COLUMNS.items():
        if name in row and not fits(row[name]):
            raise row.error(f"{name!r} is {_shown(row[name])}; it must be {wanted}")
    row.used.add("split")
    if row.get("tools"):
        raise Dropped("it needs tools")
    if "tools" in row:
        row.take("tools")
    if "weight" in row and not row.take("weight"):
        raise Dropped("weight 0", broken=False)
    return row


def _shown(value):
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "..."


# ---- texts and messages ----

SPEAKER = r"(?:\#+[ ]?)?(Human|User|Assistant|System)[ ]?:"
BEGINS = re.compile(rf"\s*{SPEAKER}", re.VERBOSE)
# at the head of a line inside a message it is a turn that was not split off
INSIDE = re.compile(r"^[ \t]*(?:#+ ?)?(?:Human|User|Assistant) ?:|"
                    r"^[ \t]*(?:<\|(?:im_start|user|assistant|system)\|>|\[INST\])", re.MULTILINE)


def transcript(text):
    """The turns of a transcript, or None where a text does not begin as one.

    The markers are those behind an empty line where there are any, as in HH, else those at the
    head of a line. A turn that is begun and empty, as in a prompt that ends in "Assistant:", is
    left out.
    """
    first = BEGINS.match(text)
    if not first:
        return None
    if text.lstrip().startswith("#"):       # ### Human: Q### Assistant: A
        between = r"\s*\#"
    elif re.search(rf"\n[ \t]*\n\s*{SPEAKER}", text[first.end():], re.VERBOSE):
        between = r"\n[ \t]*\n\s*"
    else:
        between = r"\n\s*"
    parts = re.split(rf"(?:\A\s*|{between}){SPEAKER}", text, flags=re.VERBOSE)
    speakers, said = parts[1::2], [part.strip() for part in parts[2::2]]
    if speakers == ["System"]:
        return None
    turns = [{"role": ROLES[who.lower()], "content": what}
             for who, what in zip(speakers, said, strict=True)]
    if turns[-1] == {"role": "assistant", "content": ""}:
        turns.pop()
    return turns


def _turns(message, role, place, row, name):
    """A message as somebody wrote it -> turns; several where its text is a transcript."""
    if not isinstance(message, dict):
        raise Dropped("a message that is null", place)
    who = message.get("role", message.get("from"))
    what = message.get("content", message.get("value"))
    known = {"role", "from", "content", "value", "weight", "train"}
    row.keys_of_messages |= {f"{name}.{key}" for key in set(message) - known}
    if message.get("tool_calls") or message.get("function_call"):
        raise Dropped(f"a message of role {who!r} that calls a tool", place)
    if who is None and role:
        who = role
    if not isinstance(who, str) or who.lower() not in ROLES:
        raise Dropped(f"a message of role {who!r}", place)
    if isinstance(what, list):              # OpenAI's parts
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in what):
            raise Dropped("a message with parts that are no text", place)
        what = "".join(part["text"] for part in what)
    if what is None:
        raise Dropped("a message without content", place)
    if not isinstance(what, str):
        raise row.error(f"{place}: its content is {_shown(what)}; it must be a text")
    read_only = False
    for key in ("weight", "train"):
        if key in message:
            if not _yes_or_no(message[key]):
                raise row.error(f"{place}: its {key!r} is {_shown(message[key])}; it must be 0 or "
                                "1")
            read_only = read_only or not message[key]
    role = ROLES[who.lower()]
    turns = transcript(what) if role != "system" else None
    if turns is None:
        turns = [{"role": role, "content": what.strip()}]
    for turn in turns:
        if read_only or role == "user":
            turn["weight"] = 0
    return turns


def _spoken(row, name, role):
    """Column name of a row, a text (of this role, where there is one) or messages -> turns."""
    value = row.take(name)
    if isinstance(value, str):
        turns = transcript(value)
        if turns is None and role is None:
            raise Dropped(f"{name!r} is a text without turns")
        return [{"role": role, "content": value.strip()}] if turns is None else turns
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(m, dict | None) for m in value):
        raise row.error(f"{name!r} is {_shown(row[name])}; it must be a string or a list of "
                        "{role, content} messages")
    if not value:
        raise Dropped(f"{name!r} is empty")
    return [turn for i, m in enumerate(value, 1)
            for turn in _turns(m, role, f"message {i}", row, name)]


def _same(a, b):
    return (a["role"], a["content"]) == (b["role"], b["content"])


def _join(before, said):
    """What was said before and an answer -> one chat. What the answer repeats stands in it once;
    what stood before is not imitated."""
    systems, turns = [], []
    for part in (before, said):
        head = 0
        while head < len(part) and part[head]["role"] == "system":
            head += 1
        systems += [m for m in part[:head] if m["content"]]
        turns.append(part[head:])
    if any(not _same(m, systems[0]) for m in systems):
        raise Dropped("two system messages that differ")
    before, said = turns
    before, said = _without_repeats(before, said)
    if before and said and said[0]["role"] == before[-1]["role"] != "system":
        raise Dropped("the answer does not go on where the prompt ends: "
                      f"two turns from {said[0]['role']}")
    return [*systems[:1], *({**m, "weight": 0} for m in before), *said]


def _without_repeats(before, said):
    """The same turns, those that `said` repeats of `before` in `before` alone: all of it, with
    what stands ahead of it, or its last turns."""
    n = len(before)
    for start in range(len(said) if before else 0):
        if len(said) >= start + n and all(map(_same, before, said[start:start + n])):
            return said[:start + n], said[start + n:]
    for k in range(min(n, len(said)), 0, -1):
        if all(map(_same, before[-k:], said[:k])):
            return before, said[k:]
    return before, said


def _check(messages):
    """What no chat may break, wherever it came from."""
    asked = False
    for i, m in enumerate(messages):
        place = f"message {i + 1}"
        if m["role"] == "system" and i:
            raise Dropped("a system message that is not the first", place)
        if INSIDE.search(m["content"]):
            raise Dropped("a role marker at the head of a line inside a message", place)
        if m["role"] == "user":
            if not m["content"]:
                raise Dropped("an empty user turn", place)
            if i and _same(m, messages[i - 1]):
                raise Dropped("the same user turn twice in a row", place)
            asked = True
        elif m["role"] == "assistant" and (not asked or not m["content"]):
            # a greeting answers nothing, and an empty answer teaches to end at once
            m["weight"] = 0
    if not asked:
        raise Dropped("no user turn")
    return messages


# ---- what a row asks, answers and prefers ----

def _one_of(row, names, what):
    there = [name for name in names if name in row]
    if len(there) > 1 and "text" in there:      # the same once more, as somebody rendered it
        there.remove("text")
    if len(there) > 1:
        raise row.error(f"{' and '.join(map(repr, there))} are several columns that {what}; "
                        "leave one of them")
    return there[0] if there else None


def _before(row):
    """system, history and the column that asks -> turns; [] where there are none."""
    asks, turns = [name for name in ASKS if name in row], []
    if "instruction" in asks and "input" in asks:
        asks.remove("input")        # Alpaca: what the instruction is about
    name = _one_of(row, asks, "ask")
    if "system" in row and row.take("system").strip():
        turns.append({"role": "system", "content": row["system"].strip()})
    if "history" in row:
        turns += _history(row)
    if name is None:
        return turns
    asked = _spoken(row, name, "user")
    for more in ("input", "context"):
        if more in row and more != name and row.take(more):
            if not isinstance(row[more], str) or not isinstance(row[name], str):
                raise row.error(f"{more!r} beside {name!r}: both must be strings")
            asked[-1]["content"] += f"\n\n{row[more].strip()}"
    return _join(turns, asked) if turns else asked


def _history(row):
    """[[question, answer], ...] or messages -> turns."""
    turns = []
    for i, item in enumerate(row.take("history"), 1):
        if isinstance(item, dict):
            turns += _turns(item, None, f"history {i}", row, "history")
        elif isinstance(item, list) and len(item) == 2 and all(isinstance(t, str) for t in item):
            turns += [{"role": role, "content": text.strip()}
                      for role, text in zip(("user", "assistant"), item, strict=True)]
        else:
            raise Dropped("a history that is not of [question, answer]", f"history {i}")
    return turns


def _answered(row, before, name, sides=()):
    """The chat that ends with column name, one of those `sides`.

    Strings that all say a whole prompt once more, and then go on, do not say it to be imitated.
    """
    said, sides = _spoken(row, name, "assistant"), sides or (name,)
    if before and all(isinstance(row[side], str) for side in sides) and len(said) == 1:
        asked = before[-1]["content"]
        again = re.compile(rf"\s*{re.escape(asked)}\s+(?=\S)")
        # "Hi" may well be answered with "Hi there"
        if len(asked.split()) > 2 and all(again.match(row[side]) for side in sides):
            said[0]["content"] = again.sub("", said[0]["content"], count=1)
    return _join(before, said)


def _no_layout(row, lacking=""):
    known = {*CHATS, *ASKS, *ANSWERS, *PAIR}
    if nulls := [name for name in row.nulls if name in known]:
        return Dropped(f"null in {' and '.join(map(repr, nulls))}")
    if "completions" in row and "labels" in row:
        return row.error("the steps of an answer, each judged: train_prm.py --supervision process "
                         "learns from them")
    if "label" in row and not any(name in row for name in PAIR):
        return row.error("answers that were judged alone: train_dpo.py --loss kto learns from "
                         "them, and train_prm.py; a pair has chosen and rejected")
    if lacking:
        what = ("an answer judged alone is true or false" if lacking == "label" else
                "a preference pair has chosen and rejected")
        return row.error(f"its keys {sorted(row)} lack {lacking!r}; {what}")
    return row.error(f"its keys {sorted(row)} are none of the known layouts: a whole chat "
                     f"({', '.join(CHATS)}), or a column that asks ({', '.join(ASKS)}) with one "
                     f"that answers ({', '.join(ANSWERS)}) or with chosen and rejected")


def chat(row):
    """-> messages, of which those without weight 0 are imitated. Of a pair the chosen side, unless
    the row has an answer beside the two, as UltraFeedback's have."""
    if "rank" in row:
        raise row.error("'rank' says which of several answers this is; keep the best ones, and "
                        "leave the column out")
    name = _one_of(row, CHATS + ANSWERS, "answer")
    if all(side in row for side in PAIR) and (name is None or not _answers(row, name)):
        messages = _side(row, _before_pair(row), "chosen")
    else:
        if "label" in row and name and not row.take("label"):
            raise Dropped("label false, not to be imitated", broken=False)
        before = _before(row)
        if name is None or (name in ANSWERS and not before):
            raise _no_layout(row)
        if name in ANSWERS:
            messages = _check(_answered(row, before, name))
        else:
            messages = _check(_join(before, _spoken(row, name, None)))
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise Dropped("no answer, or an empty one")
    if not any(map(imitated, messages)):
        raise Dropped("weight 0", broken=False)
    return messages


def _answers(row, name):
    """Does column name, of a row that has two answers beside it, end in one of its own?"""
    return name in ANSWERS or _spoken(row, name, None)[-1]["role"] == "assistant"


def imitated(message):
    return message["role"] == "assistant" and bool(message.get("weight", 1))


def _before_pair(row):
    """What both answers of a pair go on from, as far as it stands in columns of its own."""
    for name in ("label", "rank"):
        if name in row:
            raise row.error(f"{name!r} beside chosen and rejected: what it says of a pair is not "
                            "known; leave it out")
    if row.get("strength") == 0:
        raise Dropped("strength 0, neither answer is better", broken=False)
    if "score_chosen" in row and "score_rejected" in row:
        if row.take("score_chosen") <= row.take("score_rejected"):
            raise Dropped("its scores do not prefer the chosen answer", broken=False)
    if "chosen_rank" in row and row["chosen_rank"] >= row.get("rejected_rank", math.inf):
        raise row.error("'chosen_rank' must come before 'rejected_rank'")
    before, whole = _before(row), _one_of(row, CHATS, "hold a chat")
    if whole and not _asks(before):         # LLaMA-Factory: the chat that both answer
        before = _join(before, _spoken(row, whole, None))
        if before and before[-1]["role"] == "assistant":
            before.pop()
    if not before and all(isinstance(row[side], str) and not BEGINS.match(row[side])
                          for side in PAIR):
        raise row.error("chosen and rejected without any prompt: nobody can know what was asked; "
                        "add a column 'prompt'")
    return before


def _asks(messages):
    return any(m["role"] == "user" for m in messages)


def _side(row, before, name):
    messages = _check(_answered(row, before, name, PAIR))
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"]:
        raise Dropped("no answer, or an empty one")
    return messages


def pair(row):
    """-> (messages of the prompt, the chosen message, the rejected one)."""
    for side in PAIR:
        if side not in row:
            raise _no_layout(row, side)
    before = _before_pair(row)
    chosen, rejected = (_side(row, before, name) for name in PAIR)
    if len(chosen) != len(rejected) or not all(map(_same, chosen[:-1], rejected[:-1])):
        raise Dropped("the two sides have different prompts")
    if _same(chosen[-1], rejected[-1]):
        raise Dropped("both answers are the same")
    return chosen[:-1], chosen[-1], rejected[-1]


def prompt(row):
    """-> messages before the last answer of a row of any layout. It needs no answer; where there
    is one, it may hold what the prompt lacks, such as the system message."""
    before, whole = _before(row), _one_of(row, CHATS, "hold a chat")
    texts = [name for name in (*ANSWERS, "chosen") if isinstance(row.get(name), str | list | dict)]
    if whole and not _asks(before):
        messages = _join(before, _spoken(row, whole, None))
    elif texts:
        messages = _answered(row, before, texts[0])
    elif before:
        messages = before
    else:
        raise _no_layout(row)
    while messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    return _check(messages)


def thumb(row):
    """A row {"prompt", "completion", "label"} -> (messages of the prompt, the answer, bool)."""
    if "label" in row.nulls:
        raise Dropped("null in 'label'")
    if "label" not in row:
        raise _no_layout(row, "label")
    label, rest = bool(row.take("label")), Row(row, row.where)
    del rest["label"]
    messages = chat(rest)
    if not imitated(messages[-1]):
        raise Dropped("weight 0", broken=False)
    row.used |= rest.used
    return messages[:-1], messages[-1], label


def steps(row):
    """A row {"prompt", "completions", "labels"} -> (messages of the prompt, [(step, bool)])."""
    for name in ("completions", "labels"):
        if name in row.nulls:
            raise Dropped(f"null in {name!r}")
        if name not in row:
            raise row.error(f"its keys {sorted(row)} lack {name!r}: the steps of an answer and "
                            "whether each is right, as --supervision process learns from them")
    said, labels = row.take("completions"), row.take("labels")
    if not isinstance(said, list) or not all(isinstance(step, str) for step in said):
        raise row.error("'completions' must be a list of strings, a step each")
    if not isinstance(labels, list) or not all(map(_yes_or_no, labels)):
        raise row.error("'labels' must be a list of true and false, one for each step")
    if len(said) != len(labels):
        raise row.error(f"{len(said)} 'completions', yet {len(labels)} 'labels'")
    if not said or not all(step.strip() for step in said):
        raise Dropped("no step, or an empty one")
    messages = _check(_before(row))
    if messages[-1]["role"] != "user":
        raise Dropped("the prompt ends in an answer")
    return messages, [(step.strip(), bool(ok)) for step, ok in zip(said, labels, strict=True)]


def conversation(messages):
    """What a chat is about, whatever was said later: its system message and first user turn. What
    is held out is held out by it."""
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    return [system, next(m["content"] for m in messages if m["role"] == "user")]
