"""What a stage writes down as it trains."""
import contextlib
import dataclasses
import glob
import json
import math
import os
import time

import numpy as np

from nanorlhf import InputError, lock
from nanorlhf.checkpoints import write_atomically


class Log:
    """<run>/<stage>/: config.json once, one row a step in log.jsonl, and a line on the console.

    The line stands there every `every` steps, with the same keys and the seconds a step took. A
    stage that is run again starts its log and its samples anew; its old model.pt stays until
    there is a new one. saved: what resume.load found; log and samples are then added to.
    """

    def __init__(self, folder, cfg, steps, every, saved=None):
        self.folder, self.cfg, self.steps = folder, cfg, steps
        self.every, self.saved = every, saved
        self.lock = lock.hold(folder)       # until close(): a second run here gets a sentence
        for partial in glob.glob(os.path.join(glob.escape(folder), "*.partial")):
            os.remove(partial)              # of a run that was killed while it wrote
        write_atomically(os.path.join(folder, "config.json"),
                         lambda f: json.dump(dataclasses.asdict(cfg), f, indent=1))
        state = os.path.join(folder, "state.pt")
        if not saved and os.path.exists(state):
            os.remove(state)        # an older run's must not be taken up with the log of this one
        mode = "a" if saved else "w"
        self.file = open(os.path.join(folder, "log.jsonl"), mode, encoding="utf-8")
        open(os.path.join(folder, "samples.txt"), mode).close()
        self.time = time.perf_counter()
        self.shown = saved["training"]["step"] if saved else 0

    def __call__(self, step, **stats):
        """step counts from 1. Stats with an underscore in front go to the file only."""
        row = {"step": step, **{k.lstrip("_"): v for k, v in stats.items()}}
        try:
            self.file.write(json.dumps(row) + "\n")
            self.file.flush()
        except OSError as e:
            raise InputError(f"could not write {self.file.name}: {e.strerror or e}") from None
        if step == 1 or step % self.every == 0 or step == self.steps:
            shown = " | ".join(f"{k} {v:6.3f}" if isinstance(v, float) else f"{k} {v:4d}"
                               for k, v in stats.items() if k[0] != "_")
            now = time.perf_counter()
            seconds = (now - self.time) / (step - self.shown)
            print(f"step {step:4d}/{self.steps} | {shown} | {seconds:.2f} s", flush=True)
            self.time, self.shown = now, step

    def settle(self):
        """What is written so far is on the disk."""
        os.fsync(self.file.fileno())

    def close(self):
        """The folder is free for another run."""
        with contextlib.suppress(OSError):      # of a full disk, which a write has told of
            self.file.close()
        self.lock.close()

    def arrays(self):
        """Closes the log -> what is in it, as read_log has it."""
        self.close()
        return read_log(self.folder)


def read_log(folder):
    """<folder>/log.jsonl -> {key: array of one number a step}; NaN where a step has none. A last
    line that is still being written is left out."""
    with open(os.path.join(folder, "log.jsonl"), encoding="utf-8") as f:
        rows = [json.loads(line) for line in f if line.endswith("\n")]
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, math.nan) for row in rows]) for key in keys}
