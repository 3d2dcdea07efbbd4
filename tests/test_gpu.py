"""What a GPU runs: bf16 products under autocast, on the GPU where there is one (marked gpu), and on
a CPU, which has them too."""
import json
import math

import pytest
import torch
from calling import call

from nanorlhf import devices, memory, optim
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel
from nanorlhf.logprobs import masked_logprobs

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here"),
    ],
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        call(
            patch,
            "train_base",
            "--run",
            folder,
            "--device",
            "cpu",
            "--steps",
            30,
            "--n_layer",
            1,
            "--n_embd",
            32,
            "--n_head",
            2,
            "--pages",
            300,
        )
    return folder


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_the_pipeline_in_bf16(device, base, monkeypatch):
    """Checks of the first step with bounds of float32; weights or an optimizer in bf16; log-probs
    of the policy in one precision and of the
    reference in the other."""
    if device == "cpu":
        monkeypatch.setattr(devices, "bf16", lambda device: True)
    for script, *args in (
        ("train_sft", "--demonstrations", 64),
        ("make_preferences", "--prompts", 16),
        ("train_rm",),
        ("train_rejection", "--prompts", 8, "--samples_per_prompt", 2, "--curve_prompts", 2),
        ("train_ppo", "--steps", 2, "--batch_size", 8),
        ("train_grpo", "--steps", 2, "--prompts", 4),
        ("train_dpo", "--steps", 3),
        ("train_online_dpo", "--steps", 2, "--out", "online"),
        ("train_distill", "--steps", 2, "--batch_size", 8),
    ):
        call(monkeypatch, script, "--run", base, "--device", device, *args)
    for stage in ("sft", "rm", "rejection", "ppo", "grpo", "dpo", "online", "distill"):
        weights = torch.load(base / stage / "model.pt", weights_only=True)["model"]
        assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights.values()), stage
        rows = [
            json.loads(line)
            for line in (base / stage / "log.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        assert all(math.isfinite(x) for row in rows for x in row.values() if x is not None), stage
    first = json.loads((base / "dpo" / "log.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-2)


@torch.no_grad()
def with_offset(gpt, level=-84.0, spread=3.0, seed=0):
    """The same model with logits as GPT-2's: near `level`, by an offset that no softmax sees.

    Every row of the embedding gets one vector more, and the last norm's bias meets it.
    """
    rows = gpt.wte.weight
    one = torch.randn(rows.shape[1], generator=torch.Generator().manual_seed(seed))
    one /= one.norm()
    rows -= (rows @ one)[:, None] * one
    rows *= spread / rows.norm(dim=1).mean()
    rows += 0.3 * one
    gpt.ln_f.bias += level / 0.3 * one
    # where a token stands says more than which it is, or each would only repeat itself
    gpt.wpe.weight *= 4 * spread / gpt.wpe.weight.norm(dim=1).mean()
    return gpt


@pytest.mark.parametrize("level", [0.0, -84.0])
@pytest.mark.parametrize("device", ["cpu", GPU])
def test_log_probs_are_near_those_of_float32(device, level, monkeypatch):
    """A head in bf16, whose steps are 0.5 near -84: log-probs off by 0.1 nats a token, entropies
    too; and a loss whose gradient is another."""
    gpt = GPT(GPTConfig(1000, 32, 2, 4, 256), torch.Generator().manual_seed(0))
    gpt = with_offset(gpt, level)
    ids = torch.randint(1000, (16, 32), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    logits = gpt(ids)
    assert abs(logits.mean() - level) < 2 and 2.5 < logits.std(-1).mean() < 3.5
    exact, spread = masked_logprobs(gpt, ids, mask, entropy=True)
    exact.mean().backward()
    slope = gpt.wte.weight.grad.clone()
    gpt.zero_grad()
    monkeypatch.setattr(devices, "bf16", lambda device: True)
    gpt, ids, mask = gpt.to(device), ids.to(device), mask.to(device)
    half, wide = masked_logprobs(gpt, ids, mask, entropy=True)
    assert half.dtype == torch.float32 and not torch.equal(half.cpu(), exact)
    assert 1e-4 < (half.cpu() - exact)[:, 1:].abs().mean() < 0.02 < 1 < exact.abs().mean()
    assert (wide.cpu() - spread).abs().mean() < 0.02
    half.mean().backward()
    assert (gpt.wte.weight.grad.cpu() - slope).norm() < 0.05 * slope.norm()


def test_scores_are_near_those_of_float32():
    """A scalar head in bf16: a score of 4 has steps of 0.03, against a value clip of 0.2."""
    gpt = GPT(GPTConfig(1000, 32, 2, 4, 256), torch.Generator().manual_seed(0))
    reward_model = ScalarModel(gpt, torch.Generator().manual_seed(2))
    reward_model.head.bias.data += 16
    ids = torch.randint(1000, (16, 32), generator=torch.Generator().manual_seed(1))
    exact = reward_model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        half = reward_model(ids)
    assert half.dtype == torch.float32 and exact.mean() > 10
    # bf16 has steps of 0.06 and 0.12 there
    assert 1e-5 < (half - exact).abs().mean() < 0.005


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_the_plan_holds_on_a_gpu():
    """GPT-2's own size: what is allocated at most, beside the logits of a part, their gradient, and
    the weights in bf16."""
    torch.cuda.reset_peak_memory_stats()
    gpt = GPT(GPTConfig(50304, 1024, 12, 12, 768)).cuda()
    optimizer = optim.adamw(gpt, 1e-5)
    ids = torch.randint(50304, (4, 1024), device="cuda")
    for _ in range(2):
        masked_logprobs(gpt, ids, torch.ones_like(ids, dtype=torch.bool)).sum().backward()
        optim.update(gpt, optimizer, 1e-5, 1.0)
    planned = 4 * memory.weights(gpt) + memory.activations(gpt.cfg, ids.numel(), bf16=True)
    assert planned < torch.cuda.max_memory_allocated() < 1.1 * planned + 1.5e9
