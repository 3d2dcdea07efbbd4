"""What a run will ask of the memory, said before it starts: it follows from the models' shapes."""
# Bytes that a block keeps for backward(), per token and unit of width: 16 numbers in float32; under
# bf16 autocast the residual stream, which LayerNorms read, stays float32
ACTIVATIONS = {"float32": 64, "bf16": 36}


def weights(model):
    """Bytes."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


def activations(cfg, tokens, bf16):
    """Bytes kept for backward() of a forward of so many tokens."""
    return ACTIVATIONS["bf16" if bf16 else "float32"] * cfg.n_embd * cfg.n_layer * tokens


def plan(trained, frozen, micro_batch, bf16, sampled=0):
    """A line. trained, frozen: {name: model}; micro_batch: rows a forward; bf16: whether its
    products are made so; sampled: answers sampled at once (0: none).

    Rows are taken to be as long as the model's block. Beside it there are a few hundred MB for
    logits and, on a GPU, for CUDA itself.
    """
    cfg, held, total = next(iter(trained.values())).cfg, [], 0
    for name, model in {**trained, **frozen}.items():
        # a gradient and AdamW's two averages, each as large as the weights
        more = 3 * weights(model) if name in trained else 0
        held.append(
            f"{name} {size(weights(model))}"
            + (f" and {size(more)} of gradients and AdamW" if more else "")
        )
        total += weights(model) + more
    text = (
        f"memory: {', '.join(held)}; together {size(total)}, beside activations: up to "
        f"{micro_batch} x {cfg.block_size} tokens keep "
        f"{size(activations(cfg, micro_batch * cfg.block_size, bf16))} (--micro_batch)"
    )
    if sampled:
        cache = 2 * 4 * cfg.n_layer * cfg.n_embd * cfg.block_size * sampled
        # three quarters of the keys, then of the values, are copied when finished rows leave
        cache += cache * 3 // 8
        text += (
            f", keys and values of {sampled} x {cfg.block_size} tokens while sampling {size(cache)}"
        )
    return text


def size(n):
    return f"{n / 1e9:.2f} GB" if n >= 1e9 else f"{n / 1e6:.1f} MB"
