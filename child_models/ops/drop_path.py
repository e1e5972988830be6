"""Drop-path, whole paths of a network sample by sample, and dropout of its elements.

Larsson et al., FractalNet, https://arxiv.org/abs/1605.07648; as in NASNet and DARTS.
"""

import jax
import jax.numpy as jnp


def drop_path(
    x: jax.Array, probability: float | jax.Array, key: jax.Array
) -> jax.Array:
    """Zeroes each sample of ``x`` with a probability, and scales the rest by 1/keep.

    Args:
      x: ``[B, ...]``.
      probability: of dropping, in [0, 1); may be traced.
      key: is consumed.

    Returns:
      ``x`` times a mask of 0 and 1/(1 - probability) that is constant within a sample.
    """
    return _drop(x, probability, key, (x.shape[0],) + (1,) * (x.ndim - 1))


def dropout(x: jax.Array, probability: float | jax.Array, key: jax.Array) -> jax.Array:
    """`drop_path` of every element by itself."""
    return _drop(x, probability, key, x.shape)


def _drop(x, probability, key, shape):
    keep = 1.0 - probability
    kept = jax.random.uniform(key, shape) < keep
    scale = jnp.where(kept, 1.0 / jnp.maximum(keep, 1e-6), 0.0)
    return x * scale.astype(x.dtype)
