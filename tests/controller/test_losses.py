"""Losses by hand-worked numbers, exact expectations, and rewards that are NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.losses import (
    masked_mean,
    ppo_clip_loss,
    reinforce_loss,
    update_baseline,
)

NAN = jnp.nan
ALL = jnp.array([True, True, True])
FIRST_TWO = jnp.array([True, True, False])
NONE = jnp.array([False, False, False])
LOG_PROB = jnp.log(jnp.array([0.5, 0.25, 0.125]))
ADVANTAGE = jnp.array([1.0, -2.0, 3.0])


def test_masked_mean_by_hand():
    values = jnp.array([1.0, 4.0, NAN])
    assert float(masked_mean(values, FIRST_TWO)) == 2.5
    assert float(masked_mean(values, NONE)) == 0.0


def test_reinforce_by_hand():
    # -(1 ln 1/2 - 2 ln 1/4 + 3 ln 1/8) / 3 = (1 - 4 + 9) ln 2 / 3
    loss = reinforce_loss(LOG_PROB, ADVANTAGE, ALL)
    assert float(loss) == pytest.approx(2 * np.log(2), rel=1e-6)


def test_descent_raises_what_earned_more_than_the_baseline():
    gradient = jax.grad(reinforce_loss)(LOG_PROB, ADVANTAGE, ALL)
    np.testing.assert_allclose(gradient, -ADVANTAGE / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 1.0, -1.2, 0.0),  # has moved far enough
        (0.5, -1.0, 0.8, 0.0),
        (1.5, -1.0, 1.5, 1.5),  # has moved the wrong way
        (0.5, 1.0, -0.5, -0.5),
    ],
)
def test_ppo_by_hand(ratio, advantage, loss, slope):
    def objective(log_ratio):
        old = jnp.array([-3.0])
        one = jnp.array([True])
        return ppo_clip_loss(
            old + log_ratio, old, jnp.array([advantage]), one, epsilon=0.2
        )

    value, gradient = jax.value_and_grad(objective)(jnp.log(ratio))
    assert float(value) == pytest.approx(loss, rel=1e-6)
    assert float(gradient) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("valid", [ALL, FIRST_TWO, NONE])
def test_the_first_step_of_ppo_is_reinforce(valid):
    def ppo(log_prob):
        return ppo_clip_loss(log_prob, LOG_PROB, ADVANTAGE, valid, epsilon=0.2)

    def reinforce(log_prob):
        return reinforce_loss(log_prob, ADVANTAGE, valid)

    np.testing.assert_array_equal(
        jax.grad(ppo)(LOG_PROB), jax.grad(reinforce)(LOG_PROB)
    )


def test_invalid_trials_count_for_nothing():
    advantage = jnp.array([1.0, -2.0, NAN])
    log_prob_old = LOG_PROB.at[2].set(NAN)
    for loss in (
        lambda log_prob, valid: reinforce_loss(log_prob, advantage, valid),
        lambda log_prob, valid: ppo_clip_loss(
            log_prob, log_prob_old, advantage, valid, epsilon=0.2
        ),
    ):
        value, gradient = jax.value_and_grad(loss)(LOG_PROB, FIRST_TWO)
        assert np.isfinite(value) and gradient[2] == 0
        assert np.isfinite(gradient).all() and np.all(gradient[:2] != 0)
        value, gradient = jax.value_and_grad(loss)(LOG_PROB, NONE)
        assert value == 0 and not np.any(gradient)


def test_expectation_is_the_gradient_of_the_expected_reward():
    logits = jnp.array([0.3, -1.0, 0.7])
    reward = jnp.array([0.2, 0.9, -0.4])

    def expected_loss(logits, baseline):
        """Each arm's own loss, weighted by its probability as a constant."""
        log_probs = jax.nn.log_softmax(logits)
        one = jnp.array([True])
        losses = jax.vmap(lambda lp, r: reinforce_loss(lp[None], r[None], one))(
            log_probs, reward - baseline
        )
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_probs)) * losses)

    exact = jax.grad(lambda x: -jnp.sum(jax.nn.softmax(x) * reward))(logits)
    for baseline in (0.0, 5.0, -0.3):
        gradient = jax.grad(expected_loss)(logits, baseline)
        np.testing.assert_allclose(gradient, exact, atol=1e-6)


def test_the_baseline_is_its_closed_form():
    decay, start = 0.9, 0.5
    rewards = np.random.default_rng(0).uniform(size=(20, 3)).astype(np.float32)
    baseline = jnp.float32(start)
    for reward in rewards:
        baseline = update_baseline(baseline, jnp.asarray(reward), ALL, decay=decay)
    powers = decay ** np.arange(19, -1, -1)
    expected = decay**20 * start + (1 - decay) * np.sum(powers * rewards.mean(axis=1))
    assert float(baseline) == pytest.approx(expected, rel=1e-5)


def test_the_baseline_ignores_invalid_rewards():
    reward = jnp.array([1.0, 3.0, NAN])
    baseline = jnp.float32(1.0)
    moved = update_baseline(baseline, reward, FIRST_TWO, decay=0.75)
    assert float(moved) == 1.25
    assert float(update_baseline(baseline, reward, NONE, decay=0.75)) == 1.0
