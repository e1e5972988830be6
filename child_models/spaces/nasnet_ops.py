"""The operations of NASNet's cells and their like, and their combination.

Zoph et al., https://arxiv.org/abs/1707.07012, section 3.2 and figure 2.  Built as in
the authors' TensorFlow code: separable convolutions are applied twice; a pool or an
identity that must change the number of channels (or, for the identity, the size) gets a
1x1 convolution.  Full convolutions larger than 1x1 have the bottleneck that the same
authors' AmoebaNet code gives them: 1x1 to a quarter of the channels (three eighths for
1x3-3x1), the convolution, 1x1 back.  The dilated separable convolution of AmoebaNet
(https://arxiv.org/abs/1802.01548) is applied twice, as the others.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.ops.layers import Conv, Identity, Pool, ReLUConvBN, SepConv
from child_models.ops.normalization import BatchNorm

IDENTITY = "identity"

# name: kernels of the convolutions inside the bottleneck, their dilation, its width
_BOTTLENECKS = {
    "conv_1x3_3x1": (((1, 3), (3, 1)), 1, 3 / 8),
    "conv_1x7_7x1": (((1, 7), (7, 1)), 1, 1 / 4),
    "dil_conv_3x3": (((3, 3),), 2, 1 / 4),
    "conv_3x3": (((3, 3),), 1, 1 / 4),
}

OPS = (  # the 13 of NASNet
    IDENTITY,
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
)
KNOWN_OPS = (*OPS, "dil_sep_conv_3x3")


class Bottleneck(nn.Module):
    """ReLU-1x1-BN to fewer channels, (ReLU-convolution-BN)s, ReLU-1x1-BN back.

    The last of several kernels completes the stride of the first: 1xk strides the
    width, kx1 the height.  Where the width would be below one channel there are no 1x1
    convolutions.
    """

    features: int
    kernels: tuple[tuple[int, int], ...]
    dilation: int
    width: float
    strides: int
    train: bool
    affine: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = functools.partial(BatchNorm, self.train, self.affine, dtype=self.dtype)
        narrow = int(self.features * self.width)

        def pointwise(x, features):
            return norm()(Conv(features, (1, 1), dtype=self.dtype)(nn.relu(x)))

        if narrow:
            x = pointwise(x, narrow)
        for kernel in self.kernels:
            strides = tuple(self.strides if k > 1 else 1 for k in kernel)
            conv = Conv(
                narrow or self.features,
                kernel,
                strides,
                self.dilation,
                dtype=self.dtype,
            )
            x = norm()(conv(nn.relu(x)))
        return pointwise(x, self.features) if narrow else x


def operation(
    name: str,
    *,
    inputs: int,
    features: int,
    train: bool,
    strides: int = 1,
    affine: bool = True,
    dtype: Any = None,
) -> Callable[..., nn.Module]:
    """The operation of that name as a factory of modules, called with ``name=``.

    Args:
      name: one of `KNOWN_OPS`.
      inputs: channels that the operation gets.
      features: channels that it returns.
      train: whether batch norm uses the statistics of the batch.
      strides: 1 or 2.
      affine: whether batch norm has a scale and a bias.
      dtype: of the computation.
    """
    common: dict[str, Any] = {"train": train, "affine": affine, "dtype": dtype}
    if name in _BOTTLENECKS:
        kernels, dilation, width = _BOTTLENECKS[name]
        return functools.partial(
            Bottleneck, features, kernels, dilation, width, strides, **common
        )
    if name == IDENTITY and strides == 1 and inputs == features:
        return Identity
    if name in (IDENTITY, "conv_1x1"):
        return functools.partial(ReLUConvBN, features, strides=strides, **common)
    kind, _, size = name.partition("_")
    window = int(size[-1])
    if kind in ("sep", "dil"):
        dilation = 2 if kind == "dil" else 1
        return functools.partial(
            SepConv, features, window, strides, dilation=dilation, **common
        )
    return functools.partial(Pool, kind, window, strides, features, **common)


class Add(nn.Module):
    """The sum of two states."""

    @nn.compact
    def __call__(self, left: jax.Array, right: jax.Array) -> jax.Array:
        return left + right


class Concat(nn.Module):
    """Both states side by side, brought back to F: 1x1 2F to F, batch norm."""

    train: bool
    affine: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, left: jax.Array, right: jax.Array) -> jax.Array:
        both = jnp.concatenate([left, right], axis=-1)
        x = Conv(left.shape[-1], (1, 1), dtype=self.dtype)(both)
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(x)


def combiners(**common: Any) -> tuple[Callable[..., nn.Module], ...]:
    """Factories of the combiners, in the order of `genotype.COMBINERS`."""
    return Add, functools.partial(Concat, **common)
