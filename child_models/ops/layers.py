"""Layers of the cells: convolutions, pools and their compositions, as linen modules.

Every module is called with ``x[B, H, W, C]``; what is static is an attribute.  With
``train`` batch norm uses the statistics of the batch.  Convolutions have no bias unless
asked for, as batch norm follows them.  The compositions are those of DARTS
(https://arxiv.org/abs/1806.09055) and of NASNet (https://arxiv.org/abs/1707.07012).
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from child_models.ops.convolution import conv2d, depthwise_conv2d
from child_models.ops.counting import report_macs
from child_models.ops.initializers import he_kernel
from child_models.ops.normalization import BatchNorm
from child_models.ops.pooling import avg_pool, max_pool
from child_models.ops.window import Pair, pair

Size = int | Pair


class Conv(nn.Module):
    """Convolution; see `conv2d`.  Parameter "kernel" ``[kh, kw, C, features]``."""

    features: int
    kernel: Size = (3, 3)
    strides: Size = 1
    dilation: Size = 1
    use_bias: bool = False
    padding: str = "same"
    dtype: Any = None
    kernel_init: Callable[..., jax.Array] = he_kernel

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*pair(self.kernel), x.shape[-1], self.features)
        x, kernel = promote_dtype(
            x, self.param("kernel", self.kernel_init, shape), dtype=self.dtype
        )
        y = conv2d(
            x,
            kernel,
            strides=self.strides,
            dilation=self.dilation,
            padding=self.padding,
        )
        report_macs(self, math.prod(y.shape[1:3]) * math.prod(shape))
        return _add_bias(self, y) if self.use_bias else y


class DepthwiseConv(nn.Module):
    """Convolution of each channel by itself.  Parameter "kernel" ``[kh, kw, C]``."""

    kernel: Size = (3, 3)
    strides: Size = 1
    dilation: Size = 1
    dtype: Any = None
    kernel_init: Callable[..., jax.Array] = he_kernel

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = pair(self.kernel)
        shape = (height, width, x.shape[-1])
        x, kernel = promote_dtype(
            x, self.param("kernel", self.kernel_init, shape), dtype=self.dtype
        )
        y = depthwise_conv2d(x, kernel, strides=self.strides, dilation=self.dilation)
        report_macs(self, math.prod(y.shape[1:3]) * math.prod(shape))
        return y


class Dense(nn.Module):
    """Linear layer with bias on the last axis."""

    features: int
    dtype: Any = None
    kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.features)
        x, kernel = promote_dtype(
            x, self.param("kernel", self.kernel_init, shape), dtype=self.dtype
        )
        report_macs(self, math.prod(x.shape[1:-1]) * math.prod(shape))
        return _add_bias(self, x @ kernel)


def _add_bias(module: nn.Module, y: jax.Array) -> jax.Array:
    bias = module.param("bias", nn.initializers.zeros, y.shape[-1:])
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class ReLUConvBN(nn.Module):
    """ReLU, convolution, batch norm."""

    features: int
    train: bool
    affine: bool = True
    kernel: Size = (1, 1)
    strides: Size = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = Conv(self.features, self.kernel, self.strides, dtype=self.dtype)(nn.relu(x))
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(x)


class FactorizedReduce(nn.Module):
    """Halves height and width without losing pixels: two strided 1x1 convolutions.

    The second sees the input shifted by one pixel (zero beyond the edge); it makes
    ``features - features // 2`` of the channels.  Without ``relu`` no ReLU precedes.
    """

    features: int
    train: bool
    affine: bool = True
    relu: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(x) if self.relu else x
        shifted = jnp.pad(x[:, 1:, 1:], ((0, 0), (0, 1), (0, 1), (0, 0)))
        first = self.features // 2
        x = jnp.concatenate(
            [
                Conv(first, (1, 1), 2, dtype=self.dtype)(x),
                Conv(self.features - first, (1, 1), 2, dtype=self.dtype)(shifted),
            ],
            axis=-1,
        )
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(x)


class SepConv(nn.Module):
    """``repeats`` times: ReLU, depthwise, 1x1, batch norm.

    The first repetition has the stride and changes the number of channels.
    """

    features: int
    kernel: Size
    strides: int
    train: bool
    affine: bool = True
    repeats: int = 2
    dilation: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.repeats):
            strides = self.strides if i == 0 else 1
            x = DepthwiseConv(self.kernel, strides, self.dilation, dtype=self.dtype)(
                nn.relu(x)
            )
            x = Conv(self.features, (1, 1), dtype=self.dtype)(x)
            x = BatchNorm(self.train, self.affine, dtype=self.dtype)(x)
        return x


class DilConv(nn.Module):
    """ReLU, dilated depthwise, 1x1, batch norm."""

    features: int
    kernel: Size
    strides: int
    train: bool
    affine: bool = True
    dilation: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = DepthwiseConv(self.kernel, self.strides, self.dilation, dtype=self.dtype)(
            nn.relu(x)
        )
        x = Conv(self.features, (1, 1), dtype=self.dtype)(x)
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(x)


class Identity(nn.Module):
    """Returns its input."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return x


class Zero(nn.Module):
    """Returns zeros of the strided shape."""

    strides: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.zeros_like(x[:, :: self.strides, :: self.strides])


class Pool(nn.Module):
    """Maximum or average pool, "same" padding; the average leaves padding out.

    Attributes:
      kind: "max" or "avg".
      size: of the window.
      strides: of the window.
      features: where given and not the channels of x, a 1x1 convolution and batch norm
        follow (NASNet).
      normalize: batch norm follows the pool, as in DARTS's search.
    """

    kind: str
    size: int = 3
    strides: int = 1
    features: int | None = None
    train: bool = False
    affine: bool = True
    normalize: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pools = {"max": max_pool, "avg": avg_pool}
        if self.kind not in pools:
            raise ValueError(f"pool kind {self.kind!r}: must be 'max' or 'avg'")
        channels = x.shape[-1]
        x = pools[self.kind](x, self.size, self.strides)
        project = self.features not in (None, channels)
        if project:
            x = Conv(self.features, (1, 1), dtype=self.dtype)(x)
        if project or self.normalize:
            x = BatchNorm(self.train, self.affine, dtype=self.dtype)(x)
        return x
