"""nanorlhf: RLHF from scratch, to be read. The ground floor that the scripts share."""


class InputError(ValueError):
    """Something the user gave is wrong. The message says what, where and what to do.

    From the shell it is one sentence and status 1; a caller in Python gets the exception.
    """


class Interrupted(Exception):
    """A run was asked to stop, and did so after a whole step. The message says what is kept."""
