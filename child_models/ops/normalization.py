"""Batch normalisation (https://arxiv.org/abs/1502.03167) with a closed-form VJP.

Statistics are float32, whatever the dtype of the input; the variance is biased and is
computed in two passes.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.ops.kept import keep

MOMENTUM = 0.9  # of running statistics


def batch_norm(
    x: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    epsilon: float = 1e-5,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalises by the statistics of the batch.

    Args:
      x: ``[..., C]``.
      scale: ``[C]``, or None for 1.
      bias: ``[C]``, or None for 0.
      epsilon: is added to the variance.

    Returns:
      ``(y, mean, var)``: ``[..., C]`` of the dtype of x, and float32[C] twice.
    """
    return _batch_norm(epsilon, x, scale, bias)


def normalize(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array | None,
    bias: jax.Array | None,
    epsilon: float = 1e-5,
) -> jax.Array:
    """``scale * (x - mean) / sqrt(var + epsilon) + bias``, in float32."""
    factor = jax.lax.rsqrt(var + epsilon)
    if scale is not None:
        factor = factor * scale.astype(jnp.float32)
    y = (x.astype(jnp.float32) - _row(mean, x)) * _row(factor, x)
    if bias is not None:
        y = y + _row(bias.astype(jnp.float32), x)
    return y.astype(x.dtype)


def _row(vector: jax.Array, x: jax.Array) -> jax.Array:
    return vector.reshape((1,) * (x.ndim - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm(epsilon, x, scale, bias):
    return _batch_norm_fwd(epsilon, x, scale, bias)[0]


def _batch_norm_fwd(epsilon, x, scale, bias):
    wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
    mean = keep(wide.mean(axes))
    var = keep(jnp.square(wide - _row(mean, x)).mean(axes))
    y = normalize(x, mean, var, scale, bias, epsilon)
    return (y, mean, var), (x, mean, var, scale, bias)


def _batch_norm_bwd(epsilon, saved, cotangents):
    x, mean, var, scale, bias = saved
    grad, grad_mean, grad_var = cotangents
    grad, axes = grad.astype(jnp.float32), tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centred = x.astype(jnp.float32) - _row(mean, x)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = inverse if scale is None else inverse * scale.astype(jnp.float32)

    total = grad.sum(axes)
    along = (grad * centred).sum(axes) * inverse  # with the normalised input
    slope = (2 * grad_var - factor * inverse * along) / count
    offset = (grad_mean - factor * total) / count
    by_x = _row(factor, x) * grad + _row(slope, x) * centred + _row(offset, x)
    return (
        by_x.astype(x.dtype),
        None if scale is None else along.astype(scale.dtype),
        None if bias is None else total.astype(bias.dtype),
    )


_batch_norm.defvjp(_batch_norm_fwd, _batch_norm_bwd)


class BatchNorm(nn.Module):
    """Batch norm over all but the last axis of ``x[..., C]``.

    Parameters "scale" and "bias" (affine), and running "mean" and "var" in the
    collection "batch_stats", all ``[C]``.

    Attributes:
      train: uses the statistics of the batch, and updates the running ones where their
        collection is mutable; otherwise the running ones are used.
      affine: has scale and bias.
      momentum: share of the old running statistics that an update keeps.
      epsilon: is added to the variance.
      dtype: of the output; that of the input where None.
    """

    train: bool
    affine: bool = True
    momentum: float = MOMENTUM
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x.shape[-1:]
        x = x if self.dtype is None else x.astype(self.dtype)
        scale = bias = None
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, features)
            bias = self.param("bias", nn.initializers.zeros, features)
        if not self.train:
            mean, var = (v.value for v in self._running(features))
            return normalize(x, mean, var, scale, bias, self.epsilon)
        y, mean, var = batch_norm(x, scale, bias, self.epsilon)
        if self.is_mutable_collection("batch_stats"):
            running = self._running(features)
            if not self.is_initializing():
                for variable, value in zip(running, (mean, var), strict=True):
                    kept = self.momentum * variable.value
                    variable.value = kept + (1 - self.momentum) * value
        return y

    def _running(self, features):
        return (
            self.variable("batch_stats", "mean", jnp.zeros, features),
            self.variable("batch_stats", "var", jnp.ones, features),
        )
