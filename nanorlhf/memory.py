"""What a run will ask of the memory, said before it starts: it follows from the models' shapes."""
# Bytes that a block keeps for backward(), per token and unit of width: 16 numbers in float32; in bf16 the residual stream, read by two
# LayerNorms and one addition's sum, stays float32
ACTIVATIONS = {"cpu": 64, "cuda": 36}


def weights(model):
    """Bytes."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def activations(cfg, tokens, device_type):
    """Bytes kept for backward() of a forward of so many tokens."""
    return ACTIVATIONS[device_type] * cfg.n_embd * cfg.n_layer * tokens


def plan(trained, frozen, micro_batch, device_type, sampled=0):
    """A line. trained, frozen: {name: model}; micro_batch: rows a forward; sampled: answers sampled at once (0: none).

    Rows are taken to be as long as the model's block. Beside it there are a few hundred MB for logits and, on a GPU, for CUDA itself.
    """
    cfg, held, total = next(iter(trained.values())).cfg, [], 0
    for name, model in {**trained, **frozen}.items():
        more = 3 * weights(model) if name in trained else 0         # a gradient and AdamW's two averages, each as large as the weights
        held.append(f"{name} {size(weights(model))}" + (f" and {size(more)} of gradients and AdamW" if more else ""))
        total += weights(model) + more
    text = (f"memory: {', '.join(held)}; together {size(total)}, beside activations: up to {micro_batch} x {cfg.block_size} tokens keep "
            f"{size(activations(cfg, micro_batch * cfg.block_size, device_type))} (--micro_batch)")
    if sampled:
        cache = 2 * 4 * cfg.n_layer * cfg.n_embd * cfg.block_size * sampled
        text += f", keys and values of {sampled} x {cfg.block_size} tokens while sampling {size(cache)}"
    return text


def size(n):
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
