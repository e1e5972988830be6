"""A training step on several architectures, of which one at a time is in memory.

ENAS, Pham et al. 2018 (https://arxiv.org/abs/1802.03268), equation 1, averages their
gradients; PARSEC, Casale et al. 2019 (https://arxiv.org/abs/1902.05116), weighs each by
its share of the likelihood.
"""

from typing import Any

import jax
import jax.numpy as jnp

from child_models.per_device import Gradient, GradientFn


def several(gradient: GradientFn, temperature: float | None) -> GradientFn:
    """Lets several architectures see one batch, and averages.

    Args:
      gradient: of one architecture, ``decisions[1, T]``.
      temperature: difference of losses by which weights differ e-fold; None for equal
        weights.  With that of 1 / B the likelihood is the product over B images.

    Returns:
      the same of ``decisions[M, T]``: weighted means of gradients and metrics, with
      weights ``softmax(-loss / temperature)``.
    """

    def log_weight(loss):
        return jnp.zeros_like(loss) if temperature is None else -loss / temperature

    def run(keys, params, split, indices, decisions):
        def one(carry, row):
            # With the mass of all weights so far, only their mean is kept.
            log_mass, mean = carry
            found = gradient(keys, params, split, indices, row[None])
            log_new = log_weight(found.metrics["loss"])
            log_mass = jnp.logaddexp(log_mass, log_new)
            share = jnp.exp(log_new - log_mass)
            mean = jax.tree.map(
                lambda m, x: m + share * (x - m), mean, (found.grads, found.metrics)
            )
            return (log_mass, mean), ~jnp.isfinite(found.metrics["loss"])

        shapes = jax.eval_shape(gradient, keys, params, split, indices, decisions[:1])
        zeros = _zeros((shapes.grads, shapes.metrics))
        start = (jnp.float32(-jnp.inf), zeros)
        (_, (grads, metrics)), failed = jax.lax.scan(one, start, decisions)
        return Gradient(grads, metrics, decisions[jnp.argmax(failed)])

    return run


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
