"""Distillation: its divergences by hand and in their limits, its two gradients and the one that it
is not by enumeration (exact.py), the lean way against the plain one, and the script."""
import json
import math
import os

import pytest
import torch
from calling import call, complaint, in_the_exact_world

import train_distill
from nanorlhf import InputError, checkpoints, checks, distillation
from nanorlhf.distillation import (
    aligned,
    masked_divergence,
    reinforce_loss,
    token_divergence,
)
from nanorlhf.exact import PROMPTS, T, Table, answers, kl, logprobs
from nanorlhf.functional import entropy, token_logprobs
from nanorlhf.gpt import GPT, GPTConfig
from nanorlhf.tokenizer import Tokenizer

KINDS = ("forward_kl", "reverse_kl", "js")
WORLD = answers()
# two distributions over the answers that are 1.2 nats apart
STUDENT, TEACHER = Table(phase=1.0), Table(phase=4.0)


def assert_exact(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def gradient(loss, model=STUDENT):
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.flatten() for g in grads])


# ---- what the formulas must come to, from probabilities and not from logits ----

def by_hand(p, q):
    """KL of two lists of probabilities, term by term."""
    return sum(a * (a / b).log() for a, b in zip(p, q))


def divergence_by_hand(student, teacher, kind, mix):
    if kind == "forward_kl":
        return by_hand(teacher, student)
    if kind == "reverse_kl":
        return by_hand(student, teacher)
    mixture = [mix * t + (1 - mix) * s for s, t in zip(student, teacher)]
    return mix * by_hand(teacher, mixture) + (1 - mix) * by_hand(student, mixture)


def over_states(kind, mix=0.5, writer=STUDENT, fixed=True):
    """sum over all states of P(writer comes there) D(student, teacher there): what distillation
    minimises. fixed: no gradient through that probability."""
    total = 0.0
    for prefix, chance in states(writer).items():
        ids = torch.tensor([prefix])
        student, teacher = (m(ids)[0, -1].softmax(-1) for m in (STUDENT, TEACHER))
        chance = chance.detach() if fixed else chance
        total = total + chance * divergence_by_hand(student, teacher.detach(), kind, mix)
    return total


def states(writer):
    """{prefix: probability that the writer's answer passes through it}, from its tokens one after
    the other."""
    found = {}
    for row, mask in zip(WORLD.ids.tolist(), WORLD.mask.tolist()):
        chance = torch.ones((), dtype=torch.float64)
        for t in range(1, 1 + sum(mask)):
            found[tuple(row[:t])] = chance
            chance = chance * writer(torch.tensor([row[:t]]))[0, -1].softmax(-1)[row[t]]
    return found


def chances(model):
    return logprobs(model, WORLD).sum(1).exp().detach()                 # (N,)


def both(student=STUDENT, teacher=TEACHER, **more):
    return masked_divergence(student, teacher, WORLD.ids, WORLD.mask, WORLD.ids, WORLD.mask, **more)


# ---- a token ----

@pytest.mark.parametrize("mix", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("kind", KINDS)
def test_divergences_by_hand(kind, mix):
    """The two sides the wrong way round; a mixture with the weights of the other."""
    student, teacher = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.1, 0.1, 0.8]])
    # any offset of the logits is the same distribution
    got = token_divergence(student.log() + 3, teacher.log() - 7, kind, mix)
    assert got.shape == (1,)
    expected = divergence_by_hand(student[0], teacher[0], kind, mix)
    assert got.item() == pytest.approx(expected.item(), abs=1e-6)
    known = {"forward_kl": 0.8382, "reverse_kl": 0.8570}
    assert kind == "js" or got.item() == pytest.approx(known[kind], abs=1e-4)


def random_logits(rows=40, V=7):
    return [torch.randn(rows, V, generator=torch.Generator().manual_seed(seed),
                        dtype=torch.float64).requires_grad_() for seed in (0, 1)]


def test_limits_of_js():
    """b to 0: loss/b is forward KL; b to 1: loss/(1-b) is reverse KL; so are the gradients. With
    M's weights exchanged the limits are, too."""
    student, teacher = random_logits()
    for mix, kind in ((1e-6, "forward_kl"), (1 - 1e-6, "reverse_kl")):
        js = token_divergence(student, teacher, "js", mix) / 1e-6
        limit = token_divergence(student, teacher, kind)
        torch.testing.assert_close(js, limit, rtol=1e-3, atol=0)
        torch.testing.assert_close(gradient_by(student, js), gradient_by(student, limit),
                                   rtol=0, atol=1e-3)


def gradient_by(x, losses):
    return torch.autograd.grad(losses.sum(), x)[0]


def test_symmetry_and_bound_of_js():
    """A half of each is symmetrical; in general the sides change places with b and 1-b. No token
    costs more than the entropy of b."""
    student, teacher = random_logits()
    for mix in (0.1, 0.5, 0.8):
        js = token_divergence(student, teacher, "js", mix)
        assert_exact(js, token_divergence(teacher, student, "js", 1 - mix))
        assert (js > 0).all()
        assert (js <= -mix * math.log(mix) - (1 - mix) * math.log(1 - mix)).all()
    # where the two exclude each other to the last bit KL has no bound, and js nearly its own
    apart = torch.tensor([[400.0, 0.0]]), torch.tensor([[0.0, 400.0]])
    assert token_divergence(*apart, "js", 0.5).item() == pytest.approx(math.log(2))
    assert token_divergence(*apart, "reverse_kl").item() == pytest.approx(400)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_distributions_are_at_no_distance(kind):
    """No divergence, and no pull: a student that is its teacher stays where it is."""
    student, _ = random_logits()
    teacher = student.detach() + 5
    losses = token_divergence(student, teacher, kind, 0.3)
    assert_exact(losses, torch.zeros_like(losses))
    assert_exact(gradient_by(student, losses), torch.zeros_like(student))


def test_what_is_no_divergence():
    """A misspelt kind that falls back on another; a mix at which js is 0 and teaches nothing."""
    student, teacher = random_logits()
    for kind, mix in (("kl", 0.5), ("js", 0.0), ("js", 1.0)):
        with pytest.raises(ValueError, match="kind is" if kind == "kl" else "mix between 0 and 1"):
            token_divergence(student, teacher, kind, mix)


# ---- all answers there are ----

@pytest.mark.parametrize("kind, mix", [("forward_kl", 0.5), ("reverse_kl", 0.5), ("js", 0.2)])
@pytest.mark.parametrize("writer", [STUDENT, TEACHER], ids=["own", "teacher's"])
def test_value_and_gradient_by_enumeration(writer, kind, mix):
    """The loss on sampled answers, of either writer, is on average the divergence of every state,
    which is counted as often as the writer comes there."""
    divergence, reverse, _ = both(kind=kind, mix=mix)
    loss = (chances(writer) * divergence.sum(1)).sum()
    expected = over_states(kind, mix, writer)
    assert_exact(loss, expected)
    assert_exact(gradient(loss), gradient(expected))
    # the second number is the answers' KL on the student's own, whatever is trained
    if writer is STUDENT:
        of_answers = kl(*(logprobs(m, WORLD).sum(1) for m in (STUDENT, TEACHER)))
        assert_exact((chances(STUDENT) * reverse.sum(1)).sum(), of_answers.detach())


def test_reinforce_is_the_same_on_average():
    """A with the wrong sign, not detached, or summed over what comes after: not this gradient."""
    logp, teacher_logp = logprobs(STUDENT, WORLD), logprobs(TEACHER, WORLD).detach()
    loss = (chances(STUDENT) * reinforce_loss(logp, teacher_logp).sum(1)).sum()
    expected = gradient(over_states("reverse_kl"))
    assert expected.norm() > 0.1
    assert_exact(gradient(loss), expected)


def test_the_gradient_of_the_answers_kl_is_another():
    """What both leave out is how earlier tokens lead to later states. With it, and only with it,
    the gradient is that of the answers' KL, from which theirs is 102% off here. The value is the
    same."""
    logp, teacher_logp = logprobs(STUDENT, WORLD), logprobs(TEACHER, WORLD).detach()
    of_answers = kl(logp.sum(1), teacher_logp.sum(1))
    led_there = over_states("reverse_kl", fixed=False)
    assert_exact(of_answers, led_there)
    whole = gradient(of_answers)
    assert_exact(whole, gradient(led_there))
    fixed = gradient(over_states("reverse_kl"))
    assert_exact(of_answers, over_states("reverse_kl"))
    cosine = torch.cosine_similarity(whole, fixed, dim=0).item()
    assert cosine == pytest.approx(0.945, abs=1e-3)
    assert ((whole - fixed).norm() / whole.norm()).item() == pytest.approx(1.022, abs=1e-3)


def test_the_sampled_log_ratio_teaches_nothing():
    """Its mean is the KL, its gradient on average 0: a backward through it is noise."""
    logp, teacher_logp = logprobs(STUDENT, WORLD), logprobs(TEACHER, WORLD).detach()
    mean = (chances(STUDENT) * (logp - teacher_logp).sum(1)).sum()
    assert mean.item() > 1
    assert_exact(gradient(mean), torch.zeros(STUDENT.weight.numel(), dtype=torch.float64))


def test_forward_kl_on_the_teacher_s_answers_is_the_answers_kl():
    """There the states do not depend on the student: nothing is left out. Cross-entropy on what it
    says, sequence level, has the same gradient, and the teacher's entropy more."""
    logp, teacher_logp = logprobs(STUDENT, WORLD).sum(1), logprobs(TEACHER, WORLD).sum(1).detach()
    of_answers = kl(teacher_logp, logp)
    slope = gradient(of_answers)
    word_level = (chances(TEACHER) * both(kind="forward_kl")[0].sum(1)).sum()
    assert_exact(word_level, of_answers)
    assert_exact(gradient(word_level), slope)
    sequence_level = -(chances(TEACHER) * logprobs(STUDENT, WORLD).sum(1)).sum()
    spread = -(teacher_logp.exp() * teacher_logp).sum()
    assert_exact(sequence_level, of_answers + spread)
    assert_exact(gradient(sequence_level), slope)


# ---- the lean way and the plain one ----

V, B, LONG = 11, 7, 9
IDS = torch.randint(V, (B, LONG), generator=torch.Generator().manual_seed(0))
# holes, and a row with nothing
MASK = torch.rand(B, LONG, generator=torch.Generator().manual_seed(1)) < 0.4
MASK[:, 0], MASK[2] = False, False
# the same answers behind two tokens more
TEACHER_IDS = torch.cat([IDS[:, :1], torch.full((B, 2), 5), IDS[:, 1:]], 1)
TEACHER_MASK = torch.cat([MASK[:, :1], torch.zeros(B, 2, dtype=torch.bool), MASK[:, 1:]], 1)


def model(seed, width=16, layers=2):
    gpt = GPT(GPTConfig(V, LONG + 2, layers, 2, width), torch.Generator().manual_seed(seed))
    for p in gpt.parameters():
        p.data *= 5         # far from uniform
    return gpt.double()


def lean(student, teacher, **more):
    return masked_divergence(student, teacher, IDS, MASK, TEACHER_IDS, TEACHER_MASK, **more)


@pytest.mark.parametrize("kind, temperature", [("forward_kl", 1.0), ("reverse_kl", 0.7),
                                               ("js", 1.3)])
@pytest.mark.parametrize("micro_batch, tokens_at_once", [(1, 1), (3, 4), (256, 4), (256, 1000)])
def test_values_and_gradients_of_the_plain_form(monkeypatch, kind, temperature, micro_batch,
                                                tokens_at_once):
    """A token beside its own, one side at another temperature, a part left out or counted twice, a
    gradient that stops at a part or goes into the teacher."""
    monkeypatch.setattr(distillation, "LOGITS_AT_ONCE", 2 * tokens_at_once * V)
    student, teacher = model(0), model(1, width=32, layers=1)
    weights = torch.randn(B, LONG, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    # column t of the logits is about token t+1
    mine = student(IDS)[:, :-1] / temperature                           # (B, T-1, V)
    theirs = teacher(TEACHER_IDS)[:, 2:-1].detach() / temperature       # (B, T-1, V)
    plain = torch.zeros(B, LONG, dtype=torch.float64)
    plain[:, 1:] = token_divergence(mine.flatten(0, 1), theirs.flatten(0, 1), kind, 0.3).view(
        B, LONG - 1)
    plain = torch.where(MASK, plain, 0.0)
    got, reverse, spread = lean(student, teacher, kind=kind, mix=0.3, temperature=temperature,
                                micro_batch=micro_batch)
    assert_exact(got, plain)
    parameters = list(student.parameters())
    expected = torch.autograd.grad((plain ** 2 * weights).sum(), parameters)
    assert sum(g.norm() for g in expected) > 1
    (got ** 2 * weights).sum().backward()
    for p, g in zip(parameters, expected):
        torch.testing.assert_close(p.grad, g, rtol=1e-9, atol=1e-9)
    assert all(p.grad is None for p in teacher.parameters())
    # what comes with it, for the log
    assert not reverse.requires_grad and not spread.requires_grad
    by_definition = token_divergence(mine.flatten(0, 1), theirs.flatten(0, 1), "reverse_kl")
    assert_exact(reverse[:, 1:], torch.where(MASK[:, 1:], by_definition.view(B, -1), 0.0))
    torch.testing.assert_close(
        spread.float(), torch.where(MASK, entropy(student(IDS), temperature), 0.0),
        rtol=0, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [2, 256])
def test_no_more_logits_at_once_than_it_says(monkeypatch, micro_batch):
    """Logits of tokens outside the mask, of all parts at once, or kept until backward: 3 tokens' at
    a time here of each model, of 22 and of 63."""
    monkeypatch.setattr(distillation, "LOGITS_AT_ONCE", 6 * V)
    student, teacher, kept = model(0), model(1), []
    made = {}
    for name, gpt in (("student", student), ("teacher", teacher)):
        made[name] = []
        monkeypatch.setattr(gpt, "logits", lambda hidden, gpt=gpt, name=name: (
            made[name].append(len(hidden)) or GPT.logits(gpt, hidden)))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        lean(student, teacher, micro_batch=micro_batch)
    for sizes in made.values():
        assert sum(sizes) == int(MASK.sum()) and max(sizes) == 3
    assert not [shape for shape in kept if len(shape) == 2 and shape[-1] == V and shape[0] > 3]


def test_other_answers_are_no_answers_to_compare():
    """Masks of other lengths would put each token beside one of another answer."""
    short = TEACHER_MASK.clone()
    short[0, TEACHER_MASK[0].nonzero().max()] = False
    with pytest.raises(ValueError, match="must be the same answers"):
        masked_divergence(model(0), model(1), IDS, MASK, TEACHER_IDS, short)


def test_nothing_masked_in_and_a_first_token():
    """An empty batch is 0 and not NaN; a token that nothing stands before has no divergence."""
    nothing = torch.zeros_like(MASK)
    divergence, _, _ = masked_divergence(model(0), model(1), IDS, nothing, IDS, nothing)
    assert torch.equal(divergence, torch.zeros(B, LONG).double()) and divergence.requires_grad
    everywhere = torch.ones_like(MASK)
    divergence, _, _ = masked_divergence(model(0), model(1), IDS, everywhere, IDS, everywhere)
    assert not divergence[:, 0].any() and (divergence[:, 1:] > 0).all()


def test_numbers_move_to_the_other_prompt_s_columns():
    """Log-probs of the teacher's columns beside the student's tokens: row by row, in order."""
    x = torch.arange(B * (LONG + 2), dtype=torch.float64).view(B, LONG + 2)
    moved = aligned(x, TEACHER_MASK, MASK)
    for row in range(B):
        assert moved[row][MASK[row]].tolist() == x[row][TEACHER_MASK[row]].tolist()
    assert not moved[~MASK].any()


# ---- the script, in the exact world ----

def learned(monkeypatch, folder, student, teacher, **settings):
    """Train with the learning rate going to 0 -> KL(student || teacher) of the worse prompt before
    and after, and the log."""
    def distance():
        with torch.no_grad():
            return max(kl(*(logprobs(m, answers(prompt)).double().sum(1)
                            for m in (student, teacher))).item() for prompt in PROMPTS)

    before = distance()
    in_the_exact_world(monkeypatch, {"student": student, "teacher": teacher})
    cfg = train_distill.Config(run=str(folder), device="cpu", init="student", teacher="teacher",
                               max_new_tokens=T, **settings)
    _, _, log = train_distill.train(cfg)
    return before, distance(), log


WAYS = {"exact": {}, "reinforce": {"gradient": "reinforce"},
        "word level": {"on_policy": 0.0, "divergence": "forward_kl"},
        "sequence level": {"data": "teacher"},
        "half of each": {"on_policy": 0.5, "divergence": "js", "mix": 0.3}}


@pytest.mark.parametrize("way", WAYS)
def test_the_student_becomes_its_teacher(way, monkeypatch, tmp_path):
    """Every way ends there, from 1.5 nats away: this student can be anything. Sequence level keeps
    the noise of what the teacher happened to say."""
    before, after, log = learned(
        monkeypatch, tmp_path, Table(phase=1.0).float(), Table(phase=4.0).float(), steps=150,
        batch_size=64, lr=0.1, **WAYS[way])
    bound = {"reinforce": 1e-3, "sequence level": 0.02}.get(way, 1e-4)
    assert before > 1 and after < bound
    if "kl" in log:
        # on its own answers, as the script measures it
        assert log["kl"][0] == pytest.approx(before, abs=0.6)
        assert abs(log["kl"][-20:].mean()) < bound


def test_a_student_that_is_its_teacher_learns_nothing(monkeypatch, tmp_path, capsys):
    """And says so; the loss is 0 at the first step, which the script asserts."""
    same = Table(phase=4.0).float()
    before, after, log = learned(monkeypatch, tmp_path, same, Table(phase=4.0).float(), steps=2,
                                 batch_size=8, lr=1e-4)
    assert before == 0 and after < 1e-6 and abs(log["loss"][0]) < 1e-6
    assert "there is nothing to learn" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="the student starts as its teacher, yet"):
        checks.check_divergence(0.01)


def spy(monkeypatch, name):
    calls, original = [], getattr(train_distill, name)

    def watched(*args, **more):
        calls.append((args, result := original(*args, **more)))
        return result

    monkeypatch.setattr(train_distill, name, watched)
    return calls


def test_who_writes_what_and_what_it_counts(monkeypatch, tmp_path):
    """A share of the wrong writer; a loss that is not the sum over an answer's tokens, divided by
    the answers; columns that speak of the teacher's answers as the student's."""
    student, teacher = Table(phase=1.0).float(), Table(phase=4.0).float()
    written, compared = spy(monkeypatch, "generate"), spy(monkeypatch, "masked_divergence")
    _, _, log = learned(monkeypatch, tmp_path, student, teacher, steps=1, batch_size=40,
                        on_policy=0.25, divergence="js", mix=0.3)
    # before and after the step both answer held-out prompts
    (own, theirs) = [(args, out) for args, out in written if len(args[1]) < 128]
    assert own[0][0] is student and len(own[0][1]) == 10
    assert theirs[0][0] is teacher and len(theirs[0][1]) == 30
    (args, (divergence, reverse, spread)), = [c for c in compared if len(c[0][2]) == 40]
    ids, mask = args[2], args[3]
    for at, (_, out) in ((0, own), (10, theirs)):
        rows = slice(at, at + len(out.ids))
        assert ids[rows][mask[rows]].tolist() == out.ids[out.mask].tolist()
    assert args[6:8] == ("js", 0.3)
    assert log["loss"][0] == pytest.approx(divergence.sum().item() / 40, rel=1e-6)
    assert log["kl"][0] == pytest.approx(reverse[:10].sum().item() / 10, rel=1e-6)
    assert log["entropy"][0] == pytest.approx(spread[:10][mask[:10]].mean().item(), rel=1e-5)
    assert log["len"][0] == pytest.approx(own[1].mask.sum(1).float().mean().item())
    assert log["teacher_len"][0] == pytest.approx(theirs[1].mask.sum(1).float().mean().item())


def test_reinforce_is_given_its_own_tokens(monkeypatch, tmp_path):
    """A teacher's log-probs of other columns; the student's taken for the teacher's."""
    student, teacher = Table(phase=1.0).float(), Table(phase=4.0).float()
    written, losses = spy(monkeypatch, "generate"), spy(monkeypatch, "reinforce_loss")
    _, _, log = learned(monkeypatch, tmp_path, student, teacher, steps=1, batch_size=40,
                        gradient="reinforce")
    out = next(out for args, out in written if len(args[1]) == 40)
    (logp, teacher_logp), result = losses[0]
    for model_, got in ((teacher, teacher_logp), (Table(phase=1.0).float(), logp)):
        expected = torch.where(out.mask, token_logprobs(model_(out.ids), out.ids), 0.0)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert log["loss"][0] == pytest.approx(result.sum().item() / 40, rel=1e-5)
    assert log["kl"][0] == pytest.approx((logp - teacher_logp).sum().item() / 40, rel=1e-4)


# ---- the script, from its command line ----

TINY = ("--device", "cpu", "--n_layer", 1, "--n_embd", 32, "--n_head", 2, "--pages", 300)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a teacher, its SFT trained further, and a student of two layers."""
    folder = tmp_path_factory.mktemp("distill") / "run"
    with pytest.MonkeyPatch.context() as patch:
        call(patch, "train_base", "--run", folder, *TINY, "--steps", 30)
        call(patch, "train_sft", "--run", folder, "--demonstrations", 64, "--device", "cpu")
        call(patch, "train_sft", "--run", folder, "--demonstrations", 640, "--device", "cpu",
             "--lr", 3e-3, "--out", "ppo")
    return folder


def distill(monkeypatch, run, out, *args):
    return call(monkeypatch, "train_distill", "--run", run, "--out", out, "--device", "cpu",
                "--batch_size", 8, "--max_new_tokens", 24, *args)


@pytest.mark.parametrize("args", [
    (), ("--on_policy", 0.5), ("--on_policy", 0, "--divergence", "forward_kl"),
    ("--data", "teacher"), ("--gradient", "reinforce"), ("--divergence", "js", "--mix", 0.9),
    ("--teacher_sees", "I hope that helps. "), ("--temperature", 0.7)], ids=str)
def test_every_way_runs_and_repeats(args, run, monkeypatch, capsys):
    """A NaN, a file that is missing, a draw from outside the named sources."""
    logs = []
    for out in ("once", "twice"):
        _, _, log = distill(monkeypatch, run, out, "--steps", 3, *args)
        logs.append({key: values.tolist() for key, values in log.items()})
    assert logs[0] == logs[1] and len(logs[0]["loss"]) == 3
    assert all(math.isfinite(x) for values in logs[0].values() for x in values)
    own = "--data" not in args and args[:2] != ("--on_policy", 0)
    assert ("kl" in logs[0]) == ("gold" in logs[0]) == own
    assert ("teacher_gold" in logs[0]) == (not own or "--on_policy" in args)
    assert sorted(os.listdir(run / "once")) == ["config.json", "lock", "log.jsonl", "model.pt",
                                                "samples.txt", "state.pt"]
    said = capsys.readouterr().out
    assert "KL of the student to its teacher" in said and "--- after distill" in said


def test_a_toy_run_comes_nearer_to_its_teacher(run, monkeypatch):
    """The KL on its own answers falls to a third."""
    _, _, log = distill(monkeypatch, run, "nearer", "--steps", 40, "--lr", 3e-3)
    assert log["kl"][:3].mean() > 3 * log["kl"][-5:].mean() > 0


def test_the_teacher_sees_more_and_the_answer_is_the_same(run, monkeypatch):
    """The text in the student's prompt too, or in neither; behind the question; a divergence of
    tokens that are not the same."""
    compared = spy(monkeypatch, "masked_divergence")
    text = "I hope that helps. "
    _, tokenizer, log = distill(monkeypatch, run, "sees", "--steps", 1, "--teacher", run / "sft",
                                "--teacher_sees", text)
    args = next(args for args, _ in compared if len(args[2]) == 8)
    ids, mask, teacher_ids, teacher_mask = args[2:6]
    more = tokenizer.encode(text)
    for row in range(8):
        mine, theirs = ids[row, :ids[row].ne(tokenizer.pad).sum()], teacher_ids[row]
        theirs = theirs[:theirs.ne(tokenizer.pad).sum()].tolist()
        assert theirs == [tokenizer.user, *more, *mine.tolist()[1:]]
        assert ids[row][mask[row]].tolist() == teacher_ids[row][teacher_mask[row]].tolist()
    # the same weights, and yet there is something to learn
    assert log["kl"][0] > 1e-3


def test_more_is_told_before_the_last_question():
    """Between the turns of a chat, before its system message, or at the end."""
    tokenizer = Tokenizer()
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Vera."}, {"role": "user", "content": "Where?"}]
    more = tokenizer.encode("Tarn. ")
    told = train_distill.told_more(tokenizer.prompt(chat), more, tokenizer.user)
    assert tokenizer.decode(told) == ("<|system|>Be brief.<|user|>Who?<|assistant|>Vera.<|end|>"
                                      "<|user|>Tarn. Where?<|assistant|>")
    assert train_distill.told_more(told, [], tokenizer.user) == told


def test_a_student_of_two_layers_has_its_own_base(run, tmp_path, monkeypatch):
    """Another size is no obstacle, and the weights that come out are of the student's."""
    small = tmp_path / "small"
    tiny = [2 if flag == 1 else flag for flag in TINY]
    call(monkeypatch, "train_base", "--run", small, *tiny, "--steps", 3)
    call(monkeypatch, "train_sft", "--run", small, "--demonstrations", 32, "--device", "cpu")
    distill(monkeypatch, small, "distill", "--steps", 2, "--teacher", run / "ppo")
    student, _ = checkpoints.load_checkpoint(str(small / "distill"))
    assert student.cfg.n_layer == 2


def test_prompts_from_a_file(run, tmp_path, monkeypatch, capsys):
    """Where nobody knows the true reward there is no gold, and the rest is as it was."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Who is {i}?"}) + "\n" for i in range(30)))
    _, _, log = distill(monkeypatch, run, "file", "--steps", 2, "--data", path, "--teacher_sees",
                        "Tarn. ")
    assert "gold" not in log and (log["kl"] > 0).all()
    assert "27 to train on, 3 held out" in capsys.readouterr().out


@pytest.mark.parametrize("settings, words", [
    ({"on_policy": 1.5}, "--on_policy 1.5: a share"),
    ({"on_policy": 0.01}, "--on_policy 0.01: of --batch_size 32 that is 0 answers"),
    ({"on_policy": 0.99}, "that is 32 answers; raise --batch_size, or say --on_policy 1"),
    ({"divergence": "js", "mix": 1.0}, "--mix 1: between 0 and 1"),
    ({"divergence": "js", "mix": 0.0}, "--mix 0: between 0 and 1"),
    ({"mix": 0.3}, "--mix belongs to --divergence js"),
    ({"gradient": "reinforce", "divergence": "js"}, "takes --divergence reverse_kl"),
    ({"gradient": "reinforce", "on_policy": 0.5}, "takes --on_policy 1"),
    ({"temperature": 0.0}, "--temperature 0"),
    ({"data": "teacher", "divergence": "js"}, "--divergence has no effect on --data teacher"),
    ({"data": "teacher", "on_policy": 0.5}, "--on_policy has no effect on --data teacher"),
    ({"data": "teacher", "gradient": "reinforce"}, "--gradient has no effect")])
def test_settings_that_contradict_each_other(settings, words):
    """A flag that is silently without effect."""
    with pytest.raises(InputError) as said:
        train_distill.Config(**settings)
    assert words in str(said.value)


def test_what_cannot_be_done_leaves_nothing_behind(run, tmp_path, monkeypatch):
    """A teacher of another vocabulary, none, a reward model; a text that leaves no room: a
    sentence, and no file that is half a stage."""
    ranks = Tokenizer().ranks.splitlines(keepends=True)
    other = Tokenizer(ranks="".join(ranks[:-1]))
    gpt = GPT(GPTConfig(other.vocab_size, 96, 1, 2, 16))
    checkpoints.save_checkpoint(str(tmp_path / "other/model.pt"), gpt, other)

    def said(*args):
        words = complaint(monkeypatch, "train_distill", "--run", run, "--out", "no", "--device",
                          "cpu", "--steps", 1, *args)
        assert not (run / "no").exists()
        return words

    assert "another vocabulary" in said("--teacher", tmp_path / "other")
    assert "does not exist; make it first: python train_grpo.py" in said("--teacher", run / "grpo")
    assert "--teacher_sees leave no room" in said("--teacher_sees", "Tarn. " * 30)
    assert "leave room for 6: shorten one of them" in said("--max_new_tokens", 90)
