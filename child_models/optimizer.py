"""Stochastic gradient descent as child networks use it."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import optax

UNSAMPLED = ("frozen", "decay")


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    unsampled: str = "decay",
) -> optax.GradientTransformation:
    """SGD with momentum: clip by global norm, add decay, accumulate, scale.

    Args:
      learning_rate: float or schedule of the step.
      momentum: decay of the accumulated gradient.
      nesterov: whether the step looks ahead, Sutskever et al. 2013.
      weight_decay: L2 coefficient, added to the gradient after clipping.
      clip_norm: largest global norm of the gradient, or None.
      unsampled: what happens to each weight whose gradient is exactly zero, which is
        how the paths of a supernet that a step did not sample show (and single weights
        behind a ReLU that no image passes): "frozen" leaves weight and momentum alone,
        "decay" treats them as all others.

    Raises:
      ValueError: on a number out of range, or another `unsampled`.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum is {momentum}; it must be in [0, 1)")
    if weight_decay < 0:
        raise ValueError(f"weight_decay is {weight_decay}; it must be 0 or more")
    if clip_norm is not None and clip_norm <= 0:
        raise ValueError(f"clip_norm is {clip_norm}; it must be positive, or none")
    if unsampled not in UNSAMPLED:
        raise ValueError(f"unsampled is {unsampled!r}; known: {', '.join(UNSAMPLED)}")
    clip = (
        optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm)
    )
    return optax.chain(
        clip,
        _decayed_trace(momentum, nesterov, weight_decay, unsampled == "frozen"),
        optax.scale_by_learning_rate(learning_rate),
    )


def nan_unless_finite(loss: jax.Array, grads: Any) -> jax.Array:
    """The loss of a step; NaN where the norm of its gradients is not finite."""
    return jnp.where(jnp.isfinite(optax.tree.norm(grads)), loss, jnp.nan)


def _decayed_trace(momentum, nesterov, weight_decay, frozen):
    """Weight decay and momentum, both withheld where the gradient is exactly zero."""

    def init(params):
        return optax.TraceState(trace=jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params):
        def leaf(gradient, trace, param):
            sampled = gradient != 0 if frozen else True
            gradient = gradient + weight_decay * param
            new = gradient + momentum * trace
            step = gradient + momentum * new if nesterov else new
            return jnp.where(sampled, step, 0), jnp.where(sampled, new, trace)

        pairs = jax.tree.map(leaf, grads, state.trace, params)
        steps, trace = jax.tree.transpose(
            jax.tree.structure(grads), jax.tree.structure((0, 0)), pairs
        )
        return steps, optax.TraceState(trace=trace)

    return optax.GradientTransformation(init, update)


def cosine_restarts(
    peak: float, floor: float, first_period: int, factor: int = 1
) -> optax.Schedule:
    """Cosine annealing with warm restarts, Loshchilov & Hutter 2017, eq. 5.

    Args:
      peak: rate at the start of each period.
      floor: rate at its end.
      first_period: steps of the first period, 1 or more.
      factor: each period is this many times as long as the one before.

    Raises:
      ValueError: on a number out of range.
    """
    if not peak > 0:
        raise ValueError(f"learning_rate is {peak}; it must be positive")
    if not 0 <= floor <= peak:
        raise ValueError(f"min_learning_rate is {floor}; it must be in [0, {peak}]")
    if factor < 1:
        raise ValueError(f"restart_factor is {factor}; it must be 1 or more")
    alpha = floor / peak
    if factor == 1:
        cosine = optax.cosine_decay_schedule(peak, first_period, alpha)
        return lambda step: cosine(step % first_period)
    periods = [first_period]
    while sum(periods) * factor < 2**31:  # steps are int32
        periods.append(periods[-1] * factor)
    pieces = [optax.cosine_decay_schedule(peak, n, alpha) for n in periods]
    return optax.join_schedules(pieces, list(itertools.accumulate(periods))[:-1])
