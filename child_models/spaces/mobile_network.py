"""The networks of ProxylessNAS's space, https://arxiv.org/abs/1812.00332.

ReLU6 follows every convolution but the projections.  One body of the choices serves
all blocks of a stage after its first: a lifted scan over weights ``[blocks, ...]``.  A
fixed child, and with it the final form, is unrolled.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, choose, is_fixed
from child_models.ops.layers import Conv, Dense, DepthwiseConv, Zero
from child_models.ops.normalization import BatchNorm
from child_models.spaces.enas_layers import stack_choices
from child_models.spaces.repeated import repeat

ZERO = "zero"
EPSILON = 1e-3  # of batch norm, the authors'


def parse_op(op: str) -> tuple[int, int]:
    """(kernel, expansion) of ``k<kernel>e<expansion>``.

    Raises:
      ValueError: if the name is no such op, or the kernel is even.
    """
    found = re.fullmatch(r"k(\d+)e(\d+)", op)
    if not found or int(found[1]) % 2 == 0 or int(found[2]) < 1:
        raise ValueError(
            f"mobile: op {op!r} must be k<kernel>e<expansion> with an odd kernel, as in"
            " k3e6"
        )
    return int(found[1]), int(found[2])


class Skeleton(NamedTuple):
    """What is not searched; see `mobile.mobile`."""

    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    strides: tuple[int, ...]
    stem: int
    stem_strides: int
    first: int
    last: int


class BlockShape(NamedTuple):
    """Channels that a block returns, its stride, and whether its input is added."""

    features: int
    strides: int
    residual: bool


def block_shapes(skeleton: Skeleton) -> list[tuple[int, int, BlockShape]]:
    """(stage, block, shape) of every searched block; stages and blocks count from 1."""
    shapes, width = [], skeleton.first
    stages = zip(skeleton.widths, skeleton.blocks, skeleton.strides, strict=True)
    for stage, (features, blocks, strides) in enumerate(stages, start=1):
        for block in range(1, blocks + 1):
            stride = strides if block == 1 else 1
            residual = stride == 1 and width == features
            shapes.append((stage, block, BlockShape(features, stride, residual)))
            width = features
    return shapes


class ConvNorm(nn.Module):
    """Convolution, batch norm and, where it is ``active``, ReLU6.

    A depthwise convolution if ``features`` is None.
    """

    features: int | None
    kernel: int
    strides: int
    active: bool
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        make = DepthwiseConv if self.features is None else partial(Conv, self.features)
        x = make((self.kernel,) * 2, self.strides, dtype=self.dtype)(x)
        x = BatchNorm(self.train, epsilon=EPSILON, dtype=self.dtype)(x)
        return nn.relu6(x) if self.active else x


class MBConv(nn.Module):
    """1x1 to ``expansion`` times the channels (none for 1), depthwise, 1x1."""

    features: int
    kernel: int
    expansion: int
    strides: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rest = {"train": self.train, "dtype": self.dtype}
        if self.expansion > 1:
            wide = self.expansion * x.shape[-1]
            x = ConvNorm(wide, 1, 1, True, name="expand", **rest)(x)
        x = ConvNorm(None, self.kernel, self.strides, True, name="depthwise", **rest)(x)
        return ConvNorm(self.features, 1, 1, False, name="project", **rest)(x)


class Common(NamedTuple):
    """What the blocks of one shape share, static."""

    shape: BlockShape
    ops: tuple[str, ...]
    train: bool
    remat: bool
    dtype: Any


class Block(nn.Module):
    """A searched block: ``(x, op) -> (x + op(x), None)``."""

    common: Common

    @nn.compact
    def __call__(self, x: jax.Array, op: Choice) -> tuple[jax.Array, None]:
        (features, strides, residual), ops, train, remat, dtype = self.common
        branches: list[Any] = [
            partial(MBConv, features, *parse_op(name), strides, train, dtype)
            for name in ops
        ]
        if residual:
            branches.append(Zero)
        y = choose(op, branches, x, name="op", remat=remat)
        return (x + y if residual else y), None


class Network(nn.Module):
    """Stem, a fixed block, stages of searched ones, a 1x1 convolution, classifier.

    Attributes:
      classes: number of classes.
      skeleton: what is not searched.
      ops: that a block chooses from, beside `ZERO`.
      dropout: before the classifier, where a "dropout" key is given.
      dtype: of the computation; parameters and logits are float32.
      final: whether this is the form that is retrained, of fixed decisions only.
      remat: whether a searched block is computed again for its gradient.
    """

    classes: int
    skeleton: Skeleton
    ops: tuple[str, ...]
    dropout: float
    dtype: Any = None
    final: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        choices: Sequence[Choice],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to float32 logits ``[B, classes]``.

        Args:
          choices: one a searched block, in order.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect.

        Raises:
          ValueError: if the final form gets choices that are not fixed.
        """
        if self.final and not all(map(is_fixed, choices)):
            raise ValueError("the final form of mobile takes fixed decisions only")
        rest = {"train": train, "dtype": self.dtype}
        stem, strides, first, last = self.skeleton[3:]
        x = ConvNorm(stem, 3, strides, True, name="stem", **rest)(x)
        x = MBConv(first, 3, 1, 1, name="fixed", **rest)(x)
        choices, shapes = list(choices), block_shapes(self.skeleton)
        for stage, blocks in enumerate(self.skeleton.blocks, start=1):
            own, choices = choices[:blocks], choices[blocks:]
            found = [shape for s, _, shape in shapes if s == stage]
            stage_of = Stage(
                *(found[0], found[-1], self.ops, train, self.remat, self.dtype),
                name=f"stage_{stage}",
            )
            x = stage_of(x, own)
        x = ConvNorm(last, 1, 1, True, name="last", **rest)(x).mean(axis=(1, 2))
        x = nn.Dropout(self.dropout, deterministic=not self.has_rng("dropout"))(x)
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(x)
        return logits.astype(jnp.float32)


class Stage(nn.Module):
    """Blocks of one width; those after the first have one shape."""

    first: BlockShape
    others: BlockShape
    ops: tuple[str, ...]
    train: bool
    remat: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, choices: Sequence[Choice]) -> jax.Array:
        rest = (self.ops, self.train, self.remat, self.dtype)
        x, _ = Block(Common(self.first, *rest), name="first")(x, choices[0])
        if len(choices) == 1:
            return x
        xs = list(choices[1:])
        if not is_fixed(xs[0]):
            xs = stack_choices(xs, len(self.ops) + 1)
        return repeat(Block, "blocks", Common(self.others, *rest), x, xs)[0]
