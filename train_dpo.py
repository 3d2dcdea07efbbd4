"""DPO and its relatives: preferences straight into the policy, without reinforcement learning.

    minimise  - E log sigmoid( beta [ log policy/ref (chosen) - log policy/ref (rejected) ] )       Rafailov et al. 2023, eq. 7
              - nll E log policy(chosen) / its tokens                                               Pang et al. 2024, eq. 1
    python train_dpo.py                                             a minute on two laptop cores
    python train_dpo.py --loss ipo                                  another first line: cdpo, ipo, hinge, kto, orpo, simpo
    python train_dpo.py --online labeler                            pairs of the policy's own answers, labelled as it trains: half a minute
    python train_dpo.py --run out/hh --data hh.jsonl.gz             pairs of your own, from the SFT model of the same run

It learns from the pairs that train_rm.py wrote. What to watch: the margin grows, yet *both* log-probs usually fall, the rejected one
faster: the first line asks for a difference only. The probability that they lose goes to sentences that no pair holds, mostly nonsense;
the second line, cross-entropy on the chosen answers, keeps it where answers are. --nll 0 is the plain loss: look at its samples.
Left out: SLiC's and RSO's own ways to find pairs, KTO on answers that come without a pair, unequal weights for its two kinds.
"""
import copy
import math
import os
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import InputError, data, look, memory, resume, run
from nanorlhf.functional import last_token
from nanorlhf.labelers import prefers_first
from nanorlhf.logprobs import answer_logprobs, in_parts, pair_logprobs
from nanorlhf.reference import ref_logprobs
from nanorlhf.rollout import answer_texts, generate

REFERENCE_FREE = ("orpo", "simpo")
OWN_BETA = {                # what --beta 0 stands for; the losses differ in what beta multiplies
    "dpo": 0.2,
    "cdpo": 0.2,
    "ipo": 0.1,             # the margin is led to 1 / (2 beta) nats, here 5
    "hinge": 0.2,           # the margin is pushed up to 1 / beta nats, here 5
    "kto": 0.2,
    "orpo": 3.0,            # weight of the odds ratio beside the chosen answers' cross-entropy; at 0 SFT on them
    "simpo": 2.0,           # log-probs per token differ by tenths of a nat, sums by several nats: ten times as much
}


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/dpo
    seed: int = 0                   # of data order and samples (and initial weights, from scratch)
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch (random); empty: <run>/sft
    ref: str = ""                   # reference model; empty: the policy as it starts
    data: str = ""                  # JSONL (.gz) of preference pairs; empty: <run>/rm/pairs.jsonl
    out: str = "dpo"                # name of this stage's folder in the run, to keep several variants
    tokenizer: Literal["towns", "sums", "gpt2"] = "towns"       # with --init scratch; a checkpoint brings its own
    n_layer: int = 4                # layers, with --init scratch
    n_head: int = 4                 # heads, with --init scratch
    n_embd: int = 112               # width, with --init scratch
    block_size: int = 96            # longest sequence, with --init scratch
    loss: Literal["dpo", "cdpo", "ipo", "hinge", "kto", "orpo", "simpo"] = "dpo"    # see the function of that name
    beta: float = 0.0               # price of a nat from the reference; 0: the loss's own, 0.2 for dpo
    label_smoothing: float = 0.1    # cdpo: share of labels believed to be the wrong way round
    gamma: float = 1.0              # simpo: margin that beta times the difference per token has to reach
    nll: float = 0.4                # weight of the chosen answers' cross-entropy per token; 0: the plain loss (orpo has one in it already)
    online: Literal["", "reward_model", "labeler"] = ""     # who labels the policy's own answers as it trains; empty: pairs from a file
    reward: str = ""                # online: the reward model; empty: <run>/rm
    answers: int = 4                # online: to each prompt; 4 make 6 pairs
    sharpness: float = 2.0          # online: of the labeler, log-odds per unit of gold
    unfinished: float = 2.0         # online: taken off the reward model's score of an answer that does not end
    held_out: float = 0.1           # share of the prompts of --data kept to measure on
    batch_size: int = 10            # prompts an update, with all their pairs
    micro_batch: int = 64           # answers a forward: lower it when memory runs out, the gradient stays the same
    steps: int = 0                  # updates; 0: as many as one epoch takes, online 150
    lr: float = 6e-4                # peak learning rate
    warmup: int = 10                # steps from 0 to lr
    max_new_tokens: int = 64        # longest sampled answer
    log_every: int = 20             # steps between lines on the console
    show_batch: bool = False        # print the first batch before the first step, its answers coloured
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 100           # steps between the states that --resume goes on from


def beta_of(cfg):
    """--beta, or the loss's own, and 2.5 times that where a reward model labels online: it never
    wavers, so nothing but beta holds the policy back from it."""
    hard = cfg.online == "reward_model" and cfg.loss not in REFERENCE_FREE
    return cfg.beta or OWN_BETA[cfg.loss] * (2.5 if hard else 1)


# ---- the losses: of summed log-probs (policy_chosen and its like) or of averages over tokens (avg_chosen), as each paper has it ----

def log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """Summed log-probs of answers, each (B,), nats -> (h, chosen_rewards, rejected_rewards), each (B,).

    h, nats, is what the losses on log-ratios have in common: the chosen answer's log policy/ref
    less the rejected one's. The rewards are the implicit ones, beta log policy/ref, detached.
    """
    chosen = policy_chosen - ref_chosen.detach()                                                # (B,)
    rejected = policy_rejected - ref_rejected.detach()                                          # (B,)
    return chosen - rejected, beta * chosen.detach(), beta * rejected.detach()


def dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta, label_smoothing=0.0):
    """Summed log-probs of answers, each (B,), nats -> (losses (B,), chosen_rewards (B,), rejected_rewards (B,)).

    -log sigmoid(beta h), Rafailov et al. 2023, eq. 7. label_smoothing > 0 is cDPO (Mitchell 2023):
    that share of the labels is believed to be the wrong way round.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    losses = -(1 - label_smoothing) * F.logsigmoid(beta * h) - label_smoothing * F.logsigmoid(-beta * h)
    return losses, *rewards


def ipo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """(h - 1 / (2 beta))^2; in and out as dpo_loss. Azar et al. 2023, eq. 17.

    Sums, as in the paper (some libraries average). The margin has a target: pairs that all labelers agree on do not drive it to infinity.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return (h - 1 / (2 * beta)) ** 2, *rewards


def hinge_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """max(0, 1 - beta h); in and out as dpo_loss. The hinge-norm loss of RSO (Liu et al. 2023): SLiC's, on log-ratios.

    Past a margin of 1 / beta nats a pair has no gradient at all.
    """
    h, *rewards = log_ratios(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta)
    return F.relu(1 - beta * h), *rewards


def kto_loss(policy, ref, desirable, z0, beta):
    """Summed log-probs of answers (B,), desirable (B,) bool, z0: a number or () tensor, nats -> losses (B,). Ethayarajh et al. 2024, eq. 8.

    1 - sigmoid(+-beta (log policy/ref - z0)): + for a desirable answer, - for an undesirable one. z0, the KL at which people see neither
    gain nor loss, is a constant here: no gradient goes through it.
    """
    gain = beta * (policy - ref.detach() - torch.as_tensor(z0).detach())
    return 1 - torch.sigmoid(torch.where(desirable, gain, -gain))


def orpo_loss(avg_chosen, avg_rejected, beta):
    """Log-probs per token (B,) -> losses (B,): -avg_chosen - beta log sigmoid(log odds ratio). Hong et al. 2024, eq. 6 and 7.

    Odds are p / (1 - p) of p = exp(avg). No reference: the first term, plain cross-entropy, is what holds the policy back.
    """
    def log_odds(avg):
        return avg - torch.log(-torch.expm1(avg.clamp(max=-1e-6)))     # 1 - exp(avg) would be 0 where an answer is nearly certain

    return -avg_chosen - beta * F.logsigmoid(log_odds(avg_chosen) - log_odds(avg_rejected))


def simpo_loss(avg_chosen, avg_rejected, beta, gamma):
    """Log-probs per token (B,) -> losses (B,): -log sigmoid(beta (avg_chosen - avg_rejected) - gamma). Meng et al. 2024, eq. 6.

    No reference, and averages: the reward is how likely the policy finds an answer per token, whatever its length.
    """
    return -F.logsigmoid(beta * (avg_chosen - avg_rejected) - gamma)


def pair_losses(cfg, chosen, rejected, ref_chosen, ref_rejected, chosen_tokens, rejected_tokens, z0):
    """What --loss makes of B pairs: summed log-probs and lengths in tokens, each (B,) -> as dpo_loss. orpo and simpo read no ref."""
    beta, sums = beta_of(cfg), (chosen, rejected, ref_chosen, ref_rejected)
    if cfg.loss == "dpo":
        return dpo_loss(*sums, beta)
    if cfg.loss == "cdpo":
        return dpo_loss(*sums, beta, cfg.label_smoothing)
    if cfg.loss == "ipo":
        return ipo_loss(*sums, beta)
    if cfg.loss == "hinge":
        return hinge_loss(*sums, beta)
    if cfg.loss == "kto":                           # a pair is one thumb up and one thumb down
        liked = torch.ones_like(chosen, dtype=torch.bool)
        losses = (kto_loss(chosen, ref_chosen, liked, z0, beta) + kto_loss(rejected, ref_rejected, ~liked, z0, beta)) / 2
        return losses, beta * (chosen - ref_chosen).detach(), beta * (rejected - ref_rejected).detach()
    averages = chosen / chosen_tokens, rejected / rejected_tokens
    losses = orpo_loss(*averages, beta) if cfg.loss == "orpo" else simpo_loss(*averages, beta, cfg.gamma)
    return losses, *(beta * avg.detach() for avg in averages)


def first_loss(cfg):
    """What the loss must be where the policy is the reference, or None where there is no reference."""
    beta = beta_of(cfg)
    return {"dpo": math.log(2), "cdpo": math.log(2), "ipo": 1 / (4 * beta ** 2), "hinge": 1.0, "kto": 0.5}.get(cfg.loss)


def check_first_loss(loss, bound, expected=math.log(2)):
    assert abs(loss - expected) < bound * max(1, expected), (
        f"the policy starts as the reference, yet the first loss is {loss:.6f} and not {expected:.6f} (dpo: ln 2). Likely causes: a "
        "reference that changed, cached log-probs of other data or another tokenizer, masks that differ, dropout left on")


def lengths(pairs, device):
    """[Pair] -> chosen (B,), rejected (B,): tokens in the answers, the end token included."""
    return [torch.tensor([len(getattr(p, side)) for p in pairs], device=device) for side in ("chosen", "rejected")]


@torch.no_grad()
def kto_reference_point(policy, ref, pairs, pad, device, micro_batch=256):
    """[Pair] -> () nats: KTO's z0, the mean log policy/ref of answers behind prompts that are not theirs, not below 0.

    It stands in for KL(policy || ref), which would take fresh samples. Behind their own prompts it would be the mean of what it judges.
    An answer about another town only becomes less likely: in the made-up world it is near 0.
    """
    prompts, answers = data.mismatched(pairs, policy.cfg.block_size)
    if not prompts:
        return torch.zeros((), device=device)
    ids, mask = data.answer_batch(prompts, answers, pad, device)                                 # (N, T)
    return (answer_logprobs(policy, ids, mask, micro_batch) - answer_logprobs(ref, ids, mask, micro_batch)).mean().clamp(min=0)


@torch.no_grad()
def online_pairs(cfg, policy, reward_model, world, tokenizer, prompt_rng, sampling, labeler):
    """-> ([Pair], {"gold", "same", "unjudged"}): the policy's answers to batch_size prompts, each two of a prompt labelled.

    gold is the mean over the answers, to watch; same counts the pairs dropped because both answers
    are the same, unjudged those of which one speaks of what nobody judges.
    """
    questions = [q for q in world.sample_questions(cfg.batch_size, prompt_rng, world.JUDGED) for _ in range(cfg.answers)]
    prompts = [tokenizer.prompt(q.text) for q in questions]
    out = generate(policy, prompts, cfg.max_new_tokens, tokenizer.end, generator=sampling, pad=tokenizer.pad)
    texts = answer_texts(out, tokenizer)
    grades = [world.grade(q, text, done) for q, text, done in zip(questions, texts, out.finished.tolist())]
    if cfg.online == "reward_model":
        scores = (last_token(in_parts(reward_model, cfg.micro_batch, out.ids), out.mask) - cfg.unfinished * ~out.finished).tolist()
    responses, pairs, same, unjudged = out.responses(), [], 0, 0
    for i in range(0, len(prompts), cfg.answers):
        for a, b in combinations(range(i, i + cfg.answers), 2):
            if responses[a] == responses[b]:
                same += 1
                continue
            if world.speaks_of_unjudged(texts[a]) or world.speaks_of_unjudged(texts[b]):
                unjudged += 1
                continue
            if cfg.online == "reward_model":
                first = scores[a] > scores[b]
            else:
                first = labeler.random() < prefers_first(grades[a], grades[b], cfg.sharpness)
            chosen, rejected = (a, b) if first else (b, a)
            pairs.append(data.Pair(prompts[a], responses[chosen], responses[rejected]))
    return pairs, {"gold": sum(g["gold"] for g in grades) / len(grades), "same": same, "unjudged": unjudged}


def check_settings(cfg):
    if cfg.online and cfg.data:
        raise InputError(f"--online {cfg.online} samples its pairs itself; leave --data out")
    if cfg.online and cfg.answers < 2:
        raise InputError(f"--answers {cfg.answers}: it takes two answers to make a pair")
    if cfg.ref and cfg.loss in REFERENCE_FREE:
        raise InputError(f"--loss {cfg.loss} has no reference; leave --ref out")
    for flag, loss in (("label_smoothing", "cdpo"), ("gamma", "simpo")):
        if cfg.loss != loss and getattr(cfg, flag) != getattr(Config, flag):
            raise InputError(f"--{flag} has no effect on --loss {cfg.loss}; it belongs to --loss {loss}")


def load_pairs(cfg, tokenizer, block_size):
    """-> (training pairs, held-out pairs); both empty where pairs are sampled as training goes."""
    if cfg.online:
        return [], []
    path = cfg.data or f"{cfg.run}/rm/pairs.jsonl"
    if not cfg.data and not os.path.exists(path):
        raise InputError(f"{path} does not exist; make it first: python train_rm.py --run {cfg.run}")
    pairs, report = data.load_pairs(path, tokenizer, block_size)
    print(look.summary(f"{path}: {len(pairs)} pairs", data.answer_rows(*data.distinct_answers(pairs)[:2]), report))
    return data.split_pairs(pairs, cfg.held_out, run.rng(cfg.seed, "split"))


def main():
    cfg = run.parse(Config, __doc__)
    check_settings(cfg)
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/{cfg.out}"
    saved = resume.load(cfg, folder)
    policy, tokenizer = run.start_model(cfg, f"{cfg.run}/sft", device)
    train, held_out = load_pairs(cfg, tokenizer, policy.cfg.block_size)
    if cfg.loss in REFERENCE_FREE:
        ref = None
    elif cfg.ref:
        ref, _ = run.load_checkpoint(cfg.ref, device, like=tokenizer)
    else:                                           # a copy where it is asked again after the policy has changed
        ref = copy.deepcopy(policy) if cfg.online or cfg.loss == "kto" else policy
    starts_at_ref = ref is not None and run.same_weights(policy, ref)
    if cfg.online or not ref:
        ref_chosen = ref_rejected = torch.zeros(len(train) + len(held_out))
    else:
        ref_chosen, ref_rejected = ref_logprobs(ref, tokenizer, train + held_out, f"{folder}/ref_logprobs.pt", cfg.micro_batch, device)
    world, reward_model = run.world_of(tokenizer) if cfg.online else None, None
    if cfg.online == "reward_model":
        reward_model, _ = run.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)
    optimizer = run.adamw(policy, cfg.lr)

    groups = data.by_prompt(range(len(train)), lambda i: train[i].prompt)
    steps = cfg.steps or (150 if cfg.online else -(-len(groups) // cfg.batch_size))
    source = f"pairs labelled online by the {cfg.online}" if cfg.online else f"{len(train)} pairs, {len(held_out)} held out"
    print(f"{cfg.loss}: {source}, {steps} steps of {cfg.batch_size} prompts on {device.type}, beta {beta_of(cfg):g}")
    print(f"chosen and rejected are log-probs{', relative to the reference' if ref else ''}: "
          "that both fall is usual, the margin is what is trained")
    others = {name: model for name, model in (("ref", ref), ("reward model", reward_model)) if model not in (None, policy)}
    print(memory.plan({"policy": policy}, others, cfg.micro_batch, run.bf16(device), cfg.batch_size * cfg.answers * bool(cfg.online)))
    log = run.Log(folder, cfg, steps, cfg.log_every, saved)

    def show(title):
        run.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed, [p.prompt for p in held_out[:3]] if cfg.data else ())

    show(f"before {cfg.loss}")
    batches = data.epochs(groups, cfg.batch_size, run.generator(cfg.seed, "data order"), lambda group: max(train[i].length for i in group))
    prompt_rng, labeler = run.rng(cfg.seed, "dpo prompts"), run.rng(cfg.seed, "dpo labels")
    sampling = run.generator(cfg.seed, "dpo answers", device)
    kept = {"z0": 0.0}
    for step in resume.steps(log, policy, tokenizer, {"optimizer": optimizer, "prompts": prompt_rng, "sampling": sampling, "labeler": labeler,
                                                      "kept": kept}, None if cfg.online else batches):
        # 1. pairs, and what the reference says of them
        if cfg.online:
            pairs, stats = online_pairs(cfg, policy, reward_model, world, tokenizer, prompt_rng, sampling, labeler)
            if not pairs:                           # a policy that has all but one answer left, or a very small batch
                log(step, **stats)
                continue
        else:
            rows, stats = [i for group in next(batches) for i in group], {}
            pairs = [train[i] for i in rows]
        ids, mask, *sides = data.pair_batch(pairs, tokenizer.pad, device)                        # (N, T)
        stats["padding"] = (ids == tokenizer.pad).float().mean().item()
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, ids, mask, *sides)
        if cfg.online:
            with torch.no_grad():
                ref_logp = answer_logprobs(ref, ids, mask, cfg.micro_batch) if ref else torch.zeros(len(ids), device=device)
            ref_sides = [ref_logp[answers] for answers in sides]                                 # (B,) each
        else:
            ref_sides = [ref_chosen[rows].to(device), ref_rejected[rows].to(device)]
        z0 = kto_reference_point(policy, ref, pairs, tokenizer.pad, device, cfg.micro_batch) if cfg.loss == "kto" else 0.0
        kept["z0"] = float(z0)

        # 2. the loss
        logp = answer_logprobs(policy, ids, mask, cfg.micro_batch)                               # (N,)
        chosen, rejected = (logp[answers] for answers in sides)                                  # (B,) each: B pairs of N answers
        tokens = lengths(pairs, device)
        losses, chosen_rewards, rejected_rewards = pair_losses(cfg, chosen, rejected, *ref_sides, *tokens, z0)
        loss, margins = losses.mean(), chosen_rewards - rejected_rewards
        if step == 1 and starts_at_ref:
            check_first_loss(loss.item(), 1e-2 if run.bf16(device) else 1e-5, first_loss(cfg))
        nll = -(chosen / tokens[0]).mean()

        # 3. the step
        (loss + cfg.nll * nll).backward()
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(policy, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss.item(), nll=nll.item(), accuracy=(margins > 0).float().mean().item(), margin=margins.mean().item(),
            chosen=(chosen.detach() - ref_sides[0]).mean().item(), rejected=(rejected.detach() - ref_sides[1]).mean().item(), **stats,
            _chosen_logprob=chosen.mean().item(), _rejected_logprob=rejected.mean().item(), _z0=kept["z0"], _grad_norm=grad_norm, _lr=lr)

    if held_out:
        chosen, rejected = pair_logprobs(policy, held_out, tokenizer.pad, cfg.micro_batch, device)
        losses, chosen_rewards, rejected_rewards = pair_losses(cfg, chosen, rejected, ref_chosen[len(train):], ref_rejected[len(train):],
                                                               *lengths(held_out, "cpu"), kept["z0"])
        right = (chosen_rewards > rejected_rewards).float().mean()
        print(f"held-out pairs: loss {losses.mean():.3f}, accuracy of the implicit reward {right:.1%} on {len(held_out)} pairs")
    run.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    show(f"after {cfg.loss}")


if __name__ == "__main__":
    run.script(main)
