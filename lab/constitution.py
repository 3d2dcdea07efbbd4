"""Critique and revise: what can a written constitution do without a single label?

The RLHF Book (first edition 13, current 12). Bai et al. 2022: the model answers, the constitution
objects, the model writes anew, and SFT imitates the revisions; then RL on preferences that the
judge gave.

Here an objection is a sentence that the judge of nanorlhf/judge.py finds worth less than nothing.
The answer is cut before it and SFT goes on from there, a few times; what is objected to in the end
is left out. Varied: principles, left out one at a time; the control is the best of as many whole
answers by the same judge. Then PPO by a reward model of the judge's labels, from the revised model.
"""
import sys

from lab import exam, labels, notebook, tastes
from nanorlhf import figures, judge, seeds, worlds
from nanorlhf.rollout import generate_in_batches

SEEDS, MINUTES = (0, 1, 2), 5
SETTINGS = {"questions": 1500, "rounds": 4, "steps": 100, "rl_steps": 75, "left_out": [
    "true", "to the point", "not pasted", "said once", "polite", "ends"]}
TOY = {"questions": 16, "rounds": 1, "steps": 2, "rl_steps": 2, "left_out": ["true"], "prompts": 32}
ANSWER = "Most of what PPO gains by people's labels; RL on the judge's labels loses some of it."
READING = """
Without a single label SFT on revisions gains 0.72 of gold, each at its best temperature, where PPO
on people's labels gains 0.99. The question of truth and "to the point" take away what they name:
without the one as much is wrong as in SFT, without the other there is five times the filler. That
an answer must end changes nothing, since SFT's answers do. At temperature 1 revisions are ahead of
the best of as many whole answers in each seed; at the best temperature three seeds do not settle
it, since cooling makes up for the choice. RL on the judge's preferences loses gold in each seed. It
goes more than twice as far from SFT as PPO on people's labels at the same price of KL; it is right
more often, tells less, and rambles as much as SFT. The likeliest reason: labels that never waver
make larger scores, so the same price holds less.
"""


def first_bad(principles, judged):
    """Where the first sentence begins that is worth less than nothing; None where there is none."""
    for sentence in judged:
        if judge.worth(principles, [[sentence]])[0] < 0:
            return sentence[0]
    return None


def revised(run, base, principles, texts, rounds, purpose):
    """SFT's answers to these questions (texts), revised -> answers"""
    tokenizer, room = run.tokenizer, run.sft.cfg.block_size
    answers, begun, at_work = [""] * len(texts), [""] * len(texts), list(range(len(texts)))
    for i in range(rounds + 1):
        so_far = {j: tokenizer.prompt(texts[j]) + tokenizer.encode(begun[j]) for j in at_work}
        longest = max(map(len, so_far.values()), default=0)
        _, written, _ = generate_in_batches(
            run.sft, list(so_far.values()), min(run.max_new_tokens, room - longest), tokenizer,
            seeds.generator(run.seed, f"{purpose} {i}", run.device))
        for j, text in zip(at_work, written, strict=True):
            answers[j] = begun[j] + text
        judged = judge.verdicts(base, tokenizer, principles, [texts[j] for j in at_work],
                                [answers[j] for j in at_work])
        bad = {j: first_bad(principles, sentences)
               for j, sentences in zip(at_work, judged, strict=True)}
        at_work = [j for j in at_work if bad[j] is not None]
        for j in at_work:
            # without the blank, which belongs to the sentence that is written anew
            begun[j] = answers[j][:bad[j]].rstrip()
            if len(tokenizer.encode(begun[j])) > room // 2:
                begun[j] = ""
    judged = judge.verdicts(base, tokenizer, principles, texts, answers)
    kept = [" ".join(answer[start:end] for start, end, said in sentences
                     if judge.worth(principles, [[(start, end, said)]])[0] >= 0)
            for answer, sentences in zip(answers, judged, strict=True)]
    # where all of it is objected to, seven answers in a thousand, it stands
    return [some or answer for some, answer in zip(kept, answers, strict=True)]


def best_of(run, base, principles, texts, n, purpose):
    """The best of n answers of SFT, by the judge"""
    each = [text for text in texts for _ in range(n)]
    said = run.answer(run.sft, None, [run.tokenizer.prompt(text) for text in each], purpose)
    worth = judge.worth(principles, judge.verdicts(base, run.tokenizer, principles, each,
                                                   said.texts))
    return [said.texts[max(range(i, i + n), key=worth.__getitem__)]
            for i in range(0, len(each), n)]


def imitate(folder, seed, kind, questions, rounds, steps, prompts):
    """kind: a principle that is left out, "" for none, or "best of" -> marks of what imitates the
    answers that come out"""
    run, world, _ = exam.held_out(folder, seed, prompts)
    principles = [p for p in judge.read(worlds.constitution(world.name)) if p.name != kind]
    asked = [q.text for q in world.questions(questions, seeds.rng(seed, "lab constitution"),
                                             world.JUDGED)]
    base, name = run.load("base"), f"lab/constitution_{exam.folder_name(kind or 'whole')}"
    if kind == "best of":
        answers = best_of(run, base, principles, asked, rounds + 1, "lab best of")
    else:
        answers = revised(run, base, principles, asked, rounds, "lab revision")
    rows = [{"prompt": text, "completion": answer, "split": worlds.TRAIN}
            for text, answer in zip(asked, answers, strict=True)]
    data = labels.write_rows(f"{folder}/{name}.jsonl", rows)
    exam.trained(folder, seed, name, "train_sft",
                 {"init": f"{folder}/sft", "data": data, "held_out": 0.0, "steps": steps})
    return exam.mark(folder, seed, name, prompts)


def reinforced(folder, seed, steps, prompts):
    """PPO from the revised model, by a reward model of the judge's labels -> marks"""
    train, held_out = labels.rows_of(folder)
    train = labels.of_prompts(train, 2000)
    worth = tastes.worth_of(folder, seed, "base", train)
    rows = labels.labelled(train, tastes.by_worth(worth), seeds.rng(seed, "lab feedback"))
    data = labels.write(folder, "lab/constitution_labels", rows, held_out)
    reward = exam.trained(folder, seed, "lab/constitution_rm", "train_rm", {"data": data})
    exam.trained(folder, seed, "lab/constitution_ppo", "train_ppo", {
        "init": f"{folder}/lab/constitution_whole", "reward": reward, "steps": steps})
    return exam.mark(folder, seed, "lab/constitution_ppo", prompts)


def run(folder, seed, questions, rounds, steps, rl_steps, left_out, prompts=exam.PROMPTS):
    kinds = {"revised": "", f"best of {rounds + 1}": "best of",
             **{f"without \"{name}\"": name for name in left_out}}
    jobs = [(folder, seed, kind, questions, rounds, steps, prompts) for kind in kinds.values()]
    made = exam.at_once(imitate, jobs, f"constitutions of seed {seed}")
    rows = {"sft": exam.mark(folder, seed, "sft", prompts),
            "PPO on people's labels": exam.mark(folder, seed, "ppo", prompts),
            **dict(zip(kinds, made, strict=True))}
    rows["revised, then PPO"] = reinforced(folder, seed, rl_steps, prompts)
    return exam.over_sft(folder, seed, rows, prompts)


def table(data):
    return notebook.rows_of(data, [
        ("gold, T 1", "at_1.gold", "{:.2f}"), ("gold, best T", "at_best.gold", "{:.2f}"),
        ("told", "at_1.told", "{:.0%}"), ("wrong", "at_1.wrong", "{:.0%}"),
        ("boilerplate", "at_1.boilerplate", "{:.0%}"), ("filler", "at_1.filler", "{:.2f}"),
        ("right: judged", "at_1.right_of_told_judged", "{:.0%}"), ("KL", "kl", "{:.1f}")])


def claims(data):
    def over(row, other, key="at_best.gold"):
        return notebook.differences(data, key, row, other)

    best = f"best of {SETTINGS['rounds'] + 1}"
    return {"revisions earn more than SFT": over("revised", "sft"),
            "revisions earn more than the best of as many answers": over("revised", best),
            "without the question of truth more is wrong":
                over("without \"true\"", "revised", "at_1.wrong"),
            "without \"to the point\" there is more filler":
                over("without \"to the point\"", "revised", "at_1.filler"),
            "PPO on the judge's preferences adds to revisions":
                over("revised, then PPO", "revised"),
            "revisions and PPO without a label earn more than PPO on people's":
                over("revised, then PPO", "PPO on people's labels")}


def figure(data):
    rows = {}
    for name in next(iter(data.values())):
        for title, key in (("T 1", "at_1.gold"), ("best T", "at_best.gold")):
            rows[f"{name}, {title}"] = notebook.mean_of_seeds(data, name, key), None
    return figures.dots("Critique and revise, mean of the seeds", "gold", rows)


if __name__ == "__main__":
    notebook.script(sys.modules[__name__])
