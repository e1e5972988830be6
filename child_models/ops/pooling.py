"""Pools."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def _pads(size):
    return [((size - 1) // 2,) * 2] * 2


def max_pool(x, size, strides=1):
    return nn.max_pool(x, (size, size), (strides, strides), _pads(size))


def avg_pool(x, size, strides=1):
    return nn.avg_pool(
        x, (size, size), (strides, strides), _pads(size), count_include_pad=False
    )
