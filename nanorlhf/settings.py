"""Settings: a dataclass is the command line, and is checked wherever it is made.

    @dataclass
    class Config:
        # ---- files ----
        run: str = "out/towns"      # a comment at the end of a field's line is its help text
        # so are the lines right above it, where the end has no room
        init: str = ""

        def __post_init__(self):
            settings.check(self)

A wrong setting is an InputError with the same sentence, from Python and from the shell.
"""
import argparse
import dataclasses
import inspect
import math
import os
import re
import sys
import typing

import torch

from nanorlhf import InputError, Interrupted


def check(cfg):
    """Types, choices and ranges of a dataclass's fields; paths become strings. InputError.

    Numbers are finite and not negative. An integer whose default is not 0 must not be 0 either:
    it is a batch, a count or a length.
    """
    for f in dataclasses.fields(cfg):
        value, choices = getattr(cfg, f.name), typing.get_args(f.type)
        if choices:
            if value not in choices:
                known = ", ".join(repr(c) for c in choices)
                raise InputError(f"--{f.name} {value!r}: choose from {known}")
        elif f.type is str:
            if not isinstance(value, str | os.PathLike):
                raise InputError(f"--{f.name} {value!r}: a text is needed")
            setattr(cfg, f.name, os.fspath(value))
        elif f.type is bool:
            if not isinstance(value, bool):
                raise InputError(f"--{f.name} {value!r}: True or False is needed")
        elif f.type is int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"--{f.name} {value!r}: a whole number is needed")
            least = 1 if f.default else 0
            if value < least:
                raise InputError(f"--{f.name} {value}: less than {least}")
        elif isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"--{f.name} {value!r}: a number is needed")
        elif not 0 <= value < math.inf:
            raise InputError(f"--{f.name} {value:g}: not a number from 0 on")


def help_texts(Config):
    """{field: (the heading it stands under, its comment)}.

    The comment is the lines right above a field and the end of its own, in one.
    """
    texts, above, heading = {}, [], "settings"
    for line in inspect.getsource(Config).splitlines():
        comment = re.fullmatch(r" +# ?(.*)", line)
        field = re.match(r" +(\w+): [^#]*(?:# *(.*))?$", line)
        if comment and comment[1].startswith("----"):
            heading, above = comment[1].strip("- "), []
        elif comment:
            above.append(comment[1])
        else:
            if field:
                texts[field[1]] = heading, " ".join(above + [field[2] or ""]).strip()
            above = []
    return texts


def parse(Config, doc, argv=None):
    """The command line -> a Config. -h shows each field's comment and default.

    An unknown flag, or a word that is no number, ends with argparse's sentence and status 2.
    """
    parser = argparse.ArgumentParser(description=doc, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    texts, groups = help_texts(Config), {}
    for f in dataclasses.fields(Config):
        heading, comment = texts[f.name]
        if heading not in groups:
            groups[heading] = parser.add_argument_group(heading)
        text = f"{comment} (default: {f.default!r})".replace("%", "%%")
        how = {"help": text, "default": f.default}
        if f.type is bool:
            how["action"] = argparse.BooleanOptionalAction
        elif choices := typing.get_args(f.type):
            how["choices"] = choices
        else:
            how |= {"type": f.type, "metavar": f.type.__name__}
        groups[heading].add_argument(f"--{f.name}", **how)
    return Config(**vars(parser.parse_args(argv)))


def script(main):
    """Call a script's main: what went wrong is one sentence and status 1, not a traceback."""
    try:
        main()
    except InputError as e:
        sys.exit(f"error: {e}")
    except Interrupted as e:
        sys.exit(str(e))
    except RuntimeError as e:
        # cuBLAS has a sentence of its own for it
        if not (isinstance(e, torch.cuda.OutOfMemoryError)
                or "CUBLAS_STATUS_ALLOC_FAILED" in str(e)):
            raise
        sys.exit(f"error: the GPU's memory is too small ({str(e).splitlines()[0]}); try a lower "
                 "--micro_batch, or --batch_size where there is none, and --resume if it had begun")
    except BrokenPipeError:
        # who read our words has gone (| head): say nothing more, not even at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was saved after the last complete file")
