"""Made-up worlds: text, questions, and what every answer is truly worth. No torch in here.

A world is a module of this folder. `load` checks it and fills in what it leaves out. No script
asks which world it is; docs/WORLDS.md builds one up step by step (sorting.py).

What each must have. A Question has .text and .key; .cluster and .kind are optional.

    questions(n, rng, split="train", **knobs)   [Question]; split "train" or "held-out"
    page(rng, **knobs)                          a page of the web: a str, or chat messages
    demonstration(question, rng)                what a person answers, a str
    grade(question, answer, finished=True)      {"gold": float, part: number}, the judge
    best_gold(question)                         the most that an answer can earn
    probes(rng, **knobs)                        {name: [(context, right, wrongs)]}, see probe.py
    SHOWN                                       three held-out Questions, in every stage's samples
    WORTH                                       {part: what one of it earns}

.key says what is held out, whatever the wording; .cluster what answers share, over which
intervals are bootstrapped (default: the key); .kind one of KINDS, by which figures are split.

What it may have, with the default.

    explain(question, answer, finished=True)    the grade in a line
    parts(question, answer)                     [(start, end, part)]: what a stretch earned; []
    find(text)                                  the Question that a text asks; None
    columns(questions, answers, finished)       {column: [a number, None, or (hits, cases)]}: gold
    tallies(questions, answers)                 {name: counts} for results.json; nothing
    correct(question, answer)                   is it right? for verifier, filter, pass@k
    final(question, answer)                     what a vote is cast for; the answer
    steps(question, answer)                     [(end, right)] of a working's steps
    tidy_demonstration(question, rng)           a demonstration that a curator would keep
    cut_filler(question, answer)                the answer without what was not asked
    claims(answer), believed_worth(...)         what a model that judges claims makes of answers
    believed_gold(question, answer, finished)   gold in the eyes of those who share the errors
    speaks_of_unjudged(answer)                  does it speak of what nobody judges? False
    vocabulary()                                {token: rank}; the 256 bytes
    JUDGED                                      the split that preferences and RL ask; "train"
    KINDS, COLUMNS, COMPARED, IN_RESULTS        of the tables, see evaluate.py
    SIZES                                       of a model that learns it
    KNOBS                                       {name: default} of what makes it harder
    PAGES, GUIDE, LEGEND                        how pages lie in a batch; two texts for people
"""
import functools
import importlib
import pathlib
import pkgutil
from types import SimpleNamespace

from nanorlhf import InputError
from nanorlhf.worlds import vocabulary

TRAIN, HELD_OUT = "train", "held-out"
DEFAULT = "towns"
HELPERS = ("labelers", "sentences", "vocabulary")   # modules of this folder that are no world
NEEDED = ("questions", "page", "demonstration", "grade", "best_gold", "probes", "SHOWN", "WORTH")
SIZES = {"block_size": 96, "n_layer": 4, "n_head": 4, "n_embd": 112}
OPTIONAL = ("correct", "steps", "tidy_demonstration", "cut_filler", "claims", "believed_worth",
            "believed_gold")


def names():
    """The worlds there are, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if m.name not in HELPERS)


def load(name, knobs=None):
    """The world of this name, its knobs set and its gaps filled. InputError if there is none.

    Only a module of this folder is taken: the name may come from a file.
    """
    if name not in names():
        raise InputError(f"{name!r} is no world; there are {', '.join(names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    if missing := [n for n in NEEDED if not hasattr(module, n)]:
        raise InputError(f"the world of {name} lacks {', '.join(missing)}")
    world = SimpleNamespace(**{**_defaults(module), **vars(module)})
    for knob in knobs or {}:
        if knob not in world.KNOBS:
            known = ", ".join(world.KNOBS) or "none"
            raise InputError(f"the world of {name} has no knob {knob!r}; it has {known}")
    world.name, world.knobs = name, {**world.KNOBS, **(knobs or {})}
    world.SIZES = {**SIZES, **world.SIZES}
    for function in ("questions", "page", "probes"):
        setattr(world, function, functools.partial(getattr(module, function), **world.knobs))
    return world


def of(tokenizer):
    """The world whose words this tokenizer speaks. InputError for a vocabulary of real text."""
    if tokenizer.name not in names():
        raise InputError(f"this takes a model of a made-up world ({', '.join(names())}), whose "
                         f"answers can be graded; the checkpoint's vocabulary is {tokenizer.name}")
    return load(tokenizer.name, tokenizer.knobs)


def constitution(name):
    """Path of the principles that an AI judge of this world's answers starts with. InputError where
    nobody has written any."""
    path = pathlib.Path(__file__).with_name(f"{name}.toml")
    if not path.exists():
        raise InputError(f"the world of {name} has no constitution; write one, as "
                         "nanorlhf/judge.py says, and give it with --constitution")
    return str(path)


def parse_knobs(text):
    """"digits=4,width=2" -> {"digits": 4, "width": 2}; knobs are whole numbers from 1 on."""
    knobs = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if not value.isdecimal() or not int(value):
            raise InputError(f"--knobs {text}: {part!r} is not name=number, such as digits=4")
        knobs[name.strip()] = int(value)
    return knobs


def cluster(question):
    """What answers to it share with others, over which intervals are bootstrapped."""
    return getattr(question, "cluster", question.key)


def _defaults(module):
    def explain(question, answer, finished=True):
        parts = module.grade(question, answer, finished)
        counts = ", ".join(f"{part} {parts[part]:g}" for part in module.WORTH if parts[part])
        return f"gold {parts['gold']:+.2f} = {counts or 'nothing'}"

    def columns(questions, answers, finished):
        graded = map(module.grade, questions, answers, finished)
        return {"gold": [parts["gold"] for parts in graded]}

    return {**dict.fromkeys(OPTIONAL), "explain": explain, "columns": columns,
            "parts": lambda question, answer: [], "find": lambda text: None,
            "tallies": lambda questions, answers: {},
            "final": lambda question, answer: answer, "speaks_of_unjudged": lambda answer: False,
            "vocabulary": lambda: vocabulary.BYTES, "JUDGED": TRAIN, "KINDS": (), "COLUMNS": (),
            "COMPARED": (), "IN_RESULTS": {}, "SIZES": {}, "KNOBS": {}, "PAGES": "packed",
            "GUIDE": "", "LEGEND": ""}
