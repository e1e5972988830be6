"""Losses of policy gradients, as pure functions.

All are minimised; rewards are maximised.  Trials that are not valid count for nothing,
whatever their reward holds (NaN included), and where none is valid every function is 0
with a gradient of 0.

Shapes: n trials.
"""

import jax
import jax.numpy as jnp


def masked_mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of the valid values; 0 where there is none.

    Args:
      values: float[n]; those that are not valid may be NaN.
      valid: bool[n].

    Returns:
      float[].
    """
    total = jnp.sum(jnp.where(valid, values, 0))
    return total / jnp.maximum(jnp.sum(valid), 1).astype(total.dtype)


def reinforce_loss(
    log_prob: jax.Array, advantage: jax.Array, valid: jax.Array
) -> jax.Array:
    """REINFORCE: ``-mean(A log pi(a))``, whose gradient estimates ``-grad E[R]``.

    Minimising it raises the log-probability of what earned more than the baseline.

    Args:
      log_prob: float[n], log pi(a) = sum_t log pi(a_t | a_<t), differentiable.
      advantage: float[n], A = R - b; taken as constant.
      valid: bool[n].

    Returns:
      float[].

    References:
      Williams 1992; Zoph & Le 2017, https://arxiv.org/abs/1611.01578, section 3.2.

    >>> log_prob, valid = jnp.log(jnp.array([0.5, 0.25])), jnp.array([True, False])
    >>> float(reinforce_loss(log_prob, jnp.array([2.0, 9.0]), valid))  # -2 log 0.5
    1.3862943649291992
    """
    return -masked_mean(_constant(advantage, valid) * log_prob, valid)


def ppo_clip_loss(
    log_prob: jax.Array,
    log_prob_old: jax.Array,
    advantage: jax.Array,
    valid: jax.Array,
    *,
    epsilon: float,
) -> jax.Array:
    """PPO: ``-mean(min(r A, clip(r, 1 - epsilon, 1 + epsilon) A))``, r = pi / pi_old.

    At r = 1 its gradient is that of `reinforce_loss`.

    Args:
      log_prob: float[n], of the policy that is updated, differentiable.
      log_prob_old: float[n], of the policy that proposed; taken as constant.
      advantage: float[n], A = R - b; taken as constant.
      valid: bool[n].
      epsilon: how far a probability may move before its gradient stops.

    Returns:
      float[].

    References:
      Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7.
    """
    advantage = _constant(advantage, valid)
    ratio = jnp.exp(log_prob - _constant(log_prob_old, valid))
    clipped = jnp.clip(ratio, 1 - epsilon, 1 + epsilon)
    return -masked_mean(jnp.minimum(ratio * advantage, clipped * advantage), valid)


def update_baseline(
    baseline: jax.Array, reward: jax.Array, valid: jax.Array, *, decay: float
) -> jax.Array:
    """The moving baseline, ``b <- decay b + (1 - decay) mean(R)``.

    After k updates from b_0: ``decay^k b_0 + (1 - decay) sum_i decay^(k - i) R_i``.

    Args:
      baseline: float[].
      reward: float[n].
      valid: bool[n]; the baseline stays where none is.
      decay: in [0, 1].

    Returns:
      float[].

    >>> reward = jnp.array([1.0, 0.5, jnp.nan])
    >>> valid = jnp.array([True, True, False])
    >>> float(update_baseline(jnp.array(0.5), reward, valid, decay=0.5))
    0.625
    """
    moved = decay * baseline + (1 - decay) * masked_mean(reward, valid)
    return jnp.where(jnp.any(valid), moved, baseline)


def _constant(values, valid):
    return jax.lax.stop_gradient(jnp.where(valid, values, 0))
