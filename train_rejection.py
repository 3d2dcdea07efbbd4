"""Rejection sampling: answer each prompt many times, keep what the reward model likes, imitate that.

    for each prompt   y_1 .. y_K ~ sft;   keep argmax_j r(x, y_j)  (or the K best of all);   then SFT on what was kept
    python train_rejection.py                                       forty seconds on two laptop cores

Beside every selection stands a control of the same size, chosen at random: what the control gains is more training, not selection.
It also draws the best-of-N curve: how proxy and gold grow when the best of N answers is taken, without any training.
Left out: several rounds, each from the model of the last (that is what online methods do better).
"""
import json
import math
import os
from dataclasses import dataclass
from typing import Literal

import torch

from nanorlhf import InputError, data, resume, run, towns
from nanorlhf.functional import masked_mean
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import generate_in_batches, score_answers


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/rejection and <run>/rejection_control
    out: str = "rejection"          # name of this stage's folder in the run, to keep several variants
    seed: int = 0                   # of prompts, sampled answers, the control's choice, data order
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # model that answers and is then trained; empty: <run>/sft
    reward: str = ""                # reward model that grades; empty: <run>/rm
    select: Literal["top_per_prompt", "top_k_overall"] = "top_per_prompt"   # the best answer of each prompt, or the best of all answers
    control: bool = True            # train the random control too
    prompts: int = 500              # training prompts to answer
    samples: int = 16               # answers to each
    curve_prompts: int = 96         # held-out prompts of the best-of-N curve
    max_new_tokens: int = 64        # longest sampled answer
    epochs: int = 2                 # passes over what was kept
    batch_size: int = 32            # answers an update
    lr: float = 5e-4                # peak learning rate
    warmup: int = 5                 # steps from 0 to lr
    log_every: int = 10             # steps between lines on the console
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 100           # steps between the states that --resume goes on from


def top_per_prompt(scores):
    """scores (P, K) -> (P,) int64: each prompt's best answer. Unfinished answers come in as -inf; a row of only -inf gives -1."""
    best, index = scores.max(dim=1)
    return torch.where(best == -math.inf, -1, index)


def top_k_overall(scores, k):
    """scores (P, K) -> [(p, j), ...]: the k best answers of all, best first; several of one prompt, none of another. Never a -inf."""
    flat = scores.flatten()
    order = flat.argsort(descending=True, stable=True)[:k].tolist()
    return [divmod(i, scores.shape[1]) for i in order if flat[i] != -math.inf]


def expected_best_of(scores, n, values=None):
    """Mean, over all n-subsets of the K answers, of the value of the subset's highest-scored answer. Exact: no subset is drawn.

    scores (K,); values (K,), by default the scores themselves (the proxy's own curve; with gold as values, what the proxy's
    choice is really worth). The answer of rank i from the bottom is the best of C(i, n-1) subsets out of C(K, n). Answers with
    equal scores share their ranks. Raises ValueError unless 1 <= n <= K.
    """
    scores = [float(s) for s in scores]
    values = scores if values is None else [float(v) for v in values]
    K = len(scores)
    if not 1 <= n <= K or len(values) != K:
        raise ValueError(f"best of {n} needs 1 <= n <= K and a value for each score; there are {K} scores and {len(values)} values")
    order, total, i = sorted(range(K), key=scores.__getitem__), 0.0, 0
    while i < K:
        tied = [j for j in order[i:] if scores[j] == scores[order[i]]]
        subsets = math.comb(i + len(tied), n) - math.comb(i, n)             # those whose best is one of the tied
        if subsets:                                                         # 0 * -inf would be NaN
            total += subsets * sum(values[j] for j in tied) / len(tied)
        i += len(tied)
    return total / math.comb(K, n)


def answer_and_grade(cfg, model, reward_model, tokenizer, questions, K, purpose, device):
    """K answers to each question, prompt-major -> (response ids, gold (P, K), scores (P, K), finished (P, K))."""
    prompts = [tokenizer.prompt(q.text) for q in questions for _ in range(K)]
    responses, texts, finished = generate_in_batches(model, prompts, cfg.max_new_tokens, tokenizer,
                                                     run.generator(cfg.seed, purpose, device), progress=purpose)
    scores = score_answers(reward_model, prompts, responses, tokenizer.pad)
    gold = torch.tensor([towns.grade(questions[i // K], t, f)["gold"] for i, (t, f) in enumerate(zip(texts, finished))])
    shape = (len(questions), K)
    return responses, gold.view(shape), scores.view(shape), torch.tensor(finished).view(shape)


def best_of_n_curve(cfg, model, reward_model, tokenizer, device, K=64):
    """[{"n", "proxy", "gold", "kl_bound"}, ...] on held-out prompts: the gold of the answer that the *proxy* picks."""
    questions = towns.sample_questions(cfg.curve_prompts, run.rng(cfg.seed, "curve prompts"), towns.HELD_OUT)
    _, gold, scores, _ = answer_and_grade(cfg, model, reward_model, tokenizer, questions, K, "best-of-N answers", device)
    curve, n = [], 1
    print("best of N:    N   proxy    gold   KL to sft at most")
    while n <= K:
        proxy = sum(expected_best_of(s, n) for s in scores) / len(scores)
        true = sum(expected_best_of(s, n, g) for s, g in zip(scores, gold)) / len(scores)
        curve.append({"n": n, "proxy": proxy, "gold": true, "kl_bound": math.log(n) - (n - 1) / n})
        print(f"           {n:4d}  {proxy:6.2f}  {true:6.2f}   {curve[-1]['kl_bound']:.2f} nats")
        n *= 2
    return curve


def finetune(cfg, folder, saved, init, examples, device):
    """SFT from init on examples [(ids, mask)]; writes folder/model.pt."""
    model, tokenizer = run.load_checkpoint(init, device)
    optimizer = run.adamw(model, cfg.lr)
    steps = cfg.epochs * -(-len(examples) // cfg.batch_size)
    log = run.Log(folder, cfg, steps, cfg.log_every, saved)
    batches = data.epochs(examples, cfg.batch_size, run.generator(cfg.seed, "data order"), lambda e: len(e[0]))
    for step in resume.steps(log, model, tokenizer, {"optimizer": optimizer}, batches):
        ids, mask = data.conversation_batch(next(batches), tokenizer.pad, device)                # (B, T)
        loss = -masked_mean(masked_logprobs(model, ids, mask), mask)
        loss.backward()
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(model, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss.item(), tokens=int(mask.sum()), _grad_norm=grad_norm, _lr=lr)
    run.save_checkpoint(f"{folder}/model.pt", model, tokenizer)
    run.show_answers(folder, f"after sft on {len(examples)} answers, {os.path.basename(folder)}", model, tokenizer, cfg.max_new_tokens, cfg.seed)


def main():
    cfg = run.parse(Config, __doc__)
    device = run.pick_device(cfg.device)
    folder, init = f"{cfg.run}/{cfg.out}", cfg.init or f"{cfg.run}/sft"
    folders = [f"{cfg.run}/{name}" for name in (cfg.out, f"{cfg.out}_control")[:1 + cfg.control]]
    saved = [resume.load(cfg, f) for f in folders]
    model, tokenizer = run.load_checkpoint(init, device)
    reward_model, _ = run.load_checkpoint(cfg.reward or f"{cfg.run}/rm", device, kind="scalar", like=tokenizer)

    # 1. write K answers to each prompt   2. grade them
    questions = towns.sample_questions(cfg.prompts, run.rng(cfg.seed, "rejection prompts"), towns.JUDGED)
    responses, gold, scores, finished = answer_and_grade(cfg, model, reward_model, tokenizer, questions, cfg.samples, "answers", device)
    scores = scores.masked_fill(~finished, -math.inf)           # an answer that does not end is nothing to imitate

    # 3. select, and a control of the same size
    if cfg.select == "top_per_prompt":
        chosen = [(p, j) for p, j in enumerate(top_per_prompt(scores).tolist()) if j >= 0]
    else:
        chosen = top_k_overall(scores, cfg.prompts)
    if not chosen:
        raise InputError("no answer finished, so none can be chosen; train SFT longer, or raise --max_new_tokens")
    chance = run.rng(cfg.seed, "control")
    if cfg.select == "top_per_prompt":                          # the same prompts, one finished answer each
        control = [(p, chance.choice(finished[p].nonzero().flatten().tolist())) for p, _ in chosen]
    else:
        control = chance.sample([tuple(pj) for pj in finished.nonzero().tolist()], len(chosen))
    print(f"{cfg.prompts} prompts x {cfg.samples} answers, gold {gold.mean():.2f} on average, "
          f"{finished.float().mean():.1%} finished; proxy and gold of")
    for name, pick in ((cfg.select, chosen), ("random control", control)):
        p, j = torch.tensor(pick).T
        print(f"  {name:15} {len(pick)} answers  proxy {scores[p, j].mean():6.2f}  gold {gold[p, j].mean():6.2f}")

    # 4. imitate
    for to, state, pick in zip(folders, saved, (chosen, control)):
        examples = []
        for p, j in pick:
            prompt, answer = tokenizer.prompt(questions[p].text), responses[p * cfg.samples + j]
            examples.append((prompt + answer, [False] * len(prompt) + [True] * len(answer)))
        finetune(cfg, to, state, init, examples, device)

    curve = best_of_n_curve(cfg, model, reward_model, tokenizer, device)
    run.write_atomically(f"{folder}/best_of_n.json", lambda f: json.dump(curve, f, indent=1))


if __name__ == "__main__":
    run.script(main)
