"""The network in which DARTS and its kin search: every op of every edge, shared.

As in the authors' code (quark0/darts, https://arxiv.org/abs/1806.09055) batch norm in
the cells has no scale and bias, and follows the pools too.  With partial channels
(PC-DARTS, https://arxiv.org/abs/1907.05737) the ops of an edge see the first C/K
channels; the others pass by, whatever the edge decides, weighed by the sum of its
weights.  With skip dropout (P-DARTS, https://arxiv.org/abs/1904.12760) a skip that is
an identity is followed by dropout.

One body of the ops serves all edges of a cell that have one shape, and all cells in a
row that have one shape: lifted scans over weights ``[cells, edges, ...]``.  A fixed
child is unrolled.  An edge's relaxed weights count as they are: ``sum_o w_o op_o(x)``.
"""

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, Weighted, choose
from child_models.genotype import Block
from child_models.ops.drop_path import dropout
from child_models.ops.pooling import halve
from child_models.picking import add_at, read
from child_models.spaces.darts_final import (
    Layer,
    Network,
    Stem,
    classify,
    preprocess,
)
from child_models.spaces.darts_ops import NONE, SKIP, operation
from child_models.spaces.darts_spec import edges, is_fixed_cell
from child_models.spaces.repeated import repeat, stack


class Common(NamedTuple):
    """What all cells share, static; see `SearchNetwork`."""

    nodes: int
    ops: tuple[str, ...]
    partial_channels: int
    train: bool
    affine: bool
    remat: bool
    dtype: Any

    @property
    def norm(self) -> dict[str, Any]:
        """Arguments of the layers that end in batch norm."""
        return {"train": self.train, "affine": self.affine, "dtype": self.dtype}


# ---- an edge ------------------------------------------------------------------------


class Operation(nn.Module):
    """One op of an edge; a skip is dropped elementwise where it is an identity.

    Attributes:
      common: what all cells share.
      op: its name.
      features: channels in and out.
      strides: 1 or 2.
    """

    common: Common
    op: str
    features: int
    strides: int

    @nn.compact
    def __call__(self, x: jax.Array, skip_dropout: jax.Array | None) -> jax.Array:
        make = operation(
            *(self.op, self.features, self.strides), pool_norm=True, **self.common.norm
        )
        x = make(name="op")(x)
        drops = self.op == SKIP and self.strides == 1 and self.common.train
        if drops and skip_dropout is not None and self.has_rng("dropout"):
            x = dropout(x, skip_dropout, self.make_rng("dropout"))
        return x


class Edge(nn.Module):
    """One edge: ``((states, nodes, skip_dropout), (source, target, op)) -> (_, None)``.

    It reads ``states[source]`` and adds to ``nodes[target]``; nodes None stand for the
    states themselves.  Both are lists of a fixed child, else buffers ``[n, ...]``.

    Attributes:
      common: what all cells share, and the edge's (features, strides).
    """

    common: tuple[Common, int, int]

    @nn.compact
    def __call__(self, carry, edge):
        (states, nodes, skip_dropout), (source, target, op) = carry, edge
        if isinstance(states, list):
            y = self._apply(op, states[source], skip_dropout)
            into = [*(states if nodes is None else nodes)]
            into[target] += y
        else:
            x, states = read(source, states)
            y = self._apply(op, x, skip_dropout)
            into = add_at(states if nodes is None else nodes, target, y)
        if nodes is None:
            return (into, None, skip_dropout), None
        return (states, into, skip_dropout), None

    def _apply(self, op: Choice, x: jax.Array, skip_dropout):
        common, features, strides = self.common
        part = features // common.partial_channels
        branches = [
            functools.partial(Operation, common, name, part, strides)
            for name in common.ops
        ]
        operands = (x[..., :part], skip_dropout)
        y = choose(op, branches, *operands, name="ops", remat=common.remat)
        if part == features:
            return y
        rest = x[..., part:]
        rest = rest if strides == 1 else halve(rest, "max")
        if isinstance(op, Weighted):
            rest = jnp.sum(op.share).astype(rest.dtype) * rest
        return shuffle(jnp.concatenate([y, rest], axis=-1), common.partial_channels)


def shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Moves channel c of C to ``(c mod C/K) * K + c div C/K``, K groups."""
    grouped = x.reshape(*x.shape[:-1], groups, -1)
    return jnp.swapaxes(grouped, -1, -2).reshape(x.shape)


# ---- a cell -------------------------------------------------------------------------


class SearchCell(nn.Module):
    """One cell: ``((s0, s1, skip_dropout), ops) -> ((s1, next, skip_dropout), None)``.

    Attributes:
      common: what all cells share; the cell's layer, and the states that it returns.
    """

    common: tuple[Common, Layer, Sequence[int]]

    @nn.compact
    def __call__(self, carry, ops):
        common, layer, concat = self.common
        s0, s1, skip_dropout = carry
        inputs = [*preprocess(layer, s0, s1, **common.norm)]
        size = [-(-n // layer.strides) for n in inputs[0].shape[1:3]]
        empty = jnp.zeros((len(s1), *size, layer.features), inputs[0].dtype)
        nodes, every = [empty] * common.nodes, list(enumerate(edges(common.nodes)))
        run = functools.partial(self._run, ops, skip_dropout)
        if layer.strides == 1:  # node 2 is state 2 of one buffer
            steps = [(e, s, t) for e, (s, t) in every]
            states = run("edges", 1, steps, inputs + nodes)
        else:  # the inputs are twice as large as the nodes
            steps = [(e, s, t - 2) for e, (s, t) in every if s < 2]
            nodes = run("entries", 2, steps, inputs, nodes)
            steps = [(e, s - 2, t - 2) for e, (s, t) in every if s >= 2]
            states = [None, None, *run("edges", 1, steps, nodes)]
        out = jnp.concatenate([states[i] for i in concat], axis=-1)
        return (s1, out, skip_dropout), None

    def _run(self, ops, skip_dropout, name, strides, steps, states, nodes=None):
        """Adds the edges (number, source, target) to the nodes, or else the states."""
        if not steps:
            return states
        if isinstance(ops, list):
            xs = [(source, target, ops[e]) for e, source, target in steps]
        else:
            states, nodes = (
                jnp.stack(a) if isinstance(a, list) else a for a in (states, nodes)
            )
            rows, *ends = jnp.array(steps).T
            xs = (*ends, jax.tree.map(lambda a: a[rows], ops))
        common, layer, _ = self.common
        carry, _ = repeat(
            *(Edge, name, (common, layer.features, strides)),
            *((states, nodes, skip_dropout), xs),
        )
        return carry[0] if nodes is None else carry[1]


def edge_ops(blocks: Sequence[Block], nodes: int, none: int) -> list[int]:
    """The op of every edge of a fixed cell, absent ones being ``none``."""
    chosen = {
        (source, target): op
        for target, block in enumerate(blocks, start=2)
        for source, op in zip(block.inputs, block.ops, strict=True)
    }
    return [chosen.get(edge, none) for edge in edges(nodes)]


# ---- the network --------------------------------------------------------------------


class CellRun(nn.Module):
    """Cells of one shape, one after the other; see `SearchCell`."""

    common: tuple[Common, Layer, Sequence[int]]
    count: int

    @nn.compact
    def __call__(self, carry, ops):
        if self.count == 1:  # its output may differ from its input in shape
            return SearchCell(self.common, name="cell")(carry, ops)[0]
        xs = [ops] * self.count
        xs = xs if isinstance(ops, list) else stack(xs)
        return repeat(SearchCell, "cells", self.common, carry, xs)[0]


def cell_runs(
    layers: Sequence[Layer],
    widths: Sequence[int],
    concats: Mapping[str, Sequence[int]],
) -> list[tuple[Layer, int]]:
    """Each layer that differs from the one before, and how often it comes in a row.

    Args:
      layers: of the network.
      widths: channels of the first cell's two inputs.
      concats: states that the cells return, which determine the others'.
    """
    shapes = []
    for layer in layers:
        shapes.append((layer, *widths))
        widths = [widths[1], layer.features * len(concats[layer.cell])]
    return [(shape[0], len([*run])) for shape, run in itertools.groupby(shapes)]


class SearchNetwork(Network):
    """The network of shared weights.

    Attributes:
      nodes: of a cell.
      partial_channels: K, of which one share goes through the ops.
      skip_dropout: rate after skips, in training.
      affine: whether batch norm in the cells has a scale and a bias.
      remat: whether an op is computed again for its gradient.
    """

    nodes: int
    partial_channels: int = 1
    skip_dropout: float = 0.0
    affine: bool = False
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        choices: Mapping[str, Any],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
        skip_dropout: float | jax.Array | None = None,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to float32 logits ``[B, classes]``.

        Args:
          choices: any binding.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect; the search drops no paths.
          skip_dropout: rate after skips, may be traced; None for the attribute's.
        """
        rate = self.skip_dropout if skip_dropout is None else skip_dropout
        never = not isinstance(rate, jax.Array) and rate == 0
        rate = None if never else jnp.asarray(rate, jnp.float32)
        stem = Stem(
            *(self.stem, self.channels, self.stem_multiplier, train, self.dtype),
            name="stem",
        )
        carry = (*stem(x), rate)
        common = Common(
            *(self.nodes, self.ops, self.partial_channels),
            *(train, self.affine, self.remat, self.dtype),
        )
        concats, widths = self.concats, [state.shape[-1] for state in carry[:2]]
        for i, (layer, count) in enumerate(cell_runs(self.layers, widths, concats)):
            ops = choices[layer.cell]
            if is_fixed_cell(ops):
                ops = edge_ops(ops, self.nodes, self.ops.index(NONE))
            run = CellRun((common, layer, concats[layer.cell]), count, name=f"run_{i}")
            carry = run(carry, ops)
        return classify(carry[1], self.classes, self.dtype)
