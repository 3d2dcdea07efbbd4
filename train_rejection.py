"""Rejection sampling: answer each prompt many times, keep what the reward model likes, imitate
that.

    for each prompt   y_1 .. y_K ~ sft;   keep argmax_j r(x, y_j), or the best of all answers;
    then              SFT on what was kept
    python train_rejection.py                       forty seconds on two laptop cores
    python train_rejection.py --run out/sums --reward verifier      keep an answer that is right

Beside every selection stands a control of the same size, chosen at random: what the control gains
is more training, not selection. It also draws the best-of-N curve: how proxy and gold grow when the
best of N answers is taken, without any training.
Left out: several rounds, each from the model of the last (that is what online methods do better).
"""
import json
import math
import os
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import (
    InputError,
    batches,
    checkpoints,
    devices,
    look,
    optim,
    resume,
    seeds,
    settings,
    worlds,
)
from nanorlhf.functional import masked_mean
from nanorlhf.log import Log
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate_in_batches, score_answers


@dataclass
class Config:
    # ---- files ----
    # the run's folder; this stage writes <run>/rejection and its control
    run: str = "out/towns"
    out: str = "rejection"      # name of this stage's folder in the run, to keep several variants
    init: str = ""              # model that answers and is then trained; empty: <run>/sft
    # reward model that grades, or "verifier": the world's own check; empty: <run>/rm
    reward: str = ""
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 100       # steps between the states that --resume goes on from

    # ---- what is kept ----
    prompts: int = 500          # training prompts to answer
    samples_per_prompt: int = 16    # answers to each
    # the best answer of each prompt, or the best of all answers
    select: Literal["top_per_prompt", "top_k_overall"] = "top_per_prompt"
    control: bool = True        # train the random control too
    curve_prompts: int = 96     # held-out prompts of the best-of-N curve
    max_new_tokens: int = 64    # longest sampled answer

    # ---- training ----
    seed: int = 0               # of prompts, sampled answers, the control's choice, data order
    epochs: int = 2             # passes over what was kept
    batch_size: int = 32        # answers an update
    lr: float = 5e-4            # peak learning rate
    warmup: int = 5             # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 10         # steps between lines on the console

    def __post_init__(self):
        settings.check(self)


def top_per_prompt(scores):
    """scores (P, K) -> (P,) int64: each prompt's best answer. Unfinished answers come in as -inf; a
    row of only -inf gives -1."""
    best, index = scores.max(dim=1)
    return torch.where(best == -math.inf, -1, index)


def top_k_overall(scores, k):
    """scores (P, K) -> [(p, j), ...]: the k best answers of all, best first; several of one prompt,
    none of another. Never a -inf."""
    flat = scores.flatten()
    order = flat.argsort(descending=True, stable=True)[:k].tolist()
    return [divmod(i, scores.shape[1]) for i in order if flat[i] != -math.inf]


def expected_best_of(scores, n, values=None):
    """Mean, over all n-subsets of the K answers, of the value of the subset's highest-scored
    answer. Exact: no subset is drawn.

    scores (K,); values (K,), by default the scores themselves (the proxy's own curve; with gold as
    values, what the proxy's choice is really worth). The answer of rank i from the bottom is the
    best of C(i, n-1) subsets out of C(K, n). Answers with equal scores share their ranks. Raises
    ValueError unless 1 <= n <= K.
    """
    scores = [float(s) for s in scores]
    values = scores if values is None else [float(v) for v in values]
    K = len(scores)
    if not 1 <= n <= K or len(values) != K:
        raise ValueError(f"best of {n} needs 1 <= n <= K and a value for each score; there are {K} "
                         f"scores and {len(values)} values")
    order, total, i = sorted(range(K), key=scores.__getitem__), 0.0, 0
    while i < K:
        tied = [j for j in order[i:] if scores[j] == scores[order[i]]]
        # those whose best is one of the tied
        subsets = math.comb(i + len(tied), n) - math.comb(i, n)
        if subsets:                                                         # 0 * -inf would be NaN
            total += subsets * sum(values[j] for j in tied) / len(tied)
        i += len(tied)
    return total / math.comb(K, n)


def answer_and_grade(cfg, model, reward_model, tokenizer, world, questions, K, purpose, device):
    """K answers to each question, prompt-major -> (ids of P K answers, gold (P, K), scores (P, K),
    finished (P, K)). Without a reward model the scores are the world's own gold."""
    prompts = [tokenizer.prompt(q.text) for q in questions for _ in range(K)]
    answers, texts, finished = generate_in_batches(
        model, prompts, cfg.max_new_tokens, tokenizer, seeds.generator(cfg.seed, purpose, device),
        progress=purpose)
    asked = [q for q in questions for _ in range(K)]
    gold = [world.grade(*answer)["gold"] for answer in zip(asked, texts, finished, strict=True)]
    gold = torch.tensor(gold)                                                           # (P K,)
    scores = gold
    if reward_model:
        scores = score_answers(reward_model, prompts, answers, tokenizer.pad)           # (P K,)
    shape = (len(questions), K)
    return answers, gold.view(shape), scores.view(shape), torch.tensor(finished).view(shape)


def best_of_n_curve(cfg, model, reward_model, tokenizer, world, device, K=64):
    """[{"n", "proxy", "gold", "kl_bound"}, ...] on held-out prompts: the gold of the answer that
    the *proxy* picks."""
    questions = world.questions(cfg.curve_prompts, seeds.rng(cfg.seed, "curve prompts"),
                                worlds.HELD_OUT)
    _, gold, scores, _ = answer_and_grade(cfg, model, reward_model, tokenizer, world, questions, K,
                                          "best-of-N answers", device)
    curve, n = [], 1
    print("best of N:    N   proxy    gold   KL to sft at most")
    while n <= K:
        proxy = sum(expected_best_of(s, n) for s in scores) / len(scores)
        true = sum(expected_best_of(s, n, g) for s, g in zip(scores, gold, strict=True))
        row = {"n": n, "proxy": proxy, "gold": true / len(scores),
               "kl_bound": math.log(n) - (n - 1) / n}
        curve.append(row)
        print(f"           {n:4d}  {proxy:6.2f}  {row['gold']:6.2f}   {row['kl_bound']:.2f} nats")
        n *= 2
    return curve


def select(cfg, scores, finished):
    """scores, finished (P, K) -> (chosen, control), lists of (p, j): what the reward model likes
    best, and as many finished answers at random."""
    scores = scores.masked_fill(~finished, -math.inf)   # what does not end is nothing to imitate
    chance = seeds.rng(cfg.seed, "control")
    if cfg.select == "top_per_prompt":
        chosen = [(p, j) for p, j in enumerate(top_per_prompt(scores).tolist()) if j >= 0]
        # the same prompts, one finished answer each
        control = [(p, chance.choice(finished[p].nonzero().flatten().tolist())) for p, _ in chosen]
    else:
        chosen = top_k_overall(scores, cfg.prompts)
        control = chance.sample([tuple(pj) for pj in finished.nonzero().tolist()], len(chosen))
    if not chosen:
        raise InputError("no answer finished, so none can be chosen; train SFT longer, or raise "
                         "--max_new_tokens")
    return chosen, control


def finetune(cfg, folder, saved, init, examples, device):
    """SFT from init on examples [(ids, mask)]; writes folder/model.pt -> (model, tokenizer, log)"""
    model, tokenizer = checkpoints.load_checkpoint(init, device)
    optimizer, draws = optim.adamw(model, cfg.lr), seeds.Draws(cfg.seed)
    steps = cfg.epochs * -(-len(examples) // cfg.batch_size)
    log = Log(folder, cfg, steps, cfg.log_every, saved)
    data = batches.epochs(examples, cfg.batch_size, draws.generator("data order"),
                          lambda example: len(example[0]))
    for step in resume.steps(log, model, tokenizer, draws, {"optimizer": optimizer}, data,
                             read={"data": examples}):
        ids, mask = batches.conversation_batch(next(data), tokenizer.pad, device)       # (B, T)
        loss = -masked_mean(masked_logprobs(model, ids, mask), mask)
        loss.backward()
        lr = optim.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(model, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), tokens=int(mask.sum()), _grad_norm=grad_norm, _lr=lr)
    checkpoints.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    look.show_answers(folder, f"after sft on {len(examples)} answers, {os.path.basename(folder)}",
                      model, tokenizer, cfg.max_new_tokens, cfg.seed)
    return model, tokenizer, log.arrays()


def train(cfg):
    """-> (model, tokenizer, log: {key: array over the steps}) of what imitates the chosen answers
    """
    device = devices.pick(cfg.device)
    folder, init = f"{cfg.run}/{cfg.out}", cfg.init or f"{cfg.run}/sft"
    folders = [folder]
    if cfg.control:
        folders.append(f"{folder}_control")
    saved = [resume.load(cfg, f) for f in folders]
    model, tokenizer = checkpoints.load_checkpoint(init, device)
    world, reward_model = worlds.of(tokenizer), None
    if cfg.reward != "verifier":
        reward_model, _ = checkpoints.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device,
                                                      kind="scalar", like=tokenizer)

    # 1. write K answers to each prompt   2. grade them
    K = cfg.samples_per_prompt
    questions = world.questions(cfg.prompts, seeds.rng(cfg.seed, "rejection prompts"), world.JUDGED)
    answers, gold, scores, finished = answer_and_grade(cfg, model, reward_model, tokenizer, world,
                                                       questions, K, "answers", device)     # (P, K)

    # 3. select, and a control of the same size
    picks = select(cfg, scores, finished)
    print(f"{cfg.prompts} prompts x {K} answers, gold {gold.mean():.2f} on average, "
          f"{finished.float().mean():.1%} finished; proxy and gold of")
    for name, pick in zip((cfg.select, "random control"), picks, strict=True):
        p, j = torch.tensor(pick).T
        print(f"  {name:15} {len(pick)} answers  proxy {scores[p, j].mean():6.2f}  "
              f"gold {gold[p, j].mean():6.2f}")

    # 4. imitate
    made = []
    for to, state, pick in zip(folders, saved, picks[:len(folders)], strict=True):
        examples = batches.answer_rows([tokenizer.prompt(questions[p].text) for p, _ in pick],
                                       [answers[p * K + j] for p, j in pick])
        made.append(finetune(cfg, to, state, init, examples, device))

    curve = best_of_n_curve(cfg, model, reward_model, tokenizer, world, device)
    checkpoints.write_atomically(f"{folder}/best_of_n.json",
                                 lambda f: json.dump(curve, f, indent=1))
    return made[0]


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
