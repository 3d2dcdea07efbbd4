"""Online DPO: the losses of train_dpo.py on pairs of the policy's own answers.

    each step   y_1 .. y_K ~ policy;  every two are compared;  the loss of train_dpo.py on the pairs
    python train_online_dpo.py                          a labeler compares; half a minute
    python train_online_dpo.py --judge reward_model     the run's reward model does
    python train_online_dpo.py --loss ipo               or cdpo, robust, dpo_norm, hinge, apo_zero,
                                                        apo_down, kto, orpo, simpo

Guo et al. 2024. Pairs from a file speak of answers that SFT gives; these of what the policy says
today, its new mistakes among them. Needs a made-up world: its questions are asked.
What to watch: as in train_dpo.py, and gold, the mean over the answers, which is never learned from.
Left out: a queue of older pairs, a reference that follows the policy.
"""
import copy
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    look,
    memory,
    optim,
    resume,
    seeds,
    settings,
    worlds,
)
from nanorlhf.checks import check_first_loss, first_loss_bound
from nanorlhf.files import Preference
from nanorlhf.functional import last_token
from nanorlhf.log import Log
from nanorlhf.logprobs import answer_logprobs, in_parts
from nanorlhf.preference_losses import (
    OWN_BETA,
    REFERENCE_FREE,
    check_settings,
    first_loss,
    pair_losses,
)
from nanorlhf.reference import kto_reference_point
from nanorlhf.rollout import answer_texts, generate
from nanorlhf.worlds.labelers import prefers_first


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/online_dpo
    out: str = "online_dpo"     # name of this stage's folder in the run, to keep several variants
    init: str = ""              # policy to start from; empty: <run>/sft
    ref: str = ""               # reference model; empty: the policy as it starts
    reward: str = ""            # the reward model, with --judge reward_model; empty: <run>/rm
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 100       # steps between the states that --resume goes on from

    # ---- the pairs ----
    judge: Literal["labeler", "reward_model"] = "labeler"       # who compares two answers
    samples_per_prompt: int = 4     # answers to each prompt; 4 make 6 pairs
    sharpness: float = 2.0      # of the labeler: log-odds per unit of gold
    unfinished: float = 2.0     # taken off the reward model's score of an answer that does not end
    max_new_tokens: int = 64    # longest answer

    # ---- the loss ----
    # see the function of that name in nanorlhf/preference_losses.py
    loss: Literal["dpo", "cdpo", "robust", "dpo_norm", "ipo", "hinge", "apo_zero", "apo_down",
                  "kto", "orpo", "simpo"] = "dpo"
    # price of a nat from the reference; 0: the loss's own, 2.5 times that for a reward model, which
    # never wavers: nothing but beta holds the policy back from it
    beta: float = 0.0
    # cdpo, robust: share of labels believed to be the wrong way round
    label_smoothing: float = 0.1
    gamma: float = 1.0          # simpo: margin that beta times the difference a token has to reach
    nll: float = 0.4            # weight of the chosen answers' cross-entropy per token

    # ---- training ----
    seed: int = 0               # of prompts, answers, labels and samples
    steps: int = 150            # updates
    batch_size: int = 10        # prompts an update
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    lr: float = 6e-4            # peak learning rate
    warmup: int = 10            # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 20         # steps between lines on the console
    show_batch: bool = False    # print the first batch before the first step, its answers coloured

    def __post_init__(self):
        settings.check(self)
        check_settings(self)
        if self.samples_per_prompt < 2:
            raise InputError(f"--samples_per_prompt {self.samples_per_prompt}: it takes two "
                             "answers to make a pair")


def beta_of(cfg):
    own = OWN_BETA[cfg.loss]
    if cfg.judge == "reward_model" and cfg.loss not in REFERENCE_FREE:
        own *= 2.5
    return cfg.beta or own


def sample_pairs(cfg, policy, score, world, tokenizer, prompt_rng, sampling, labeler):
    """-> ([Preference], {"gold", "same", "unjudged"}): each two of a prompt's answers, compared.

    score(rollout) -> (B,) of the reward model, or None for the labeler. gold is the mean over
    the answers, to watch; same counts the pairs dropped because both answers are the same,
    unjudged those of which one speaks of what nobody judges.
    """
    asked = world.questions(cfg.batch_size, prompt_rng, world.JUDGED)
    questions = [q for q in asked for _ in range(cfg.samples_per_prompt)]
    prompts = [tokenizer.prompt(q.text) for q in questions]
    out = generate(policy, prompts, cfg.max_new_tokens, tokenizer.end, generator=sampling,
                   pad=tokenizer.pad)
    texts, answers = answer_texts(out, tokenizer), out.responses()
    grades = [world.grade(*answer)
              for answer in zip(questions, texts, out.finished.tolist(), strict=True)]
    unspeakable = [world.speaks_of_unjudged(text) for text in texts]
    scores = score(out).tolist() if score else []
    pairs, same, unjudged = [], 0, 0
    for start in range(0, len(prompts), cfg.samples_per_prompt):
        for a, b in combinations(range(start, start + cfg.samples_per_prompt), 2):
            if answers[a] == answers[b]:
                same += 1
                continue
            if unspeakable[a] or unspeakable[b]:
                unjudged += 1
                continue
            if score:
                a_is_better = scores[a] > scores[b]
            else:
                a_is_better = labeler.random() < prefers_first(grades[a], grades[b], cfg.sharpness)
            chosen, rejected = (a, b) if a_is_better else (b, a)
            pairs.append(Preference(prompts[a], answers[chosen], answers[rejected]))
    gold = sum(grade["gold"] for grade in grades) / len(grades)
    return pairs, {"gold": gold, "same": same, "unjudged": unjudged}


def train(cfg):
    """-> (policy, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    policy, tokenizer = checkpoints.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    world, beta, ref = worlds.of(tokenizer), beta_of(cfg), None
    if cfg.loss not in REFERENCE_FREE and cfg.ref:
        ref, _ = checkpoints.load_checkpoint(cfg.ref, device, like=tokenizer)
    elif cfg.loss not in REFERENCE_FREE:
        ref = copy.deepcopy(policy)
    starts_at_ref = ref is not None and checkpoints.same_weights(policy, ref)
    frozen, score = {"ref": ref} if ref else {}, None
    if cfg.judge == "reward_model":
        reward_model, _ = checkpoints.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device,
                                                      kind="scalar", like=tokenizer)
        frozen["reward model"] = reward_model

        @torch.no_grad()
        def score(out):
            after = in_parts(reward_model, cfg.micro_batch, out.ids)                    # (B, T)
            return last_token(after, out.mask) - cfg.unfinished * ~out.finished         # (B,)

    optimizer = optim.adamw(policy, cfg.lr)
    print(f"{cfg.loss}: pairs labelled online by the {cfg.judge.replace('_', ' ')}, {cfg.steps} "
          f"steps of {cfg.batch_size} prompts on {device.type}, beta {beta:g}")
    print(memory.plan({"policy": policy}, frozen, cfg.micro_batch, devices.bf16(device),
                      cfg.batch_size * cfg.samples_per_prompt))
    log = Log(folder, cfg, cfg.steps, cfg.log_every, saved)

    def show(title):
        look.show_answers(folder, title, policy, tokenizer, cfg.max_new_tokens, cfg.seed)

    show(f"before {cfg.loss}")
    prompt_rng, labeler = draws.rng("dpo prompts"), draws.rng("dpo labels")
    sampling = draws.generator("dpo answers", device)
    for step in resume.steps(log, policy, tokenizer, draws, {"optimizer": optimizer},
                             read=frozen):
        # 1. pairs, and what the reference says of them
        pairs, stats = sample_pairs(cfg, policy, score, world, tokenizer, prompt_rng, sampling,
                                    labeler)
        if not pairs:           # a policy that has all but one answer left, or a small batch
            log(step, **stats)
            continue
        ids, mask, chosen_rows, rejected_rows = batches.pair_batch(pairs, tokenizer.pad, device)
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, ids, mask, chosen_rows, rejected_rows)
        ref_logp = torch.zeros(len(ids), device=device)                                 # (N,)
        if ref:
            with torch.no_grad():
                ref_logp = answer_logprobs(ref, ids, mask, cfg.micro_batch)
        ref_c, ref_r = ref_logp[chosen_rows], ref_logp[rejected_rows]                   # (B,)
        z0 = 0.0
        if cfg.loss == "kto":
            z0 = kto_reference_point(policy, ref, pairs, tokenizer.pad, device, cfg.micro_batch)

        # 2. the loss
        logp = answer_logprobs(policy, ids, mask, cfg.micro_batch)                      # (N,)
        chosen, rejected = logp[chosen_rows], logp[rejected_rows]                       # (B,)
        tokens = mask.sum(1)                                                            # (N,)
        chosen_tokens, rejected_tokens = tokens[chosen_rows], tokens[rejected_rows]     # (B,)
        losses, chosen_rewards, rejected_rewards = pair_losses(
            cfg, beta, chosen, rejected, ref_c, ref_r, chosen_tokens, rejected_tokens, z0)
        loss, margins = losses.mean(), chosen_rewards - rejected_rewards
        if step == 1 and starts_at_ref:
            bound = first_loss_bound(devices.bf16(device), beta, chosen, chosen_tokens)
            check_first_loss(loss.item(), bound, first_loss(cfg.loss, beta))
        nll = -(chosen / chosen_tokens).mean()

        # 3. the step
        (loss + cfg.nll * nll).backward()
        lr = optim.linear(step - 1, cfg.steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(policy, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), nll=nll.item(), accuracy=(margins > 0).float().mean().item(),
            margin=margins.mean().item(), chosen=(chosen.detach() - ref_c).mean().item(),
            rejected=(rejected.detach() - ref_r).mean().item(), **stats,
            padding=(ids == tokenizer.pad).float().mean().item(),
            _chosen_logprob=chosen.mean().item(), _rejected_logprob=rejected.mean().item(),
            _z0=float(z0), _grad_norm=grad_norm, _lr=lr)

    checkpoints.save_checkpoint(f"{folder}/model.pt", policy, tokenizer)
    show(f"after {cfg.loss}")
    return policy, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
