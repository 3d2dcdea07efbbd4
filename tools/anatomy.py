"""Anatomy of an answer: how one grade becomes credit for a token, in PPO's own next step.

    python -m tools.anatomy out/towns               the answer of the next step's first question
    python -m tools.anatomy out/towns --row 5       another of that batch

A copy of <run>/ppo/state.pt is taken up, and train_ppo.py takes its next step on it, generators and
all. What its functions are given and give back is written down on the way, so the numbers are those
of the script. The run itself is not touched.
"""
import argparse
import contextlib
import io
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from unittest import mock

import torch

import train_dpo
import train_grpo
import train_ppo
from nanorlhf import InputError, checkpoints, seeds, settings
from nanorlhf.batches import answer_batch
from nanorlhf.checkpoints import read_checkpoint
from nanorlhf.logprobs import answer_logprobs
from nanorlhf.rollout import generate, score_answers

RECORDED = ("generate", "token_rewards", "gae", "whiten", "policy_loss")


@dataclass
class Step:
    """One step of train_ppo.py. (B, T) as in the script, on the CPU."""
    cfg: object
    tokenizer: object
    ids: torch.Tensor
    mask: torch.Tensor
    finished: torch.Tensor      # (B,)
    scores: torch.Tensor        # (B,)
    logp: torch.Tensor          # of the policy that wrote the answers
    ref_logp: torch.Tensor
    beta: float
    rewards: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    whitened: torch.Tensor
    updates: list = field(default_factory=list)     # (rows, new log-probs (b, T)) of each update

    def deltas(self):
        """(B, T): the surprise at each token, r_t + gamma V_{t+1} - V_t; V is 0 behind the last."""
        following = torch.where(self.mask, self.values, 0.0).roll(-1, 1)
        following = torch.where(self.mask.roll(-1, 1), following, 0.0)
        following[:, -1] = 0.0
        return torch.where(self.mask, self.rewards + self.cfg.gamma * following - self.values, 0.0)


# ---- the step ----

def next_step(run):
    """-> Step, the one behind <run>/ppo/state.pt"""
    state_file = f"{run}/ppo/state.pt"
    if not os.path.exists(state_file):
        raise InputError(f"{state_file} does not exist; make it first: python train_ppo.py --run "
                         f"{run}")
    state = read_checkpoint(state_file)
    training = state["training"]
    # one step more than are done; --ptx would read pages that are not part of an answer
    training["config"] |= {"steps": training["step"] + 1}
    with tempfile.TemporaryDirectory() as home:
        os.mkdir(f"{home}/ppo")
        torch.save(state, f"{home}/ppo/state.pt")
        for name in ("log.jsonl", "samples.txt"):
            shutil.copy(f"{run}/ppo/{name}", f"{home}/ppo/{name}")
        for name in os.listdir(run):
            if name != "ppo" and os.path.isdir(f"{run}/{name}"):
                os.symlink(os.path.abspath(f"{run}/{name}"), f"{home}/{name}")
        cfg = train_ppo.Config(**{**training["config"], "run": home, "resume": True,
                                  "device": training.get("device", "cpu")})
        calls = {name: [] for name in RECORDED}
        with contextlib.ExitStack() as stack:
            for name in RECORDED:
                stack.enter_context(mock.patch.object(train_ppo, name, recorded(name, calls)))
            # what the script says is not what is asked for
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            _, tokenizer, _ = train_ppo.train(cfg)
    return step_of(cfg, tokenizer, calls)


def recorded(name, calls):
    function = getattr(train_ppo, name)

    def call(*args, **more):
        result = function(*args, **more)
        calls[name].append((args, result))
        return result

    return call


def step_of(cfg, tokenizer, calls):
    [(_, out)] = calls["generate"]
    [((scores, logp, ref_logp, mask, beta), rewards)] = calls["token_rewards"]
    [((_, values, *_), (advantages, returns))] = calls["gae"]
    [(_, whitened)] = calls["whiten"]
    updates = []
    for (new, old, *_), _ in calls["policy_loss"]:
        rows = [int((logp == row).all(1).nonzero()[0]) for row in old]
        updates.append((rows, new.detach().cpu()))
    tensors = (out.ids, mask, out.finished, scores, logp, ref_logp)
    return Step(cfg, tokenizer, *(x.cpu() for x in tensors), beta,
                *(x.cpu() for x in (rewards, values, advantages, returns, whitened)), updates)


# ---- one answer ----

def columns_of(step, row):
    """[(title, [a cell for each token])]: what is known of one answer, in the order in which the
    script comes to know it."""
    at = step.mask[row].nonzero().squeeze(1)            # (L,) the places of its tokens
    ids, logp = step.ids[row, at], step.logp[row, at]
    ref, rewards = step.ref_logp[row, at], step.rewards[row, at]
    k1 = logp - ref

    def cells(x):
        return [f"{v:.3f}" for v in x.tolist()]

    score = [""] * (len(at) - 1) + [f"{step.scores[row]:.3f}"]
    table = [("t", [str(t) for t in at.tolist()]), ("id", [str(i) for i in ids.tolist()]),
             ("text", [step.tokenizer.decode([i]) for i in ids.tolist()]),
             ("logp", cells(logp)), ("ref_logp", cells(ref)), ("k1", cells(k1)),
             ("-beta k1", cells(-step.beta * k1)), ("score", score), ("r_t", cells(rewards)),
             ("V_t", cells(step.values[row, at])), ("delta_t", cells(step.deltas()[row, at])),
             ("A_t", cells(step.advantages[row, at])), ("R_t", cells(step.returns[row, at])),
             ("white A_t", cells(step.whitened[row, at]))]
    for n, (rows, new) in enumerate(step.updates, 1):
        if row not in rows:
            continue
        ratio = torch.exp(new[rows.index(row), at] - logp)                          # (L,)
        white = step.whitened[row, at]
        low, high = 1 - step.cfg.clip, 1 + step.cfg.clip
        loss = -torch.minimum(ratio * white, ratio.clamp(low, high) * white)
        # no gradient: the ratio has left the interval on the side to which its advantage drives it
        side = ["high" if r > high and w > 0 else "low" if r < low and w < 0 else ""
                for r, w in zip(ratio.tolist(), white.tolist(), strict=True)]
        table += [(f"ratio {n}", cells(ratio)), (f"clip {n}", side), (f"loss {n}", cells(loss))]
    return table


def beside(run, step, row):
    """What other algorithms make of the same answer -> lines"""
    device, tokenizer, cfg = torch.device("cpu"), step.tokenizer, step.cfg
    load = checkpoints.load_checkpoint
    policy, _ = load(f"{run}/ppo/state.pt")
    ref, _ = load(cfg.ref or f"{run}/sft", like=tokenizer)
    reward_model, _ = load(cfg.reward or f"{run}/rm", kind="scalar", like=tokenizer)
    at = step.mask[row].nonzero().squeeze(1)
    prompt = step.ids[row, :int(at[0])].tolist()
    mine = step.ids[row, at].tolist()
    with torch.no_grad():
        read = reward_model(step.ids[row:row + 1])[0, at]
    lines = ["The reward model read at every token (it is trained at the last one only): "
             + " ".join(f"{x:.2f}" for x in read.tolist())]

    out = generate(policy, [prompt] * 3, cfg.max_new_tokens, tokenizer.end, cfg.temperature,
                   generator=seeds.generator(cfg.seed, "anatomy"), pad=tokenizer.pad)
    answers = [mine, *out.responses()]
    scores = score_answers(reward_model, [prompt] * 4, answers, tokenizer.pad)
    # as the script scores them
    scores -= cfg.unfinished * torch.tensor([answer[-1] != tokenizer.end for answer in answers])
    advantages = train_grpo.group_advantages(scores[None], "grpo")[0]
    lines.append("GRPO, among three more answers to the same prompt: scores "
                 + ", ".join(f"{s:.2f}" for s in scores.tolist())
                 + f"; this one's advantage, the same for each of its tokens, is "
                   f"{advantages[0]:.2f}")

    other = int(scores[1:].argmin()) + 1
    chosen, rejected = (0, other) if scores[0] >= scores[other] else (other, 0)
    ids, mask = answer_batch([prompt] * 2, [answers[chosen], answers[rejected]], tokenizer.pad,
                             device)
    beta = train_dpo.OWN_BETA["dpo"]
    with torch.no_grad():
        ratios = answer_logprobs(policy, ids, mask) - answer_logprobs(ref, ids, mask)   # (2,)
    margin = beta * (ratios[0] - ratios[1])
    lines.append(f"DPO, of the pair with the lowest-scored of them: log-ratios "
                 f"{ratios[0]:.2f} and {ratios[1]:.2f}, a margin of {margin:.2f}, so its gradient "
                 f"is weighted by beta sigmoid(-margin) = {beta * torch.sigmoid(-margin):.3f}")
    return lines


def show(run, step, row):
    tokenizer, at = step.tokenizer, step.mask[row].nonzero().squeeze(1)
    print(f"{tokenizer.decode(step.ids[row, :int(at[0])].tolist())}\n")
    table = columns_of(step, row)
    widths = [max(len(title), *map(len, cells)) for title, cells in table]
    print("  ".join(title.rjust(w) for (title, _), w in zip(table, widths, strict=True)))
    for cells in zip(*(cells for _, cells in table), strict=True):
        print("  ".join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True)))
    inside, decay = step.advantages[step.mask], step.cfg.gamma * step.cfg.lam
    print(f"""
r_t is -beta k1, with beta {step.beta:g}, and the score on the last token.
delta_t is r_t + gamma V_t+1 - V_t.
A_t adds up the deltas from t on, each one further by gamma lam = {decay:g}.
R_t is A_t + V_t, what the critic is taught.
white A_t is A_t less the batch's mean {inside.mean():.3f}, by its std \
{inside.std(correction=0):.3f}.
""")
    for line in beside(run, step, row):
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, such as out/towns")
    parser.add_argument("--row", type=int, default=0, help="which answer of the batch (default: 0)")
    args = parser.parse_args()
    step = next_step(args.run)
    if not 0 <= args.row < len(step.ids):
        raise InputError(f"--row {args.row}: the batch has {len(step.ids)} answers, from 0 on")
    show(args.run, step, args.row)


if __name__ == "__main__":
    settings.script(main)
