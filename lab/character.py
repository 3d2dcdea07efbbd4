"""A trait as a direction: can it be found, added, read off and foretold?

The RLHF Book (first edition 19, current 17). Chen et al. 2025 (persona vectors): a trait lies along
a direction of the residual stream; adding it brings the trait out, training moves along it, and how
far training data project on it foretells the trait after training.

Three traits of SFT's answers: manners, chatter, and the errors that people share. The direction is
the difference between people's answers with the trait and without; for manners also that between
prompts with a polite example and with a plain one, at their last token. Varied: the layer, and the
strength, in standard deviations of the projection; a random direction of the same strength is the
control. Then four ways to more manners: a polite example in the prompt, steering, SFT on polite
answers, DPO with labelers who love them. PPO is watched along the direction of manners. SFT on data
of five shares of manners: their projection against the manners that come out. Of what is steered
the table has the layer and the strength that go furthest.
"""
import itertools
import sys
from contextlib import nullcontext

import numpy as np
import torch

from lab import exam, notebook, tastes
from lab import labels as label_files
from nanorlhf import batches, figures, seeds, steering, worlds
from nanorlhf.log import read_log
from nanorlhf.rollout import generate_in_batches

SEEDS, MINUTES = (0, 1, 2), 4
SETTINGS = {"demonstrations": 1500, "strengths": [-16.0, -8.0, -4.0, 4.0, 8.0, 16.0], "asked": 256,
            "shares": [0.0, 0.25, 0.5, 0.75, 1.0], "steps": 50, "rl_steps": 75}
TOY = {"demonstrations": 60, "strengths": [2.0], "asked": 16, "shares": [0.0, 0.5, 1.0],
       "steps": 2, "rl_steps": 2, "prompts": 32}
ANSWER = "Read off, yes: data foretell the trait. Added, it brings no more than a random direction."
READING = """
Read off, a direction works. SFT on data of five shares of manners comes out in the order in which
the data project on it, in each seed, as Chen et al. say. Added, it does not. At the best of four
layers and six strengths steering brings 10 points more manners, a random direction of the same
length at its best 17. So what moves there is a model that is disturbed, and not a trait. A
direction from prompts, at their last token, is no better place. Further out every direction ruins:
to steer from the shared errors takes them away, and all else that is told with them, until chatter
is all that is left. So this model has no such vector, or none that a difference of means finds. The
likeliest reason is its size, four layers in which manners are one first sentence among a few,
chosen by a draw. An example in the prompt does nothing either. What works is training: SFT on
polite answers alone brings 78% manners, DPO by labelers who love them 90%. PPO moves along manners
in no settled direction.
"""
SHORT = 80          # characters of an answer that may be an example: two turns must fit
TRAITS = ("manners", "chatter", "errors")
# what goes furthest: title in the table -> how the rows of it begin, which trait, more or less
FURTHEST = {"steered to manners": ("manners", "manners", 1),
            "steered to manners, from prompts": ("prompts", "manners", 1),
            "a random direction": ("random", "manners", 1),
            "steered from manners": ("manners", "manners", -1),
            "steered from chatter": ("chatter", "chatter", -1),
            "steered from errors": ("errors", "errors", -1),
            "steered to errors": ("errors", "errors", 1)}


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


def behind(pair, question):
    """A question behind an example, as a chat"""
    return [{"role": "user", "content": pair[0].text}, {"role": "assistant", "content": pair[1]},
            {"role": "user", "content": question.text}]


def with_and_without(world, trait, shown):
    """shown: [(question, answer)] -> those whose answer has the trait, and the rest"""
    return [[pair for pair in shown if has(world, trait, *pair) == wanted]
            for wanted in (True, False)]


def examples(world, shown):
    """[with manners], [without]: of shown those that are short enough for an example"""
    return with_and_without(world, "manners", [pair for pair in shown if len(pair[1]) < SHORT])


def answered(run, world, questions, model, direction=None, strength=0.0, example=None):
    """What a model says at temperature 1, steered or behind an example -> {"gold", each trait's
    share}"""
    asked = [run.tokenizer.prompt(behind(example, q) if example else q.text) for q in questions]
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
    sets = with_and_without(world, trait, shown)
    return steering.find(run.sft, run.tokenizer, *(as_ids(run.tokenizer, some) for some in sets),
                         layer)


def direction_of_prompts(run, world, layer, shown):
    """The direction of manners in SFT before it has said a word, from questions behind an example
    that has them and behind one that has not."""
    asked = [[(run.tokenizer.prompt(behind(*pair)), [run.tokenizer.end]) for pair in
              zip(itertools.cycle(some), (question for question, _ in shown))]
             for some in examples(world, shown)]
    return steering.find(run.sft, run.tokenizer, *asked, layer, place="prompt")


def along(folder, seed, kind, layer, demonstrations, strengths, asked):
    """SFT steered in one layer -> {row: figures}. kind: a trait, "prompts" or "random"."""
    run, world, questions = exam.held_out(folder, seed, asked)
    shown, rows = people(world, seed, demonstrations), {}
    if kind == "prompts":
        found = direction_of_prompts(run, world, layer, shown)
    else:
        found = direction_of(run, world, kind if kind in TRAITS else "manners", layer, shown)
    if kind == "random":
        draws = seeds.generator(seed, f"lab random {layer}")
        noise = torch.randn(len(found.vector), generator=draws)
        found.vector = noise / noise.norm()
    for strength in strengths:
        rows[f"{kind}, layer {layer + 1}, {strength:+g}"] = answered(
            run, world, questions, run.sft, found, strength)
    return rows


def polite_share(world, shown, share):
    """As many of people's answers, of which this share has manners"""
    sets = with_and_without(world, "manners", shown)
    n = min(map(len, sets))
    polite = int(share * n)
    return sets[0][:polite] + sets[1][:n - polite]


def tuned(folder, seed, share, direction, demonstrations, steps, asked):
    """SFT goes on with data of this share of manners -> figures, with the data's projection.
    direction: where that of manners is kept"""
    run, world, questions = exam.held_out(folder, seed, asked)
    name = f"lab/polite_sft_{share:g}"
    pairs = polite_share(world, people(world, seed, demonstrations), share)
    rows = [{"prompt": q.text, "completion": text, "split": worlds.TRAIN} for q, text in pairs]
    data = label_files.write_rows(f"{folder}/{name}.jsonl", rows)
    exam.trained(folder, seed, name, "train_sft",
                 {"init": f"{folder}/sft", "data": data, "held_out": 0.0, "steps": steps})
    ids, mask = batches.answer_batch(*zip(*as_ids(run.tokenizer, pairs), strict=True),
                                     run.tokenizer.pad, run.device)
    return {**answered(run, world, questions, run.load(name)),
            "projected": steering.projection(run.sft, steering.load(direction, run.sft), ids, mask)}


def preferred(folder, seed, steps, asked):
    """DPO with labelers who love manners -> figures"""
    run, world, questions = exam.held_out(folder, seed, asked)
    train, held_out = label_files.rows_of(folder)
    rows = tastes.relabelled(world, label_files.of_prompts(train, 10 * steps),
                             [(1.0, {"polite_bias": 6.0})], seeds.rng(seed, "lab tastes"))
    data = label_files.write(folder, "lab/polite_labels", rows, held_out)
    exam.trained(folder, seed, "lab/polite_dpo", "train_dpo", {"data": data, "steps": steps})
    return answered(run, world, questions, run.load("lab/polite_dpo"))


def watched(folder, seed, direction, steps, asked):
    """PPO, watched along the direction of manners -> figures, with the trait at the start and the
    end"""
    run, world, questions = exam.held_out(folder, seed, asked)
    exam.trained(folder, seed, "lab/ppo_watched", "train_ppo", {"watch": direction, "steps": steps})
    traits = read_log(f"{folder}/lab/ppo_watched")["trait"]
    some = max(1, steps // 5)
    return {**answered(run, world, questions, run.load("lab/ppo_watched")),
            "trait before": float(np.mean(traits[:some])),
            "trait after": float(np.mean(traits[-some:]))}


def run(folder, seed, demonstrations, strengths, asked, shares, steps, rl_steps,
        prompts=exam.PROMPTS):
    run, world, questions = exam.held_out(folder, seed, asked)
    shown, layers = people(world, seed, demonstrations), range(run.sft.cfg.n_layer)
    direction = f"{folder}/lab/manners.pt"
    steering.save(direction_of(run, world, "manners", len(layers) // 2, shown), direction)
    jobs = [(tuned, folder, seed, share, direction, demonstrations, steps, asked)
            for share in shares]
    jobs += [(preferred, folder, seed, steps, asked),
             (watched, folder, seed, direction, rl_steps, asked)]
    names = [*(f"SFT on {share:.0%} polite" for share in shares), "DPO, polite labels", "PPO"]
    jobs += [(along, folder, seed, kind, layer, demonstrations, strengths, asked)
             for kind in (*TRAITS, "prompts", "random") for layer in layers]
    made = exam.at_once(exam.called, jobs, f"character of seed {seed}")
    example = examples(world, shown)[0][0]
    rows = {"sft": answered(run, world, questions, run.sft),
            "prompted": answered(run, world, questions, run.sft, example=example),
            **dict(zip(names, made, strict=False))}
    for steered in made[len(names):]:
        rows |= steered
    data = made[:len(shares)]
    rows["projection of data with manners after"] = {"rank correlation": notebook.rank_correlation(
        [row["projected"] for row in data], [row["manners"] for row in data])}
    return rows


def furthest(rows):
    """Rows as run() makes them -> those that the table has: of what is steered those alone that go
    furthest, by what they are and with the layer and the strength that did."""
    kinds = {kind for kind, _, _ in FURTHEST.values()}
    shown = {name: row for name, row in rows.items() if name.partition(", layer ")[0] not in kinds}
    for title, (kind, trait, sign) in FURTHEST.items():
        names = [name for name in rows if name.startswith(f"{kind}, layer ")]
        best = max(names, key=lambda name: sign * rows[name][trait])
        _, layer, strength = best.split(", ")
        shown[title] = {**rows[best], "layer": int(layer.split()[1]), "strength": float(strength)}
    return shown


def table(data):
    return notebook.rows_of({seed: furthest(rows) for seed, rows in data.items()}, [
        ("manners", "manners", "{:.0%}"), ("chatter", "chatter", "{:.0%}"),
        ("shared errors", "errors", "{:.0%}"), ("gold", "gold", "{:.2f}"),
        ("layer", "layer", "{:.0f}"), ("strength", "strength", "{:+.0f}"),
        ("projection", "projected", "{:+.2f}"), ("before", "trait before", "{:+.2f}"),
        ("after", "trait after", "{:+.2f}"), ("rank correlation", "rank correlation", "{:.2f}")])


def claims(data):
    data = {seed: furthest(rows) for seed, rows in data.items()}

    def over(row, other, key="manners"):
        return notebook.differences(data, key, row, other)

    steered, rank = "steered to manners", "projection of data with manners after"
    return {"at its best layer and strength, steering brings more manners": over(steered, "sft"),
            "more than a random direction at its best": over(steered, "a random direction"),
            "and costs gold": over("sft", steered, "gold"),
            "the direction from prompts brings more than that from answers":
                over("steered to manners, from prompts", steered),
            "steering away takes chatter from SFT": over("sft", "steered from chatter", "chatter"),
            "steering away takes shared errors from SFT":
                over("sft", "steered from errors", "errors"),
            "SFT on polite answers alone has more manners than steering at its best":
                over(f"SFT on {1:.0%} polite", steered),
            "PPO moves along manners":
                {s: rows["PPO"]["trait after"] - rows["PPO"]["trait before"]
                 for s, rows in data.items()},
            "the projection of data goes along with the manners after":
                {s: rows[rank]["rank correlation"] for s, rows in data.items()}}


def figure(data):
    """Gold against the manners that are reached, a way along the strength: the mean of layers and
    seeds."""
    paths, points = {}, {}
    for kind, title in (("manners", "steered"), ("prompts", "steered, from prompts"),
                        ("random", "a random direction")):
        found = {0.0: [(rows["sft"]["manners"], rows["sft"]["gold"]) for rows in data.values()]}
        for rows in data.values():
            for name, row in rows.items():
                if name.startswith(f"{kind}, layer "):
                    strength = float(name.rpartition(", ")[2])
                    found.setdefault(strength, []).append((row["manners"], row["gold"]))
        paths[title] = tuple(zip(*(np.mean(found[s], 0) for s in sorted(found)), strict=True))
    for name in ("sft", "prompted", "SFT on 100% polite", "DPO, polite labels"):
        points[name] = [notebook.mean_of_seeds(data, name, key) for key in ("manners", "gold")]
    return figures.plane("Manners and their price, mean of layers and seeds",
                         "answers with manners", "gold", points, paths)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
