"""Directions of the residual stream, against models whose residual is known."""
import json

import pytest
import torch

import make_preferences
import train_base
import train_ppo
import train_rm
import train_sft
from nanorlhf import InputError, checkpoints, seeds, steering
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate
from nanorlhf.tokenizer import Tokenizer

TINY = {"n_layer": 1, "n_embd": 32, "n_head": 2, "pages": 300, "steps": 20}


TOKENIZER = Tokenizer("towns")


def tiny():
    """Weights large enough that what is added shows."""
    cfg = GPTConfig(TOKENIZER.vocab_size, 64, n_layer=3, n_head=2, n_embd=16)
    model = GPT(cfg, seeds.generator(0, "test")).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(8 if p.dim() == 2 else 1)
    return model


def some_direction():
    vector = torch.randn(16, generator=torch.Generator().manual_seed(0))
    return steering.Direction(1, vector / vector.norm(), mean=0.3, std=0.5)


def test_what_is_added_is_the_direction():
    """In standard deviations, behind its own block; and nothing is left when it is over."""
    model, direction = tiny(), some_direction()
    ids = torch.arange(20).view(2, 10)
    first, before, logits = (steering.residuals(model, ids, 0), steering.residuals(model, ids, 1),
                             model(ids))
    with steering.steered(model, direction, 2.0):
        after, steered = steering.residuals(model, ids, 1), model(ids)
        assert torch.equal(steering.residuals(model, ids, 0), first)
    assert torch.allclose(after - before, (2 * 0.5 * direction.vector).expand_as(before), atol=1e-5)
    assert not torch.allclose(steered, logits)
    assert torch.equal(model(ids), logits)
    with steering.steered(model, direction, 0.0):
        assert torch.equal(model(ids), logits)


def test_an_error_leaves_no_hook():
    model, ids = tiny(), torch.arange(10)[None]
    logits = model(ids)
    with pytest.raises(RuntimeError), steering.steered(model, some_direction(), 5.0):
        raise RuntimeError
    assert torch.equal(model(ids), logits)


def test_steered_sampling_with_a_cache_is_steered_without():
    """Prompts of several lengths, left-padded in the cache: what is sampled has the log-probs of a
    forward through everything."""
    model, texts = tiny(), ("Who is the mayor of Tarn?", "Describe Osby.")
    prompts = [TOKENIZER.prompt(text) for text in texts]
    with steering.steered(model, some_direction(), 3.0):
        out = generate(model, prompts, 12, TOKENIZER.end, generator=seeds.generator(0, "sample"),
                       pad=TOKENIZER.pad)
        logp = masked_logprobs(model, out.ids, out.mask)
    assert torch.allclose(out.logp, logp, atol=1e-4)
    assert not torch.allclose(masked_logprobs(model, out.ids, out.mask), logp, atol=1e-2)


def test_a_planted_direction_is_found():
    """Blocks that write nothing: the residual is what was embedded, and the direction lies between
    two tokens' embeddings."""
    model = tiny()
    with torch.no_grad():
        for block in model.blocks:
            block.attn_out.weight.zero_()
            block.mlp_out.weight.zero_()
        model.wpe.weight.zero_()
    a, b, *prompt = 100, 200, 7, 8, 9
    having, lacking = [(prompt, [a, a])] * 3, [(prompt[1:], [b])] * 4
    gap = model.wte.weight[a] - model.wte.weight[b]
    found = steering.find(model, TOKENIZER, having, lacking, layer=2)
    assert torch.allclose(found.vector, gap / gap.norm(), atol=1e-5)
    # three points at one end, four at the other: mean and deviation by hand
    ends = torch.tensor([1.0] * 3 + [0.0] * 4) * gap.norm() + model.wte.weight[b] @ found.vector
    assert found.mean == pytest.approx(ends.mean().item(), rel=1e-4)
    assert found.std == pytest.approx(ends.std().item(), rel=1e-4)
    # answers alone are read, and a mask of one token reads that token
    ids = torch.tensor([[*prompt, a, b]])
    mask = torch.tensor([[False] * 3 + [False, True]])
    along = (model.wte.weight[b] @ found.vector).item()
    assert steering.projection(model, found, ids, mask) == pytest.approx(
        (along - found.mean) / found.std, abs=1e-4)


def test_the_place_before_the_answer():
    """There nothing of the answer is read: the same questions have no direction, others have."""
    model = tiny()
    one, other = TOKENIZER.prompt("Describe Osby."), TOKENIZER.prompt("Describe Tarn.")
    having, lacking = [(one, [5, 6])], [(one, [70, 80, 90])]
    assert steering.find(model, TOKENIZER, having, lacking, 1).std > 0
    with pytest.raises(InputError, match="do not differ at the prompt"):
        steering.find(model, TOKENIZER, having, lacking, 1, "prompt")
    found = steering.find(model, TOKENIZER, having, [(other, [5, 6])], 1, "prompt")
    gap = (steering.residuals(model, torch.tensor([one]), 1)[0, -1]
           - steering.residuals(model, torch.tensor([other]), 1)[0, -1])
    assert torch.allclose(found.vector, gap / gap.norm(), atol=1e-4)


def test_saved_and_loaded(tmp_path):
    model, direction = tiny(), some_direction()
    path = str(tmp_path / "vector.pt")
    steering.save(direction, path)
    loaded = steering.load(path, model)
    assert torch.equal(loaded.vector, direction.vector)
    assert (loaded.layer, loaded.mean, loaded.std) == (1, 0.3, 0.5)
    with pytest.raises(InputError, match="no direction in"):
        steering.load(str(tmp_path / "typo.pt"), model)
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no direction"):
        steering.load(str(tmp_path / "broken.pt"), model)
    direction.layer = 3
    steering.save(direction, path)
    with pytest.raises(InputError, match="other sizes: layer 3, width 16"):
        steering.load(path, model)


def test_ppo_watches_and_learns_the_same(tmp_path):
    """A column more, and not a float less."""
    run = str(tmp_path / "run")
    train_base.train(train_base.Config(run=run, device="cpu", **TINY))
    train_sft.train(train_sft.Config(run=run, device="cpu", demonstrations=64))
    make_preferences.train(make_preferences.Config(run=run, device="cpu", prompts=24))
    train_rm.train(train_rm.Config(run=run, device="cpu"))
    sft, tokenizer = checkpoints.load_checkpoint(f"{run}/sft")
    prompt = tokenizer.prompt("Describe Osby.")
    found = steering.find(sft, tokenizer, [(prompt, tokenizer.encode("Sure!"))],
                          [(prompt, tokenizer.encode("I like towns."))], 0)
    steering.save(found, f"{run}/manners.pt")

    def rows(out, **more):
        train_ppo.train(train_ppo.Config(run=run, out=out, device="cpu", steps=2, batch_size=4,
                                         **more))
        with open(f"{run}/{out}/log.jsonl", encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    plain, watched = rows("plain"), rows("watched", watch=f"{run}/manners.pt")
    traits = [row.pop("trait") for row in watched]
    assert plain == watched and all(isinstance(trait, float) for trait in traits)
