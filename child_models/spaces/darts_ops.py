"""The operations of DARTS's cells, https://arxiv.org/abs/1806.09055, section 3.1.

As in the authors' code, quark0/darts: ReLU precedes every convolution, separable
convolutions are applied twice, a strided skip is a factorized reduction, and batch norm
follows the pools where it says so.  ``conv_7x1_1x7`` is a full convolution of one row
and then one of one column, which differs from NASNet's bottleneck of that name.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from child_models.ops.layers import (
    Conv,
    DilConv,
    FactorizedReduce,
    Identity,
    Pool,
    SepConv,
    Zero,
)
from child_models.ops.normalization import BatchNorm

NONE, SKIP = "none", "skip_connect"
OPS = (  # of the search, in the authors' order
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    SKIP,
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
KNOWN_OPS = (*OPS, "sep_conv_7x7", "conv_7x1_1x7")


class RowColumnConv(nn.Module):
    """ReLU, 1x7 that strides the width, 7x1 that strides the height, batch norm."""

    features: int
    strides: int
    train: bool
    affine: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        row = Conv(self.features, (1, 7), (1, self.strides), dtype=self.dtype)
        column = Conv(self.features, (7, 1), (self.strides, 1), dtype=self.dtype)
        x = column(row(nn.relu(x)))
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(x)


def operation(
    name: str,
    features: int,
    strides: int,
    *,
    train: bool,
    affine: bool = True,
    pool_norm: bool = False,
    dtype: Any = None,
) -> Callable[..., nn.Module]:
    """The operation of that name as a factory of modules, called with ``name=``.

    Args:
      name: one of `KNOWN_OPS`.
      features: channels in and out.
      strides: 1 or 2.
      train: whether batch norm uses the statistics of the batch.
      affine: whether batch norm has a scale and a bias.
      pool_norm: whether batch norm follows the pools, as in the search.
      dtype: of the computation.
    """
    common: dict[str, Any] = {"train": train, "affine": affine, "dtype": dtype}
    if name == NONE:
        return functools.partial(Zero, strides)
    if name == SKIP:
        reduce = functools.partial(FactorizedReduce, features, **common)
        return Identity if strides == 1 else reduce
    if name == "conv_7x1_1x7":
        return functools.partial(RowColumnConv, features, strides, **common)
    kind, _, size = name.split("_")
    window = int(size[-1])
    if kind in ("max", "avg"):
        pool = functools.partial(Pool, kind, window, strides, **common)
        return functools.partial(pool, normalize=pool_norm)
    conv = {"sep": SepConv, "dil": DilConv}[kind]
    return functools.partial(conv, features, window, strides, **common)
