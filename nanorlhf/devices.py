"""Where a run computes, and in which precision."""
import torch

from nanorlhf import InputError


def pick(name):
    """ "auto", "cpu" or "cuda" -> torch.device. InputError where there is no GPU to take."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no CUDA GPU here; use --device cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # TF32 where autocast does not reach: sampling, above all
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def bf16(device):
    """Whether matrix products are made in bf16: on a GPU that has it, where it is faster. A T4 or
    a V100 only emulates it, and computes in float32 here."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device):
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16(device))
