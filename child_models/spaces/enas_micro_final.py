"""The network that ENAS micro retrains: fixed cells, from melodyguan/enas.

Published at https://arxiv.org/abs/1802.03268.  A cell calibrates its inputs to C
channels (and the second once more), in a reduction cell the operations on cell inputs
have stride 2, separable convolutions are applied twice, and the states that nothing
reads are concatenated, cell inputs among them.  Convolutions and the classifier have no
bias.  Unlike there, ReLU precedes every factorized reduction, and every batch norm has
epsilon 1e-5.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import choose, is_fixed
from child_models.ops.drop_path import drop_path as drop_paths
from child_models.ops.layers import (
    Conv,
    FactorizedReduce,
    Identity,
    Pool,
    ReLUConvBN,
    SepConv,
)
from child_models.ops.normalization import BatchNorm
from child_models.spaces.enas_layers import AuxiliaryHead, Classifier, stage_lengths
from child_models.spaces.enas_text import loose_ends

SKIP = 4


def branches(features: int, strides: int, train: bool, dtype: Any) -> tuple:
    """The five operations as factories of modules, in the order of the choices."""
    make = {"train": train, "dtype": dtype}
    if strides == 1:
        skip = Identity
    else:
        skip = functools.partial(FactorizedReduce, features, **make)
    return (
        functools.partial(SepConv, features, 3, strides, **make),
        functools.partial(SepConv, features, 5, strides, **make),
        functools.partial(Pool, "avg", 3, strides),
        functools.partial(Pool, "max", 3, strides),
        skip,
    )


class FinalCell(nn.Module):
    """A fixed cell.

    Attributes:
      channels: C, of every node.
      reduction: whether it halves height and width.
      train: whether batch norm uses the statistics of the batch.
    """

    channels: int
    reduction: bool
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: tuple[int, ...],
        s0: jax.Array,
        s1: jax.Array,
        drop_path: float | jax.Array,
    ) -> jax.Array:
        """Returns ``[B, H, W, n * C]`` for n states that no node of the cell reads.

        Args:
          choices: (input, op) for each side of each node.
          s0: output of the cell before the last.
          s1: output of the last cell.
          drop_path: probability of dropping an operation's output.
        """
        inputs, ops = choices[0::2], choices[1::2]
        states = self._calibrate(s0, s1)
        certain = isinstance(drop_path, float) and drop_path == 0
        drops = self.train and self.has_rng("dropout") and not certain
        for node in range(len(ops) // 2):
            total = 0
            for e, side in ((2 * node, "left"), (2 * node + 1, "right")):
                strides = 2 if self.reduction and inputs[e] < 2 else 1
                options = branches(self.channels, strides, self.train, self.dtype)
                name = f"node_{node + 2}_{side}"
                y = choose(ops[e], options, states[inputs[e]], name=name)
                if drops and ops[e] != SKIP:
                    y = drop_paths(y, drop_path, self.make_rng("dropout"))
                total = total + y
            states.append(total)
        loose = [
            self._reduce(f"loose_{j}", states[j])
            if self.reduction and j < 2
            else states[j]
            for j in loose_ends(choices)
        ]
        return jnp.concatenate(loose, axis=-1)

    def _calibrate(self, s0, s1):
        if s0.shape[1:3] != s1.shape[1:3]:
            s0 = self._reduce("calibrate_0", s0)
        elif s0.shape[-1] != self.channels:
            s0 = self._project("calibrate_0", s0)
        if s1.shape[-1] != self.channels:
            s1 = self._project("calibrate_1", s1)
        return [s0, self._project("base", s1)]

    def _reduce(self, name, x):
        make = {"dtype": self.dtype, "name": name}
        return FactorizedReduce(self.channels, self.train, **make)(x)

    def _project(self, name, x):
        make = {"dtype": self.dtype, "name": name}
        return ReLUConvBN(self.channels, self.train, **make)(x)


class FinalNet(nn.Module):
    """Stem, cells with two reductions among them, classifier, auxiliary head."""

    classes: int
    channels: int
    layers: int
    stem_multiplier: int
    dropout: float
    aux_head: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: tuple[tuple[int, ...], tuple[int, ...]],
        x: jax.Array,
        train: bool = False,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to logits ``[B, classes]``.

        Args:
          choices: of the normal and of the reduction cell.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: probability in the last cell; in the others in proportion to depth.

        Raises:
          ValueError: if the choices are not fixed.
        """
        normal, reduction = choices
        if not all(map(is_fixed, normal + reduction)):
            raise ValueError("the final form of enas_micro takes fixed decisions only")
        first, second, _ = stage_lengths(self.layers)
        reductions = (first, first + second + 1)
        channels, dtype = self.channels, self.dtype
        x = Conv(self.stem_multiplier * channels, dtype=dtype, name="stem")(x)
        x = BatchNorm(train, dtype=dtype, name="stem_norm")(x)
        s0 = s1 = x
        cells = self.layers + 2
        for i in range(cells):
            reduces = i in reductions
            channels *= 2 if reduces else 1
            cell = FinalCell(channels, reduces, train, dtype, name=f"cell_{i}")
            chosen = reduction if reduces else normal
            s0, s1 = s1, cell(chosen, s0, s1, drop_path * ((i + 1) / cells))
            if i == reductions[1] + 1 and self.aux_head:
                self._auxiliary(s1, train)
        head = Classifier(self.classes, self.dropout, dtype, name="classifier")
        return head(nn.relu(s1))

    def _auxiliary(self, x, train):
        if not (train or self.is_initializing()):
            return
        logits = AuxiliaryHead(self.classes, self.dtype, name="auxiliary_head")(x)
        if not self.is_initializing():
            self.sow("auxiliary", "logits", logits)
