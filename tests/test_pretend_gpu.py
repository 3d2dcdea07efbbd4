"""Every script on a pretended GPU (pretend_gpu.py): nothing of the CPU beside what is there, no
generator of the other side, and the CPU waits for a sampled token, never for a row."""
import io
import json
import math
import sys

import pytest
import torch
from calling import call, complaint
from pretend_gpu import CUDA, OnGPU, PretendGPU

from nanorlhf import batches, devices, gpt, optim, rollout, seeds
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.logprobs import masked_logprobs

SMALL = ("--n_layer", 1, "--n_embd", 32, "--n_head", 2)
TRAINING = {
    "sft": ("train_sft", "--demonstrations", 64),
    "rm": ("train_rm",),
    "orm": ("train_prm", "--data", "{run}/thumbs/answers.jsonl", "--out", "orm"),
    "ppo": ("train_ppo", "--steps", 4, "--batch_size", 8),
    "ptx": ("train_ppo", "--steps", 4, "--batch_size", 8, "--ptx", 0.1, "--out", "ptx"),
    "grpo": ("train_grpo", "--steps", 4, "--prompts", 4),
    "dapo": ("train_grpo", "--steps", 4, "--prompts", 4, "--samples_per_prompt", 2, "--reward",
             "verifier", "--refill", 2, "--overlong", "penalty", "--out", "dapo"),
    "dpo": ("train_dpo", "--steps", 4),
    "kto": ("train_dpo", "--steps", 4, "--loss", "kto", "--out", "kto"),
    "online": ("train_online_dpo", "--steps", 4, "--judge", "reward_model", "--out", "online"),
    "distill": ("train_distill", "--steps", 4, "--batch_size", 4, "--on_policy", 0.5,
                "--teacher_sees", "Tarn. "),
    "reinforce": ("train_distill", "--steps", 4, "--batch_size", 4, "--gradient", "reinforce",
                  "--out", "reinforce"),
}


def words(name, run):
    script, *args = TRAINING[name]
    return script, "--run", run, *(str(a).format(run=run) for a in args)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch, PretendGPU(patch):
        assert devices.pick("auto").type == "cuda" and devices.bf16(torch.device("cuda"))
        call(patch, "train_base", "--run", folder, "--steps", 30, "--pages", 300, *SMALL)
        call(patch, *words("sft", folder))
        call(patch, "make_preferences", "--run", folder, "--prompts", 16)
        call(patch, "make_preferences", "--run", folder, "--prompts", 16, "--labels", "thumbs",
             "--out", "thumbs")
        for name in TRAINING:
            if name != "sft":
                call(patch, *words(name, folder))
        call(patch, "train_rejection", "--run", folder, "--prompts", 8, "--samples_per_prompt", 2,
             "--curve_prompts", 2)
        call(patch, "evaluate", folder, "--prompts", 32, "--models", "sft", "dpo")
    return folder


def logged(folder):
    rows = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row) for row in rows]


def test_all_scripts(run):
    """A tensor made on the CPU, a mask that stays there, numpy() of what a GPU has."""
    for stage in ("base", "rejection", *TRAINING):
        state = torch.load(run / stage / "model.pt", weights_only=True)
        assert all(type(w) is torch.Tensor and w.isfinite().all() for w in state["model"].values())
        assert all(math.isfinite(x) for row in logged(run / stage) for x in row.values() if x)
    models = json.loads((run / "results.json").read_text(encoding="utf-8"))["models"]
    assert {"sft", "dpo", "best_of_16"} <= set(models)


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_resume(name, run, tmp_path, monkeypatch):
    """A state that lands on the CPU, an optimizer's averages or a generator among it; and the same
    numbers as without the stop."""
    with PretendGPU(monkeypatch):
        script, *args = words(name, run)
        args += ["--out", f"again_{name}", "--save_every", 1]
        update, calls = optim.update, []

        def stops(*a):
            calls.append(1)
            if len(calls) == 5 if script == "train_ppo" else len(calls) == 2:
                raise InterruptedError
            return update(*a)

        with monkeypatch.context() as m:
            m.setattr(optim, "update", stops)
            with pytest.raises(InterruptedError):
                call(monkeypatch, script, *args)
        call(monkeypatch, script, *args, "--resume")
        assert logged(run / f"again_{name}") == logged(run / name)
    said = complaint(monkeypatch, script, *args, "--resume", "--device", "cpu")
    assert "was made on cuda" in said


def test_chat_and_export(run, tmp_path, monkeypatch, capsys):
    with PretendGPU(monkeypatch):
        monkeypatch.setattr(sys, "stdin", io.StringIO("Who is the mayor of Tarn?\n"))
        call(monkeypatch, "chat", run / "sft", run / "ppo")
        call(monkeypatch, "tools.export", run / "sft", tmp_path / "hf")
    assert capsys.readouterr().out.count("    gold ") == 2


# ---- the checker itself ----

def model():
    return GPT(GPTConfig(50, 40, 1, 2, 16), torch.Generator().manual_seed(0))


def test_what_it_computes_is_what_a_cpu_computes(monkeypatch):
    ids = torch.randint(50, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    plain = model()
    expected = masked_logprobs(plain, ids, mask)
    expected.sum().backward()
    monkeypatch.setattr(devices, "bf16", lambda device: False)
    with PretendGPU(monkeypatch) as gpu:
        there = model().to(CUDA)
        got = masked_logprobs(there, ids.to(CUDA), mask.to(CUDA))
        assert type(got) is OnGPU and got.device == CUDA and got.is_cuda
        got.sum().backward()
        grads = [p.grad.cpu() for p in there.parameters()]
        assert gpu.waits >= len(grads)
        assert torch.equal(got.cpu(), expected)
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, plain.parameters(), strict=True))


@pytest.mark.parametrize("plant", ["tensor", "generator", "numpy", "state", "where"])
def test_planted_mistakes_are_caught(plant, monkeypatch):
    """A checker that lets everything pass."""
    prompts = [[1, 2], [3]]
    with PretendGPU(monkeypatch):
        there = model().to(CUDA)

        def sample(generator):
            return rollout.generate(there, prompts, 3, eos=0, generator=generator)

        out = sample(seeds.generator(0, "x", "cuda"))
        assert type(out.ids) is OnGPU
        if plant == "tensor":           # positions that are made on the CPU
            arange = torch.arange
            monkeypatch.setattr(gpt.torch, "arange", lambda *a, device=None: arange(*a))
            with pytest.raises(RuntimeError, match="same device"):
                there(out.ids)
        elif plant == "generator":
            with pytest.raises(RuntimeError, match="Expected a cuda device type for generator"):
                sample(seeds.generator(0, "x"))
        elif plant == "numpy":
            with pytest.raises(TypeError, match="numpy"):
                out.logp.numpy()
        elif plant == "state":
            with pytest.raises(RuntimeError, match="wrong size"):
                seeds.generator(0, "x", "cuda").set_state(torch.Generator().get_state())
        else:                           # a mask from lists, beside what the GPU has
            mask = torch.tensor([[True] * out.ids.shape[1]] * 2)
            with pytest.raises(RuntimeError, match="same device"):
                masked_logprobs(there, out.ids, mask)


def test_the_cpu_waits_once_a_token_and_never_for_a_row(monkeypatch):
    """tolist() of each row, an index written row by row: a GPU stands still while it is asked."""
    counts, logp_waits = {}, {}
    with PretendGPU(monkeypatch) as gpu:
        there = model().to(CUDA)
        for rows in (4, 32):
            for tokens in (6, 12):
                before = gpu.waits
                # no token ends an answer
                out = rollout.generate(there, [[1, 2]] * rows, tokens, eos=999,
                                       generator=seeds.generator(0, "x", "cuda"))
                out.responses()
                counts[rows, tokens] = gpu.waits - before
            before = gpu.waits
            masked_logprobs(there, out.ids, out.mask)
            ids, mask = batches.answer_batch([[1, 2]] * rows, [[3, 4]] * rows, 0, CUDA)
            logp_waits[rows] = gpu.waits - before
            assert type(ids) is OnGPU and type(mask) is OnGPU
    assert counts[4, 6] == counts[32, 6] and counts[4, 12] == counts[32, 12]
    assert counts[4, 12] - counts[4, 6] == 6
    assert logp_waits[4] == logp_waits[32] <= 4
