"""nanorlhf: RLHF from scratch, to be read. The ground floor that the train_*.py scripts share."""


class InputError(ValueError):
    """Something the user gave is wrong. The message says what, where and what to do; scripts print it and exit with 1."""
