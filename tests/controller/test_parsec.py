"""PARSEC's estimate against the exact evidence of a space that can be enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from controller.policies.categorical import categorical_policy
from controller.spec import Decision, DecisionSpec, Distinct
from controller.strategies.differentiable.parsec import importance, parsec
from controller.types import Trial

SPEC = DecisionSpec(
    (
        Decision("left", tuple("xyz"), "input"),
        Decision("right", tuple("xyz"), "input"),
        Decision("op", ("conv", "pool"), "op"),
    ),
    rule=Distinct(((0, 1),)),
)
POLICY = categorical_policy(SPEC)
SPACE = jnp.array(list(SPEC.enumerate()))
LOG_LIKELIHOOD = jax.random.normal(jax.random.key(1), (len(SPACE),))
LOGITS = jax.random.normal(jax.random.key(2), (3, 3)) / 2
ONES = jnp.ones(4, bool)


def log_likelihood(decisions):
    """Of each row, from the list of the space."""
    same = jnp.all(decisions[:, None] == SPACE[None], axis=2)
    return jnp.sum(same * LOG_LIKELIHOOD[None], axis=1)


def test_the_policy_is_a_distribution_of_independent_choices():
    said = POLICY.evaluate(LOGITS, SPACE)
    np.testing.assert_allclose(jnp.exp(said.log_prob).sum(), 1, rtol=1e-5)
    drawn, log_prob = POLICY.sample(LOGITS, jax.random.key(0), 500)
    np.testing.assert_allclose(
        log_prob, POLICY.evaluate(LOGITS, drawn).log_prob, rtol=1e-4
    )
    assert all(SPEC.validate(row) for row in np.unique(np.asarray(drawn), axis=0))
    p = jax.nn.softmax(LOGITS, axis=1)
    q = jax.nn.softmax(LOGITS[2, :2])
    for (left, right, op), log_prob in zip(SPACE, said.log_prob, strict=True):
        expected = p[0, left] * p[1, right] / (1 - p[1, left]) * q[op]
        assert np.exp(log_prob) == pytest.approx(float(expected), rel=1e-4)
    assert said.entropy.shape == (len(SPACE),) and np.all(said.entropy > 0)
    mode = POLICY.greedy(LOGITS)
    assert mode[0] == jnp.argmax(LOGITS[0]) and mode[2] == jnp.argmax(LOGITS[2, :2])


@jax.jit
@jax.grad
def exact(logits):
    """Gradient of log sum_a p(y | a) pi(a)."""
    log_prob = POLICY.evaluate(logits, SPACE).log_prob
    return jax.nn.logsumexp(log_prob + LOG_LIKELIHOOD)


STRATEGY = parsec(SPEC, adam_b1=0.0)  # whose first moment is the gradient itself
START = STRATEGY.init(jax.random.key(0)).replace(params=LOGITS)


@functools.partial(jax.jit, static_argnums=1)
def estimate(key, n):
    """The gradient that the strategy ascends, from n samples."""
    proposal, _ = STRATEGY.propose(key, START, n)
    reward = log_likelihood(proposal.decisions)
    trial = Trial(proposal, reward, jnp.ones(n, bool))
    state, _ = STRATEGY.update(key, START, trial)
    return -optax.tree.get(state.opt_state, "mu")


def test_many_samples_give_the_gradient_of_the_evidence():
    keys = jax.random.split(jax.random.key(3), 20)
    found = np.mean([estimate(key, 10_000) for key in keys], axis=0)
    truth = np.asarray(exact(LOGITS))
    np.testing.assert_allclose(found, truth, atol=0.01 * np.abs(truth).max())


def test_the_bias_falls_with_the_number_of_samples():
    truth = np.asarray(exact(LOGITS))

    def bias(n, repeats):
        keys = jax.random.split(jax.random.key(4), repeats)
        found = np.mean([estimate(key, n) for key in keys], axis=0)
        return np.linalg.norm(found - truth)

    assert bias(4, 2000) < bias(2, 2000) / 1.5


def test_weights_sum_to_one_at_any_size_of_the_likelihood():
    for logs in ([-1e5, -1e5 + 1, -2e5, -1e5], [0.0, 5.0, -3.0, 1.0]):
        weights = importance(jnp.array(logs), ONES)
        assert weights.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(importance(jnp.full(4, -1e5), ONES), 0.25)
    dominating = importance(jnp.array([0.0, 1e4, 0.0, 0.0]), ONES)
    np.testing.assert_allclose(dominating, [0, 1, 0, 0], atol=1e-6)
    invalid = importance(jnp.array([0.0, jnp.nan, 0.0, 0.0]), ONES.at[1].set(False))
    np.testing.assert_allclose(invalid, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)


def test_equal_likelihoods_teach_nothing_on_average():
    def one(key):
        proposal, _ = STRATEGY.propose(key, START, 8)
        trial = Trial(proposal, jnp.full(8, -3.0), jnp.ones(8, bool))
        state, _ = STRATEGY.update(key, START, trial)
        return optax.tree.get(state.opt_state, "mu")

    keys = jax.random.split(jax.random.key(5), 4000)
    mean = jax.jit(lambda keys: jax.vmap(one)(keys).mean(0))(keys)
    np.testing.assert_allclose(mean, 0, atol=0.02)


@pytest.mark.parametrize("best", [(0, 1, 0), (2, 0, 1)])
def test_entropy_falls_to_zero_where_one_architecture_explains_the_data(best):
    strategy = parsec(SPEC, learning_rate=0.1, temperature=0.2)

    def step(state, key):
        propose_key, update_key = jax.random.split(key)
        proposal, state = strategy.propose(propose_key, state, 16)
        reward = -jnp.sum(proposal.decisions != jnp.array(best)[None], axis=1) / 1.0
        return strategy.update(
            update_key, state, Trial(proposal, reward, jnp.ones(16, bool))
        )

    state = strategy.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 300)
    state, metrics = jax.jit(lambda s: jax.lax.scan(step, s, keys))(state)
    assert metrics["entropy"][-1] < 0.05 < metrics["entropy"][0]
    np.testing.assert_array_equal(
        strategy.best(jax.random.key(2), state, 1), jnp.array([best])
    )
