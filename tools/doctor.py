"""Is my run healthy? What a stage's log says, with the row and the number, what that usually means,
and which flag to turn.

    python -m tools.doctor out/towns/ppo        one stage, finished or running
    python -m tools.doctor --all out/towns      all stages of a run

It reads config.json, log.jsonl and report.json. A rule looks at fifths of a run, or at means of ten
rows and more, so that noise does not speak. What it does not find may still be there.
"""
import argparse
import math
import os
from dataclasses import dataclass

import numpy as np

from nanorlhf import InputError, settings
from tools.run_files import read_stages

LN_2 = math.log(2)
RL = ("PPO", "GRPO")


@dataclass
class Finding:
    illness: str
    seen: str       # the rows and the numbers
    means: str      # what that usually is
    turn: str       # what to do


# ---- looking at a column ----

def column(stage, key):
    """The column's numbers; [] where there is none."""
    values = np.asarray(stage.log.get(key, ()), float)
    return values[~np.isnan(values)]


def fifths(values):
    """Means of the five parts of a run; None where there are too few rows to say."""
    if len(values) < 15:
        return None
    return np.array([part.mean() for part in np.array_split(values, 5)])


def windows(values, width=10):
    """Means of every `width` rows that stand together; [] where there are fewer."""
    if len(values) < width:
        return np.array([])
    return np.convolve(values, np.ones(width) / width, "valid")


def last(values, width=20):
    return values[-width:].mean() if len(values) >= width else math.nan


def across(parts):
    """Five means in words: "0.1, 0.4, 0.5, 0.2, 0.1"."""
    return ", ".join(f"{x:.2f}" for x in parts)


# ---- RL ----

def over_optimization(stage, run):
    score, gold = fifths(column(stage, "score")), fifths(column(stage, "gold"))
    if score is None:
        return None
    turn = ("raise --beta, stop earlier (--steps), or make a better reward model: more labels, "
            "on this policy's answers")
    if gold is not None:
        best = windows(column(stage, "gold")).max()
        if best - gold[-1] >= 0.35 and score.argmax() == 4:
            return Finding("over-optimization", f"gold was {best:.2f} over ten steps, and its "
                           f"fifths are {across(gold)}, while those of the score rise to the end: "
                           f"{across(score)}",
                           "the policy has found what the reward model likes and people do not",
                           turn)
        return None
    kl = fifths(column(stage, "kl"))
    if kl is not None and kl[-1] > 10 and score.argmax() == 4:
        return Finding("over-optimization, probably", f"the score rises to the end, {kl[-1]:.1f} "
                       "nats from the reference", "that far away a reward model has seen nothing "
                       "like these answers; nobody knows gold here: read samples.txt", turn)
    best = max((row["proxy"] for other in run for row in other.curve), default=None)
    if best is not None and score[-1] > best:
        return Finding("over-optimization, probably", f"a score of {score[-1]:.2f} in the last "
                       f"fifth; the best of many samples of SFT reaches {best:.2f}",
                       "the policy writes what SFT never would; read samples.txt", turn)
    return None


def falls(stage, run):
    for key in ("score", "gold"):
        values = column(stage, key)
        parts = fifths(values)
        if parts is None or (key == "gold" and fifths(column(stage, "score")) is None):
            continue
        noise = values.std() / math.sqrt(len(values) / 5)
        if (np.diff(parts) < 0).sum() >= 3 and parts[0] - parts[-1] > max(0.3, 4 * noise) and (
                parts[0] == parts.max()):
            return Finding(f"the {key} falls from the beginning", f"its fifths are {across(parts)}",
                           "a sign that is turned in the loss or the reward, or a reward model "
                           "that was trained the wrong way round",
                           "check --reward; rate a few answers of samples.txt by it")
    return None


def first_ratio(stage, run):
    errors = column(stage, "first_ratio_error")
    # under bf16 the shape of a batch rounds, too
    bound = 1e-3 if stage.config.get("device") == "cpu" else 0.5
    if len(errors) and errors.max() > bound:
        row = int(errors.argmax())
        return Finding("the ratio is not 1 at a step's first update", f"off by {errors[row]:.2g} "
                       f"at step {row + 1}", "old log-probs of another path or temperature, or of "
                       "a policy that has been updated since", "recompute old_logp right before "
                       "the first update; dropout off")
    return None


def negative_kl(stage, run):
    kl = column(stage, "kl")
    means = windows(kl)
    for i, mean in enumerate(means):
        error = kl[i:i + 10].std(ddof=1) / math.sqrt(10)
        if mean < -max(2 * error, 0.1):
            return Finding("a negative KL", f"{mean:.2f} nats on average at steps {i + 1} to "
                           f"{i + 10}", "a KL is never negative, its estimate only if the answers "
                           "come from another distribution than the policy's: temperature, top-k "
                           "or top-p of the sampler differ, or it is another reference",
                           "sample with the temperature of the log-probs, and with nothing cut off")
    return None


def no_kl(stage, run):
    kl, score = column(stage, "kl"), fifths(column(stage, "score"))
    if score is not None and not kl[5:].any() and abs(score[-1] - score[0]) > 0.05:
        return Finding("a KL of exactly 0 while the score moves", f"0 in all of {len(kl)} steps",
                       "the reference is the policy itself, and moves with it",
                       "load or copy the reference, and freeze it")
    return None


def far_away(stage, run):
    kl = column(stage, "kl")
    parts = fifths(kl)
    if parts is None:
        return None
    if last(kl, 10) > 40 or (parts[4] > 8 and all(parts[i + 1] > 2 * parts[i] for i in (1, 2, 3))):
        return Finding("the KL runs away", f"its fifths are {across(parts)} nats",
                       "the penalty is too small, has the wrong sign, or stands in the loss as k1, "
                       "whose gradient is 0 on average",
                       "raise --beta or lower --lr; with --kl_in loss use k2 or k3")
    return None


def collapse(stage, run):
    entropy, distinct = column(stage, "entropy"), column(stage, "distinct")
    # of a solved task all K answers to a prompt are the one right answer, and a K-th is distinct
    K = stage.config.get("samples_per_prompt", 1)
    few = 0.25 if K == 1 else 0.75 / K
    if len(distinct) and last(entropy, 10) < 0.1 and last(distinct, 10) < few:
        return Finding("collapse", f"an entropy of {last(entropy, 10):.3f} nats a token, and "
                       f"{last(distinct, 10):.0%} of the answers distinct, in the last 10 steps",
                       "the policy has one answer left, and has nothing more to learn from",
                       "raise --beta, lower --lr, or stop earlier")
    return None


def clipping(stage, run):
    clip = column(stage, "clip_fraction")
    if not len(clip) and "clip_low" in stage.log:
        clip = column(stage, "clip_low") + column(stage, "clip_high")
    means, approx_kl = windows(clip[10:]), column(stage, "approx_kl")
    if len(means) and means.max() > 0.15:
        i = int(means.argmax())
        return Finding("too much is clipped", f"{means[i]:.0%} of the tokens at steps {i + 11} to "
                       f"{i + 20}", "updates that go further than the clip allows, and stop there",
                       "lower --lr, or take fewer --epochs")
    if len(approx_kl) >= 20 and windows(approx_kl[10:]).max() > 0.05:
        return Finding("updates that are too large", "approx_kl, of the policy before and after a "
                       f"step, reaches {windows(approx_kl[10:]).max():.3f} nats a token",
                       "a step leaves the region where the ratio means something", "lower --lr")
    updates = stage.config.get("epochs", 1) * stage.config.get("minibatches", 1)
    ratio = column(stage, "ratio_error")
    if updates > 1 and len(ratio) >= 20 and not clip.any() and ratio[10:].max() < 1e-3:
        return Finding("the policy does not move", "nothing was ever clipped, and the ratio stays "
                       f"within {ratio[10:].max():.1g} of 1", "a learning rate near 0, advantages "
                       "near 0, or parameters that the optimizer does not have", "raise --lr")
    return None


def critic(stage, run):
    explained = column(stage, "explained_variance")
    if len(explained) >= 10 and (explained[:5] > 0.95).all():
        return Finding("a critic that knows too much", f"an explained variance of "
                       f"{explained[:5].mean():.2f} in the first steps", "it sees the token that "
                       "it is to judge: values shifted by one", "values = shift_right(critic(ids))")
    if len(explained) >= 40 and last(explained) < 0.05:
        return Finding("a critic that knows nothing", f"an explained variance of "
                       f"{last(explained):.2f} in the last 20 steps (-1 at step 1 is normal)",
                       "its advantages are the returns with noise added", "raise --critic_lr, or "
                       "start it from the reward model")
    return None


def flat_groups(stage, run):
    flat, score = column(stage, "flat"), column(stage, "score")
    if last(flat, 10) > 0.9:
        solved = last(score, 10) > 0.5 * (score.max() + max(0, score.min()))
        what = "solved: all answers to a prompt are right" if solved else (
            "hopeless: no answer to a prompt is right")
        return Finding("groups without a difference", f"{last(flat, 10):.0%} of the prompts of the "
                       f"last 10 steps have answers that all score the same; {what}",
                       "equal scores have no advantage, and teach nothing",
                       "ask harder questions" if solved else "ask easier questions, train SFT "
                       "longer, or --filter by difficulty")
    return None


def gradient(stage, run):
    norm, bound = column(stage, "grad_norm"), stage.config.get("max_grad_norm", 1.0)
    if len(norm) < 20:
        return None
    if (norm > bound).mean() > 0.95 and np.median(norm) > 5 * bound:
        return Finding("gradients far over their bound", f"clipped in {(norm > bound).mean():.0%} "
                       f"of the steps, a median norm of {np.median(norm):.1f} against {bound:g}",
                       "only the direction is left of them, and the learning rate is the length of "
                       "every step", "lower --lr, or raise --max_grad_norm")
    score = column(stage, "score")
    for i in np.flatnonzero(norm > 20 * np.median(norm)):
        if 10 <= i < len(score) - 10 and score[i - 10:i].mean() - score[i + 1:i + 11].mean() > 1:
            return Finding("a spike", f"a gradient of {norm[i]:.1f} at step {i + 1}, where the "
                           f"median is {np.median(norm):.2f}, and the score falls by "
                           f"{score[i - 10:i].mean() - score[i + 1:i + 11].mean():.1f}",
                           "one batch has thrown the policy off", "lower --lr or --max_grad_norm")
    return None


def length(stage, run):
    finished, size = column(stage, "finished"), column(stage, "len")
    longest = stage.config.get("max_new_tokens", math.inf)
    if len(finished) >= 10 and not finished.any():
        return Finding("no answer ends", f"finished is 0 in all of {len(finished)} steps",
                       "the end token is never learned or never seen: pad and end are one token, "
                       "or the end is not in the mask", "check the mask of SFT with --show_batch")
    parts = fifths(size)
    if parts is None:
        return None
    if parts[4] > 0.95 * longest and last(finished, 10) < 0.1:
        return Finding("answers as long as they may be", f"{parts[4]:.0f} of {longest} tokens in "
                       f"the last fifth, {last(finished, 10):.0%} of them finished",
                       "length is rewarded, or not ending costs nothing",
                       "raise --unfinished; look for length in the reward model")
    if parts[4] < 2.5 and parts[0] > 2 * parts[4]:
        return Finding("answers shrink to nothing", f"their fifths are {across(parts)} tokens",
                       "each token costs KL and the score does not pay for it",
                       "lower --beta; look at what the reward model says of short answers")
    return None


# ---- the others ----

def stuck_at_ln2(stage, run):
    loss = column(stage, "loss")
    if stage.config.get("loss") not in ("dpo", "cdpo") or len(loss) < 15:
        return None
    parts = fifths(loss)
    if np.abs(parts - LN_2).max() < 0.01:
        return Finding("the loss stays at ln 2", f"its fifths are {across(parts)}",
                       "the policy does not move from the reference, or the reference moves along",
                       "raise --lr; the reference must be frozen")
    return None


def displaced(stage, run):
    chosen, nll = fifths(column(stage, "chosen")), fifths(column(stage, "nll"))
    if chosen is not None and nll is not None and chosen[4] < -6 and nll[4] - nll[0] > 0.15:
        return Finding("chosen answers are pushed away", f"their log-ratio is {chosen[4]:.1f} nats "
                       f"in the last fifth, and their loss went from {nll[0]:.2f} to {nll[4]:.2f} "
                       "nats a token", "both sides fall, and the probability goes to answers that "
                       "nobody has judged", "raise --nll or --beta, lower --lr")
    return None


def reward_model(stage, run):
    report = stage.report
    if "accuracy" not in report or "pairs" not in report:
        return None
    accuracy, pairs = report["accuracy"], report["pairs"]
    error = math.sqrt(0.25 / pairs)
    if abs(accuracy - 0.5) < 2 * error:
        return Finding("a reward model that guesses", f"{accuracy:.1%} of {pairs} held-out pairs, "
                       f"with an error of {error:.1%}", "it has learned nothing that holds for "
                       "other prompts", "more pairs, a better --init, another --lr")
    if accuracy < 0.5:
        return Finding("a reward model the wrong way round", f"{accuracy:.1%} of {pairs} held-out "
                       "pairs", "chosen and rejected are exchanged somewhere", "check the file")
    ceiling = report.get("noise_ceiling")
    if ceiling and accuracy > ceiling + 2 * error:
        return Finding("a reward model that is too good", f"{accuracy:.1%} of {pairs} pairs, where "
                       f"the labels' noise allows {ceiling:.1%}", "it has seen them: held-out "
                       "pairs in training", "split by prompt")
    if report.get("longer_wins", 0) > 0.6 and accuracy < report["longer_wins"] + error:
        return Finding("length explains the preferences", f"the longer answer wins in "
                       f"{report['longer_wins']:.1%} of the pairs, the model is right in "
                       f"{accuracy:.1%}", "it may have learned to count tokens",
                       "compare pairs of equal length")
    if report.get("score_std", 1) < 0.05:
        return Finding("scores without a spread", f"a standard deviation of "
                       f"{report['score_std']:.3f}", "all answers score alike: RL has nothing to "
                       "go by", "train longer, or raise --lr")
    return None


def overfitting(stage, run):
    held_out = column(stage, "held_out")
    if len(held_out) >= 4 and held_out[-1] > held_out.min() + 0.03 and (
            held_out[-1] > held_out[-2] > held_out[-3]):
        return Finding("overfitting", f"the held-out loss goes {across(held_out)}",
                       "the answers are learned by heart", "fewer --steps, more data, lower --lr")
    return None


def loss_does_not_fall(stage, run):
    parts = fifths(column(stage, "loss"))
    # of itself: in sums the base has the form of an answer already, and SFT begins at 0.08
    if parts is not None and parts[4] > 0.98 * parts[0] and stage.config.get("lr"):
        return Finding("the loss does not fall", f"its fifths are {across(parts)}",
                       "a learning rate that is far too high or too low, or labels that do not "
                       "belong to their inputs", "change --lr by a factor of 3, either way")
    return None


RULES = {
    **dict.fromkeys(RL, (over_optimization, falls, first_ratio, negative_kl, no_kl, far_away,
                         collapse, clipping, critic, flat_groups, gradient, length)),
    "DPO": (stuck_at_ln2, displaced, gradient),
    "online DPO": (displaced, gradient),
    "reward model": (reward_model,),
    "pretraining": (loss_does_not_fall,),
    "instruction tuning": (loss_does_not_fall, overfitting),
}


def examine(stage, run):
    """-> [Finding]. run: all stages beside it, whose curves are compared with."""
    found = [rule(stage, run) for rule in RULES.get(stage.kind, ())]
    return [finding for finding in found if finding]


def note(stage):
    """What looks ill and is not, in words; "" where there is nothing of the kind."""
    loss = np.abs(column(stage, "loss"))
    if stage.kind == "GRPO" and stage.config.get("aggregate") == "sequence" and len(loss) and (
            np.median(loss) < 0.01):
        return ("Not an illness: the loss is near 0. A group's advantages add up to 0, and so does "
                "the loss; its gradient does not. Watch score and grad_norm.")
    return ""


def say(stage, run):
    """Print what there is to say about one stage."""
    found, rows = examine(stage, run), len(column(stage, "step"))
    print(f"{stage.name} ({stage.kind}, {rows} rows): "
          + (f"{len(found)} to look at" if found else "nothing found"))
    for finding in found:
        print(f"  {finding.illness}: {finding.seen}.\n    Usually: {finding.means}.\n"
              f"    Turn: {finding.turn}.")
    if note(stage):
        print(f"  {note(stage)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a stage's folder, such as out/towns/ppo")
    parser.add_argument("--all", action="store_true", help="the folder is a run's: all its stages")
    args = parser.parse_args()
    folder = os.path.normpath(args.folder)
    run = read_stages(folder if args.all else os.path.dirname(folder) or ".")
    stages = [s for s in run if args.all or s.name == os.path.basename(folder)]
    if not stages:
        raise InputError(f"{args.folder}: no stage has left a config.json and a log.jsonl there; "
                         "give a stage's folder, such as out/towns/ppo, or --all and a run's")
    for stage in stages:
        say(stage, run)


if __name__ == "__main__":
    settings.script(main)
