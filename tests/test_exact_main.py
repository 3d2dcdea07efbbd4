"""What the scripts' main() hands to the formulas, seen in the world of exact.py: every argument
compared with what it should be."""
import copy

import pytest
import torch
from calling import play

import train_grpo
import train_ppo
from nanorlhf.exact import END, PROMPTS, Table, V, answers, kl, logprobs
from nanorlhf.functional import shift_right, token_logprobs, whiten


def spy(monkeypatch, module, name):
    """Every call of module.name from here on: a list of (positional arguments, what came back)."""
    calls, original = [], getattr(module, name)

    def watched(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append((args, result))
        return result

    monkeypatch.setattr(module, name, watched)
    return calls


def graded(reward_model, out, unfinished):
    """(B,) the reward model at the last token, less the penalty: from the rollout's lengths, not
    from what the script says."""
    with torch.no_grad():
        return (
            reward_model(out.ids).gather(1, out.mask.sum(1, keepdim=True)).squeeze(1)
            - unfinished * ~out.finished
        )


def same_rows(a, b):
    """Equal as sets of rows: the script shuffles them."""
    def rows(x):
        return sorted(map(tuple, x.double().tolist()))

    torch.testing.assert_close(torch.tensor(rows(a)), torch.tensor(rows(b)), rtol=0, atol=1e-5)


def test_main_of_ppo_credits_what_was_earned(monkeypatch, tmp_path):
    """The score of another token, a penalty forgotten, a critic that has seen its token, returns
    taken after whitening, no whitening."""
    reward_model, policy, ref = (
        Table(1, 1.5, 0.4).float(),
        Table(phase=1.0).float(),
        Table(phase=4.0).float(),
    )
    start = reward_model.weight.clone()
    rollouts, rewards, gaes, losses, value_losses = (
        spy(monkeypatch, train_ppo, name)
        for name in ("generate", "token_rewards", "gae", "policy_loss", "value_loss")
    )
    play(
        monkeypatch,
        tmp_path,
        train_ppo,
        policy,
        ref,
        reward_model,
        steps=1,
        batch_size=40,
        epochs=1,
        minibatches=1,
        unfinished=0.7,
        beta=0.9,
    )
    (
        out,
        (((scores, old_logp, ref_logp, mask, beta), r),),
        (((given, values, *_), (advantages, returns)),),
    ) = rollouts[0][1], rewards, gaes
    torch.testing.assert_close(scores, graded(reward_model, out, 0.7))
    assert (
        beta == 0.9
        and torch.equal(mask, out.mask)
        and torch.equal(given, r)
        and torch.equal(start, reward_model.weight)
    )
    torch.testing.assert_close(old_logp[mask], out.logp[mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(
        ref_logp, torch.where(out.mask, token_logprobs(ref(out.ids), out.ids), 0.0)
    )
    # the critic starts as the reward model
    torch.testing.assert_close(values, shift_right(reward_model(out.ids)))
    torch.testing.assert_close(returns, torch.where(mask, advantages + values, 0.0))
    (_, old, white, _, _), _ = losses[0]
    same_rows(white, whiten(advantages, mask))
    same_rows(old, old_logp)
    same_rows(value_losses[0][0][2], returns)
    assert not any(
        frozen.requires_grad
        for frozen in (old, white, *value_losses[0][0][1:3], old_logp, ref_logp, values)
    )


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_main_of_grpo_credits_what_was_earned(kl_in, monkeypatch, tmp_path):
    """As above; the KL summed per answer and taken off before the baseline, which knows earlier
    batches only; prompt-major groups."""
    reward_model, policy, ref = (
        Table(1, 1.5, 0.4).float(),
        Table(phase=1.0).float(),
        Table(phase=4.0).float(),
    )
    rollouts, groups, losses, kls = (
        spy(monkeypatch, train_grpo, name)
        for name in ("generate", "group_advantages", "policy_loss", "kl_estimate")
    )
    play(
        monkeypatch,
        tmp_path,
        train_grpo,
        policy,
        copy.deepcopy(ref),
        reward_model,
        steps=3,
        prompts=8,
        samples_per_prompt=5,
        epochs=1,
        minibatches=1,
        advantage="reinforce",
        aggregate="fixed",
        unfinished=0.7,
        beta=0.9,
        kl_in=kl_in,
        kl="k1",
    )
    baseline = 0.0
    for (_, out), ((scores, _, given, price), advantages), (
        (_, old_logp, used, mask, *_),
        _,
    ) in zip(rollouts, groups, losses):
        torch.testing.assert_close(
            scores.flatten(), graded(reward_model, out, 0.7), rtol=0, atol=1e-5
        )
        k1 = (out.logp - torch.where(out.mask, token_logprobs(ref(out.ids), out.ids), 0.0)).sum(1)
        torch.testing.assert_close(
            price.flatten(), 0.9 * k1 if kl_in == "reward" else 0 * k1, rtol=0, atol=1e-5
        )
        assert (out.ids[:, 0].view(8, 5) == out.ids[::5, :1]).all() and len(
            set(out.ids[:, 0].tolist())
        ) == 2
        assert given == pytest.approx(baseline, abs=1e-6)
        mean = (scores - price).mean().item()
        baseline = mean if out is rollouts[0][1] else 0.9 * baseline + 0.1 * mean
        same_rows(
            torch.cat([old_logp * mask, used], 1), torch.cat([out.logp, advantages.view(-1, 1)], 1)
        )
        assert not old_logp.requires_grad and not used.requires_grad
    in_loss = [ref_logp for (logp, ref_logp, *_), _ in kls if logp.requires_grad]
    assert len(in_loss) == (3 if kl_in == "loss" else 0) and not any(
        ref_logp.requires_grad for ref_logp in in_loss
    )


@pytest.mark.parametrize("kind", ["k2", "k3"])
def test_main_of_grpo_is_held_by_a_kl_in_the_loss(kind, monkeypatch, tmp_path):
    """Without rewards nothing is left but the pull to the reference: with the sign turned, or from
    the old log-probs, it is not reached."""
    policy, ref = Table(V, 1.0, 4.0).float(), Table(V, 0.7, 2.5).float()
    for lr in (0.05, 0.01):
        play(
            monkeypatch,
            tmp_path,
            train_grpo,
            policy,
            ref,
            Table(1, 0.0).float(),
            steps=15,
            prompts=64,
            samples_per_prompt=2,
            beta=1.0,
            unfinished=0.0,
            lr=lr,
            kl_in="loss",
            kl=kind,
            aggregate="token",
        )
    for prompt in PROMPTS:
        world = answers(prompt)
        assert kl(logprobs(policy, world).sum(1), logprobs(ref, world).sum(1)) < 0.005


def test_main_of_grpo_bears_any_pad(monkeypatch, tmp_path):
    """k3 of a pad that the policy thinks impossible and the reference does not is infinite: masked
    afterwards, its gradient is NaN."""
    policy, ref = Table(phase=1.0).float(), Table(phase=1.0).float()
    with torch.no_grad():
        # after an end token never another one: what padding is here
        policy.weight[END::V, END] = -200.0
    play(
        monkeypatch,
        tmp_path,
        train_grpo,
        policy,
        ref,
        Table(1, 1.5, 0.4).float(),
        steps=2,
        prompts=8,
        samples_per_prompt=4,
        beta=1.0,
        kl_in="loss",
        kl="k3",
    )
    assert policy.weight.isfinite().all() and not torch.equal(policy.weight, ref.weight)


@pytest.mark.parametrize(
    "kl_in, kind, beta",
    [("loss", "k1", 1.0), ("loss", "k1", 0.0), ("loss", "k3", 1.0), ("reward", "k1", 1.0)],
)
def test_main_of_grpo_warns_of_a_kl_that_holds_nothing(
    kl_in, kind, beta, monkeypatch, tmp_path, capsys
):
    """--kl_in loss alone leaves --kl at k1: the policy would run off, and nobody was told."""
    play(
        monkeypatch,
        tmp_path,
        train_grpo,
        Table(phase=1.0).float(),
        Table(phase=1.0).float(),
        Table(1, 1.5, 0.4).float(),
        steps=1,
        prompts=4,
        samples_per_prompt=2,
        beta=beta,
        kl_in=kl_in,
        kl=kind,
    )
    assert ("k1 in the loss holds nothing" in capsys.readouterr().out) == (
        (kl_in, kind, beta) == ("loss", "k1", 1.0)
    )


def test_main_of_grpo_leaves_flat_groups_out(monkeypatch, tmp_path):
    """--skip_flat: a group without spread must not be in the update at all; every other answer
    must, once an epoch."""
    reward_model = Table(1, 0.0).float()
    with torch.no_grad():
        # answers of three tokens score 1, shorter ones 0
        reward_model.weight[2 * V ** 3:] = 1.0
    rollouts, groups, losses = (
        spy(monkeypatch, train_grpo, name)
        for name in ("generate", "group_advantages", "policy_loss")
    )
    play(
        monkeypatch,
        tmp_path,
        train_grpo,
        Table(phase=1.0).float(),
        Table(phase=4.0).float(),
        reward_model,
        steps=1,
        prompts=12,
        samples_per_prompt=2,
        epochs=2,
        minibatches=2,
        unfinished=0.0,
        skip_flat=True,
    )
    scores, _, _, price = groups[0][0]
    kept = (scores[:, 0] != scores[:, 1]).repeat_interleave(2)
    assert 0 < kept.sum() < len(kept) and (price[:, 0] != price[:, 1]).any()
    updates = torch.cat([args[1] * args[3] for args, _ in losses])
    same_rows(updates, rollouts[0][1].logp[kept].repeat(2, 1))


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_main_of_grpo_leaves_out_what_was_cut_off(kl_in, monkeypatch, tmp_path):
    """--overlong filter: the answers that end kept out instead, or one epoch long; a score that
    does not count in its group any more."""
    rollouts, groups, losses = (
        spy(monkeypatch, train_grpo, name)
        for name in ("generate", "group_advantages", "policy_loss")
    )
    reward_model = Table(1, 1.5, 0.4).float()
    play(monkeypatch, tmp_path, train_grpo, Table(phase=1.0).float(), Table(phase=4.0).float(),
         reward_model, steps=1, prompts=12, samples_per_prompt=4, epochs=2, minibatches=2,
         unfinished=0.7, overlong="filter", kl_in=kl_in)
    out = rollouts[0][1]
    assert 0 < out.finished.sum() < len(out.finished)
    (scores, *_), advantages = groups[0]
    torch.testing.assert_close(scores.flatten(), graded(reward_model, out, 0.7), rtol=0, atol=1e-5)
    for column, of_all in ((args[1] * args[3] for args, _ in losses), out.logp), (
            (args[2] for args, _ in losses), advantages.view(-1, 1)):
        same_rows(torch.cat(list(column)), of_all[out.finished].repeat(2, 1))


def test_main_of_grpo_takes_length_off_the_score(monkeypatch, tmp_path):
    """--overlong penalty: at its third token of three an answer costs 1, at its second 1/2, with a
    buffer of 2; the penalty for not ending taken off beside it."""
    rollouts, groups = (spy(monkeypatch, train_grpo, name)
                        for name in ("generate", "group_advantages"))
    reward_model = Table(1, 1.5, 0.4).float()
    play(monkeypatch, tmp_path, train_grpo, Table(phase=1.0).float(), Table(phase=4.0).float(),
         reward_model, steps=1, prompts=12, samples_per_prompt=4, overlong="penalty",
         overlong_buffer=2)
    out = rollouts[0][1]
    lengths = out.mask.sum(1).tolist()
    assert set(lengths) == {1, 2, 3}
    off = torch.tensor([(0, 0.5, 1)[n - 1] for n in lengths])
    torch.testing.assert_close(groups[0][0][0].flatten(), graded(reward_model, out, 0.0) - off,
                               rtol=0, atol=1e-5)


@pytest.mark.parametrize("times", [1, 40])
def test_main_of_grpo_fills_up_with_groups_that_differ(times, monkeypatch, tmp_path):
    """--refill: groups with spread thrown away, scores or questions of other answers, a batch that
    shrinks, rows whose padding is not as wide; and no more than that many times."""
    reward_model = Table(1, 0.0).float()
    with torch.no_grad():
        # answers of three tokens score 1, shorter ones 0
        reward_model.weight[2 * V ** 3:] = 1.0
    rollouts, written, refilled, groups, losses = (
        spy(monkeypatch, train_grpo, name)
        for name in ("generate", "replaced", "refill", "group_advantages", "policy_loss")
    )
    play(monkeypatch, tmp_path, train_grpo, Table(phase=1.0).float(), Table(phase=4.0).float(),
         reward_model, steps=1, prompts=12, samples_per_prompt=2, epochs=1, minibatches=1,
         unfinished=0.0, refill=times)
    first, out, scores = rollouts[0][1], written[-1][1], groups[0][0][0]
    assert scores.shape == (12, 2) and out.ids.shape[0] == 24
    torch.testing.assert_close(scores.flatten(), graded(reward_model, out, 0.0))
    assert (out.ids[::2, 0] == out.ids[1::2, 0]).all()
    # the true reward is asked for the questions that stand in the rows
    _, (last, questions, _, gold) = refilled[0]
    assert last is out and [int(q.text) for q in questions] == out.ids[:, 0].tolist()
    assert gold.shape == (24,)
    # what was drawn: as many groups each time as were flat
    before = graded(reward_model, first, 0.0).view(12, 2)
    flat = before[:, 0] == before[:, 1]
    assert 0 < flat.sum() < 12 and len(rollouts[1][1].ids) == 2 * flat.sum()
    assert (len(rollouts) == 2) if times == 1 else (scores[:, 0] != scores[:, 1]).all()
    # and those that differed stay, with the log-probs they were written with
    kept = (~flat).repeat_interleave(2)
    torch.testing.assert_close(out.ids[: kept.sum(), : first.ids.shape[1]], first.ids[kept])
    _, old_logp, used, mask, *_ = losses[0][0]
    same_rows(torch.cat([old_logp * mask, used], 1),
              torch.cat([out.logp, groups[0][1].view(-1, 1)], 1))
