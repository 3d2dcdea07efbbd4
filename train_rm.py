"""Reward model: a score for an answer, learned from which of two answers people prefer.

    minimise  - E log sigmoid( r(x, chosen) - r(x, rejected) )       Bradley-Terry; InstructGPT, eq. 1
    python train_rm.py                                               a minute on two laptop cores
    python train_rm.py --run out/hh --data hh.jsonl.gz               pairs of your own, from the SFT model of the same run
    python train_rm.py --out rm_margin --loss margin                 how much better, on a five-point scale (Llama 2, eq. 2)
    python train_rm.py --out rm_ranked --loss plackett_luce          a ranking of all K answers
    python train_rm.py --out rm_thumbs --loss outcome                a thumb for each answer, predicted after each of its tokens (Cobbe et al. 2021)
    python train_rm.py --out prm --loss process --run out/sums       whether a step is right, predicted at its end (Lightman et al. 2023)

In the embedded worlds it first makes the data: the SFT model answers each prompt K = 6 times, and of every two of these answers a labeler,
right with probability sigmoid(sharpness * difference in gold), says which is better: fifteen pairs for six answers' work, and they stay in
one batch, as InstructGPT found best. They are kept in <run>/rm/pairs.jsonl, and train_dpo.py learns from the same. Whatever the loss, the
held-out pairs are labelled in this plain way, so that the variants can be compared.
Half of the answers are sampled at temperature 1, half at --cool. At 1 alone SFT seldom tells three
facts in a row, so a reward model has little to learn from about what they are worth.
What the world leaves unjudged is not asked, and a pair that speaks of it is dropped and counted.
Left out: several epochs (a second one fits the labelers' mistakes), an ensemble.
"""
import json
import math
import random
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
import torch.nn.functional as F

from nanorlhf import InputError, data, labelers, look, memory, resume, run
from nanorlhf.functional import last_token, masked_mean
from nanorlhf.gpt import ScalarModel
from nanorlhf.logprobs import in_parts
from nanorlhf.rollout import generate_in_batches, score_answers


SINGLE = ("outcome", "process")         # losses that judge one answer at a time; the others compare


@dataclass
class Config:
    run: str = "out/towns"          # the run's folder; this stage writes <run>/rm
    out: str = "rm"                 # name of this stage's folder in the run, to keep several variants
    seed: int = 0                   # of prompts, sampled answers, labels, the head's weights, data order
    device: Literal["auto", "cpu", "cuda"] = "auto"     # auto takes a CUDA GPU where there is one
    init: str = ""                  # start from: a checkpoint, gpt2[-medium|-large|-xl], a folder of its weights, or scratch (random); empty: <run>/sft
    loss: Literal["bradley_terry", "margin", "plackett_luce", "outcome", "process"] = "bradley_terry"     # what is learned, see above
    data: str = ""                  # JSONL (.gz) of preference pairs; empty: sample from --init and ask the labelers
    tokenizer: Literal["towns", "sums", "gpt2"] = "towns"       # with --init scratch; a checkpoint brings its own
    n_layer: int = 4                # layers, with --init scratch
    n_head: int = 4                 # heads, with --init scratch
    n_embd: int = 112               # width, with --init scratch
    block_size: int = 96            # longest sequence, with --init scratch
    digits: int = 3                 # of the longest numbers in sums
    prompts: int = 4000             # training prompts to sample answers to, without --data
    answers: int = 6                # answers to each: 6 make 15 pairs
    cool: float = 0.5               # temperature of half of the answers; the others are sampled at 1
    judged: Literal["some", "all"] = "some"     # all: also what the world leaves unjudged (a control)
    sharpness: float = 2.0          # of the labelers: log-odds per unit of gold
    noise: float = 0.0              # share of labels that are given blindly
    gullible: float = 0.0           # share given by people who take the common errors for true
    longer_bias: float = 0.0        # labelers who like length: log-odds for ten more tokens
    polite_bias: float = 0.0        # labelers who like manners more than they should: log-odds
    margin: float = 0.5             # with --loss margin: how far apart scores should be for "better"; twice that for "much better"
    max_new_tokens: int = 64        # longest sampled answer
    held_out: float = 0.1           # share of the prompts of --data kept to measure accuracy on
    batch_size: int = 5             # prompts an update, with all their pairs: many small steps learn more from one epoch than few large ones
    micro_batch: int = 64           # answers a forward: lower it when memory runs out, the gradient stays the same
    steps: int = 0                  # updates; 0: as many as one epoch takes
    lr: float = 6e-4                # peak learning rate
    warmup: int = 10                # steps from 0 to lr
    log_every: int = 100            # steps between lines on the console
    show_batch: bool = False        # print the first batch before the first step, its answers (or judged tokens) coloured
    resume: bool = False            # go on with a run that was interrupted, exactly where it was
    save_every: int = 250           # steps between the states that --resume goes on from


# ---- losses ----

def preference_loss(chosen, rejected, margin=0.0):
    """-log sigmoid(chosen - rejected - margin), mean over pairs. chosen, rejected (B,): scores; margin: a number or (B,)."""
    return -F.logsigmoid(chosen - rejected - margin).mean()


def plackett_luce_loss(scores):
    """scores (P, K) of answers ranked best first -> scalar: -log probability of the rankings, mean over prompts.

    The best is picked from all, the second from the rest, ...: sum over k of log(sum of exp s_j, j >= k) - s_k (Plackett 1975).
    With K = 2 it is Bradley-Terry.
    """
    rest = scores.flip(-1).logcumsumexp(-1).flip(-1)                                            # (P, K) this one and all behind it
    return (rest - scores).sum(-1).mean()


def token_loss(logits, right, mask):
    """Cross-entropy of "this is right" after each masked token. logits (N, T), right (N, T) of 0 and 1, mask (N, T) -> scalar."""
    return masked_mean(F.binary_cross_entropy_with_logits(logits, right.float(), reduction="none"), mask)


# ---- data ----

def sample_answers(cfg, model, tokenizer, n, name, device):
    """[(question, [K answers])] for n questions: each answer a dict of text, ids, finished, tokens, and the parts of its grade."""
    world = run.world_of(tokenizer)
    split = world.HELD_OUT if name != "train" else world.TRAIN if cfg.judged == "all" else world.JUDGED
    questions = world.sample_questions(n, run.rng(cfg.seed, f"{name} prompts"), split, **run.knobs(world, cfg.digits))
    sampling = run.generator(cfg.seed, f"{name} answers", device)
    answers = [[] for _ in questions]
    for temperature, K in ((1.0, cfg.answers - cfg.answers // 2), (cfg.cool, cfg.answers // 2)):
        prompts = [tokenizer.prompt(q.text) for q in questions for _ in range(K)]
        sampled = generate_in_batches(model, prompts, cfg.max_new_tokens, tokenizer, sampling,
                                      progress=f"{name} answers", temperature=temperature)
        for j, (ids, text, finished) in enumerate(zip(*sampled)):
            question = questions[j // K]
            answer = {"text": text, "ids": ids, "finished": finished, "tokens": len(ids),
                      **world.grade(question, text, finished)}
            if cfg.gullible:
                answer["believed"] = world.grade(question, text, finished, world.BELIEFS)["gold"]
            if name == "train" and cfg.judged == "some":
                answer["unjudged"] = world.speaks_of_unjudged(text)
            answers[j // K].append(answer)
    return list(zip(questions, answers))


def compare(question, answers, cfg, labeler, name, tokenizer):
    """-> (rows of pairs.jsonl, Counter of what was dropped): the labeler's word on every two answers, and what only this world knows."""
    people = {"sharpness": cfg.sharpness, "noise": cfg.noise, "gullible": cfg.gullible,
              "longer_bias": cfg.longer_bias, "polite_bias": cfg.polite_bias}
    how, rows, dropped = cfg.loss if name == "train" else "bradley_terry", [], Counter()
    order = labelers.ranking(answers, labeler, **people) if how == "plackett_luce" else []
    for i, j in combinations(range(len(answers)), 2):
        a, b = answers[i], answers[j]
        if a["ids"] == b["ids"]:
            dropped["both answers are the same"] += 1
            continue
        if a.get("unjudged") or b.get("unjudged"):
            dropped["an answer speaks of what nobody judges"] += 1
            continue
        p, more = labelers.prefers_first(a, b, **people), {}
        if how == "plackett_luce":
            ranks = order.index(i), order.index(j)
            first, more = ranks[0] < ranks[1], {"chosen_rank": min(ranks), "rejected_rank": max(ranks)}
        elif how == "margin":
            strength = labelers.strength(a, b, labeler, **people)
            first, more = strength > 0, {"strength": abs(strength)}
            if strength == 0:
                dropped["neither is better"] += 1
                continue
        else:
            first = labeler.random() < p
        chosen, rejected = (a, b) if first else (b, a)
        rows.append({"prompt": question.text, "chosen": chosen["text"], "rejected": rejected["text"],
                     "prompt_ids": tokenizer.prompt(question.text), "chosen_ids": chosen["ids"], "rejected_ids": rejected["ids"],
                     "chosen_finished": chosen["finished"], "rejected_finished": rejected["finished"],
                     "chosen_gold": chosen["gold"], "rejected_gold": rejected["gold"], "certainty": max(p, 1 - p), "split": name, **more})
    return rows, dropped


def judge_tokens(question, answer, cfg, labeler, world):
    """[(column, right), ...] of an answer's tokens: all of them with the outcome (a thumb in towns), or the last of each step."""
    if cfg.loss == "process":
        if len(answer["ids"]) - len(answer["text"]) != answer["finished"]:     # a token that is not one character: nothing can be placed
            return []
        return [(end - 1, right) for end, right in world.steps(question, answer["text"])]
    if "correct" in answer:
        up = bool(answer["correct"])
    else:
        up = labeler.random() < labelers.thumb_up(answer, cfg.sharpness, cfg.noise, cfg.gullible)
    return [(t, up) for t in range(len(answer["ids"]))]


def make_data(cfg, model, tokenizer, folder, device):
    """Samples answers and has them judged. Writes pairs.jsonl, and for the losses that judge single answers answers.jsonl."""
    world, written = run.world_of(tokenizer), {"pairs": [], "answers": []}
    if cfg.gullible and not hasattr(world, "BELIEFS"):
        raise InputError(f"--gullible: nobody believes errors in the world of {tokenizer.name}")
    if cfg.loss == "process" and not hasattr(world, "steps"):
        raise InputError("--loss process needs answers in steps that can be checked: a model of the world of sums")
    for name, n in (("train", cfg.prompts), ("held-out", max(16, cfg.prompts // 10))):
        labeler, dropped = run.rng(cfg.seed, f"{name} labels"), Counter()
        for question, answers in sample_answers(cfg, model, tokenizer, n, name, device):
            if name == "held-out" or cfg.loss not in SINGLE:
                rows, lost = compare(question, answers, cfg, labeler, name, tokenizer)
                written["pairs"] += rows
                dropped.update(lost)
            if cfg.loss in SINGLE:
                written["answers"] += [{"prompt": question.text, "completion": a["text"], "prompt_ids": tokenizer.prompt(question.text),
                                        "completion_ids": a["ids"], "judged": judge_tokens(question, a, cfg, labeler, world),
                                        "split": name} for a in answers]
        print(f"{n} {name} prompts, {cfg.answers} answers to each; "
              + ("; ".join(f"pairs dropped, {why}: {k}" for why, k in dropped.items()) or "no pair dropped"))
    for kind, rows in written.items():
        if rows:
            run.write_atomically(f"{folder}/{kind}.jsonl", lambda f: f.writelines(json.dumps(row) + "\n" for row in rows))
    return written["answers"]


def load_pairs(cfg, model, tokenizer, path):
    """-> (training pairs, held-out pairs)"""
    pairs, report = data.load_pairs(path, tokenizer, model.cfg.block_size)
    print(look.summary(f"{path}: {len(pairs)} pairs", data.answer_rows(*data.distinct_answers(pairs)[:2]), report))
    if cfg.loss in SINGLE:
        return [], pairs
    train, held_out = data.split_pairs(pairs, cfg.held_out, run.rng(cfg.seed, "split"))
    for loss, key in (("margin", "strength"), ("plackett_luce", "chosen_rank")):
        if cfg.loss == loss and not all(key in p.row for p in train):
            raise InputError(f"{path}: --loss {loss} needs {key!r} in every row; see what train_rm.py writes without --data")
    return train, held_out


# ---- batches ----

def pairs_loss(reward_model, groups, cfg, pad, device):
    """[[Pair] of one prompt] -> (loss, stats). Each prompt weighs alike, so each of its pairs 1/(K choose 2): InstructGPT, eq. 1."""
    pairs, sizes = [p for group in groups for p in group], [len(group) for group in groups]
    ids, mask, *sides = data.pair_batch(pairs, pad, device)                                      # (N, T)
    with run.autocast(device):
        after = in_parts(reward_model, cfg.micro_batch, ids)                                     # (N, T)
    scores = last_token(after, mask)                                                             # (N,)
    chosen, rejected = (scores[rows] for rows in sides)                                          # (B,) each: B pairs of N answers
    if cfg.loss == "plackett_luce":
        rankings = [ranked(group, *rows) for group, *rows in zip(groups, *(side.split(sizes) for side in sides))]
        loss = torch.stack([plackett_luce_loss(scores[rows][None]) for rows in rankings]).mean()
    else:
        margins = torch.tensor([cfg.margin * p.row["strength"] if cfg.loss == "margin" else 0.0 for p in pairs], device=device)
        # a prompt counts once, however many pairs it has
        weights = torch.tensor([1 / (len(groups) * n) for n in sizes for _ in range(n)], device=device)
        losses = -F.logsigmoid(chosen - rejected - margins)                                      # (B,) Bradley-Terry
        loss = (weights * losses).sum()
    return loss, {"accuracy": (chosen > rejected).float().mean().item(), "margin": (chosen - rejected).mean().item(),
                  "padding": (ids == pad).float().mean().item()}


def ranked(group, chosen, rejected):
    """The pairs of one ranking, and the rows that they compare -> rows, best answer first."""
    places = {}
    for pair, c, r in zip(group, chosen.tolist(), rejected.tolist()):
        places |= {pair.row["chosen_rank"]: c, pair.row["rejected_rank"]: r}
    return [places[rank] for rank in sorted(places)]


def single_batch(answers, pad, device):
    """Rows of answers.jsonl -> ids (N, T), judged (N, T) bool: the tokens with a verdict, right (N, T) bool: which it is."""
    ids, mask = data.answer_batch([a["prompt_ids"] for a in answers], [a["completion_ids"] for a in answers], pad, device)     # (N, T)
    judged, right = torch.zeros_like(mask), torch.zeros_like(mask)
    for i, a in enumerate(answers):
        for column, verdict in a["judged"]:
            judged[i, len(a["prompt_ids"]) + column], right[i, len(a["prompt_ids"]) + column] = True, verdict
    return ids, judged, right


def single_loss(reward_model, answers, pad, device):
    """Rows of answers.jsonl -> (loss, stats)."""
    ids, judged, right = single_batch(answers, pad, device)                                      # (N, T)
    with run.autocast(device):
        logits = reward_model(ids)                                                               # (N, T)
    return token_loss(logits, right, judged), {"accuracy": masked_mean(((logits > 0) == right).float(), judged).item(),
                                               "right": masked_mean(right.float(), judged).item(), "judged": int(judged.sum())}


# ---- report ----

def score_pairs(reward_model, pairs, pad, batch_size=256):
    """[Pair] -> (chosen (B,), rejected (B,)): scores on the CPU."""
    prompts, answers, chosen, rejected = data.distinct_answers(pairs)
    scores = score_answers(reward_model, prompts, answers, pad, batch_size)
    return scores[chosen], scores[rejected]


def accuracy_report(reward_model, pairs, pad, batch_size=256):
    """{name: number} on held-out pairs: accuracy, and what to hold it against. A tie of scores is a miss."""
    chosen, rejected = score_pairs(reward_model, pairs, pad, batch_size)
    margins = (chosen - rejected).tolist()
    longer = [(len(p.chosen) > len(p.rejected)) + 0.5 * (len(p.chosen) == len(p.rejected)) for p in pairs]
    report = {"pairs": len(pairs), "accuracy": mean([m > 0 for m in margins]), "longer_wins": mean(longer)}
    if "certainty" in pairs[0].row:
        gaps = [p.row["chosen_gold"] - p.row["rejected_gold"] for p in pairs]
        report["noise_ceiling"] = mean([p.row["certainty"] for p in pairs])
        report["gold_order"] = mean([(m > 0) == (g > 0) for m, g in zip(margins, gaps) if g])
    sure = [(1 / (1 + math.exp(-abs(m))), m > 0) for m in margins]
    report["calibration"] = []
    for low, high in ((0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        claims = [claim for claim, _ in sure if low <= claim < high]
        hits = [hit for claim, hit in sure if low <= claim < high]
        if hits:
            report["calibration"].append({"pairs": len(hits), "claimed": mean(claims), "right": mean(hits)})
    return report


def print_report(report):
    meaning = {"accuracy": "the chosen answer has the higher score; a tie is a miss",
               "noise_ceiling": "the most that anyone can reach: the labels are noisy",
               "longer_wins": "reached by preferring the longer answer",
               "gold_order": "the truly better answer has the higher score, whatever the label says",
               "judged_accuracy": "of the judged tokens, right or wrong, are told apart",
               "one_answer_for_all": "of them, by saying the same of all"}
    print(f"held out: {report.get('pairs', 0)} pairs" + (f", {report['judged']} judged tokens" if "judged" in report else ""))
    for name in [name for name in meaning if name in report]:
        print(f"  {name:18} {report[name]:6.1%}   {meaning[name]}")
    for part in report.get("calibration", []):
        print(f"  where it is {part['claimed']:.0%} sure it is right in {part['right']:.0%} of {part['pairs']} pairs")


@torch.no_grad()
def judged_report(reward_model, answers, pad, device, batch_size=256):
    """{name: number} over the judged tokens of held-out answers."""
    stats = [single_loss(reward_model, answers[i:i + batch_size], pad, device)[1] for i in range(0, len(answers), batch_size)]
    tokens = max(1, sum(s["judged"] for s in stats))
    right, accuracy = (sum(s[name] * s["judged"] for s in stats) / tokens for name in ("right", "accuracy"))
    return {"judged": tokens, "judged_accuracy": accuracy, "one_answer_for_all": max(right, 1 - right)}


def mean(xs):
    return sum(xs) / max(1, len(xs))


def main():
    cfg = run.parse(Config, __doc__)
    if cfg.answers < 2:
        raise InputError(f"--answers {cfg.answers}: it takes two answers to make a pair")
    if cfg.data and cfg.loss in SINGLE:
        raise InputError(f"--loss {cfg.loss} learns from answers it samples itself; --data holds pairs")
    device = run.pick_device(cfg.device)
    folder = f"{cfg.run}/{cfg.out}"
    saved = resume.load(cfg, folder)
    model, tokenizer = run.start_model(cfg, f"{cfg.run}/sft", device)
    if saved:                                       # its state was kept after its data
        answers = [row for _, row in data.read_jsonl(f"{folder}/answers.jsonl")] if cfg.loss in SINGLE else []
    else:
        answers = [] if cfg.data else make_data(cfg, model, tokenizer, folder, device)
    train, held_out = load_pairs(cfg, model, tokenizer, cfg.data or f"{folder}/pairs.jsonl")
    reward_model = ScalarModel(model, run.generator(cfg.seed, "head")).to(device)       # the SFT model's body, a new head
    optimizer = run.adamw(reward_model, cfg.lr)

    order = run.generator(cfg.seed, "data order")
    if cfg.loss in SINGLE:
        items, at_once = [a for a in answers if a["split"] == "train"], cfg.batch_size * cfg.answers
        batches = data.epochs(items, at_once, order, lambda a: len(a["prompt_ids"]) + len(a["completion_ids"]))
    else:
        items, at_once = data.by_prompt(train), cfg.batch_size
        batches = data.epochs(items, at_once, order, lambda group: max(p.length for p in group))
    steps = cfg.steps or -(-len(items) // at_once)
    print(f"rm: {cfg.loss}, {len(train) or len(items)} {'answers' if cfg.loss in SINGLE else 'pairs'}, {len(held_out)} pairs held out, "
          f"{steps} steps of {cfg.batch_size} prompts on {device.type}")
    print(memory.plan({"reward model": reward_model}, {}, cfg.micro_batch, run.bf16(device)))
    log = run.Log(folder, cfg, steps, cfg.log_every, saved)
    for step in resume.steps(log, reward_model, tokenizer, {"optimizer": optimizer}, batches):
        batch = next(batches)
        if cfg.show_batch and step == 1:
            look.print_batch(tokenizer, *(single_batch(batch, tokenizer.pad, device)[:2] if cfg.loss in SINGLE else
                                          data.pair_batch(sum(batch, []), tokenizer.pad, device)))
        if cfg.loss in SINGLE:
            loss, stats = single_loss(reward_model, batch, tokenizer.pad, device)
        else:
            loss, stats = pairs_loss(reward_model, batch, cfg, tokenizer.pad, device)
        loss.backward()
        lr = run.linear(step - 1, steps, cfg.lr, cfg.warmup)
        grad_norm = run.update(reward_model, optimizer, lr, max_grad_norm=1.0)
        log(step, loss=loss.item(), **stats, _grad_norm=grad_norm, _lr=lr)

    # a process reward model says nothing at the end token, where the score of a whole answer would be read
    report = {} if cfg.loss == "process" else accuracy_report(reward_model, held_out, tokenizer.pad, cfg.micro_batch)
    if cfg.loss not in SINGLE:
        # Bradley-Terry fixes only differences. Centred on what SFT writes, 0 means "as usual", and a penalty has a scale to be read on.
        some = torch.cat(score_pairs(reward_model, random.Random(0).sample(train, min(1000, len(train))), tokenizer.pad, cfg.micro_batch))
        with torch.no_grad():
            reward_model.head.bias -= some.mean()
        report["score_std"] = some.std().item()
    else:
        report |= judged_report(reward_model, [a for a in answers if a["split"] != "train"], tokenizer.pad, device)
    run.write_atomically(f"{folder}/report.json", lambda f: json.dump(report, f, indent=1))
    run.save_checkpoint(f"{folder}/model.pt", reward_model, tokenizer)
    print_report(report)


if __name__ == "__main__":
    run.script(main)
