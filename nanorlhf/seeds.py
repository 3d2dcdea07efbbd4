"""Randomness from named sources: one for each purpose, so that printing a sample shifts nothing."""
import hashlib
import random

import torch


def generator(seed, purpose, device="cpu"):
    """-> torch.Generator, the same for the same seed and purpose on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


def rng(seed, purpose):
    """-> random.Random, for what is drawn without torch."""
    return random.Random(f"{seed}/{purpose}")


class Draws:
    """All the sources that a training loop draws from. It remembers what it made, so that a
    resumed run takes every one of them up again and none can be forgotten."""

    def __init__(self, seed):
        self.seed, self.made = seed, {}

    def generator(self, purpose, device=None):
        """A torch.Generator, on the CPU unless a device is given."""
        return self._new(purpose, generator(self.seed, purpose, device or "cpu"))

    def rng(self, purpose):
        """A random.Random."""
        return self._new(purpose, rng(self.seed, purpose))

    def _new(self, purpose, source):
        if purpose in self.made:
            raise ValueError(f"{purpose!r} has a source already; two purposes, two names")
        self.made[purpose] = source
        return source

    def state_dict(self):
        return {purpose: s.getstate() if isinstance(s, random.Random) else s.get_state()
                for purpose, s in self.made.items()}

    def load_state_dict(self, states):
        for purpose, state in states.items():
            source = self.made[purpose]
            if isinstance(source, random.Random):
                source.setstate(state)
            else:
                source.set_state(state)
