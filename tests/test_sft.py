import math
import random

import pytest
import torch

from nanorlhf import batches
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.tokenizer import Tokenizer
from train_sft import accumulate, held_out_loss, prompt_of, sft_loss


def tiny(vocab=11, block=32):
    model = GPT(
        GPTConfig(vocab, block, n_layer=2, n_head=2, n_embd=16), torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                p.mul_(8)           # far from uniform, so that a wrong token or weight shows
    return model


def ragged(n, seed=0, vocab=11):
    rng, rows = random.Random(seed), []
    for _ in range(n):
        prompt, answer = rng.randint(1, 6), rng.randint(1, 20)
        rows.append(
            (
                [rng.randrange(vocab) for _ in range(prompt + answer)],
                [False] * prompt + [True] * answer,
            )
        )
    return rows


def test_sft_loss_by_hand():
    """Off by one: the token at t is predicted by the logits at t-1, and only masked tokens count.
    """
    logits = torch.zeros(1, 4, 3)
    logits[0, 0] = torch.tensor([0.0, math.log(2), 0.0])       # token 1 is 1: p = 2/4
    logits[0, 1] = torch.tensor([0.0, 0.0, math.log(6)])       # token 2 is 2: p = 6/8
    logits[0, 2] = torch.tensor([9.0, 0.0, 0.0])               # token 3 is not masked in
    ids, mask = torch.tensor([[0, 1, 2, 1]]), torch.tensor([[False, True, True, False]])
    assert sft_loss(logits, ids, mask).item() == pytest.approx(
        -(math.log(1 / 2) + math.log(3 / 4)) / 2, abs=1e-6
    )


def test_sft_loss_does_not_see_right_padding():
    """Padding counted into the mean or read through attention."""
    model, rows = tiny(), ragged(5)
    ids, mask = batches.conversation_batch(rows, 10, "cpu")
    wide_ids = torch.cat([ids, torch.full((5, 4), 7)], 1)
    wide_mask = torch.cat([mask, torch.zeros(5, 4, dtype=torch.bool)], 1)
    narrow, wide = sft_loss(model(ids), ids, mask), sft_loss(model(wide_ids), wide_ids, wide_mask)
    assert narrow.item() > 0.5 and wide.item() == pytest.approx(narrow.item(), abs=1e-5)


def test_sft_loss_of_an_empty_mask_is_an_error():
    """A batch without targets must not pass as loss 0."""
    with pytest.raises(ValueError, match="empty"):
        sft_loss(
            torch.zeros(1, 3, 4),
            torch.zeros(1, 3, dtype=torch.long),
            torch.zeros(1, 3, dtype=torch.bool),
        )


@pytest.mark.parametrize("rows", [32, 30])
def test_accumulated_gradient_is_that_of_the_whole_batch(rows):
    """A mean of the parts' means gives tokens of short rows more weight; 30 rows leave a smaller
    last part."""
    ids, mask = batches.conversation_batch(ragged(rows), 10, "cpu")
    grads, losses = [], []
    for micro_batch in (rows, 8):
        model = tiny()
        losses.append(accumulate(model, ids, mask, micro_batch))
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert grads[0].abs().max() > 1e-2
    assert losses[0] == pytest.approx(sft_loss(tiny()(ids), ids, mask).item(), abs=1e-5)
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    torch.testing.assert_close(
        grads[1] / grads[0].norm(), grads[0] / grads[0].norm(), rtol=0, atol=1e-6
    )


def test_held_out_loss_counts_each_token_once():
    """A mean of batch means would depend on the batch size."""
    model, rows = tiny(), ragged(7, seed=3)
    total = tokens = 0
    for ids, mask in rows:
        logp = model(torch.tensor([ids]))[0].log_softmax(-1)
        total -= sum(logp[t - 1, ids[t]].item() for t in range(1, len(ids)) if mask[t])
        tokens += sum(mask)
    for batch_size in (7, 3):
        assert held_out_loss(model, rows, 10, batch_size, torch.device("cpu")) == pytest.approx(
            total / tokens, abs=1e-5
        )


def test_supervised_tokens_of_a_smaller_last_batch_are_answer_and_end():
    """The end token lost from the loss (the model never stops), or prompt tokens let in."""
    tok = Tokenizer()
    said = [
        ("Who is the mayor of Marlow?", "Ada."),
        ("Name the river in Tarn.", "The river in Tarn is the Esk."),
        ("Hm?", "Yes."),
    ]
    examples = [
        tok.chat([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for q, a in said
    ]
    stream = batches.epochs(examples, 2, torch.Generator().manual_seed(0), lambda e: len(e[0]))
    sizes, seen = [], []
    for batch in (next(stream), next(stream)):
        ids, mask = batches.conversation_batch(batch, tok.pad, "cpu")
        sizes.append(len(ids))
        seen += [row[m].tolist() for row, m in zip(ids, mask)]
    assert sorted(sizes) == [1, 2]
    assert sorted(seen) == sorted(tok.encode(a) + [tok.end] for _, a in said)


def test_prompt_of_is_everything_before_the_last_answer():
    """In a chat of several turns the first answer belongs to the prompt; the assistant token does
    too."""
    tok = Tokenizer()
    turns = [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Sure!"},
        {"role": "user", "content": "Who?"},
    ]
    example = tok.chat(turns + [{"role": "assistant", "content": "Ada."}])
    assert prompt_of(example) == tok.prompt(turns)
    assert example[0][len(prompt_of(example)):] == tok.completion("Ada.")
