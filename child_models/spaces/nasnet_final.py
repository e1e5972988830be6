"""The published networks of NASNet cells: NASNet-A, AmoebaNet and their like.

Zoph et al., https://arxiv.org/abs/1707.07012, as the authors' TensorFlow-Slim code has
it.  A cell is data: which states and ops each block takes, and which states the cell
returns.  State 0 is the layer before, brought to F channels by ReLU-1x1-BN;
state 1 that of the layer before it, changed only where its size or channels differ.
Padding is symmetric here, where Slim's strided convolutions pad at the end.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.genotype import Block, unused_states
from child_models.ops.drop_path import drop_path
from child_models.ops.layers import Conv, Dense, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.spaces.nasnet_ops import IDENTITY, OPS, combiners, operation
from child_models.spaces.nasnet_spec import Cells, is_fixed_cell

STEMS = ("cifar", "imagenet")


class Layer(NamedTuple):
    """One cell of the network.

    Attributes:
      cell: "normal" or "reduce".
      width: its channels, as a multiple of the network's.
      previous: which output is state 1, counted from the last: -2 the one before it.
      auxiliary: whether the auxiliary head sits on it.
    """

    cell: str
    width: float
    previous: int = -2
    auxiliary: bool = False


def layout(
    cells: int,
    stem: str,
    skip_reduction_layer_input: bool = False,
    reductions_within: bool = False,
) -> list[Layer]:
    """The layers of a network with N = ``cells`` normal cells.

    A reduction cell precedes the normal cells int(N/3) and int(2N/3), and doubles the
    channels; with ``reductions_within`` it stands in their place, and N counts it
    (PNASNet).  With ``skip_reduction_layer_input`` the normal cell after one that
    precedes it sees, beside its output, what the reduction cell saw as the layer
    before; else its input.  The ImageNet stem ends in two reduction cells at a quarter
    and half of the channels.
    """
    reductions = (int(cells / 3), int(2 * cells / 3))
    layers = []
    if stem == "imagenet":
        layers = [Layer("reduce", 1 / 4), Layer("reduce", 1 / 2)]
    width = 1
    for i in range(cells):
        cell, previous = "normal", -2
        if i in reductions:
            width *= 2
            if reductions_within:
                cell = "reduce"
            else:
                layers.append(Layer("reduce", width))
                previous = -3 if skip_reduction_layer_input else -2
        layers.append(Layer(cell, width, previous, i == reductions[1] - 1))
    return layers


def drop_probability(drop_path: float | jax.Array, layer: int, layers: int) -> Any:
    """ScheduledDropPath, 1 - keep: ``drop_path * (layer + 1) / layers``.

    Args:
      drop_path: of the last layer at this step; grows linearly over training, and
        ends at 0.4 for NASNet-A on CIFAR-10.
      layer: counted from 0, stem and reduction cells included.
      layers: how many there are.
    """
    return drop_path * ((layer + 1) / layers)


class Stem(nn.Module):
    """3x3 convolution, batch norm: on CIFAR stride 1, on ImageNet stride 2, valid."""

    features: int
    kind: str
    train: bool
    affine: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        strides, padding = (1, "same") if self.kind == "cifar" else (2, "valid")
        conv = Conv(self.features, (3, 3), strides, padding=padding, dtype=self.dtype)
        return BatchNorm(self.train, self.affine, dtype=self.dtype)(conv(x))

    @staticmethod
    def width(kind: str, channels: int, multiplier: float) -> int:
        """Channels of the stem: a multiple of F on CIFAR, of 32 on ImageNet."""
        return int((channels if kind == "cifar" else 32) * multiplier)


class Match(nn.Module):
    """Brings a returned state to the size and channels of the others, no ReLU."""

    features: int
    height: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1] == self.height:
            if x.shape[-1] == self.features:
                return x
            x = Conv(self.features, (1, 1), dtype=self.dtype)(x)
            return BatchNorm(self.train, dtype=self.dtype)(x)
        return FactorizedReduce(
            self.features, self.train, relu=False, dtype=self.dtype
        )(x)


class FinalCell(nn.Module):
    """A cell whose ops on its two inputs are strided in a reduction.

    Attributes:
      operations: names behind the ops' numbers.
      features: channels F of every block.
      strides: 2 for a reduction cell.
      concat: the states that are returned side by side; None for those unused.
    """

    operations: tuple[str, ...]
    features: int
    strides: int
    concat: tuple[int, ...] | None
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        blocks: Sequence[Block],
        current: jax.Array,
        previous: jax.Array | None,
        drop: float | jax.Array,
    ) -> jax.Array:
        """Returns ``[B, H, W, states * F]``; ``previous`` None stands for current."""
        common = {"train": self.train, "dtype": self.dtype}
        first = ReLUConvBN(self.features, name="current", **common)(current)
        states = [first, self._previous(current, previous)]
        for b, block in enumerate(blocks):
            halves = [
                self._half(states, state, op, drop, f"block_{b}_{side}")
                for side, state, op in zip(
                    ("left", "right"), block.inputs, block.ops, strict=True
                )
            ]
            combine = combiners(**common)[block.combiner or 0]
            states.append(combine(name=f"block_{b}_combine")(*halves))
        height = states[-1].shape[1]
        returned = unused_states(blocks) if self.concat is None else self.concat
        matched = [
            Match(self.features, height, name=f"match_{i}", **common)(states[i])
            for i in returned
        ]
        return jnp.concatenate(matched, axis=-1)

    def _previous(self, current, previous):
        if previous is None:
            return current
        common = {"train": self.train, "dtype": self.dtype}
        halvings = 0
        while previous.shape[1] > current.shape[1]:
            name = f"previous_reduce_{halvings}"
            previous = FactorizedReduce(self.features, name=name, **common)(previous)
            halvings += 1
        if previous.shape[-1] != self.features:
            previous = ReLUConvBN(self.features, name="previous", **common)(previous)
        return previous

    def _half(self, states, state, op, drop, name):
        x, op = states[state], self.operations[op]
        module = operation(
            op,
            inputs=x.shape[-1],
            features=self.features,
            strides=self.strides if state < 2 else 1,
            train=self.train,
            dtype=self.dtype,
        )
        x = module(name=name)(x)
        if op == IDENTITY or not self.has_rng("dropout"):
            return x
        return drop_path(x, drop, self.make_rng("dropout"))


class AuxiliaryHead(nn.Module):
    """A second classifier: 5x5 average pool, 1x1 to 128, whole map to 768.

    Maps smaller than the window are pooled whole.

    Attributes:
      classes: number of classes.
      train: whether batch norm uses the statistics of the batch.
      strides: of the pool.
      last_norm: whether batch norm follows the last convolution, as the first.
    """

    classes: int
    train: bool
    strides: int = 3
    last_norm: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = tuple(min(5, size) for size in x.shape[1:3])
        x = nn.avg_pool(nn.relu(x), window, strides=(self.strides, self.strides))
        x = Conv(128, (1, 1), dtype=self.dtype)(x)
        x = nn.relu(BatchNorm(self.train, dtype=self.dtype)(x))
        x = Conv(768, x.shape[1:3], padding="valid", dtype=self.dtype)(x)
        x = BatchNorm(self.train, dtype=self.dtype)(x) if self.last_norm else x
        x = nn.relu(x)
        return Dense(self.classes, dtype=self.dtype)(x.reshape(x.shape[0], -1))


class Classifier(nn.Module):
    """ReLU, average over the map, dropout where a key is given, linear; float32."""

    classes: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(x).mean(axis=(1, 2))
        deterministic = not self.has_rng("dropout")
        x = nn.Dropout(self.dropout, deterministic=deterministic)(x)
        return Dense(self.classes, dtype=self.dtype, name="linear")(x).astype(
            jnp.float32
        )


class FinalNetwork(nn.Module):
    """The network of a normal and a reduction cell.

    Attributes:
      classes: number of classes.
      channels: F, of the first normal cells.
      cells: N, the number of normal cells.
      stem: "cifar" or "imagenet".
      stem_multiplier: see `Stem.width`.
      skip_reduction_layer_input, reductions_within: see `layout`.
      normal_concat, reduce_concat: states that the cells return; None for those unused.
      operations: names behind the ops' numbers.
      aux_head: whether there is an auxiliary head; its logits are sown in training.
      dropout: of the linear layer's input.
      dtype: of the computation; parameters and logits are float32.
    """

    classes: int
    channels: int
    cells: int
    stem: str = "cifar"
    stem_multiplier: float = 3.0
    skip_reduction_layer_input: bool = False
    reductions_within: bool = False
    normal_concat: tuple[int, ...] | None = None
    reduce_concat: tuple[int, ...] | None = None
    operations: tuple[str, ...] = OPS
    aux_head: bool = False
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: Cells,
        x: jax.Array,
        train: bool,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Returns logits float32[B, classes].

        Args:
          choices: the fixed binding: blocks of integers for "normal" and "reduce".
          x: images, float[B, H, W, C].
          train: whether batch norm uses the statistics of the batch.
          drop_path: see `drop_probability`.

        Raises:
          ValueError: if the choices are not fixed.
        """
        if not is_fixed_cell(choices["normal"]):
            raise ValueError("the final form takes fixed choices only")
        width = Stem.width(self.stem, self.channels, self.stem_multiplier)
        x = Stem(width, self.stem, train, dtype=self.dtype, name="stem")(x)
        outputs = [None, x]
        layers = layout(
            self.cells,
            self.stem,
            self.skip_reduction_layer_input,
            self.reductions_within,
        )
        concats = {"normal": self.normal_concat, "reduce": self.reduce_concat}
        for i, layer in enumerate(layers):
            cell = FinalCell(
                self.operations,
                int(self.channels * layer.width),
                2 if layer.cell == "reduce" else 1,
                concats[layer.cell],
                train,
                dtype=self.dtype,
                name=f"layer_{i}_{layer.cell}",
            )
            drop = drop_probability(drop_path, i, len(layers))
            x = cell(choices[layer.cell], outputs[-1], outputs[layer.previous], drop)
            outputs.append(x)
            if self.aux_head and layer.auxiliary and train:
                head = AuxiliaryHead(
                    self.classes, train, dtype=self.dtype, name="auxiliary_head"
                )
                self.sow("auxiliary", "logits", head(x).astype(jnp.float32))
        classify = Classifier(self.classes, self.dropout, self.dtype, name="classifier")
        return classify(x)
