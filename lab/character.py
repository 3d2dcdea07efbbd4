"""A trait as a direction: can it be found, added, read off and foretold?

The RLHF Book (first edition 19, current 17). Chen et al. 2025 (persona vectors): a trait lies along
a direction of the residual stream; adding it brings the trait out, training moves along it, and how
far training data project on it foretells the trait after training.

Three traits of SFT's answers: manners, chatter, and the errors that people share. The direction is
the difference between people's answers with the trait and without. Varied: the layer, and the
strength, in standard deviations of the projection; a random direction of the same strength is the
control. Then four ways to more manners: a polite example in the prompt, steering, SFT on polite
answers, DPO with labelers who love them. PPO is watched along the direction of manners. SFT on data
of five shares of manners: their projection against the manners that come out.
"""
import sys
from contextlib import nullcontext

import numpy as np
import torch

from lab import exam, notebook, tastes
from lab import labels as label_files
from nanorlhf import batches, figures, seeds, steering, worlds
from nanorlhf.log import read_log
from nanorlhf.rollout import generate_in_batches

SEEDS, MINUTES = (0, 1, 2), 8
SETTINGS = {"demonstrations": 1500, "strengths": [-4.0, -2.0, 2.0, 4.0], "asked": 256,
            "shares": [0.0, 0.25, 0.5, 0.75, 1.0], "steps": 50, "rl_steps": 75}
TOY = {"demonstrations": 60, "strengths": [2.0], "asked": 16, "shares": [0.0, 0.5, 1.0],
       "steps": 2, "rl_steps": 2, "prompts": 32}
ANSWER = ""
READING = ""
TRAITS = ("manners", "chatter", "errors")


def has(world, trait, question, text):
    """Whether this answer has the trait."""
    if trait == "manners":
        return bool(world.grade(question, text)["manners"])
    if trait == "errors":
        return "error" in world.told(question, text).values()
    claims = {claim + "." for claim in world.claims(text)}
    return any(part == "rambling" and text[start:end] not in claims
               for start, end, part in world.parts(question, text))


def people(world, seed, n):
    """[(question, what people answer)]"""
    rng = seeds.rng(seed, "lab character")
    return [(q, world.demonstration(q, rng)) for q in world.questions(n, rng, worlds.TRAIN)]


def as_ids(tokenizer, pairs):
    return [(tokenizer.prompt(q.text), tokenizer.encode(text) + [tokenizer.end])
            for q, text in pairs]


def answered(run, world, questions, model, direction=None, strength=0.0, example=()):
    """What a model says at temperature 1, steered or behind an example -> {"gold", each trait's
    share}"""
    asked = [run.tokenizer.prompt([*example, {"role": "user", "content": q.text}])
             for q in questions]
    room = model.cfg.block_size - max(map(len, asked))
    draws = seeds.generator(run.seed, "lab character answers", run.device)
    with steering.steered(model, direction, strength) if direction else nullcontext():
        _, texts, finished = generate_in_batches(model, asked, min(run.max_new_tokens, room),
                                                 run.tokenizer, draws)
    golds = world.columns(questions, texts, finished)["gold"]
    return {"gold": float(np.mean(golds)),
            **{trait: float(np.mean([has(world, trait, q, text)
                                     for q, text in zip(questions, texts, strict=True)]))
               for trait in TRAITS}}


def direction_of(run, world, trait, layer, shown):
    """The direction of a trait in SFT, from answers of people that have it and that have not."""
    sets = [[pair for pair in shown if has(world, trait, *pair) == wanted]
            for wanted in (True, False)]
    return steering.find(run.sft, run.tokenizer, *(as_ids(run.tokenizer, some) for some in sets),
                         layer)


def along(folder, seed, trait, layer, demonstrations, strengths, asked):
    """SFT steered along a trait in one layer, and along a random direction -> {row: figures}"""
    run, world, questions = exam.held_out(folder, seed, asked)
    found, rows = direction_of(run, world, trait, layer, people(world, seed, demonstrations)), {}
    noise = torch.randn(len(found.vector), generator=seeds.generator(seed, f"lab random {layer}"))
    chance = steering.Direction(layer, noise / noise.norm(), found.mean, found.std)
    for strength in strengths:
        row = f"layer {layer + 1}, {strength:+g}"
        rows[f"{trait}, {row}"] = answered(run, world, questions, run.sft, found, strength)
        if trait == TRAITS[0]:
            rows[f"random, {row}"] = answered(run, world, questions, run.sft, chance, strength)
    return rows


def polite_share(world, shown, share):
    """As many of people's answers, of which this share has manners"""
    sets = [[pair for pair in shown if has(world, "manners", *pair) == wanted]
            for wanted in (True, False)]
    n = min(map(len, sets))
    polite = int(share * n)
    return sets[0][:polite] + sets[1][:n - polite]


def tuned(folder, seed, share, layer, demonstrations, steps, asked):
    """SFT goes on with data of this share of manners -> figures, with the data's projection"""
    run, world, questions = exam.held_out(folder, seed, asked)
    shown, name = people(world, seed, demonstrations), f"lab/polite_sft_{share:g}"
    found = direction_of(run, world, "manners", layer, shown)
    pairs = polite_share(world, shown, share)
    rows = [{"prompt": q.text, "completion": text, "split": worlds.TRAIN} for q, text in pairs]
    data = label_files.write_rows(f"{folder}/{name}.jsonl", rows)
    exam.trained(folder, seed, name, "train_sft",
                 {"init": f"{folder}/sft", "data": data, "held_out": 0.0, "steps": steps})
    ids, mask = batches.answer_batch(*zip(*as_ids(run.tokenizer, pairs), strict=True),
                                     run.tokenizer.pad, run.device)
    return {**answered(run, world, questions, run.load(name)),
            "projected": steering.projection(run.sft, found, ids, mask)}


def preferred(folder, seed, steps, asked):
    """DPO with labelers who love manners -> figures"""
    run, world, questions = exam.held_out(folder, seed, asked)
    train, held_out = label_files.rows_of(folder)
    rows = tastes.relabelled(world, label_files.of_prompts(train, 10 * steps),
                             [(1.0, {"polite_bias": 6.0})], seeds.rng(seed, "lab tastes"))
    data = label_files.write(folder, "lab/polite_labels", rows, held_out)
    exam.trained(folder, seed, "lab/polite_dpo", "train_dpo", {"data": data, "steps": steps})
    return answered(run, world, questions, run.load("lab/polite_dpo"))


def watched(folder, seed, layer, demonstrations, steps, asked):
    """PPO, watched along the direction of manners -> figures, with the trait at the start and the
    end"""
    run, world, questions = exam.held_out(folder, seed, asked)
    path = f"{folder}/lab/manners_{layer}.pt"
    steering.save(direction_of(run, world, "manners", layer, people(world, seed, demonstrations)),
                  path)
    exam.trained(folder, seed, "lab/ppo_watched", "train_ppo", {"watch": path, "steps": steps})
    traits = read_log(f"{folder}/lab/ppo_watched")["trait"]
    some = max(1, steps // 5)
    return {**answered(run, world, questions, run.load("lab/ppo_watched")),
            "trait before": float(np.mean(traits[:some])),
            "trait after": float(np.mean(traits[-some:]))}


def run(folder, seed, demonstrations, strengths, asked, shares, steps, rl_steps,
        prompts=exam.PROMPTS):
    run, world, questions = exam.held_out(folder, seed, asked)
    layers = range(run.sft.cfg.n_layer)
    middle = len(layers) // 2
    jobs = [(along, folder, seed, trait, layer, demonstrations, strengths, asked)
            for trait in TRAITS for layer in layers]
    jobs += [(tuned, folder, seed, share, middle, demonstrations, steps, asked) for share in shares]
    jobs += [(preferred, folder, seed, steps, asked),
             (watched, folder, seed, middle, demonstrations, rl_steps, asked)]
    *steered, preference, ppo = exam.at_once(exam.called, jobs, f"character of seed {seed}")
    steered, data = steered[:-len(shares)], steered[-len(shares):]
    shown = next(pair for pair in people(world, seed, demonstrations)
                 if has(world, "manners", *pair) and len(pair[1]) < 80)
    example = [{"role": "user", "content": shown[0].text},
               {"role": "assistant", "content": shown[1]}]
    rows = {"sft": answered(run, world, questions, run.sft),
            "prompted": answered(run, world, questions, run.sft, example=example),
            **{f"SFT on {share:.0%} polite": row for share, row in zip(shares, data, strict=True)},
            "DPO, polite labels": preference, "PPO": ppo}
    for some in steered:
        rows |= some
    rows["projection of data with manners after"] = {"rank correlation": notebook.rank_correlation(
        [row["projected"] for row in data], [row["manners"] for row in data])}
    return rows


def table(data):
    return notebook.rows_of(data, [
        ("manners", "manners", "{:.0%}"), ("chatter", "chatter", "{:.0%}"),
        ("shared errors", "errors", "{:.0%}"), ("gold", "gold", "{:.2f}"),
        ("projection", "projected", "{:+.2f}"), ("before", "trait before", "{:+.2f}"),
        ("after", "trait after", "{:+.2f}"), ("rank correlation", "rank correlation", "{:.2f}")])


def best(rows, trait, sign):
    """The steered row that goes furthest in a trait, up or down."""
    names = [name for name in rows if name.startswith(f"{trait}, layer")]
    return max(names, key=lambda name: sign * rows[name][trait])


def claims(data):
    def moved(trait, sign):
        return {s: sign * (rows[best(rows, trait, sign)][trait] - rows["sft"][trait])
                for s, rows in data.items()}

    def furthest(rows):
        random = [name for name in rows if name.startswith("random, ")]
        return max(rows[name]["manners"] for name in random)

    rank = "projection of data with manners after"
    return {"at its best layer and strength, steering brings more manners":
                moved("manners", 1),
            "more than a random direction at its best":
                {s: rows[best(rows, "manners", 1)]["manners"] - furthest(rows)
                 for s, rows in data.items()},
            "and costs gold": {s: rows["sft"]["gold"] - rows[best(rows, "manners", 1)]["gold"]
                               for s, rows in data.items()},
            "steering away takes chatter from SFT": moved("chatter", -1),
            "steering away takes shared errors from SFT": moved("errors", -1),
            "SFT on polite answers alone has more manners than steering at its best":
                {s: rows[f"SFT on {1:.0%} polite"]["manners"]
                 - rows[best(rows, "manners", 1)]["manners"] for s, rows in data.items()},
            "PPO moves along manners":
                {s: rows["PPO"]["trait after"] - rows["PPO"]["trait before"]
                 for s, rows in data.items()},
            "the projection of data goes along with the manners after":
                {s: rows[rank]["rank correlation"] for s, rows in data.items()}}


def figure(data):
    """Gold against the manners that are reached, one way a layer: the first seed."""
    rows, paths, points = data[min(data)], {}, {}
    for name, row in rows.items():
        trait, _, rest = name.partition(", ")
        if trait in ("manners", "random") and rest.startswith("layer"):
            layer = rest.partition(", ")[0]
            paths.setdefault(f"{trait}, {layer}" if trait == "random" else layer, []).append(
                (row["manners"], row["gold"]))
    for name in ("sft", "prompted", "SFT on 100% polite", "DPO, polite labels"):
        points[name] = rows[name]["manners"], rows[name]["gold"]
    return figures.plane(f"Manners and their price, seed {min(data)}", "answers with manners",
                         "gold", points, {name: tuple(zip(*sorted(path), strict=True))
                                          for name, path in paths.items()})


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
