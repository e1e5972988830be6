"""REINFORCE: exact expectations over an enumerated space, baseline, invalid trials."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.losses import reinforce_loss
from controller.policies.lstm import lstm_policy
from controller.rules import FirstNodes
from controller.spec import Decision, DecisionSpec
from controller.strategies.policy_gradient import Baseline, PolicyState
from controller.strategies.reinforce import reinforce
from controller.types import Proposal, Trial

OPS = ("conv", "pool")
# Two layers and a skip: 8 architectures.
SPEC = DecisionSpec(
    (
        Decision("0/op", OPS, "op", 0),
        Decision("1/op", OPS, "op", 1),
        Decision("1/skip", ("no", "yes"), "skip", 1, (0, 0)),
    )
)
EVERY = np.array(list(SPEC.enumerate()), np.int32)


def scalar_product(a, b):
    products = jax.tree.map(lambda x, y: jnp.sum(x * y), a, b)
    return sum(jax.tree.leaves(products))


# ---- expectations -------------------------------------------------------------------


@pytest.fixture(scope="module")
def enumerated():
    """Gradients over the whole space in float64, compiled once.

    Returns a function of a reward [8] and a baseline: the gradient of the negative
    expected reward; the mean of the estimator; the same from 5000 samples; and the
    standard error of its product with the exact gradient.
    """
    samples = 5000
    policy = lstm_policy(SPEC, hidden=3, dtype="float64")
    with jax.enable_x64(True):
        shapes = jax.eval_shape(policy.init, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.uniform(-1, 1, leaf.shape), shapes)

    def gradients(params, reward, baseline):
        drawn, _ = policy.sample(params, jax.random.key(1), samples)
        places = jnp.array([4, 2, 1])
        rows = jnp.concatenate([jnp.asarray(EVERY), drawn])
        earned = reward[jnp.sum(rows * places[None], axis=1)] - baseline
        log_prob, pull_back = jax.vjp(
            lambda p: policy.evaluate(p, rows).log_prob, params
        )
        probs = jnp.exp(log_prob[:8])
        each = jax.vmap(jax.grad(lambda *a: reinforce_loss(*(x[None] for x in a))))
        slopes = each(log_prob, earned, jnp.ones(len(rows), bool))

        def weighted(weights):
            return pull_back(jnp.zeros(len(rows)).at[: len(weights)].set(weights))[0]

        exact = weighted(-probs * reward)  # d p = p d log p
        mean = weighted(probs * slopes[:8])
        batch = jax.grad(reinforce_loss)(
            log_prob[8:], earned[8:], jnp.ones(samples, bool)
        )
        sampled = pull_back(jnp.zeros(len(rows)).at[8:].set(batch))[0]
        along = jax.jvp(
            lambda p: policy.evaluate(p, EVERY).log_prob, (params,), (exact,)
        )
        spread = jnp.sum(probs * (slopes[:8] * along[1]) ** 2)
        spread -= scalar_product(mean, exact) ** 2
        return exact, mean, sampled, jnp.sqrt(spread / samples)

    compiled = jax.jit(gradients)

    def call(reward, baseline):
        with jax.enable_x64(True):
            return jax.tree.map(np.asarray, compiled(params, reward, baseline))

    return call


REWARD = np.random.default_rng(1).uniform(size=8)


@pytest.mark.parametrize("baseline", [0.0, 0.5, -20.0])
def test_the_mean_of_the_estimator_is_the_gradient_of_the_expected_reward(
    enumerated, baseline
):
    exact, mean, _, _ = enumerated(REWARD, baseline)
    assert math.sqrt(scalar_product(exact, exact)) > 0.01
    assert_close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)
    jax.tree.map(assert_close, mean, exact)


def test_a_constant_added_to_the_reward_changes_nothing_in_expectation(enumerated):
    assert_close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-10)
    jax.tree.map(
        assert_close, enumerated(REWARD + 7.0, 0.5)[1], enumerated(REWARD, 0.5)[1]
    )


def test_samples_estimate_it_within_their_error(enumerated):
    exact, _, sampled, error = enumerated(REWARD, 0.5)
    off = scalar_product(sampled, exact) - scalar_product(exact, exact)
    assert 0 < error < 0.1 * scalar_product(exact, exact)
    assert abs(off) < 4 * error


# ---- the baseline -------------------------------------------------------------------


def advantage_of(baseline, old, reward, step=1, valid=None):
    state = PolicyState((), (), jnp.float32(old), jnp.int32(step), jnp.int32(step))
    reward = jnp.asarray(reward, jnp.float32)
    valid = jnp.ones(len(reward), bool) if valid is None else jnp.asarray(valid)
    return baseline.advantage(state, reward, valid)


def test_the_advantage_uses_the_baseline_before_its_update():
    advantage, new = advantage_of(Baseline(0.75, False, 0.0), 2.0, [3.0, 7.0])
    assert advantage.tolist() == [1.0, 5.0]
    assert float(new) == 0.75 * 2 + 0.25 * 5


def test_baseline_first_is_the_other_order_and_its_factor_is_the_decay():
    before, new = advantage_of(Baseline(0.75, False, 0.0), 2.0, [6.0])
    after, same = advantage_of(Baseline(0.75, True, 0.0), 2.0, [6.0])
    assert float(new) == float(same) == 3.0
    assert after.tolist() == [6.0 - 3.0] == (0.75 * before).tolist()


def test_without_a_start_the_baseline_is_the_first_mean_reward():
    baseline = Baseline(0.75, False, None)
    advantage, new = advantage_of(baseline, 0.0, [3.0, 5.0, jnp.nan], 0, [1, 1, 0])
    assert advantage[:2].tolist() == [-1.0, 1.0] and float(new) == 4.0
    assert float(advantage_of(baseline, 0.0, [8.0], step=1)[1]) == 2.0


# ---- updates ------------------------------------------------------------------------

ENTROPY_WEIGHT, SKIP_WEIGHT, DECAY = 0.1, 0.5, 0.75


@pytest.fixture(scope="module")
def strategy():
    built = reinforce(
        SPEC,
        learning_rate=0.01,
        baseline_decay=DECAY,
        baseline_init=0.5,
        entropy_weight=ENTROPY_WEIGHT,
        skip_weight=SKIP_WEIGHT,
        clip_norm=5.0,
        policy={"hidden": 4, "init_scale": 1.0},
    )
    return built._replace(init=jax.jit(built.init), update=jax.jit(built.update))


@pytest.fixture(scope="module")
def state(strategy):
    return strategy.init(jax.random.key(0))


def trial(reward, valid=(True,) * 4):
    proposal = Proposal(jnp.asarray(EVERY[[0, 3, 5, 6]]), jnp.zeros(4))
    return Trial(proposal, jnp.array(reward, jnp.float32), jnp.array(valid))


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


KEY = jax.random.key(9)


@pytest.mark.parametrize(
    ("reward", "valid"),
    [((0.1, 0.2, 0.3, 0.4), (False,) * 4), ((math.nan,) * 4, (True,) * 4)],
)
def test_without_a_valid_trial_nothing_moves(strategy, state, reward, valid):
    new, metrics = strategy.update(KEY, state, trial(reward, valid))
    equal(new, state)
    assert all(np.isfinite(v) for v in metrics.values())


def test_invalid_trials_are_left_out(strategy, state):
    valid = (True, False, True, True)
    new, metrics = strategy.update(KEY, state, trial((0.1, math.nan, 0.7, 0.4), valid))
    other, _ = strategy.update(KEY, state, trial((0.1, 100.0, 0.7, 0.4), valid))
    equal(new, other)
    assert float(metrics["baseline"]) == pytest.approx(0.75 * 0.5 + 0.25 * 0.4)
    assert float(metrics["advantage"]) == pytest.approx(0.4 - 0.5, abs=1e-6)
    assert int(new.step) == 1


def test_the_loss_is_the_sum_of_its_terms(strategy, state):
    _, metrics = strategy.update(KEY, state, trial((0.1, 0.9, 0.7, 0.4)))
    terms = metrics["policy_loss"] - ENTROPY_WEIGHT * metrics["entropy"]
    terms += SKIP_WEIGHT * metrics["skip_kl"]
    assert float(metrics["loss"]) == pytest.approx(float(terms), rel=1e-5)


def test_the_baseline_moves_by_its_closed_form(strategy, state):
    rewards = np.random.default_rng(0).uniform(size=(6, 4))
    for reward in rewards:
        state, metrics = strategy.update(KEY, state, trial(reward))
    powers = DECAY ** np.arange(5, -1, -1)
    expected = DECAY**6 * 0.5 + (1 - DECAY) * np.sum(powers * rewards.mean(axis=1))
    assert float(state.baseline) == pytest.approx(expected, rel=1e-5)
    assert float(metrics["baseline"]) == float(state.baseline)


def test_with_no_advantage_entropy_rises_and_skips_go_to_their_target(strategy, state):
    start = None
    for _ in range(20):
        state, metrics = strategy.update(KEY, state, trial((0.5,) * 4))
        start = metrics if start is None else start
    assert float(metrics["policy_loss"]) == pytest.approx(0, abs=1e-6)
    gained = metrics["entropy"] - start["entropy"]
    assert ENTROPY_WEIGHT * gained > SKIP_WEIGHT * (
        metrics["skip_kl"] - start["skip_kl"]
    )
    assert metrics["loss"] < start["loss"]
    assert metrics["skip_kl"] < start["skip_kl"]


# ---- arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"baseline_decay": 1.5}, "baseline_decay is 1.5; it must lie in"),
        ({"entropy_weight": -1.0}, "entropy_weight is -1.0; it must be 0 or more"),
        ({"skip_weight": -1.0}, "skip_weight is -1.0; it must be 0 or more"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; it must be positive"),
        ({"policy": {"units": 3}}, "policy has no key 'units'; known: hidden"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        reinforce(SPEC, **options)


# ---- a depth that grows -------------------------------------------------------------

# One to three layers of two ops.
DEEPER = DecisionSpec(
    (
        Decision("layers", ("1", "2", "3"), "blocks"),
        *(Decision(f"{i}/op", OPS, "op", i) for i in range(3)),
    ),
    rule=FirstNodes((1, 2, 3)),
)


@pytest.fixture(scope="module")
def growing():
    strategy = reinforce(DEEPER, growth_samples=8, policy={"hidden": 3})
    propose = jax.jit(strategy.propose, static_argnums=2)
    return strategy._replace(propose=propose, update=jax.jit(strategy.update))


def test_the_depth_grows_with_the_samples_and_is_not_the_policys(growing):
    key, state, depths = jax.random.key(0), growing.init(jax.random.key(1)), []
    for step in range(7):
        proposal, state = growing.propose(jax.random.fold_in(key, step), state, 4)
        depth = np.asarray(proposal.decisions)[:, 0]
        assert (depth == depth[0]).all()
        depths.append(int(depth[0]))
        absent = np.arange(3) > depth[0]
        assert not np.asarray(proposal.decisions)[:, 1:][:, absent].any()
        # One bit of each layer that is there, at most; the depth itself costs nothing.
        uniform = -math.log(2) * (depth[0] + 1)
        np.testing.assert_allclose(proposal.log_prob, uniform, atol=0.5)
        reward = jnp.where(jnp.arange(4) == 1, jnp.nan, 1.0)  # one is not valid
        trial = Trial(proposal, reward, jnp.ones(4, bool))
        state, metrics = growing.update(key, state, trial)
        assert metrics["entropy"] <= math.log(2) * (depth[0] + 1) + 1e-6
    assert depths == [0, 0, 0, 1, 1, 1, 2]


def test_trials_of_a_depth_that_is_over_still_teach(growing):
    """As where several are under way: their log_prob is that of their own depth."""
    state = growing.init(jax.random.key(1))
    early, _ = growing.propose(jax.random.key(0), state, 4)
    trial = Trial(early, jnp.arange(4.0), jnp.ones(4, bool))
    late = state.replace(trials=jnp.int32(100))
    learnt, metrics = growing.update(jax.random.key(0), late, trial)
    assert jnp.isfinite(metrics["loss"])
    assert jax.tree.all(jax.tree.map(lambda x: jnp.isfinite(x).all(), learnt.params))
    same, _ = growing.update(jax.random.key(0), state, trial)
    jax.tree.map(np.testing.assert_array_equal, learnt.params, same.params)


@pytest.mark.parametrize(
    ("spec", "samples", "text"),
    [
        (SPEC, 8, "growth_samples is 8; that needs a space that decides how many"),
        (DEEPER, -1, "growth_samples is -1; it must be 0 or more"),
    ],
)
def test_growth_is_refused(spec, samples, text):
    with pytest.raises(ValueError, match=text):
        reinforce(spec, growth_samples=samples)
