"""Distillation: a student learns to write as its teacher does, token by token.

    minimise  E_y sum_t D( student, teacher | x, y_<t )      Agarwal et al. 2023 (GKD)
    y ~ student, a share --on_policy of them, the others y ~ teacher; never through the sampling

    python train_distill.py                         from SFT towards PPO; half a minute on a laptop
    python train_distill.py --gradient reinforce    of the sampled token, not of the vocabulary
    ... --divergence forward_kl --on_policy 0       word level, on the teacher's answers
    ... --data teacher                              sequence level: what it says, imitated
                                                    (Kim & Rush 2016)
    ... --divergence js --mix 0.1                   between the two KLs
    ... --teacher out/towns/sft --teacher_sees "I hope that helps. "
                                                    the same model, which rambles less when it reads
                                                    this: the student learns to do without
    ... --run out/small --teacher out/towns/ppo     a student of two layers, with its own base:
                                                    train_base.py --run out/small --n_layer 2,
                                                    train_sft.py --run out/small

Each step:  1. write answers   2. ask both models about every token   3. improve the student
What to watch: kl, of the student to its teacher on the student's own answers. It falls from 5 nats
an answer to 0.1, and gold rises to the teacher's.
The visited states are held fixed, in every variant. On the student's own answers this is not the
gradient of the answers' KL, which would charge a token with what comes after it, too. On the
teacher's answers forward KL is the answers' KL, gradient included (tests/test_distill.py).
Left out: MiniLLM's gradient through later states, a teacher with another vocabulary, its top-k
logits from a file.
"""
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import torch

from nanorlhf import (
    InputError,
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
    worlds,
)
from nanorlhf.checks import check_divergence, check_rollout
from nanorlhf.distillation import aligned, masked_divergence, reinforce_loss
from nanorlhf.functional import masked_mean
from nanorlhf.log import Log
from nanorlhf.logprobs import masked_logprobs
from nanorlhf.rollout import answer_texts, generate


@dataclass
class Config:
    # ---- files ----
    run: str = "out/towns"      # the run's folder; this stage writes <run>/distill
    out: str = "distill"        # name of this stage's folder in the run, to keep several variants
    init: str = ""              # student to start from; empty: <run>/sft
    teacher: str = ""           # model to learn from, of the same vocabulary; empty: <run>/ppo
    # empty: prompts of the checkpoint's world; a JSONL (.gz) of prompts; or "teacher": sequence
    # level, cross-entropy on the teacher's answers to the world's prompts
    data: str = ""
    held_out: float = 0.1       # share of the conversations of --data that is measured on
    resume: bool = False        # go on with a run that was interrupted, exactly where it was
    save_every: int = 50        # steps between the states that --resume goes on from

    # ---- answers ----
    steps: int = 100            # updates
    batch_size: int = 32        # prompts an update, one answer to each
    # share of the answers that the student writes itself; the teacher writes the others
    on_policy: float = 1.0
    # text put before the question in the teacher's prompt alone: the student learns to do without
    teacher_sees: str = ""
    max_new_tokens: int = 64    # longest answer
    # of sampling, and of both models' distributions
    temperature: float = 1.0

    # ---- the loss ----
    # see token_divergence in nanorlhf/distillation.py
    divergence: Literal["forward_kl", "reverse_kl", "js"] = "reverse_kl"
    mix: float = 0.5            # js: the teacher's share of the mixture, between 0 and 1
    # exact: summed over the vocabulary; reinforce: of the sampled token, the same on average and
    # noisier, for a teacher of which no more is known
    gradient: Literal["exact", "reinforce"] = "exact"

    # ---- training ----
    seed: int = 0               # of prompts, sampled answers, samples
    # answers a forward: lower it when memory runs out, the gradient stays the same
    micro_batch: int = 64
    lr: float = 3e-4            # peak learning rate
    warmup: int = 5             # steps from 0 to lr
    max_grad_norm: float = 1.0  # gradients are scaled down to this norm

    # ---- what you see ----
    # auto takes a CUDA GPU where there is one
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: int = 10         # steps between lines on the console
    sample_every: int = 50      # steps between samples

    def __post_init__(self):
        settings.check(self)
        own = type(self)        # the defaults
        if self.data == "teacher":
            for name in ("on_policy", "divergence", "mix", "gradient"):
                if getattr(self, name) != getattr(own, name):
                    raise InputError(f"--{name} has no effect on --data teacher, which takes the "
                                     "cross-entropy on the teacher's answers")
        if self.on_policy > 1:
            raise InputError(f"--on_policy {self.on_policy:g}: a share is at most 1")
        if 0 < self.on_policy < 1 and share(self) in (0, self.batch_size):
            raise InputError(f"--on_policy {self.on_policy:g}: of --batch_size {self.batch_size} "
                             f"that is {share(self)} answers; raise --batch_size, or say "
                             f"--on_policy {share(self) // self.batch_size}")
        if self.divergence == "js" and not 0 < self.mix < 1:
            raise InputError(f"--mix {self.mix:g}: between 0 and 1, where js is 0 whatever the two "
                             "models say; the limits are --divergence forward_kl and reverse_kl")
        if self.divergence != "js" and self.mix != own.mix:
            raise InputError("--mix belongs to --divergence js")
        if self.gradient == "reinforce" and self.divergence != "reverse_kl":
            raise InputError("--gradient reinforce takes --divergence reverse_kl: the log-ratio of "
                             "the student's own tokens is an estimate of no other")
        if self.gradient == "reinforce" and self.on_policy < 1:
            raise InputError("--gradient reinforce takes --on_policy 1: tokens that the teacher "
                             "wrote are no sample of the student's")
        if self.temperature == 0:
            raise InputError("--temperature 0 always gives the same answer, and leaves no "
                             "distribution to compare")


def share(cfg):
    """How many answers of a batch the student writes."""
    return 0 if cfg.data == "teacher" else round(cfg.on_policy * cfg.batch_size)


def told_more(prompt, more, user):
    """prompt, more (lists of ids) -> the prompt with `more` before its last question, behind the
    token `user` that opens it."""
    if not more:
        return prompt
    start = len(prompt) - prompt[::-1].index(user)
    return prompt[:start] + more + prompt[start:]


def set_up(cfg, device, draws):
    """What the loop needs -> both models, tokenizer, grade (None where nobody knows the true
    reward), draw(n) -> questions, held_out questions, prompts_of(questions, more)."""
    student, tokenizer = checkpoints.load_checkpoint(cfg.init or f"{cfg.run}/sft", device)
    teacher, _ = checkpoints.load_checkpoint(cfg.teacher or f"{cfg.run}/ppo", device,
                                             like=tokenizer)
    more = tokenizer.encode(cfg.teacher_sees) if cfg.teacher_sees else []
    room = min(student.cfg.block_size, teacher.cfg.block_size - len(more)) - cfg.max_new_tokens
    if room < 1:
        raise InputError(f"--max_new_tokens {cfg.max_new_tokens} and the {len(more)} tokens of "
                         "--teacher_sees leave no room for a prompt in blocks of "
                         f"{student.cfg.block_size} (student) and {teacher.cfg.block_size}")
    prompt_rng, pool, grade = draws.rng("distill prompts"), [], None
    if cfg.data in ("", "teacher"):
        world = worlds.of(tokenizer)
        grade = world.grade
        held_out = world.questions(128, seeds.rng(cfg.seed, "distill held out"), worlds.HELD_OUT)
    else:
        everything, report = files.load_prompts(cfg.data, tokenizer, room)
        rows = [(prompt, []) for prompt in everything]
        print(look.summary(f"{cfg.data}: {len(rows)} prompts", rows, report))
        pool, held_out = files.split(everything, report, cfg.held_out, cfg.seed)
        print(f"{len(pool)} to train on, {len(held_out)} held out")

    def draw(n):
        return prompt_rng.choices(pool, k=n) if pool else world.questions(n, prompt_rng,
                                                                          world.JUDGED)

    def prompts_of(questions, more=()):
        # what load_prompts reads are ids already
        prompts = [q if isinstance(q, list) else tokenizer.prompt(q.text) for q in questions]
        if (longest := max(map(len, prompts), default=0)) > room:
            raise InputError(f"a prompt has {longest} tokens, and --max_new_tokens and "
                             f"--teacher_sees leave room for {room}: shorten one of them")
        return [told_more(prompt, list(more), tokenizer.user) for prompt in prompts]

    # what has no room is told before there is a file
    prompts_of(held_out)
    return SimpleNamespace(student=student, teacher=teacher, tokenizer=tokenizer, grade=grade,
                           draw=draw, prompts_of=prompts_of, more=more, pool=pool,
                           held_out=held_out[:128])


def write(cfg, setup, writer, questions, sampling):
    """An answer of one of the two models to each question, who reads its own prompts -> Rollout"""
    prompts = setup.prompts_of(questions, setup.more if writer is setup.teacher else ())
    return generate(writer, prompts, cfg.max_new_tokens, setup.tokenizer.end, cfg.temperature,
                    generator=sampling, pad=setup.tokenizer.pad)


def both_sides(setup, questions, answers, device):
    """N answers (lists of ids) -> ids, mask (N, T) as the student reads them, ids, mask (N, T') as
    the teacher does: behind another prompt, where it sees more."""
    pad = setup.tokenizer.pad
    return (*batches.answer_batch(setup.prompts_of(questions), answers, pad, device),
            *batches.answer_batch(setup.prompts_of(questions, setup.more), answers, pad, device))


def described(setup, questions, out):
    """What there is to say of a rollout's answers without another forward -> {column: mean}"""
    stats = {}
    if setup.grade:
        texts, finished = answer_texts(out, setup.tokenizer), out.finished.tolist()
        gold = [setup.grade(*a)["gold"] for a in zip(questions, texts, finished, strict=True)]
        stats["gold"] = sum(gold) / len(gold)
    return {**stats, "len": out.mask.sum(1).float().mean().item(),
            "finished": out.finished.float().mean().item()}


@torch.no_grad()
def report(cfg, setup, title, device):
    """Print how far the student is from its teacher where no step trains, and what both earn."""
    questions, said = setup.held_out, []
    if not questions:
        return
    for name, writer in (("student", setup.student), ("teacher", setup.teacher)):
        out = write(cfg, setup, writer, questions,
                    seeds.generator(cfg.seed, "distill held-out answers", device))
        stats = described(setup, questions, out)
        said.append(f"{name} " + ", ".join(f"{key} {value:.2f}" for key, value in stats.items()))
        if writer is setup.student:
            _, kl, _ = masked_divergence(
                writer, setup.teacher, *both_sides(setup, questions, out.responses(), device),
                temperature=cfg.temperature, micro_batch=cfg.micro_batch)               # (N, T)
    print(f"{title}, on {len(questions)} held-out prompts: KL of the student to its teacher "
          f"{kl.sum(1).mean().item():.2f} nats an answer; {'; '.join(said)}", flush=True)


def say_what_to_expect(cfg, starts_as_teacher, device):
    what = f"{cfg.divergence}, {cfg.gradient} gradient"
    if cfg.data == "teacher":
        what = "cross-entropy on the teacher's answers"
    print(f"distill: {cfg.steps} steps of {cfg.batch_size} answers, {share(cfg)} of them the "
          f"student's own, on {device.type}; {what}")
    if cfg.data == "teacher":
        print("the loss is the KL of the answers, teacher to student, and the teacher's entropy: "
              "it does not go to 0")
    if cfg.gradient == "reinforce":
        print("the loss is no distance, only its gradient counts: watch kl")
    if starts_as_teacher:
        print("the student starts as its teacher and reads the same prompts: there is nothing to "
              "learn, and the loss starts at 0")


def train(cfg):
    """-> (student, tokenizer, log: {key: array over the steps})"""
    device = devices.pick(cfg.device)
    folder, draws = f"{cfg.run}/{cfg.out}", seeds.Draws(cfg.seed)
    saved = resume.load(cfg, folder)
    setup = set_up(cfg, device, draws)
    student, teacher, tokenizer = setup.student, setup.teacher, setup.tokenizer
    optimizer = optim.adamw(student, cfg.lr)
    starts_as_teacher = (not setup.more and student.cfg == teacher.cfg
                         and checkpoints.same_weights(student, teacher))
    sampling = draws.generator("distill answers", device)
    B, own = cfg.batch_size, share(cfg)

    def logprobs_of(model, ids, mask, **more):
        return masked_logprobs(model, ids, mask, cfg.temperature, cfg.micro_batch, **more)

    def show(title):
        look.show_answers(folder, title, student, tokenizer, cfg.max_new_tokens, cfg.seed,
                          setup.pool[:3])

    say_what_to_expect(cfg, starts_as_teacher, device)
    print(memory.plan({"student": student}, {"teacher": teacher}, cfg.micro_batch,
                      devices.bf16(device), B))
    log = Log(folder, cfg, cfg.steps, cfg.log_every, saved)
    report(cfg, setup, "before", device)
    show("before distill")
    for step in resume.steps(log, student, tokenizer, draws, {"optimizer": optimizer},
                             read={"teacher": teacher, "data": setup.pool}):
        # 1. write answers: the first ones of the batch by the student, the others by the teacher
        questions, answers, seen = setup.draw(B), [], {}
        for writer, asked in ((student, questions[:own]), (teacher, questions[own:])):
            if not asked:
                continue
            out = write(cfg, setup, writer, asked, sampling)
            answers += out.responses()
            prefix = "" if writer is student else "_teacher_" if own else "teacher_"
            seen |= {prefix + key: value for key, value in described(setup, asked, out).items()}
            if step == 1:
                with torch.no_grad():
                    again = logprobs_of(writer, out.ids, out.mask)
                check_rollout(out.logp, again, out.mask, devices.bf16(device))
        ids, mask, teacher_ids, teacher_mask = both_sides(setup, questions, answers, device)

        # 2. ask both models about every token
        kl = entropy = None
        if cfg.data == "teacher":
            losses = -logprobs_of(student, ids, mask)                                   # (B, T)
        elif cfg.gradient == "reinforce":
            logp, entropy = logprobs_of(student, ids, mask, entropy=True)               # (B, T)
            with torch.no_grad():
                teacher_logp = aligned(logprobs_of(teacher, teacher_ids, teacher_mask),
                                       teacher_mask, mask)                              # (B, T)
            losses, kl = reinforce_loss(logp, teacher_logp), logp.detach() - teacher_logp
        else:
            losses, kl, entropy = masked_divergence(
                student, teacher, ids, mask, teacher_ids, teacher_mask, cfg.divergence, cfg.mix,
                cfg.temperature, cfg.micro_batch)                                       # (B, T)
        # Nats an answer: a sum over its tokens, not a mean. A mean would weigh a token by how long
        # the answer became after it, and reinforce would no longer step as exact does on average.
        loss = losses.sum() / B
        if step == 1 and starts_as_teacher and cfg.data != "teacher":
            check_divergence(loss.item())
        if own:
            seen = {"kl": kl[:own].sum(1).mean().item(), **seen,
                    "entropy": masked_mean(entropy[:own], mask[:own]).item()}

        # 3. improve the student
        loss.backward()
        lr = optim.linear(step - 1, cfg.steps, cfg.lr, cfg.warmup)
        grad_norm = optim.update(student, optimizer, lr, cfg.max_grad_norm)
        log(step, loss=loss.item(), **seen, grad_norm=grad_norm, _lr=lr)
        if step % cfg.sample_every == 0 and step < cfg.steps:
            show(f"distill, after {step} steps")

    checkpoints.save_checkpoint(f"{folder}/model.pt", student, tokenizer)
    report(cfg, setup, "after", device)
    show("after distill")
    return student, tokenizer, log.arrays()


if __name__ == "__main__":
    settings.script(lambda: train(settings.parse(Config, __doc__)))
