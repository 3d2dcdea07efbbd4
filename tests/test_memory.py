"""The plan printed before a run against bytes that are counted."""
import pytest
import torch

from nanorlhf import memory, optim
from nanorlhf.gpt import GPT, GPTConfig, ScalarModel


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize(
    "layers, width, heads, tokens", [(2, 64, 2, 32), (4, 112, 4, 96), (12, 768, 12, 64)]
)
def test_activations_are_what_backward_keeps(bf16, layers, width, heads, tokens):
    """A layer kept twice, in the wrong precision, or forgotten. What a GPU runs is bf16 autocast,
    which a CPU has too."""
    model, ids, held = (
        GPT(GPTConfig(50, tokens, layers, heads, width)),
        torch.randint(50, (3, tokens)),
        {},
    )
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    stores = []         # alive until the end, or an address would be given to another

    def count(x):
        stores.append(x.untyped_storage())
        if stores[-1].data_ptr() not in weights:
            held[stores[-1].data_ptr()] = stores[-1].nbytes()
        return x

    with (
        torch.autograd.graph.saved_tensors_hooks(count, lambda x: x),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        model.hidden(ids)
    # weights in bf16, once a step
    copies = bf16 * sum(
        2 * p.numel() for name, p in model.blocks.named_parameters() if p.dim() == 2
    )
    assert sum(held.values()) - copies == pytest.approx(
        memory.activations(model.cfg, 3 * tokens, bf16), rel=0.1
    )


def test_what_an_optimizer_and_gradients_add():
    """AdamW's two averages, the gradients: 3 times the weights."""
    model = GPT(GPTConfig(50, 8, 1, 1, 16))
    optimizer = optim.adamw(model, 1e-3)
    model(torch.zeros(1, 8, dtype=torch.int64)).sum().backward()
    optimizer.step()
    added = [p.grad for p in model.parameters()] + [
        x for state in optimizer.state.values() for x in state.values() if x.dim()
    ]
    assert sum(x.numel() * x.element_size() for x in added) == 3 * memory.weights(model)


def test_plan_by_hand():
    """GPT-2's sizes: 124 M parameters of 4 bytes; 12 x 768 numbers a token for keys, as many for
    values."""
    with torch.device("meta"):
        policy, critic = (
            GPT(GPTConfig(50304, 1024, 12, 12, 768)),
            ScalarModel(GPT(GPTConfig(50304, 1024, 12, 12, 768))),
        )
    assert memory.plan(
        {"policy": policy, "critic": critic}, {"ref": policy, "reward model": critic}, 8, True, 64
    ) == (
        "memory: policy 497.9 MB and 1.49 GB of gradients and AdamW, critic 497.9 MB and 1.49 GB "
        "of gradients and AdamW, ref 497.9 MB, "
        "reward model 497.9 MB; together 4.98 GB, beside activations: up to 8 x 1024 tokens keep "
        "2.72 GB (--micro_batch), "
        "keys and values of 64 x 1024 tokens while sampling 6.64 GB"
    )
    small = GPT(GPTConfig(50, 8, 1, 1, 16))
    assert memory.plan({"model": small}, {}, 2, False).endswith(
        "up to 2 x 8 tokens keep 0.0 MB (--micro_batch)"
    )
