"""The networks of NAS-Bench-201's cells, which are searched and retrained.

Dong and Yang, https://arxiv.org/abs/2001.00326, as in the authors' code,
D-X-Y/AutoDL-Projects.  A node is the sum of its incoming edges.  Three stages of N
cells, with a residual block of stride 2 before the second and the third, stand between
a 3x3 convolution and a linear classifier.

Shapes: B images of H x W pixels, C channels of the stage.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, choose, is_fixed
from child_models.ops.drop_path import drop_path as drop_paths
from child_models.ops.layers import Conv, Dense, Identity, Pool, ReLUConvBN, Zero
from child_models.ops.normalization import BatchNorm
from child_models.ops.pooling import halve

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CHEAP = OPS[:2]  # that drop-path spares


def edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """(source, target) of each edge; every node is fed by all before it."""
    return tuple((source, node) for node in range(1, nodes) for source in range(node))


class Cell(nn.Module):
    """One cell; shapes stay as they are.

    Attributes:
      train: whether batch norm uses the statistics of the batch.
      affine: whether its batch norm has a scale and a bias.
      fixed: the choices of a fixed child; None where they are an operand.  It is an
        attribute because a lifted scan or remat would trace an operand.
      dtype: of the computation.
      nodes: of the cell, its input included.
      ops: that an edge chooses from.
    """

    train: bool
    affine: bool
    fixed: tuple[int, ...] | None
    dtype: Any = None
    nodes: int = 4
    ops: tuple[str, ...] = OPS

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        choices: Sequence[Choice] | None,
        drop_path: float | jax.Array | None,
    ) -> tuple[jax.Array, None]:
        """Returns (the last node, None), as the body of a scan over cells.

        Args:
          x: ``[B, H, W, C]``, node 0.
          choices: of the edges; None where `fixed` has them.
          drop_path: probability of dropping the output of a convolution or pool of a
            fixed cell; None for never.
        """
        choices = choices if self.fixed is None else self.fixed
        branches = self.branches(x.shape[-1])
        nodes = [x] + [None] * (self.nodes - 1)
        for choice, (source, target) in zip(choices, edges(self.nodes), strict=True):
            y = choose(choice, branches, nodes[source], name=f"edge_{source}_{target}")
            if drop_path is not None and self.ops[choice] not in _CHEAP:
                y = drop_paths(y, drop_path, self.make_rng("dropout"))
            nodes[target] = y if nodes[target] is None else nodes[target] + y
        return nodes[-1], None

    def branches(self, channels: int) -> list:
        """Factories of the ops, in the order of the choices."""
        norm = {"train": self.train, "affine": self.affine, "dtype": self.dtype}
        known = {
            "none": Zero,
            "skip_connect": Identity,
            "nor_conv_1x1": partial(ReLUConvBN, channels, kernel=(1, 1), **norm),
            "nor_conv_3x3": partial(ReLUConvBN, channels, kernel=(3, 3), **norm),
            "avg_pool_3x3": partial(Pool, "avg", 3),
        }
        return [known[op] for op in self.ops]


class ResidualBlock(nn.Module):
    """Halves height and width: two ReLU-conv3x3-BN beside a pooled 1x1 convolution."""

    features: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), features]``."""
        make = partial(
            ReLUConvBN, self.features, self.train, kernel=(3, 3), dtype=self.dtype
        )
        y = make(strides=2, name="conv_a")(x)
        y = make(name="conv_b")(y)
        shortcut = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")
        return y + shortcut(halve(x, "avg"))


class Network(nn.Module):
    """Stem, three stages of cells with residual blocks between, classifier.

    Attributes:
      classes: number of classes.
      channels: of the first stage; doubled at each of the other two.
      cells: N, of a stage.
      final: whether this is the form that is retrained: its cells are unrolled.  Those
        of the search form are one scan a stage, their parameters stacked.
      affine: whether the cells' batch norm has a scale and a bias.
      remat: whether a cell's inner nodes are computed again in the backward pass.
      dtype: of the computation.
      nodes: of a cell, its input included.
      ops: that an edge chooses from.
    """

    classes: int
    channels: int
    cells: int
    final: bool
    affine: bool
    remat: bool = False
    dtype: Any = None
    nodes: int = 4
    ops: tuple[str, ...] = OPS

    @nn.compact
    def __call__(
        self,
        choices: Sequence[Choice],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, channels]`` to float32 logits ``[B, classes]``.

        Args:
          choices: of the edges.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: of the final form: probability in the last cell; in the others in
            proportion to depth.

        Raises:
          ValueError: if the final form gets choices that are not fixed.
        """
        if self.final and not all(map(is_fixed, choices)):
            raise ValueError("the final form of nasbench201 takes fixed decisions only")
        x = Conv(self.channels, dtype=self.dtype, name="stem")(x)
        x = BatchNorm(train, dtype=self.dtype, name="stem_norm")(x)
        for stage in range(3):
            if stage:
                block = ResidualBlock(
                    self.channels * 2**stage, train, self.dtype, name=f"reduce_{stage}"
                )
                x = block(x)
            x = self._stage(stage, x, tuple(choices), train, drop_path)
        x = nn.relu(BatchNorm(train, dtype=self.dtype, name="last_norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(x)
        return logits.astype(jnp.float32)

    def _stage(self, stage, x, choices, train, drop_path):
        fixed, operand = None, choices
        if all(map(is_fixed, choices)):
            fixed, operand = tuple(map(int, choices)), None
        cell = nn.remat(Cell) if self.remat else Cell
        make = partial(
            cell, train, self.affine, fixed, self.dtype, self.nodes, self.ops
        )
        if self.final:
            for i in range(stage * self.cells, (stage + 1) * self.cells):
                probability = self._probability(i, train, drop_path)
                x, _ = make(name=f"cell_{i}")(x, operand, probability)
            return x
        if self.cells > 1:
            scanned = nn.scan(
                cell,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.cells,
            )
            make = partial(scanned, *make.args)
        return make(name=f"stage_{stage}")(x, operand, None)[0]

    def _probability(self, index, train, drop_path):
        never = isinstance(drop_path, float) and drop_path == 0
        if never or not train or not self.has_rng("dropout"):
            return None
        return drop_path * ((index + 1) / (3 * self.cells))
