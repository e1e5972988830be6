"""The NASNet space with shared weights.

Every op of every block exists, under `choose`.  What differs from the published network
(`nasnet_final`): a reduction cell reduces its inputs first and has no strides inside;
a stage (a reduction cell and the normal cells after it) has states of one shape, so
that the ReLU-1x1-BN with which a final cell receives the layer before is applied by
that layer, once, as a masked sum of one 1x1 kernel a state; the normal cell after a
reduction sees the reduced input of that cell as the layer before.

Compilation is most of what 13 ops in 20 places a layer would cost, so one body of an op
serves a whole stage: cells, blocks and the two sides of a block are lifted scans over
stacked weights ``[cells, blocks, 2, ...]``, over the states in one buffer.  A fixed
child is unrolled, and `unstack` cuts its weights out.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, Weighted, choose
from child_models.genotype import Block, unused_states
from child_models.ops.drop_path import drop_path
from child_models.ops.layers import FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.packed import chosen_weights
from child_models.picking import add_at, indicator, read
from child_models.spaces.nasnet_final import (
    Classifier,
    Stem,
    drop_probability,
    layout,
)
from child_models.spaces.nasnet_ops import IDENTITY, OPS, combiners, operation
from child_models.spaces.nasnet_spec import Cells, is_fixed_cell
from child_models.spaces.repeated import repeat, stack


class Common(NamedTuple):
    """What all parts of a stage share, static."""

    features: int
    operations: tuple[str, ...]
    train: bool
    affine: bool
    remat: bool
    dtype: Any

    @property
    def norm(self) -> dict[str, Any]:
        """Arguments of the layers that end in batch norm."""
        return {"train": self.train, "affine": self.affine, "dtype": self.dtype}


# ---- a cell -------------------------------------------------------------------------


class Side(nn.Module):
    """One op of a block: ``(drop, (x, op, chosen)) -> (drop, op(x))``."""

    common: Common

    @nn.compact
    def __call__(self, drop, inputs):
        x, op, chosen = inputs
        features, names = self.common.features, self.common.operations
        branches = [
            operation(name, inputs=features, features=features, **self.common.norm)
            for name in names
        ]
        y = choose(op, branches, x, name="op", chosen=chosen, remat=self.common.remat)
        if drop is not None and self.has_rng("dropout"):
            kept = jnp.array([name == IDENTITY for name in names], jnp.float32)
            identity = indicator(op, len(names)) @ kept
            y = drop_path(y, drop * (1 - identity), self.make_rng("dropout"))
        return drop, y


class SearchBlock(nn.Module):
    """One block: ``((states, drop), (number, block, chosen)) -> (.., None)``.

    ``chosen`` are the weights of its two sampled ops, or None.  The states are a list
    where the block is fixed, else a buffer ``[blocks + 2, B, H, W, F]``, zero where no
    block has been.
    """

    common: Common

    @nn.compact
    def __call__(self, carry, inputs):
        states, drop = carry
        number, block, chosen = inputs
        if isinstance(states, list):
            sides = zip(block.inputs, block.ops, strict=True)
            xs = [(states[state], op, None) for state, op in sides]
        else:
            left, states = read(block.inputs[0], states)
            right, states = read(block.inputs[1], states)
            xs = (jnp.stack([left, right]), stack(block.ops), chosen)
        _, (left, right) = repeat(Side, "sides", self.common, drop, xs)
        combine = combiners(**self.common.norm)
        combiner = 0 if block.combiner is None else block.combiner
        out = choose(combiner, combine, left, right, name="combine")
        if isinstance(states, list):
            return ([*states, out], drop), None
        return (add_at(states, number + 2, out), drop), None


class Output(nn.Module):
    """ReLU, a 1x1 kernel for each returned state, their sum, batch norm."""

    common: Common

    @nn.compact
    def __call__(self, states: Any, returned: Any) -> jax.Array:
        """Returns ``[B, H, W, F]``; ``returned`` weighs each state, 0 leaves it out."""
        features = self.common.features
        init = nn.initializers.he_normal(batch_axis=(0,))
        kernel = self.param("kernel", init, (len(returned), features, features))
        dtype = self.common.dtype or kernel.dtype
        total = 0.0
        for i, weight in enumerate(returned):
            if isinstance(weight, jax.Array) or weight:
                flat = nn.relu(states[i]).reshape(-1, features).astype(dtype)
                total += flat @ (weight * kernel[i]).astype(dtype)
        return BatchNorm(**self.common.norm)(total.reshape(states[0].shape))


class SearchCell(nn.Module):
    """One cell: ``((current, previous), (blocks, returned, drop)) -> (next, None)``.

    ``blocks`` is what `repeat` takes: a list of what `SearchBlock` gets, or stacked.
    """

    common: Common

    @nn.compact
    def __call__(self, carry, inputs):
        blocks, returned, drop = inputs
        states = list(carry)
        if not isinstance(blocks, list):
            empty = [jnp.zeros_like(states[0])] * (len(returned) - 2)
            states = jnp.stack([*states, *empty])
        (states, _), _ = repeat(
            SearchBlock, "blocks", self.common, (states, drop), blocks
        )
        out = Output(self.common, name="output")(states, returned)
        return (out, carry[0]), None


# ---- what a cell gets ---------------------------------------------------------------


def _numbered(blocks: Sequence[Block]) -> Any:
    """The blocks as `SearchBlock` takes them, a list if fixed; see `_with_chosen`."""
    if is_fixed_cell(blocks):
        return [(i, block, None) for i, block in enumerate(blocks)]
    padded = [
        block._replace(inputs=tuple(_pad(c, len(blocks) + 2) for c in block.inputs))
        for block in blocks
    ]
    return jnp.arange(len(blocks)), stack(padded), None


def _with_chosen(xs: Any, params: Any, operations: int) -> Any:
    """What the cells of a stage get, with the weights of their sampled ops.

    Args:
      xs: stacked, what `SearchCell` takes of each cell.
      params: of the stage.
      operations: number of ops that a side chooses from.
    """
    (number, block, _), *rest = xs
    if isinstance(block.ops[0], Weighted):
        return xs
    ops = jnp.stack(block.ops, axis=-1)  # [cells, blocks, 2]
    own = params["cells"]["blocks"]["sides"]["op"]
    return (number, block, chosen_weights(own, ops, operations)), *rest


def _pad(choice: Choice, n: int) -> Choice:
    """The same choice among n, of which the last ones are never taken."""
    if not isinstance(choice, Weighted):
        return choice
    missing = (0, n - choice.weight.shape[0])
    return jax.tree.map(lambda leaf: jnp.pad(leaf, missing), choice)


def _returned(blocks: Sequence[Block], concat: tuple[int, ...] | None) -> Any:
    """How much of each state a cell returns: 1 for the given states, or those unused.

    Under the sampled and the relaxed binding a state's share is the product, over all
    blocks that could take it, of one minus the weight with which they do; blocks count
    as much as they are present.
    """
    n = len(blocks) + 2
    fixed = is_fixed_cell(blocks)
    if fixed or concat is not None:
        states = unused_states(blocks) if concat is None else concat
        share = tuple(float(i in states) for i in range(n))
        return share if fixed else jnp.array(share)
    share = jnp.ones(n)
    for b, block in enumerate(blocks):
        present = 1.0 if block.present is None else block.present
        share = share.at[b + 2].multiply(present)
        for choice in block.inputs:
            taken = present * indicator(choice, b + 2)
            share = share * (1 - jnp.pad(taken, (0, n - b - 2)))
    return share


# ---- the network --------------------------------------------------------------------


class SearchNetwork(nn.Module):
    """The network of shared weights; attributes as of `nasnet_final.FinalNetwork`.

    ``affine`` says whether batch norm has a scale and a bias, ``remat`` whether an op
    is computed again for its gradient.
    """

    classes: int
    channels: int
    cells: int
    stem: str = "cifar"
    stem_multiplier: float = 3.0
    reductions_within: bool = False
    normal_concat: tuple[int, ...] | None = None
    reduce_concat: tuple[int, ...] | None = None
    operations: tuple[str, ...] = OPS
    affine: bool = True
    remat: bool = True
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
          choices: any binding: blocks for "normal" and "reduce".
          x: images, float[B, H, W, C].
          train: whether batch norm uses the statistics of the batch.
          drop_path: see `nasnet_final.drop_probability`.
        """
        norm = {"train": train, "affine": self.affine, "dtype": self.dtype}
        width = Stem.width(self.stem, self.channels, self.stem_multiplier)
        x = Stem(width, self.stem, name="stem", **norm)(x)
        carry = (x, x)
        layers = layout(self.cells, self.stem, reductions_within=self.reductions_within)
        inputs = self._inputs(choices, layers, drop_path)
        stages = itertools.groupby(
            zip(layers, inputs, strict=True), lambda pair: pair[0].width
        )
        for i, (width, stage) in enumerate(stages):
            kinds, xs = zip(*stage, strict=True)
            features = int(self.channels * width)
            common = Common(features, self.operations, remat=self.remat, **norm)
            fit = FactorizedReduce if kinds[0].cell == "reduce" else ReLUConvBN
            carry = tuple(
                fit(common.features, name=f"stage_{i}_{name}", **norm)(state)
                for name, state in zip(("current", "previous"), carry, strict=True)
            )
            xs = list(xs) if is_fixed_cell(choices["normal"]) else stack(xs)
            carry = Stage(common, name=f"stage_{i}")(carry, xs)
        return Classifier(self.classes, dtype=self.dtype, name="classifier")(carry[0])

    def _inputs(self, choices, layers, drop_path):
        """What each layer's `SearchCell` gets, in order."""
        concats = {"normal": self.normal_concat, "reduce": self.reduce_concat}
        cells = {
            name: (_numbered(blocks), _returned(blocks, concats[name]))
            for name, blocks in choices.items()
        }
        never = not isinstance(drop_path, jax.Array) and drop_path == 0
        drops = [
            None if never else jnp.asarray(drop_probability(drop_path, i, len(layers)))
            for i in range(len(layers))
        ]
        return [
            (*cells[layer.cell], drop)
            for layer, drop in zip(layers, drops, strict=True)
        ]


class Stage(nn.Module):
    """Cells of one shape, one after the other."""

    common: Common

    @nn.compact
    def __call__(self, carry, xs):
        if not isinstance(xs, list) and not self.is_initializing():
            params = self.variables["params"]
            xs = _with_chosen(xs, params, len(self.common.operations))
        return repeat(SearchCell, "cells", self.common, carry, xs)[0]
