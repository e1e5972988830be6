"""The network in which ENAS micro searches: one path of shared weights at a time.

Every (node, side, input) has separable convolutions of its own, kept as rows of
stacked arrays.  The rows that an architecture reads are gathered first, so that the
2 * nodes edges of a cell are one scan over one conditional, and the normal cells of
equal shape another: compilation costs five cells' worth of five branches whatever the
number of nodes and layers.

As in the authors' code, batch norm uses the statistics of the batch, in scoring too,
the nodes that nothing reads go through ReLU, a 1x1 convolution and batch norm, and all
operations have stride 1.  It differs in two places: a reduction halves both inputs of
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

from child_models.choice import (
    Choice,
    Choose,
    Weighted,
    choose,
    indicator,
    is_fixed,
    pick,
    stacked_param,
)
from child_models.ops.convolution import conv2d, depthwise_conv2d
from child_models.ops.layers import Conv, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm, batch_norm
from child_models.ops.pooling import avg_pool, max_pool
from child_models.spaces.enas_layers import (
    Classifier,
    he_normal,
    stack_choices,
    stage_lengths,
)

KERNEL_SIZES = {"sep_conv_3x3": 3, "sep_conv_5x5": 5}


def first_rows(nodes: int) -> np.ndarray:
    """int[2 * nodes]: where each edge's rows begin; edge e enters node e // 2."""
    inputs = np.arange(2 * nodes) // 2 + 2
    return np.cumsum(inputs) - inputs


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
        k, c = self.size, self.channels
        arrays = {
            "depthwise": (he_normal(k * k), (2, k, k, c)),
            "pointwise": (he_normal(c), (2, c, c)),
            "scale": (nn.initializers.ones, (2, c)),
            "bias": (nn.initializers.zeros, (2, c)),
        }
        return {
            name: stacked_param(self, name, init, shape, self.rows, rows)
            for name, (init, shape) in arrays.items()
        }


class SepConv(nn.Module):
    """Twice: ReLU, depthwise, 1x1, batch norm, with weights that are operands."""

    op: str
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, weights: dict[str, dict[str, jax.Array]]):
        depthwise, pointwise, scale, bias = (
            weights[self.op][name] for name in ("depthwise", "pointwise", "scale", "bias")
        )
        for i in range(2):
            x = depthwise_conv2d(nn.relu(x), depthwise[i].astype(x.dtype))
            x = conv2d(x, pointwise[i].astype(x.dtype)[None, None])
            x, _, _ = batch_norm(x, scale[i], bias[i])
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


class SearchCell(nn.Module):
    """One cell: each node sums two operations on earlier states."""

    nodes: int
    channels: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self, states: tuple[jax.Array, jax.Array], choices: tuple[Choice, ...]
    ) -> tuple[tuple[jax.Array, jax.Array], None]:
        """Appends the cell's output; the body of a scan over cells.

        Args:
          states: outputs ``[B, H, W, C]`` of the cell before the last and of the last.
          choices: of the cell, (input, op) for each side of each node.

        Returns:
          ((the last cell's output, this one's), None).
        """
        inputs, ops = choices[0::2], choices[1::2]
        firsts = first_rows(self.nodes)
        rows = int(firsts[-1]) + self.nodes + 1
        banks = {
            op: SepConvBank(size, self.channels, rows, name=op)
            for op, size in KERNEL_SIZES.items()
        }
        run = self._fixed if is_fixed(ops[0]) else self._shared
        return (states[1], run(states, inputs, ops, firsts, banks)), None

    def _fixed(self, states, inputs, ops, firsts, banks):
        weights: list[dict] = [{} for _ in ops]
        for number, (op, bank) in enumerate(banks.items()):
            edges = [e for e, o in enumerate(ops) if o == number]
            if edges:
                arrays = bank([int(firsts[e]) + inputs[e] for e in edges])
                for i, e in enumerate(edges):
                    weights[e][op] = jax.tree.map(lambda a, i=i: a[i], arrays)
        states = list(states)
        for node in range(self.nodes):
            left, right = (
                choose(ops[e], BRANCHES, states[inputs[e]], weights[e])
                for e in (2 * node, 2 * node + 1)
            )
            states.append(left + right)
        loose = [j for j in range(len(states)) if j not in inputs]
        kernels = self._kernels(loose)
        return self._join([states[j] for j in loose], kernels)

    def _shared(self, states, inputs, ops, firsts, banks):
        inputs = stack_choices(inputs, self.nodes + 2)
        ops = stack_choices(ops, len(BRANCHES))
        weights = {
            op: jax.tree.map(lambda a: _gather(a, firsts, inputs), bank())
            for op, bank in banks.items()
        }

        def edge(states, edge):
            weights, source, op, target = edge
            x = pick(source, states)
            y = Choose(BRANCHES, parent=None).apply({}, op, x, weights)
            y = y + pick(target, states)
            return jax.lax.dynamic_update_index_in_dim(states, y, target, 0), None

        states = jnp.stack([*states] + [jnp.zeros_like(states[1])] * self.nodes)
        targets = jnp.arange(2 * self.nodes) // 2 + 2
        states, _ = jax.lax.scan(edge, states, (weights, inputs, ops, targets))
        loose = jnp.prod(1 - indicator(inputs, self.nodes + 2), axis=0)
        kernels = self._kernels() * loose[:, None, None]
        return self._join(states, kernels)

    def _kernels(self, rows=None):
        """1x1 kernels ``[n, C, C]``, one for each state that nothing reads."""
        c = self.channels
        return stacked_param(self, "join", he_normal(c), (c, c), self.nodes + 2, rows)

    def _join(self, states, kernels):
        """ReLU, 1x1 and batch norm of the concatenated states, written as a sum."""
        total = sum(
            conv2d(nn.relu(state), kernel.astype(state.dtype)[None, None])
            for state, kernel in zip(states, kernels, strict=True)
        )
        return BatchNorm(True, dtype=self.dtype, name="norm")(total)


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
                s0, s1 = (
                    FactorizedReduce(channels, True, dtype=dtype, name=f"{name}_{stage}")(s)
                    for name, s in (("reduce_0", s0), ("reduce_1", s1))
                )
                cell = SearchCell(self.nodes, channels, dtype, name=f"reduction_{stage}")
                (s0, s1), _ = cell((s0, s1), reduction)
            if length:
                cells = nn.scan(
                    SearchCell,
                    variable_axes={"params": 0, "batch_stats": 0},
                    split_rngs={"params": True},
                    in_axes=nn.broadcast,
                    length=length,
                )(self.nodes, channels, dtype, name=f"normal_{stage}")
                (s0, s1), _ = cells((s0, s1), normal)
        return Classifier(self.classes, self.dropout, dtype, name="classifier")(
            nn.relu(s1)
        )
