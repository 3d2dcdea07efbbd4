"""DPO and its relatives: preferences straight into the policy, without reinforcement learning.

    minimise  - E log sigmoid( beta [ log policy/ref (chosen) - log policy/ref (rejected) ] )
              - nll E log policy(chosen) / its tokens
    the first line is Rafailov et al. 2023, eq. 7, the second Pang et al. 2024, eq. 1

    python train_dpo.py                                   a minute on two laptop cores
    python train_dpo.py --loss ipo                        or cdpo, robust, dpo_norm, hinge,
                                                          apo_zero, apo_down, kto, orpo, simpo
    python train_dpo.py --run out/hh --data hh.jsonl.gz   pairs of your own, and the run's own SFT
    python train_dpo.py --loss kto --data thumbs.jsonl    answers judged alone, true or false

It learns from the pairs of make_preferences.py. What to watch: the margin grows, yet *both*
log-probs usually fall, the rejected one faster: the first line asks for a difference only. The
probability that they lose goes to sentences that no pair holds, mostly nonsense. The second line,
cross-entropy on the chosen answers, keeps it where answers are. --nll 0 is the plain loss: look at
its samples. train_online_dpo.py has the same losses on pairs that are sampled as it trains.
KTO takes answers that were judged alone, too, rows {"prompt", "completion", "label"}.
Left out: SLiC's and RSO's own ways to find pairs.
"""
import copy
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import (
    batches,
    checkpoints,
    devices,
    files,
    look,
    memory,
    optim,
    resume,
    seeds,
    settings,
)
from nanorlhf.checks import check_first_loss, first_loss_bound
from nanorlhf.functional import masked_mean
from nanorlhf.log import Log
from nanorlhf.logprobs import answer_logprobs, pair_logprobs

# re-exported: this is where they are taught
from nanorlhf.preference_losses import (
    OWN_BETA,
    REFERENCE_FREE,
    apo_down_loss,
    apo_zero_loss,
    check_settings,
    dpo_loss,
    dpo_norm_loss,
    first_loss,
    hinge_loss,
    ipo_loss,
    kto_loss,
    log_ratios,
    orpo_loss,
    pair_losses,
    robust_loss,
    simpo_loss,
    thumb_weights,
)
from nanorlhf.reference import kto_reference_point, ref_logprobs

__all__ = ["apo_down_loss", "apo_zero_loss", "dpo_loss", "dpo_norm_loss", "hinge_loss", "ipo_loss",
           "kto_loss", "log_ratios", "orpo_loss", "robust_loss", "simpo_loss"]


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/dpo
    out: str = "dpo"            # name of this stage's folder in the run, to keep several variants
    # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch
    # (random); empty: <run>/sft
    init: str = ""
    ref: str = ""               # reference model; empty: the policy as it starts
    # JSONL (.gz) of preference pairs; empty: <run>/preferences/pairs.jsonl
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data kept to measure on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 100       # steps between the states that --resume goes on from

    # ---- the loss ----
    # see the function of that name in nanorlhf/preference_losses.py
    loss: Literal["dpo", "cdpo", "robust", "dpo_norm", "ipo", "hinge", "apo_zero", "apo_down",
                  "kto", "orpo", "simpo"] = "dpo"
    beta: float = 0.0           # price of a nat from the reference; 0: the loss's own, 0.2 for dpo
    # cdpo, robust: share of labels believed to be the wrong way round
    label_smoothing: float = 0.1
    gamma: float = 1.0          # simpo: margin that beta times the difference a token has to reach
    lambda_D: float = 1.0       # kto: weight of the desirable answers
    # kto: weight of the undesirable ones; the summary says what the two sides weigh together
    lambda_U: float = 1.0
    # weight of the chosen answers' cross-entropy per token; 0: the plain loss (orpo has one)
    nll: float = 0.4

    # ---- training ----
    seed: int = 0               # of data order and samples (and initial weights, from scratch)
    batch_size: int = 10        # prompts an update, with all their pairs
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    steps: int = 0              # updates; 0: as many as one epoch takes
    lr: float = 6e-4            # peak learning rate
    warmup: int = 10            # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- with --init scratch ----
    tokenizer: str = "towns"    # a world's, or gpt2; a checkpoint brings its own
    n_layer: int = 4            # layers
    n_head: int = 4             # heads
    n_embd: int = 112           # width
    block_size: int = 96        # longest sequence

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_new_tokens: int = 64    # longest sampled answer
    log_every: int = 20         # steps between lines on the console
    show_batch: bool = False    # print the first batch before the first step, its answers coloured

    def __post_init__(self):
        settings.check(self)
        check_settings(self)


def lengths(pairs, device):
    """[Preference] -> chosen (B,), rejected (B,): tokens in the answers, the end included."""
    return (torch.tensor([len(pair.chosen) for pair in pairs], device=device),
            torch.tensor([len(pair.rejected) for pair in pairs], device=device))


def load_pairs(cfg, tokenizer, block_size):
    """-> (training pairs, held-out pairs)"""
    path = cfg.data or files.made_path(f"{cfg.run}/preferences/pairs.jsonl",
                                       f"make_preferences.py --run {cfg.run}")
    pairs, report = files.load_pairs(path, tokenizer, block_size, thumbs=cfg.loss == "kto")
    print(look.pairs_summary(path, pairs, report))
    return files.split(pairs, report, cfg.held_out, cfg.seed)


def say_balance(cfg, pairs):
    """Of KTO: what its two sides weigh against each other (Ethayarajh et al. 2024, section 4.2)."""
    liked, disliked = (sum(map(bool, side)) for side in
                       ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs]))
    ratio = cfg.lambda_D * liked / max(1e-9, cfg.lambda_U * disliked)
    print(f"kto: {liked} desirable answers, {disliked} undesirable; lambda_D n_D / (lambda_U n_U) "
          f"is {ratio:.2f}; near 1 neither side drowns the other")


def reference(cfg, policy, tokenizer, device):
    """The model that log-ratios are taken to, or None."""
    if cfg.loss in REFERENCE_FREE:
        return None
    if cfg.ref:
        return checkpoints.load_checkpoint(cfg.ref, device, like=tokenizer)[0]
    if cfg.loss == "kto":
        return copy.deepcopy(policy)    # asked again after the policy has changed, for z0
    return policy


def report_held_out(cfg, beta, policy, held_out, refs, tokenizer, device, z0):
    chosen, rejected = pair_logprobs(policy, held_out, tokenizer.pad, cfg.micro_batch, device)
    losses, chosen_rewards, rejected_rewards = pair_losses(
        cfg, beta, chosen, rejected, *refs, *lengths(held_out, "cpu"), z0,
        thumb_weights(*lengths(held_out, "cpu"), cfg.lambda_D, cfg.lambda_U))
    right = (chosen_rewards > rejected_rewards).float().mean()
    # of an answer judged alone: is its reward on the side of 0 that its label is?
    what = "pairs" if all(pair.chosen and pair.rejected for pair in held_out) else "rows"
    print(f"held-out {what}: loss {losses.mean():.3f}, accuracy of the implicit reward "
          f"{right:.1%} on {len(held_out)} {what}")


def train(cfg):
    """-> (policy, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    policy, tokenizer = checkpoints.start_model(cfg, f"{cfg.run}/sft", device)
    train_pairs, held_out = load_pairs(cfg, tokenizer, policy.cfg.block_size)
    ref, beta = reference(cfg, policy, tokenizer, device), cfg.beta or OWN_BETA[cfg.loss]
    starts_at_ref = ref is not None and checkpoints.same_weights(policy, ref)
    if ref:
        ref_chosen, ref_rejected = ref_logprobs(
            ref, tokenizer, train_pairs + held_out, f"{folder}/ref_logprobs.pt", cfg.micro_batch,
            device)                                                                     # (pairs,)
    else:
        ref_chosen = ref_rejected = torch.zeros(len(train_pairs) + len(held_out))
    optimizer = optim.adamw(policy, cfg.lr)

    groups = batches.by_prompt(range(len(train_pairs)), lambda i: train_pairs[i].group)
    steps = cfg.steps or -(-len(groups) // cfg.batch_size)
    print(f"{cfg.loss}: {len(train_pairs)} pairs, {len(held_out)} held out, {steps} steps of "
          f"{cfg.batch_size} prompts on {device.type}, beta {beta:g}")
    if cfg.loss == "kto":
        say_balance(cfg, train_pairs)
    print(f"chosen and rejected are log-probs{', relative to the reference' if ref else ''}: "
          "that both fall is usual, the margin is what is trained")
    others = {"ref": ref} if ref not in (None, policy) else {}
    print(memory.plan({"policy": policy}, others, cfg.micro_batch, devices.bf16(device)))
    log = Log(folder, cfg, steps, cfg.log_every, saved)

    def show(title):
        prompts = [pair.prompt for pair in (held_out or train_pairs)[:3]] if cfg.data else ()
        look.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed, prompts)

    show(f"before {cfg.loss}")
    order = batches.epochs(groups, cfg.batch_size, draws.generator("data order"),
                           lambda group: max(train_pairs[i].length for i in group))
    kept, read = {"z0": 0.0}, {"data": train_pairs}
    if ref:
        read["ref"] = ref
    for step in resume.steps(log, policy, tokenizer, draws,
                             {"optimizer": optimizer, "kept": kept}, order, read):
        # 1. pairs, and what the reference says of them
        rows = [i for group in next(order) for i in group]
        pairs = [train_pairs[i] for i in rows]
        # B pairs of N answers
        ids, mask, chosen_rows, rejected_rows = batches.pair_batch(pairs, tokenizer.pad, device)
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, ids, mask, chosen_rows, rejected_rows)
        ref_c, ref_r = ref_chosen[rows].to(device), ref_rejected[rows].to(device)       # (B,)
        if cfg.loss == "kto":
            kept["z0"] = kto_reference_point(policy, ref, pairs, tokenizer.pad, device,
                                             cfg.micro_batch).item()

        # 2. the loss
        logp = answer_logprobs(policy, ids, mask, cfg.micro_batch)                      # (N,)
        chosen, rejected = logp[chosen_rows], logp[rejected_rows]                       # (B,)
        tokens = lengths(pairs, device)
        thumbs = thumb_weights(*tokens, cfg.lambda_D, cfg.lambda_U)                     # (B,) each
        losses, chosen_rewards, rejected_rewards = pair_losses(
            cfg, beta, chosen, rejected, ref_c, ref_r, *tokens, kept["z0"], thumbs)
        loss, margins = losses.mean(), chosen_rewards - rejected_rewards
        if step == 1 and starts_at_ref:
            bound = first_loss_bound(devices.bf16(device), beta, chosen, tokens[0].clamp(min=1))
            check_first_loss(loss.item(), bound, first_loss(cfg.loss, beta, thumbs))
        # of a thumb alone one side is not there
        liked, disliked = tokens[0] > 0, tokens[1] > 0                                  # (B,)
        nll = -masked_mean(chosen / tokens[0].clamp(min=1), liked)

        # 3. the step
        (loss + cfg.nll * nll).backward()
        lr = optim.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(policy, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), nll=nll.item(), accuracy=(margins > 0).float().mean().item(),
            margin=margins.mean().item(),
            chosen=masked_mean(chosen.detach() - ref_c, liked).item(),
            rejected=masked_mean(rejected.detach() - ref_r, disliked).item(),
            padding=(ids == tokenizer.pad).float().mean().item(),
            _chosen_logprob=masked_mean(chosen.detach(), liked).item(),
            _rejected_logprob=masked_mean(rejected.detach(), disliked).item(),
            _z0=kept["z0"], _grad_norm=grad_norm, _lr=lr)

    refs = ref_chosen[len(train_pairs):], ref_rejected[len(train_pairs):]
    if held_out:
        report_held_out(cfg, beta, policy, held_out, refs, tokenizer, device, kept["z0"])
    checkpoints.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    show(f"after {cfg.loss}")
    return policy, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
