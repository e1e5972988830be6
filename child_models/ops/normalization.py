"""Batch normalisation."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

MOMENTUM = 0.9  # of running statistics


def batch_norm(x, scale, bias, epsilon=1e-5):
    wide = x.astype(jnp.float32)
    axes = tuple(range(x.ndim - 1))
    mean, var = wide.mean(axes), wide.var(axes)
    return normalize(x, mean, var, scale, bias, epsilon), mean, var


def normalize(x, mean, var, scale, bias, epsilon):
    shape = (1,) * (x.ndim - 1) + (-1,)
    factor = jax.lax.rsqrt(var + epsilon)
    if scale is not None:
        factor = factor * scale.astype(jnp.float32)
    y = (x.astype(jnp.float32) - mean.reshape(shape)) * factor.reshape(shape)
    if bias is not None:
        y = y + bias.astype(jnp.float32).reshape(shape)
    return y.astype(x.dtype)


class BatchNorm(nn.Module):
    train: bool
    affine: bool = True
    momentum: float = MOMENTUM
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x):
        features = x.shape[-1:]
        if self.dtype is not None:
            x = x.astype(self.dtype)
        scale = bias = None
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, features)
            bias = self.param("bias", nn.initializers.zeros, features)
        if not self.train:
            mean = self.variable("batch_stats", "mean", jnp.zeros, features).value
            var = self.variable("batch_stats", "var", jnp.ones, features).value
            return normalize(x, mean, var, scale, bias, self.epsilon)
        y, mean, var = batch_norm(x, scale, bias, self.epsilon)
        if self.is_mutable_collection("batch_stats"):
            running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
            running_var = self.variable("batch_stats", "var", jnp.ones, features)
            if not self.is_initializing():
                for running, value in ((running_mean, mean), (running_var, var)):
                    running.value = (
                        self.momentum * running.value + (1 - self.momentum) * value
                    )
        return y
