"""Preferences: the SFT model answers each prompt several times, and people say what they prefer.

    for each prompt   y_1 .. y_K ~ sft;   of every two, which is better?
    python make_preferences.py                                  half a minute on two laptop cores
    python make_preferences.py --labels strengths --out strengths       on a five-point scale
    python make_preferences.py --labels rankings --out rankings         all K from best to worst
    python make_preferences.py --labels thumbs --out thumbs     each answer alone, each of its steps
    python make_preferences.py --judge ai --out ai      by the base model and a written constitution

Writes <run>/preferences/pairs.jsonl, which train_rm.py and train_dpo.py read, as text and as ids;
with thumbs also answers.jsonl, for train_prm.py.
A labeler prefers the better of two with probability sigmoid(sharpness * difference in gold).
K = 6 answers make fifteen pairs for six answers' work. Whatever the labels, the held-out pairs are
labelled in the plain way, so that reward models can be compared.
Half of the answers are sampled at temperature 1, half at --cool. At 1 alone SFT seldom tells three
facts in a row, so a reward model has little to learn from about what they are worth.
What the world leaves unjudged is not asked, and a pair that speaks of it is dropped and counted.
An AI judge (nanorlhf/judge.py) takes people's place for the training pairs. How far it agrees with
gold, beside people and the reward model, is printed and kept in judge.json.
Left out: several labelers a pair, labels that the labelers agree on.
"""
import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from nanorlhf import InputError, checkpoints, devices, judge, reports, seeds, settings, worlds
from nanorlhf.batches import map_answers
from nanorlhf.logprobs import answer_logprobs
from nanorlhf.rollout import generate_in_batches, score_answers
from nanorlhf.worlds import labelers


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/preferences
    out: str = "preferences"    # name of this stage's folder in the run, to keep several variants
    init: str = ""              # checkpoint that answers; empty: <run>/sft

    # ---- what is asked ----
    prompts: int = 4000         # training prompts to sample answers to
    samples_per_prompt: int = 6     # answers to each: 6 make 15 pairs
    cool: float = 0.5           # temperature of half of the answers; the others are sampled at 1
    # all: also what the world leaves unjudged (a control)
    judged: Literal["some", "all"] = "some"
    max_new_tokens: int = 64    # longest sampled answer

    # ---- who judges, and how ----
    labels: Literal["pairs", "strengths", "rankings", "thumbs"] = "pairs"   # see above
    judge: Literal["people", "ai"] = "people"
    judge_model: str = ""       # ai: the model that is asked what is true; empty: <run>/base
    # ai: a TOML file of principles, see nanorlhf/judge.py; empty: the world's own
    constitution: str = ""
    sharpness: float = 2.0      # of the labelers: log-odds per unit of gold, or of a judge's worth
    noise: float = 0.0          # share of labels that are given blindly
    gullible: float = 0.0       # share given by people who take the common errors for true
    longer_bias: float = 0.0    # labelers who like length: log-odds for ten more tokens
    polite_bias: float = 0.0    # labelers who like manners more than they should: log-odds

    # ---- the run ----
    seed: int = 0               # of prompts, sampled answers and labels
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self):
        settings.check(self)
        if self.samples_per_prompt < 2:
            raise InputError(f"--samples_per_prompt {self.samples_per_prompt}: it takes two "
                             "answers to make a pair")
        if self.judge == "people" and (self.constitution or self.judge_model):
            flag = "--constitution" if self.constitution else "--judge_model"
            raise InputError(f"{flag} is for --judge ai")
        if self.judge == "ai" and self.gullible:
            raise InputError("--gullible is for people; what an AI judge believes its model says")

    @property
    def people(self):
        """What nanorlhf/worlds/labelers.py takes."""
        return {"sharpness": self.sharpness, "noise": self.noise, "gullible": self.gullible,
                "longer_bias": self.longer_bias, "polite_bias": self.polite_bias}


def sample_answers(cfg, model, tokenizer, world, n, split, device):
    """[(question, [K answers])] for n questions; split is "train" or "held-out".

    Each answer is a dict of text, ids, finished, tokens, and the parts of its grade.
    """
    source = split
    if split == worlds.TRAIN and cfg.judged == "some":
        source = world.JUDGED
    questions = world.questions(n, seeds.rng(cfg.seed, f"{split} prompts"), source)
    sampling = seeds.generator(cfg.seed, f"{split} answers", device)
    answers = [[] for _ in questions]
    cool = cfg.samples_per_prompt // 2
    for temperature, K in ((1.0, cfg.samples_per_prompt - cool), (cfg.cool, cool)):
        prompts = [tokenizer.prompt(q.text) for q in questions for _ in range(K)]
        sampled = generate_in_batches(model, prompts, cfg.max_new_tokens, tokenizer, sampling,
                                      progress=f"{split} answers", temperature=temperature)
        for j, (ids, text, finished) in enumerate(zip(*sampled, strict=True)):
            question = questions[j // K]
            answer = {"text": text, "ids": ids, "finished": finished, "tokens": len(ids),
                      **world.grade(question, text, finished)}
            if cfg.gullible:
                answer["believed"] = world.believed_gold(question, text, finished)
            if source == world.JUDGED:
                answer["unjudged"] = world.speaks_of_unjudged(text)
            answers[j // K].append(answer)
    return list(zip(questions, answers, strict=True))


def compare(question, answers, cfg, labels, labeler, split, tokenizer):
    """-> (rows of pairs.jsonl, Counter of what was dropped): what is said of every two answers.

    Beside it a row has what only this world knows: gold, and how sure the labels can be.
    """
    rows, dropped, seen = [], Counter(), list(map(labelers.as_judged, answers))
    if labels == "rankings":
        order = labelers.ranking(seen, labeler, **cfg.people)
    for i, j in combinations(range(len(answers)), 2):
        a, b = answers[i], answers[j]
        if a["ids"] == b["ids"]:
            dropped["both answers are the same"] += 1
            continue
        if a.get("unjudged") or b.get("unjudged"):
            dropped["an answer speaks of what nobody judges"] += 1
            continue
        p, more = labelers.prefers_first(seen[i], seen[j], **cfg.people), {}
        if labels == "pairs":
            a_is_better = labeler.random() < p
        elif labels == "strengths":
            strength = labelers.strength(seen[i], seen[j], labeler, **cfg.people)
            if strength == 0:
                dropped["neither is better"] += 1
                continue
            a_is_better, more = strength > 0, {"strength": abs(strength)}
        else:
            ranks = order.index(i), order.index(j)
            a_is_better = ranks[0] < ranks[1]
            more = {"chosen_rank": min(ranks), "rejected_rank": max(ranks)}
        chosen, rejected = (a, b) if a_is_better else (b, a)
        rows.append({"prompt": question.text, "chosen": chosen["text"],
                     "rejected": rejected["text"], "prompt_ids": tokenizer.prompt(question.text),
                     "chosen_ids": chosen["ids"], "rejected_ids": rejected["ids"],
                     "chosen_finished": chosen["finished"],
                     "rejected_finished": rejected["finished"],
                     "chosen_gold": chosen["gold"], "rejected_gold": rejected["gold"],
                     "certainty": max(p, 1 - p), "split": split, **more})
    return rows, dropped


def judge_alone(question, answer, cfg, labeler, world, split, tokenizer):
    """A row of answers.jsonl: right, a thumb for the whole answer, or its check where the world
    has one; and where it has steps, [(token, right)] at the last token of each."""
    if world.correct:
        right = answer["finished"] and world.correct(question, answer["text"])
    else:
        p = labelers.thumb_up(labelers.as_judged(answer), cfg.sharpness, cfg.noise, cfg.gullible)
        right = labeler.random() < p
    row = {"prompt": question.text, "completion": answer["text"],
           "prompt_ids": tokenizer.prompt(question.text), "completion_ids": answer["ids"],
           "right": right, "split": split}
    if world.steps:
        row["steps"] = []
        # a token that is not one character: nothing can be placed
        if len(answer["ids"]) - len(answer["text"]) == answer["finished"]:
            row["steps"] = [(end - 1, ok) for end, ok in world.steps(question, answer["text"])]
    return row


def ai_judge(cfg, world, tokenizer, device):
    """-> f(answered): [worth of each answer], answered as sample_answers() gives it; and the model
    that is asked"""
    path = cfg.constitution or worlds.constitution(world.name)
    principles = judge.read(path)
    asked, _ = checkpoints.load_checkpoint(cfg.judge_model or f"{cfg.run}/base", device,
                                           like=tokenizer)
    print(f"an AI judge: {path}, {len(principles)} principles: "
          f"{', '.join(p.name for p in principles)}")

    def worth(answered):
        questions, texts = zip(*((question.text, answer["text"])
                                 for question, answers in answered for answer in answers),
                               strict=True)
        said = judge.verdicts(asked, tokenizer, principles, questions, texts)
        return judge.worth(principles, said)

    return worth, asked


def report_judge(cfg, folder, answered, worth, asked, tokenizer, device):
    """Prints how far an AI judge agrees with gold, and writes <folder>/judge.json."""
    prompts = [tokenizer.prompt(q.text) for q, answers in answered for _ in answers]
    answers = [answer for _, some in answered for answer in some]
    ids = [answer["ids"] for answer in answers]
    own = map_answers(lambda i, m: answer_logprobs(asked, i, m) / m.sum(1), prompts, ids,
                      tokenizer.pad, device)
    scores = {"judge": worth}
    if os.path.exists(f"{cfg.run}/rm/model.pt"):
        reward_model, _ = checkpoints.load_checkpoint(f"{cfg.run}/rm", device, "scalar", tokenizer)
        scores["reward model"] = score_answers(reward_model, prompts, ids, tokenizer.pad).tolist()
    report = reports.judge_report([len(some) for _, some in answered], answers, scores,
                                  own.tolist(), cfg.sharpness, Config.sharpness)
    checkpoints.write_atomically(f"{folder}/judge.json", lambda f: json.dump(report, f, indent=1))
    reports.print_judge_report(report)


def train(cfg):
    """-> the folder with pairs.jsonl (and answers.jsonl)"""
    device, folder = devices.pick(cfg.device), f"{cfg.run}/{cfg.out}"
    model, tokenizer = checkpoints.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    world, written = worlds.of(tokenizer), {"pairs": [], "answers": []}
    if cfg.gullible and not world.believed_gold:
        raise InputError(f"--gullible: nobody believes errors in the world of {world.name}")
    if cfg.judge == "ai":
        worth_of, asked = ai_judge(cfg, world, tokenizer, device)
    for split, n in ((worlds.TRAIN, cfg.prompts), (worlds.HELD_OUT, max(16, cfg.prompts // 10))):
        labels = cfg.labels if split == worlds.TRAIN else "pairs"
        # plain pairs keep their labels whatever else is labelled
        purpose = f"{split} labels" if labels == "pairs" else f"{split} {labels}"
        labeler, thumbs = seeds.rng(cfg.seed, purpose), seeds.rng(cfg.seed, f"{split} thumbs")
        dropped = Counter()
        answered = sample_answers(cfg, model, tokenizer, world, n, split, device)
        if cfg.judge == "ai":
            worth = worth_of(answered)
            if split == worlds.HELD_OUT:    # these are people's, whoever labels the others
                report_judge(cfg, folder, answered, worth, asked, tokenizer, device)
            else:
                flat = [answer for _, answers in answered for answer in answers]
                for answer, value in zip(flat, worth, strict=True):
                    answer["judged"] = value
        for question, answers in answered:
            if labels != "thumbs":
                rows, lost = compare(question, answers, cfg, labels, labeler, split, tokenizer)
                written["pairs"] += rows
                dropped.update(lost)
            if cfg.labels == "thumbs":
                written["answers"] += [judge_alone(question, answer, cfg, thumbs, world, split,
                                                   tokenizer) for answer in answers]
        lost = "; ".join(f"pairs dropped, {why}: {k}" for why, k in dropped.items())
        print(f"{n} {split} prompts, {cfg.samples_per_prompt} answers to each; "
              f"{lost or 'no pair dropped'}")
    for kind, rows in written.items():
        if rows:
            lines = [json.dumps(row) + "\n" for row in rows]
            path = f"{folder}/{kind}.jsonl"
            checkpoints.write_atomically(path, lambda f, lines=lines: f.writelines(lines))
            print(f"wrote {path}: {len(rows)} {kind}")
    return folder


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
