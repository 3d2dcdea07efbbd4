"""Every test runs from anywhere, on one thread, and with the GPT-2 vocabulary beside the repository
where there is one."""
import os
import sys

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
torch.set_num_threads(1)
CACHE = os.path.abspath(os.path.join(ROOT, "..", "shared", "tiktoken_cache"))
if "TIKTOKEN_CACHE_DIR" not in os.environ and os.path.isdir(CACHE):
    os.environ["TIKTOKEN_CACHE_DIR"] = CACHE
