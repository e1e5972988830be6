"""The network in which ENAS micro searches: one path of shared weights at a time.

Every (node, side, input) has separable convolutions of its own, kept as rows of
stacked arrays.  The rows that an architecture reads are gathered first, so that the
cells of equal shape are one scan, and the 2 * nodes edges of a cell another, over one
conditional: three conditionals are compiled, whatever the number of nodes and layers.

As in the authors' code, batch norm uses the statistics of the batch, in scoring too,
all operations have stride 1, and the states that no node reads go through ReLU, a 1x1
convolution and batch norm.  It differs in two places: a reduction halves both inputs of
the reduction cell (there: the last output, twice), so that an input index means the
same as in the final network; and the image enters the first two cells through the
same two 1x1 convolutions.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.choice import Choice, Choose, Weighted, choose, is_fixed
from child_models.ops.convolution import conv2d, depthwise_conv2d
from child_models.ops.initializers import he_normal
from child_models.ops.layers import Conv, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm, batch_norm
from child_models.ops.pooling import avg_pool, max_pool
from child_models.packed import pack, unpack
from child_models.picking import add_at, indicator, read
from child_models.shared_params import stacked_param
from child_models.spaces.enas_layers import (
    Classifier,
    stack_choices,
    stage_lengths,
)
from child_models.spaces.enas_text import loose_ends

States = tuple[jax.Array, jax.Array]
KERNEL_SIZES = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}


def edge_rows(nodes: int, cells: int) -> tuple[np.ndarray, int]:
    """Rows of the weights of all edges, one for each input that an edge may have.

    Args:
      nodes: computed nodes of a cell; edges 2 i and 2 i + 1 enter node i, from one of
        i + 2 states.
      cells: number of cells.

    Returns:
      (int[cells * 2 * nodes]: where each edge's rows begin, the number of rows).
    """
    inputs = np.tile(np.arange(2 * nodes) // 2 + 2, cells)
    ends = np.cumsum(inputs)
    return ends - inputs, int(ends[-1])


class SepConvBank(nn.Module):
    """Weights of one separable convolution, twice over, for every edge and input.

    Attributes:
      size: of the kernel.
      channels: in and out, C.
      rows: number of (edge, input) pairs.
    """

    size: int
    channels: int
    rows: int

    @nn.compact
    def __call__(self, rows: list[int] | None = None) -> dict[str, jax.Array]:
        """Returns arrays ``[rows, 2, ...]``; of a fixed child, those of its rows."""
        inits = {
            "depthwise": he_normal(self.size**2),
            "pointwise": he_normal(self.channels),
            "scale": nn.initializers.ones,
            "bias": nn.initializers.zeros,
        }
        return {
            name: stacked_param(self, name, inits[name], shape, self.rows, rows)
            for name, shape in sep_conv_shapes(self.size, self.channels).items()
        }


def sep_conv_shapes(size: int, channels: int) -> dict[str, tuple[int, ...]]:
    """Shapes of one row of a `SepConvBank`."""
    k, c = size, channels
    return {
        "depthwise": (2, k, k, c),
        "pointwise": (2, c, c),
        "scale": (2, c),
        "bias": (2, c),
    }


def _shapes(channels):
    return {op: sep_conv_shapes(size, channels) for op, size in KERNEL_SIZES.items()}


class SepConv(nn.Module):
    """Twice: ReLU, depthwise, 1x1, batch norm, with weights that are a packed row."""

    op: str

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array | dict[str, jax.Array]):
        if not isinstance(weights, dict):
            weights = unpack(weights, _shapes(x.shape[-1]))[self.op]
        for i in range(2):
            w = jax.tree.map(lambda a, i=i: a[i], weights)
            x = depthwise_conv2d(nn.relu(x), w["depthwise"].astype(x.dtype))
            x = conv2d(x, w["pointwise"].astype(x.dtype)[None, None])
            x = batch_norm(x, w["scale"], w["bias"])[0]
        return x


class Pool(nn.Module):
    """3x3 pool with stride 1."""

    kind: str

    @nn.compact
    def __call__(self, x: jax.Array, weights: Any) -> jax.Array:
        return {"avg": avg_pool, "max": max_pool}[self.kind](x, 3)


class Identity(nn.Module):
    """Its input."""

    @nn.compact
    def __call__(self, x: jax.Array, weights: Any) -> jax.Array:
        return x


BRANCHES = (
    functools.partial(SepConv, "sep_conv_3x3"),
    functools.partial(SepConv, "sep_conv_5x5"),
    functools.partial(Pool, "avg"),
    functools.partial(Pool, "max"),
    Identity,
)


class Stage(nn.Module):
    """Cells of equal shape, one after the other.

    Attributes:
      nodes: computed nodes of a cell, n; a cell has 2 n edges.
      channels: of all states, C.
      remat: whether an op is computed again for its gradient.
    """

    nodes: int
    channels: int
    remat: bool = True

    @nn.compact
    def __call__(self, states: States, cells: tuple[tuple[Choice, ...], ...]) -> States:
        """Applies the cells.

        Args:
          states: ``[B, H, W, C]``, outputs of the cell before the last and of the last.
          cells: the choices of each cell, (input, op) for each side of each node.

        Returns:
          outputs of the last two cells.
        """
        c, count = self.channels, len(cells)
        firsts, rows = edge_rows(self.nodes, count)
        inputs = [choice for cell in cells for choice in cell[0::2]]
        ops = [choice for cell in cells for choice in cell[1::2]]
        banks = {
            op: SepConvBank(size, c, rows, name=op) for op, size in KERNEL_SIZES.items()
        }
        joins = functools.partial(
            stacked_param, self, "join", he_normal(c), (c, c), count * (self.nodes + 2)
        )
        norms = [
            stacked_param(self, "scale", nn.initializers.ones, (c,), count),
            stacked_param(self, "bias", nn.initializers.zeros, (c,), count),
        ]
        run = self._fixed if is_fixed(ops[0]) else self._shared
        return run(states, cells, inputs, ops, firsts, banks, joins, norms)

    def _fixed(self, states, cells, inputs, ops, firsts, banks, joins, norms):
        weights: list[dict] = [{} for _ in ops]
        for number, (op, bank) in enumerate(banks.items()):
            edges = [e for e, o in enumerate(ops) if o == number]
            if edges:
                arrays = bank([int(firsts[e]) + inputs[e] for e in edges])
                for i, e in enumerate(edges):
                    weights[e] = jax.tree.map(lambda a, i=i: a[i], arrays)
        edges = iter(zip(inputs, ops, weights, strict=True))
        loose, total = [loose_ends(cell) for cell in cells], self.nodes + 2
        rows = [c * total + j for c, ends in enumerate(loose) for j in ends]
        kernels = iter(joins(rows))
        for ends, scale, bias in zip(loose, *norms, strict=True):
            nodes = [*states]
            for _ in range(self.nodes):
                sides = (next(edges), next(edges))
                left, right = (choose(op, BRANCHES, nodes[i], w) for i, op, w in sides)
                nodes.append(left + right)
            own = [next(kernels) for _ in ends]
            out = _join([nodes[j] for j in ends], own, scale, bias)
            states = (states[1], out)
        return states

    def _shared(self, states, cells, inputs, ops, firsts, banks, joins, norms):
        count, total = len(cells), self.nodes + 2
        inputs, ops = stack_choices(inputs, total), stack_choices(ops, len(BRANCHES))
        weights = pack(
            {
                op: jax.tree.map(lambda a: _gather(a, firsts, inputs), bank())
                for op, bank in banks.items()
            }
        )
        kernels = joins().reshape(count, total, self.channels, self.channels)
        edges = jax.tree.map(
            lambda a: a.reshape(count, 2 * self.nodes, *a.shape[1:]),
            (weights, inputs, ops),
        )
        targets = jnp.arange(2 * self.nodes) // 2 + 2

        def edge(nodes, edge):
            weights, source, op, target = edge
            y, nodes = read(source, nodes)
            op_of = Choose(BRANCHES, remat=self.remat, parent=None)
            y = op_of.apply({}, op, y, weights)
            return add_at(nodes, target, y), None

        def cell(states, cell):
            (weights, inputs, ops), kernels, scale, bias = cell
            nodes = jnp.stack([*states] + [jnp.zeros_like(states[1])] * self.nodes)
            nodes, _ = jax.lax.scan(edge, nodes, (weights, inputs, ops, targets))
            loose = jnp.prod(1 - indicator(inputs, total), axis=0)
            out = _join(nodes, kernels * loose[:, None, None], scale, bias)
            return (states[1], out), None

        return jax.lax.scan(cell, states, (edges, kernels, *norms))[0]


def _join(states, kernels, scale, bias):
    """ReLU, 1x1 and batch norm of the concatenated states, written as a sum."""
    total = sum(
        conv2d(nn.relu(state), kernel.astype(state.dtype)[None, None])
        for state, kernel in zip(states, kernels, strict=True)
    )
    return batch_norm(total, scale, bias)[0]


def _gather(stacked, firsts, inputs):
    """Rows ``[E, ...]`` of every edge's own weights for its input."""
    if not isinstance(inputs, Weighted):
        return stacked[firsts + inputs]
    count = inputs.weight.shape[1]
    table = np.minimum(firsts[:, None] + np.arange(count), len(stacked) - 1)
    weight = indicator(inputs, count).astype(stacked.dtype)
    return jnp.einsum("ei,ei...->e...", weight, stacked[table])


class SearchNet(nn.Module):
    """Stem, three stages of cells with reductions between, classifier."""

    classes: int
    nodes: int
    channels: int
    layers: int
    stem_multiplier: int
    dropout: float
    remat: bool = True
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: tuple[tuple[Choice, ...], tuple[Choice, ...]],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to logits ``[B, classes]``.

        Args:
          choices: of the normal and of the reduction cell.
          x: images.
          train: has no effect; batch norm uses the statistics of the batch.
          drop_path: has no effect; the search drops no paths.
        """
        normal, reduction = choices
        channels, dtype = self.channels, self.dtype
        x = Conv(self.stem_multiplier * channels, dtype=dtype, name="stem")(x)
        x = BatchNorm(True, dtype=dtype, name="stem_norm")(x)
        s0, s1 = (
            ReLUConvBN(channels, True, dtype=dtype, name=f"calibrate_{i}")(x)
            for i in range(2)
        )
        for stage, length in enumerate(stage_lengths(self.layers)):
            if stage:
                channels *= 2
                make = functools.partial(FactorizedReduce, channels, True, dtype=dtype)
                s0 = make(name=f"reduce_0_{stage}")(s0)
                s1 = make(name=f"reduce_1_{stage}")(s1)
            cells = (reduction,) * (stage > 0) + (normal,) * length
            if cells:
                sizes = (self.nodes, channels, self.remat)
                module = Stage(*sizes, name=f"stage_{stage}")
                s0, s1 = module((s0, s1), cells)
        head = Classifier(self.classes, self.dropout, dtype, name="classifier")
        return head(nn.relu(s1))
