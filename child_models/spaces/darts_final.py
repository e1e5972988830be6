"""The networks of DARTS's cells that are retrained, on CIFAR and on ImageNet.

Liu et al., https://arxiv.org/abs/1806.09055, as in the authors' code, quark0/darts:
reductions stand at L//3 and 2L//3 of L cells, an op in a reduction is strided where it
reads a cell's input, and nothing precedes the last pool.  P-DARTS, PC-DARTS, ASAP and
PARSEC train their cells in the same networks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.genotype import Block
from child_models.ops.drop_path import drop_path as drop_paths
from child_models.ops.layers import Conv, Dense, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.spaces.darts_ops import SKIP, operation
from child_models.spaces.darts_spec import is_fixed_cell
from child_models.spaces.nasnet_final import AuxiliaryHead

STEMS = ("cifar", "imagenet")


class Layer(NamedTuple):
    """One cell of the network.

    Attributes:
      cell: "normal" or "reduce".
      features: channels C of every node.
      after_reduction: whether the cell before it halved height and width.
    """

    cell: str
    features: int
    after_reduction: bool

    @property
    def strides(self) -> int:
        """Of the ops that read the cell's inputs."""
        return 2 if self.cell == "reduce" else 1


def layout(cells: int, channels: int, stem: str) -> list[Layer]:
    """The layers of L cells; the stem of ImageNet ends in a reduction."""
    layers, halved = [], stem == "imagenet"
    for i in range(cells):
        reduces = i in (cells // 3, 2 * cells // 3)
        channels *= 2 if reduces else 1
        layers.append(Layer("reduce" if reduces else "normal", channels, halved))
        halved = reduces
    return layers


class Stem(nn.Module):
    """What the first cell gets as the outputs of the two cells before it.

    On CIFAR twice a 3x3 convolution to ``multiplier * C``, batch norm.  On ImageNet
    (two strided 3x3 convolutions to C, and that through a third one).
    """

    kind: str
    features: int
    multiplier: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.kind == "cifar":
            x = self._conv(x, self.multiplier * self.features, 1)
            return x, x
        x = self._conv(x, self.features // 2, 2)
        s0 = self._conv(nn.relu(x), self.features, 2)
        return s0, self._conv(nn.relu(s0), self.features, 2)

    def _conv(self, x, features, strides):
        x = Conv(features, (3, 3), strides, dtype=self.dtype)(x)
        return BatchNorm(self.train, dtype=self.dtype)(x)


def preprocess(
    layer: Layer, s0: jax.Array, s1: jax.Array, **norm: Any
) -> tuple[jax.Array, jax.Array]:
    """A cell's inputs at its size and channels, in a compact module.

    Args:
      layer: of the cell.
      s0, s1: outputs of the cell before the last and of the last.
      **norm: arguments of the layers that end in batch norm.
    """
    fit = FactorizedReduce if layer.after_reduction else ReLUConvBN
    return (
        fit(layer.features, name="preprocess_0", **norm)(s0),
        ReLUConvBN(layer.features, name="preprocess_1", **norm)(s1),
    )


def classify(x: jax.Array, classes: int, dtype: Any) -> jax.Array:
    """Average over the map and a linear layer, in a compact module; float32."""
    logits = Dense(classes, dtype=dtype, name="classifier")(x.mean(axis=(1, 2)))
    return logits.astype(jnp.float32)


class FinalCell(nn.Module):
    """A fixed cell.

    Attributes:
      layer: its place.
      ops: names behind the ops' numbers.
      concat: the states that are returned side by side.
      train: whether batch norm uses the statistics of the batch.
    """

    layer: Layer
    ops: tuple[str, ...]
    concat: Sequence[int]
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        blocks: Sequence[Block],
        s0: jax.Array,
        s1: jax.Array,
        drop_path: float | jax.Array,
    ) -> jax.Array:
        """Returns ``[B, H, W, states * C]``."""
        states = [*preprocess(self.layer, s0, s1, train=self.train, dtype=self.dtype)]
        for number, block in enumerate(blocks, start=2):
            sides = zip(("left", "right"), block.ops, block.inputs, strict=True)
            left, right = (
                self._op(
                    self.ops[op], states, state, drop_path, f"node_{number}_{side}"
                )
                for side, op, state in sides
            )
            states.append(left + right)
        return jnp.concatenate([states[i] for i in self.concat], axis=-1)

    def _op(self, op, states, state, probability, name):
        strides = self.layer.strides if state < 2 else 1
        make = operation(
            op, self.layer.features, strides, train=self.train, dtype=self.dtype
        )
        x = make(name=name)(states[state])
        never = isinstance(probability, float) and probability == 0
        is_identity = op == SKIP and strides == 1
        if never or is_identity or not self.train or not self.has_rng("dropout"):
            return x
        return drop_paths(x, probability, self.make_rng("dropout"))


class Network(nn.Module):
    """What both forms have: a stem, cells with two reductions among them, a classifier.

    Attributes:
      classes: number of classes.
      channels: C, of the first cells.
      cells: L, reductions included.
      stem: "cifar" or "imagenet".
      stem_multiplier: see `Stem`.
      ops: names behind the ops' numbers.
      normal_concat, reduce_concat: states that the cells return.
      dtype: of the computation; parameters and logits are float32.
    """

    classes: int
    channels: int
    cells: int
    stem: str
    stem_multiplier: int
    ops: tuple[str, ...]
    normal_concat: Sequence[int]
    reduce_concat: Sequence[int]
    dtype: Any

    @property
    def layers(self) -> list[Layer]:
        """The layer of each cell."""
        return layout(self.cells, self.channels, self.stem)

    @property
    def concats(self) -> dict[str, Sequence[int]]:
        """By cell, the states that it returns."""
        return {"normal": self.normal_concat, "reduce": self.reduce_concat}


class FinalNetwork(Network):
    """The network of a fixed child.

    Attributes:
      aux_head: whether there is an auxiliary head; its logits are sown in training.
    """

    aux_head: bool = False

    @nn.compact
    def __call__(
        self,
        choices: Mapping[str, Any],
        x: jax.Array,
        train: bool = False,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to float32 logits ``[B, classes]``.

        Args:
          choices: the fixed binding.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: probability of dropping the output of an op that is no identity,
            the same in all cells.

        Raises:
          ValueError: if the choices are not fixed.
        """
        if not all(map(is_fixed_cell, choices.values())):
            raise ValueError("the final form of darts takes fixed decisions only")
        stem = Stem(self.stem, self.channels, self.stem_multiplier, train, self.dtype)
        s0, s1 = stem(x)
        for i, layer in enumerate(self.layers):
            concat = self.concats[layer.cell]
            cell = FinalCell(
                layer, self.ops, concat, train, self.dtype, name=f"cell_{i}"
            )
            s0, s1 = s1, cell(choices[layer.cell], s0, s1, drop_path)
            if self.aux_head and train and i == 2 * self.cells // 3:
                self._auxiliary(s1)
        return classify(s1, self.classes, self.dtype)

    def _auxiliary(self, x):
        """On ImageNet the pool has stride 2, and no batch norm is last."""
        strides, last_norm = (3, True) if self.stem == "cifar" else (2, False)
        head = AuxiliaryHead(
            *(self.classes, True, strides, last_norm, self.dtype),
            name="auxiliary_head",
        )
        self.sow("auxiliary", "logits", head(x).astype(jnp.float32))
