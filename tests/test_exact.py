"""The algorithms in a world where every expectation is a sum (exact.py): where they end, and which
way they go on the way there."""
import itertools
import math
from pathlib import Path

import pytest
import torch
from calling import play

import train_grpo
import train_ppo
from nanorlhf.exact import (
    END,
    PROMPTS,
    T,
    Table,
    V,
    answers,
    kl,
    logprobs,
    optimum,
    tiny_gpt,
    waves,
)
from nanorlhf.functional import aggregate, kl_estimate, shift_right, whiten
from nanorlhf.rollout import generate
from train_dpo import dpo_loss
from train_grpo import group_advantages, policy_loss
from train_ppo import gae, token_rewards, value_loss

BETA = 0.6
WORLD = answers()
N = len(WORLD.ids)
R = waves(N, 1.5, 0.7)                              # a reward for each answer
# 1.2 nats apart, and far from pi*: KL(pi || pi*) is 1.0
POLICY, REF = Table(phase=1.0), Table(phase=4.0)
REF_LOGP = logprobs(REF, WORLD).detach()
LENGTHS = WORLD.mask.sum(1).tolist()
# prompt and answer -> its row
ROW = {tuple(WORLD.ids[i, :1 + LENGTHS[i]].tolist()): i for i in range(N)}
# every prefix at which a token is chosen
STATES = {tokens[:t]: None for tokens in ROW for t in range(1, len(tokens))}


def gradient(of, model=POLICY):
    """of(log-probs (N, 1+T)) -> its gradient by the model's parameters, one long vector."""
    grads = torch.autograd.grad(
        of(logprobs(model, WORLD)), list(model.parameters()), allow_unused=True
    )
    return torch.cat([g.flatten() for g in grads if g is not None])


def objective(beta, r=R):
    """E[r] - beta KL(pi || ref), summed over all answers."""
    return lambda logp: (logp.sum(1).exp() * (r - beta * (logp - REF_LOGP).sum(1))).sum()


def lbfgs(model):
    return torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )


def assert_exact(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


# ---- the world itself ----

def test_every_answer_is_there():
    """A cut-off answer forgotten (the probabilities sum to less than 1), or the end token left out
    of the answer."""
    assert N == 1 + 2 + 4 + 8 and WORLD.finished.sum() == 7
    for model in (POLICY, tiny_gpt(0).double()):
        for prompt in PROMPTS:
            assert logprobs(model, answers(prompt)).sum(1).exp().sum().item() == pytest.approx(
                1, abs=1e-12
            )
    assert 1 < kl(logprobs(POLICY, WORLD).sum(1), REF_LOGP.sum(1)) < 1.5


@pytest.mark.parametrize("model", [tiny_gpt(0), Table(phase=1.0).float()], ids=["gpt", "table"])
def test_sampling_draws_each_answer_as_often_as_it_should(model):
    """generate() with a temperature, a stale cache or a lost last token: the expectation that it
    samples is another one."""
    out = generate(
        model, [[PROMPTS[0]]] * 20000, T, END, generator=torch.Generator().manual_seed(0), pad=END
    )
    p = logprobs(model, WORLD).sum(1).exp().detach()
    # (20000, N)
    drawn = (out.ids[:, None] == WORLD.ids).all(2) & (out.mask[:, None] == WORLD.mask).all(2)
    assert drawn.sum().item() == 20000
    assert ((drawn.float().mean(0) - p).abs() < 4.5 * (p * (1 - p) / 20000).sqrt()).all()
    assert torch.equal(out.finished, WORLD.finished[drawn.int().argmax(1)])


# ---- where training ends: pi* ----

def test_pi_star_is_where_the_objective_is_largest():
    """The closed form itself: E[r] - beta KL is beta log Z there, and beta KL(pi || pi*) less
    anywhere else."""
    star = optimum(REF_LOGP.sum(1), R, BETA)
    log_z = torch.logsumexp(REF_LOGP.sum(1) + R / BETA, 0)
    with torch.no_grad():
        logp = logprobs(POLICY, WORLD)
        assert_exact(objective(BETA)(logp), BETA * (log_z - kl(logp.sum(1), star)))


def learned(monkeypatch, tmp_path, script, policy, ref, reward_model, **settings):
    """Train with script.main(), the learning rate going to 0 -> KL(pi || pi*) before and after,
    nats, for each prompt."""
    beta, unfinished = 1.0, 0.5

    def distances():
        for prompt in PROMPTS:
            world = answers(prompt)
            with torch.no_grad():
                r = (
                    reward_model(world.ids).gather(1, world.mask.sum(1, keepdim=True)).squeeze(1)
                    - unfinished * ~world.finished
                )
                yield kl(
                    logprobs(policy, world).sum(1), optimum(logprobs(ref, world).sum(1), r, beta)
                ).item()

    before, reward_weights = list(distances()), reward_model.weight.clone()
    for lr, steps in ((0.05, 30), (0.02, 20), (0.005, 20)):
        critic = {"critic_lr": 0.05} if script is train_ppo else {}
        play(
            monkeypatch,
            tmp_path,
            script,
            policy,
            ref,
            reward_model,
            steps=steps,
            beta=beta,
            unfinished=unfinished,
            lr=lr,
            **critic,
            **settings,
        )
    assert torch.equal(reward_model.weight, reward_weights)
    return before, list(distances())


GROUPS = dict(prompts=64, samples_per_prompt=4, kl_in="reward", kl="k1")


@pytest.mark.parametrize("script, settings", [
    (train_ppo, dict(batch_size=256)),
    (train_grpo, dict(GROUPS, advantage="reinforce", aggregate="fixed")),
    (train_grpo, dict(GROUPS, advantage="rloo", aggregate="fixed")),
    (train_grpo, dict(GROUPS, advantage="dr_grpo", aggregate="fixed")),
    (train_grpo, dict(GROUPS, advantage="grpo", aggregate="sequence")),
], ids=["ppo", "reinforce", "rloo", "dr_grpo", "grpo"])
def test_training_ends_at_pi_star(script, settings, monkeypatch, tmp_path):
    """The scripts' own main(), sampling and all: a KL that is not paid in full, a penalty or an end
    token that is not counted."""
    before, after = learned(
        monkeypatch,
        tmp_path,
        script,
        Table(V, 1.0, 4.0).float(),
        Table(V, 0.7, 2.5).float(),
        Table(1, 1.5, 2.4).float(),
        **settings,
    )
    assert all(1 < d < 3 for d in before) and all(d < 0.005 for d in after), (before, after)


def dpo_optimum(weight):
    """Minimise dpo_loss over every ordered pair of answers, each weighted by weight(r_chosen -
    r_rejected) -> log pi of answers."""
    policy, (i, j) = Table(phase=1.0), torch.cartesian_prod(torch.arange(N), torch.arange(N)).T
    ref = REF_LOGP.sum(1)
    optimizer = lbfgs(policy)

    def closure():
        optimizer.zero_grad()
        logp = logprobs(policy, WORLD).sum(1)
        loss = (weight(R[i] - R[j]) * dpo_loss(logp[i], logp[j], ref[i], ref[j], BETA)[0]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return logprobs(policy, WORLD).sum(1).detach()


@pytest.mark.parametrize("sharpness", [1.0, 2.5])
def test_dpo_ends_at_pi_star(sharpness):
    """Pairs in both orders, as often as a labeler would give them: a labeler sharper by k makes it
    pi* of the reward k r."""
    logp = dpo_optimum(lambda difference: torch.sigmoid(sharpness * difference))
    assert kl(logp, optimum(REF_LOGP.sum(1), sharpness * R, BETA)) < 1e-6
    assert sharpness == 1 or kl(logp, optimum(REF_LOGP.sum(1), R, BETA)) > 0.1


def test_dpo_on_hard_labels_collapses():
    """Why the labels of the proof above are probabilities: with the better answer always chosen, no
    distribution is far enough."""
    logp = dpo_optimum(lambda difference: (difference > 0).double())
    assert logp.exp()[R.argmax()] > 0.99 and optimum(REF_LOGP.sum(1), R, BETA).exp().max() < 0.6


# ---- which way: expected gradients at a policy that is not the optimum ----

def expected(loss_of, logp, K=2):
    """Sum over all K-tuples of answers of their probability times loss_of(their rows): what a step
    does on average."""
    p, total = logp.detach().sum(1).exp(), 0.0
    for rows in itertools.combinations_with_replacement(range(N), K):
        orders = math.factorial(K) // math.prod(math.factorial(rows.count(i)) for i in set(rows))
        rows = torch.tensor(rows)
        total = total + orders * p[rows].prod() * loss_of(rows)
    return total


def step_direction(advantage, how, kl_in="reward", kind="k1", K=2, model=POLICY, r=R):
    """Minus the expected gradient of the loss as train_grpo.py puts it together, on-policy, K
    answers to one prompt."""
    def of(logp):
        old_logp = logp.detach()
        price = BETA * kl_estimate(old_logp, REF_LOGP, kind).sum(1) if kl_in == "reward" else 0 * r

        def loss_of(rows):
            advantages = group_advantages(
                r[rows].view(1, K), advantage, 0.3, price[rows].view(1, K)
            ).view(K, 1)
            loss, _ = policy_loss(
                logp[rows], old_logp[rows], advantages, WORLD.mask[rows], how=how, max_len=T
            )
            if kl_in == "loss":
                loss = loss + BETA * aggregate(
                    kl_estimate(logp[rows], REF_LOGP[rows], kind), WORLD.mask[rows], how, T
                )
            return loss

        return -expected(loss_of, logp, K)

    return gradient(of, model)


@pytest.mark.parametrize("advantage, factor", [("reinforce", 1), ("rloo", 1), ("dr_grpo", 1 / 2)])
@pytest.mark.parametrize("model", [POLICY, tiny_gpt(0).double()], ids=["table", "gpt"])
def test_gradient_is_exact_with_fixed_and_kl_in_the_reward(advantage, factor, model):
    """Off by anything but the known constants 1/max_len and, for Dr. GRPO, (K-1)/K."""
    assert_exact(
        step_direction(advantage, "fixed", model=model),
        factor / T * gradient(objective(BETA), model),
    )


@pytest.mark.parametrize("advantage, factor", [("rloo", 1), ("dr_grpo", 2 / 3)])
def test_gradient_is_exact_with_three_answers(advantage, factor):
    """K for K-1, which K = 2 and a wrong K/(K-1) of 2 would hide."""
    assert_exact(step_direction(advantage, "fixed", K=3), factor / T * gradient(objective(BETA)))


@pytest.mark.parametrize("advantage, factor", [("reinforce", 1), ("rloo", 1), ("dr_grpo", 1 / 2)])
@pytest.mark.parametrize(
    "r", [(R > 0).double(), torch.full_like(R, 0.3)], ids=["right or wrong", "all alike"]
)
def test_gradient_is_exact_where_scores_tie(advantage, factor, r):
    """A tied group left out, or its KL with it: half of all groups tie where answers are right or
    wrong, all where they are alike."""
    assert_exact(step_direction(advantage, "fixed", r=r), factor / T * gradient(objective(BETA, r)))


def test_grpo_learns_nothing_from_equal_scores():
    """The KL's noise, divided by its own std, would be a step as long as any."""
    assert (step_direction("grpo", "fixed", r=torch.full_like(R, 0.3)) == 0).all()
    assert step_direction("grpo", "fixed").norm() > 0.1


# Cosine of the expected step and the exact gradient of E[r] - beta KL: 1 is that way, 0 a right
# angle. The KL in the loss is per token.
COSINES = {                                  # token, sequence, fixed
    ("reward", "k1", "reinforce"): (0.979, 0.876, 1),
    ("reward", "k1", "rloo"): (0.995, 0.97, 1),
    ("reward", "k1", "grpo"): (0.037, -0.136, 0.065),
    ("reward", "k1", "dr_grpo"): (0.995, 0.97, 1),
    ("loss", "k1", "reinforce"): (0.877, 0.862, 0.897),
    ("loss", "k1", "rloo"): (0.891, 0.871, 0.897),
    ("loss", "k1", "grpo"): (0.632, -0.044, 0.907),
    ("loss", "k1", "dr_grpo"): (0.892, 0.769, 0.897),
    ("loss", "k2", "reinforce"): (0.606, 0.375, 0.761),
    ("loss", "k2", "rloo"): (0.379, 0.207, 0.761),
    ("loss", "k2", "grpo"): (-0.376, -0.484, -0.168),
    ("loss", "k2", "dr_grpo"): (-0.274, -0.409, 0.044),
    ("loss", "k3", "reinforce"): (0.874, 0.907, 0.829),
    ("loss", "k3", "rloo"): (0.769, 0.851, 0.829),
    ("loss", "k3", "grpo"): (-0.014, -0.134, 0.148),
    ("loss", "k3", "dr_grpo"): (0.203, 0.132, 0.377),
}


@pytest.mark.parametrize("how", ["token", "sequence", "fixed"])
@pytest.mark.parametrize("kl_in, kind, advantage", COSINES)
def test_gradient_table(kl_in, kind, advantage, how):
    """A std, a length or a KL that is not what it was: the fixed point would forgive all three."""
    step, exact = step_direction(advantage, how, kl_in, kind), gradient(objective(BETA))
    expected_cosine = COSINES[kl_in, kind, advantage][("token", "sequence", "fixed").index(how)]
    assert torch.cosine_similarity(step, exact, dim=0).item() == pytest.approx(
        expected_cosine, abs=1e-10 if expected_cosine == 1 else 6e-4
    )


def test_readme_has_the_gradient_table():
    """Numbers in a document that no test holds to."""
    readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    names = {"reinforce": "REINFORCE", "rloo": "RLOO", "grpo": "GRPO", "dr_grpo": "Dr. GRPO"}
    for (kl_in, kind, advantage), cosines in COSINES.items():
        where = "off the reward, k1" if kl_in == "reward" else f"in the loss, {kind}"
        shown = [f"{c:.3f}" if c != 1 else "1" for c in cosines]
        assert f"| {' | '.join([where, names[advantage], *shown])} |" in readme


# ---- the KL: six estimates, as a number, off the reward, in the loss ----

def expect(weights, what):
    return (weights.detach() * what).sum()


def states_held_fixed(logp, divergence):
    """Sum over the states of how often each is visited times a divergence there, as if no token
    could change which come later."""
    total = 0.0
    for state in STATES:
        here = torch.tensor([tokens[:len(state)] == state for tokens in ROW])
        choices = [
            next(i for tokens, i in ROW.items() if tokens[: len(state) + 1] == (*state, v))
            for v in range(V)
        ]
        total = total + logp.detach().sum(1).exp()[here].sum() * divergence(
            logp[choices, len(state)], REF_LOGP[choices, len(state)]
        )
    return total


KL = {
    "kl": lambda logp: kl(logp.sum(1), REF_LOGP.sum(1)),
    "reverse": lambda logp: kl(REF_LOGP.sum(1), logp.sum(1)),
    "kl, states held fixed": lambda logp: states_held_fixed(logp, kl),
    "reverse, states held fixed": lambda logp: states_held_fixed(
        logp, lambda new, ref: kl(ref, new)
    ),
    "nothing": lambda logp: 0 * logp.sum(),
}


def estimate(logp, kind, per):
    """(N,) nats: the estimates summed over each answer's tokens, or one estimate from each answer's
    summed log-ratio."""
    if per == "token":
        return kl_estimate(logp, REF_LOGP, kind).sum(1)
    return kl_estimate(logp.sum(1), REF_LOGP.sum(1), kind)


@pytest.mark.parametrize("per", ["token", "answer"])
@pytest.mark.parametrize("kind, error", [("k1", (0, 0)), ("k2", (0.258, 0.069)), ("k3", (0, 0))])
def test_value_of_the_estimators(kind, per, error):
    """As a number to print: k1 and k3 average to the KL, of tokens as of answers; k2 is off by 26%
    and by 7% here."""
    logp = logprobs(POLICY, WORLD).detach()
    off = (expect(logp.sum(1).exp(), estimate(logp, kind, per)) / KL["kl"](logp) - 1).item()
    error = error[per == "answer"]
    assert off == pytest.approx(error, abs=5e-4 if error else 1e-10)


@pytest.mark.parametrize(
    "kind, per, of, off",
    [
        ("k1", "token", "nothing", 1),
        ("k2", "token", "kl, states held fixed", 1.022),
        ("k3", "token", "reverse, states held fixed", 1.018),
        ("k1", "answer", "nothing", 1),
        ("k2", "answer", "kl", 0),
        ("k3", "answer", "reverse", 1.401),
    ],
)
def test_gradient_of_the_estimators_in_the_loss(kind, per, of, off):
    """What each pulls towards: only k2 of the summed log-ratio has the KL's own gradient; k1's is 0
    on average. off: |error| / |exact|."""
    got, exact = (
        gradient(lambda logp: expect(logp.sum(1).exp(), estimate(logp, kind, per))),
        gradient(KL["kl"]),
    )
    assert_exact(got, gradient(KL[of]))
    assert ((got - exact).norm() / exact.norm()).item() == pytest.approx(
        off, abs=1e-3 if off else 1e-10
    )


@pytest.mark.parametrize(
    "kind, of",
    [("k1", "nothing"), ("k2", "kl, states held fixed"), ("k3", "reverse, states held fixed")],
)
@pytest.mark.parametrize("advantage, factor", [("reinforce", 1), ("rloo", 1), ("dr_grpo", 1 / 2)])
def test_gradient_with_the_kl_in_the_loss(advantage, factor, kind, of):
    """What a whole step then follows, exactly: Dr. GRPO's (K-1)/K is on the reward alone, so that
    its beta counts K/(K-1) times."""
    exact = factor * gradient(objective(0.0)) - BETA * gradient(KL[of])
    assert_exact(step_direction(advantage, "fixed", "loss", kind), exact / T)


@pytest.mark.parametrize(
    "kind, per, off",
    [
        ("k1", "answer", 0),
        ("k2", "answer", 0.929),
        ("k3", "answer", 2.173),
        ("k2", "token", 1.430),
        ("k3", "token", 1.805),
    ],
)
def test_gradient_of_the_estimators_off_the_reward(kind, per, off):
    """There they are numbers, and E[k grad log pi] is what is learned: the KL's gradient for k1
    alone."""
    got = gradient(
        lambda logp: expect(logp.sum(1).exp() * estimate(logp, kind, per).detach(), logp.sum(1))
    )
    exact = gradient(KL["kl"])
    assert ((got - exact).norm() / exact.norm()).item() == pytest.approx(
        off, abs=1e-3 if off else 1e-10
    )


# ---- PPO: token rewards, critic, gae ----

def state_value(state, policy=POLICY):
    """V of a prefix by backward induction: the mean, over what can be chosen there, of its reward
    and of what comes after it."""
    with torch.no_grad():
        new, old = (m(torch.tensor([state]))[0, -1].log_softmax(-1) for m in (policy, REF))
    total = 0.0
    for v in range(V):
        tokens = (*state, v)
        later = R[ROW[tokens]].item() if tokens in ROW else state_value(tokens, policy)
        total += new[v].exp().item() * (later - BETA * (new[v] - old[v]).item())
    return total


def exact_critic(policy=POLICY):
    """(N, 1+T) read after token t, like a critic's output: V of ids[:, :t+1], 0 once the answer is
    over."""
    return torch.tensor(
        [
            [
                state_value(tokens[: t + 1], policy) if t + 1 < len(tokens) else 0.0
                for t in range(1 + T)
            ]
            for tokens in ROW
        ],
        dtype=torch.float64,
    )


def ppo_direction(values, lam, gamma=1.0, scores=R):
    """Minus the expected gradient of train_ppo's loss, not whitened. Its mean over tokens is
    linear: the weights go with the advantages."""
    def of(logp):
        old_logp = logp.detach()
        advantages, _ = gae(
            token_rewards(scores, old_logp, REF_LOGP, WORLD.mask, BETA),
            values,
            WORLD.mask,
            gamma,
            lam,
        )
        weights = old_logp.sum(1, keepdim=True).exp() * WORLD.mask.sum()
        return -train_ppo.policy_loss(logp, old_logp, weights * advantages, WORLD.mask)[0]

    return gradient(of)


@pytest.mark.parametrize(
    "values, lam, off",
    [
        (torch.zeros_like(REF_LOGP), 1.0, 0),
        (shift_right(waves(N * (1 + T), 1.0, 2.0).view(N, -1)[:1]).expand(N, -1), 1.0, 0),
        (shift_right(exact_critic()), 1.0, 0),
        (shift_right(exact_critic()), 0.95, 0),
        (shift_right(exact_critic()), 0.0, 0),
        (torch.zeros_like(REF_LOGP), 0.95, 0.081),
        (exact_critic(), 1.0, 1.138),
        (exact_critic(), 0.95, 1.194),
    ],
    ids=[
        "no critic",
        "a wrong critic",
        "exact, lam 1",
        "exact, lam .95",
        "exact, lam 0",
        "no critic, lam .95",
        "sees its token",
        "sees its token, lam .95",
    ],
)
def test_gradient_of_ppo(values, lam, off):
    """Exact with any critic at lam 1, with the exact critic at any lam, and never with a critic
    that has seen the token it judges."""
    got, exact = ppo_direction(values, lam), gradient(objective(BETA))
    error = ((got - exact).norm() / exact.norm()).item()
    assert error == pytest.approx(off, abs=1e-3 if off else 1e-10)


@pytest.mark.parametrize("gamma, off", [(1.0, 0), (0.0, 1.022)])
def test_kl_is_paid_for_what_comes_after(gamma, off):
    """Per token and as reward-to-go the KL in the reward is exact; charged to its own token only
    (gamma 0) it is off by 102%."""
    got, exact = (
        ppo_direction(torch.zeros_like(REF_LOGP), 1.0, gamma, torch.zeros_like(R)),
        -BETA * gradient(KL["kl"]),
    )
    error = ((got - exact).norm() / exact.norm()).item()
    assert error == pytest.approx(off, abs=1e-3 if off else 1e-10)


@pytest.mark.parametrize("shift, exact", [(lambda x: shift_right(x), True), (lambda x: x, False),
                                          (lambda x: shift_right(shift_right(x)), False)],
                         ids=["before its token", "sees its token", "a token late"])
def test_critic_regresses_onto_backward_induction(shift, exact):
    """Every answer as often as its probability of n/64 says, so that the regression has no noise:
    its optimum is V, to the last digit."""
    policy = Table()
    with torch.no_grad():
        for code, row in enumerate(policy.weight):
            row.copy_(torch.tensor([0.25, 0.25, 0.5]).roll(code).log())
    logp = logprobs(policy, WORLD).detach()
    times = 64 * logp.sum(1).exp()
    rows = torch.arange(N).repeat_interleave(times.round().long())
    assert len(rows) == 64
    ids, mask, logp, ref_logp = WORLD.ids[rows], WORLD.mask[rows], logp[rows], REF_LOGP[rows]
    rewards = token_rewards(R[rows], logp, ref_logp, mask, BETA)
    _, returns = gae(rewards, torch.zeros_like(rewards), mask, gamma=1.0, lam=1.0)
    critic = Table(1)
    optimizer = lbfgs(critic)

    def closure():
        optimizer.zero_grad()
        values = shift(critic(ids))
        loss, _ = value_loss(values, values.detach(), returns, mask, clip=math.inf)
        loss.backward()
        return loss

    optimizer.step(closure)
    error = (shift(critic(ids)) - shift_right(exact_critic(policy))[rows])[mask].abs().max().item()
    assert error < 1e-6 if exact else error > 0.2, error


# ---- the KL in the loss ----

def settle(advantage, kind, per, r):
    """Follow the expected step of K = 2 with the KL in the loss until it is 0 -> log pi of answers.
    All pairs are one batch."""
    # (N*N, 2)
    pairs = torch.cartesian_prod(torch.arange(N), torch.arange(N))
    policy = Table(phase=1.0)
    optimizer = torch.optim.Adam(policy.parameters(), betas=(0.9, 0.95))
    for step in range(250):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 250) ** 2
        logp = logprobs(policy, WORLD)
        p = logp.detach().sum(1).exp()
        weights = p[pairs].prod(1, keepdim=True) * len(pairs)
        advantages = (weights * group_advantages(r[pairs], advantage)).view(-1, 1)
        rows = pairs.flatten()
        loss, _ = policy_loss(
            logp[rows], logp.detach()[rows], advantages, WORLD.mask[rows], how="fixed", max_len=T
        )
        loss = loss + BETA * expect(p, estimate(logp, kind, per)) / T
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return logprobs(policy, WORLD).sum(1).detach()


SCALES = (0.5, 1.5)         # of the rewards of two prompts


def distance(ends, beta):
    """KL(pi || pi*(beta)) of the worse of the two prompts."""
    return max(
        kl(end, optimum(REF_LOGP.sum(1), scale * R, beta)).item()
        for end, scale in zip(ends, SCALES)
    )


@pytest.mark.parametrize("advantage, kind, per, reaches, misses_by", [
    ("rloo", "k2", "answer", BETA, 0),
    # its advantages are (K-1)/K of RLOO's, the KL is not: beta K/(K-1), with K = 2
    ("dr_grpo", "k2", "answer", 2 * BETA, 0),
    # divided by the std, both prompts' rewards have one scale: one beta cannot be right
    ("grpo", "k2", "answer", None, 0.110),
    # what --kl_in loss does: no token pays for where it leads
    ("rloo", "k2", "token", None, 0.159),
    ("rloo", "k3", "token", None, 0.163),
    ("rloo", "k3", "answer", None, 0.449)])
def test_kl_in_the_loss(advantage, kind, per, reaches, misses_by):
    """Two prompts, one with three times the other's rewards: which variants end at pi*, and by how
    much the others miss it for any beta."""
    ends = [settle(advantage, kind, per, scale * R) for scale in SCALES]
    if reaches:
        assert distance(ends, reaches) < 1e-4 and distance(ends, 1.5 * BETA) > 0.01
    else:
        nearest = min(distance(ends, BETA * 1.05 ** i) for i in range(-80, 80))
        assert nearest == pytest.approx(misses_by, abs=2e-3)


# ---- masks with holes and empty rows ----

def grpo_loss(ratio, objective, how):
    kind = {"ratio": ratio, "objective": objective, "how": how, "max_len": 9}
    return lambda x, y, z, mask: policy_loss(x, y, z[:, :1], mask, **kind)[0]


MASKED = {
    "token_rewards": lambda x, y, z, mask: token_rewards(z[:, 0], x, y, mask, 0.7),
    "gae": lambda x, y, z, mask: gae(x, y, mask, 0.9, 0.8)[0],
    "returns": lambda x, y, z, mask: gae(x, y, mask, 0.9, 0.8)[1],
    "whiten": lambda x, y, z, mask: whiten(x, mask),
    "policy_loss": lambda x, y, z, mask: train_ppo.policy_loss(x, y, z, mask)[0],
    "value_loss": lambda x, y, z, mask: value_loss(x, y, z, mask)[0],
    **{
        f"aggregate, {how}": lambda x, y, z, mask, how=how: aggregate(x, mask, how, 9)
        for how in ("token", "sequence", "fixed")
    },
    **{
        f"grpo, {ratio}, {objective}, {how}": grpo_loss(ratio, objective, how)
        for ratio in ("token", "sequence")
        for objective in ("clip", "cispo", "sapo")
        for how in ("token", "sequence", "fixed")
    },
}


@pytest.mark.parametrize("name", MASKED)
def test_holes_are_stepped_over_and_empty_rows_are_nothing(name):
    """One defined result: that of the rows with their holes closed, whatever stands in them; 0
    where nothing is masked in; never NaN."""
    mask = torch.tensor(
        [
            [0, 1, 0, 1, 1, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 1, 1],
            [0, 0, 1, 0, 0, 1],
            [0, 0, 0, 1, 0, 0],
        ]
    ).bool()
    x, y, z = (waves(30, 0.5, phase).view(5, 6) for phase in (0.1, 1.2, 2.3))
    # each row's masked tokens first, in their order
    closed = (~mask).long().argsort(dim=1, stable=True)

    def run(x, y, mask, z=z):
        x = x.clone().requires_grad_()
        result = MASKED[name](x, y, z, mask)
        result.exp().sum().backward()           # not the sum: that of whitened numbers is always 0
        assert result.isfinite().all() and x.grad.isfinite().all() and (x.grad[~mask] == 0).all()
        return result.detach(), x.grad

    result, grad = run(x, y, mask)
    # elsewhere z is one number an answer
    per_token = z.gather(1, closed) if name in ("policy_loss", "value_loss") else z
    short, short_grad = run(
        x.gather(1, closed), y.gather(1, closed), mask.gather(1, closed), per_token
    )
    torch.testing.assert_close(result.gather(1, closed) if result.dim() else result, short)
    torch.testing.assert_close(grad.gather(1, closed), short_grad)
    assert grad[mask].abs().max() > 0
    junk, junk_grad = run(torch.where(mask, x, 1e3), torch.where(mask, y, -1e3), mask)
    assert torch.equal(junk, result) and torch.equal(junk_grad, grad)
    nothing, nothing_grad = run(x, y, torch.zeros_like(mask))
    assert (nothing == 0).all() and (nothing_grad == 0).all()
