"""The network in which ENAS macro searches: one path of shared weights at a time.

As in the authors' code, melodyguan/enas: a layer is one of six operations on the output
of the layer before, each a 1x1 convolution and then its own kernel, plus the outputs of
the layers that it skips from, and batch norm; C stays the same, and each of the two
reductions halves every stored output.  The first layer has that batch norm, too, skip
bit j adds the output of layer j (there: of layer j - 1, or the stem), and batch norm
always uses the statistics of the batch.

The weights of all layers are rows of stacked arrays, so that the layers of a stage are
one scan over one conditional.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, Choose, choose, is_fixed
from child_models.ops.convolution import conv2d, depthwise_conv2d
from child_models.ops.initializers import he_normal
from child_models.ops.layers import Conv, FactorizedReduce
from child_models.ops.normalization import BatchNorm, batch_norm
from child_models.ops.pooling import avg_pool, max_pool
from child_models.packed import pack, unpack
from child_models.picking import indicator
from child_models.shared_params import stacked_param
from child_models.spaces.enas_layers import (
    Classifier,
    stack_choices,
    stage_lengths,
)

OPS = (
    "conv_3x3",
    "sep_conv_3x3",
    "conv_5x5",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
)
Layer = tuple[Choice, tuple[Choice, ...]]  # the op, and a bit for each earlier layer


class OpBank(nn.Module):
    """Weights of one operation in every layer.

    Attributes:
      op: one of `OPS`.
      channels: in and out, C.
      layers: number of layers.
    """

    op: str
    channels: int
    layers: int

    @nn.compact
    def __call__(self, rows: list[int] | None = None) -> dict[str, jax.Array]:
        """Returns arrays ``[layers, ...]``; of a fixed child, those of its rows."""
        return {
            name: stacked_param(self, name, init, shape, self.layers, rows)
            for name, (init, shape) in op_arrays(self.op, self.channels).items()
        }


def op_arrays(op: str, channels: int) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """(initialiser, shape) of each weight of one operation in one layer."""
    c = channels
    arrays = {"project": (he_normal(c), (c, c)), **_norm("project", c)}
    if "conv" in op:
        k = int(op[-1])
        arrays |= _norm("kernel", c)
        if "sep" in op:
            arrays["depthwise"] = (he_normal(k * k), (k, k, c))
            arrays["pointwise"] = (he_normal(c), (c, c))
        else:
            arrays["kernel"] = (he_normal(k * k * c), (k, k, c, c))
    return arrays


def _norm(name, channels):
    return {
        f"{name}_scale": (nn.initializers.ones, (channels,)),
        f"{name}_bias": (nn.initializers.zeros, (channels,)),
    }


def _shapes(channels):
    return {
        op: {name: shape for name, (_, shape) in op_arrays(op, channels).items()}
        for op in OPS
    }


class Op(nn.Module):
    """One operation, with weights that are an operand: its own, or all, packed."""

    op: str

    @nn.compact
    def __call__(self, x: jax.Array, weights: jax.Array | dict[str, jax.Array]):
        if not isinstance(weights, dict):
            weights = unpack(weights, _shapes(x.shape[-1]))[self.op]
        own = jax.tree.map(lambda w: w.astype(x.dtype), weights)

        def norm(x, name):
            scale, bias = (weights[f"{name}_{part}"] for part in ("scale", "bias"))
            return nn.relu(batch_norm(x, scale, bias)[0])

        x = norm(conv2d(x, own["project"][None, None]), "project")
        if "pool" in self.op:
            return {"avg": avg_pool, "max": max_pool}[self.op[:3]](x, 3)
        if "sep" in self.op:
            x = depthwise_conv2d(x, own["depthwise"])
            x = conv2d(x, own["pointwise"][None, None])
        else:
            x = conv2d(x, own["kernel"])
        return norm(x, "kernel")


BRANCHES = tuple(functools.partial(Op, op) for op in OPS)


class _Reduce(nn.Module):
    """Body of a scan over stored outputs, each with its own factorized reduction."""

    channels: int
    dtype: Any = None

    @nn.compact
    def __call__(self, carry, x):
        return carry, FactorizedReduce(self.channels, True, dtype=self.dtype)(x)


class SearchNet(nn.Module):
    """Stem, three stages of layers with reductions between, classifier."""

    classes: int
    channels: int
    layers: int
    dropout: float
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        choices: tuple[Layer, ...],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to logits ``[B, classes]``.

        Args:
          choices: of each layer.
          x: images.
          train: has no effect; batch norm uses the statistics of the batch.
          drop_path: has no effect; the search drops no paths.
        """
        x = Conv(self.channels, dtype=self.dtype, name="stem")(x)
        x = BatchNorm(True, dtype=self.dtype, name="stem_norm")(x)
        run = self._fixed if is_fixed(choices[0][0]) else self._shared
        weights, norms = self._weights(choices)
        outputs = jnp.zeros((0, *x.shape), x.dtype)  # of the layers so far
        for stage, length in enumerate(stage_lengths(self.layers)):
            if stage:
                outputs = self._reduce(outputs, stage)
                x = outputs[-1]
            span = range(len(outputs), len(outputs) + length)
            outputs = run(choices, weights, norms, x, outputs, span)
            x = outputs[-1]
        return Classifier(self.classes, self.dropout, self.dtype, name="classifier")(x)

    def _weights(self, choices):
        """Weights of the operations by layer, and of the batch norms after the sums."""
        rows = {op: None for op in OPS}
        if is_fixed(choices[0][0]):
            rows = {
                op: [i for i, (o, _) in enumerate(choices) if o == number]
                for number, op in enumerate(OPS)
            }
        banks = {
            op: OpBank(op, self.channels, self.layers, name=op)(rows[op])
            for op in OPS
            if rows[op] != []
        }
        norms = [
            stacked_param(self, name, init, shape, self.layers)
            for name, (init, shape) in _norm("sum", self.channels).items()
        ]
        return (rows, banks), norms

    def _reduce(self, outputs, stage):
        scan = nn.scan(
            _Reduce,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=len(outputs),
        )
        return scan(self.channels, self.dtype, name=f"reduce_{stage}")(None, outputs)[1]

    def _fixed(self, choices, weights, norms, x, outputs, span):
        rows, banks = weights
        outputs = list(outputs)
        for i in span:
            op, skips = choices[i]
            row = rows[OPS[op]].index(i)
            own = jax.tree.map(lambda w, row=row: w[row], banks[OPS[op]])
            x = choose(op, BRANCHES, x, own)
            x = sum((h for bit, h in zip(skips, outputs, strict=True) if bit), x)
            x = batch_norm(x, *(norm[i] for norm in norms))[0]
            outputs.append(x)
        return jnp.stack(outputs)

    def _shared(self, choices, weights, norms, x, outputs, span):
        def layer(carry, layer):
            x, outputs = carry
            i, op, bits, weights, norms = layer
            op_of = Choose(BRANCHES, remat=self.remat, parent=None)
            x = op_of.apply({}, op, x, weights)
            x = x + jnp.tensordot(bits.astype(x.dtype), outputs, axes=1)
            x = batch_norm(x, *norms)[0]
            outputs = jax.lax.dynamic_update_index_in_dim(outputs, x, i, 0)
            return (x, outputs), None

        def rows(tree):
            return jax.tree.map(lambda a: a[span.start : span.stop], tree)

        def bits(skips):  # [span.stop], zero at this layer and later ones
            taken = [indicator(skip, 2)[1] for skip in skips]
            return jnp.stack(taken + [jnp.zeros(())] * (span.stop - len(taken)))

        layers = (
            jnp.arange(span.start, span.stop),
            stack_choices([choices[i][0] for i in span], len(OPS)),
            jnp.stack([bits(choices[i][1]) for i in span]),
            rows(pack(weights[1])),
            rows(norms),
        )
        empty = jnp.stack([jnp.zeros_like(x)] * len(span))
        outputs = jnp.concatenate([outputs, empty])
        return jax.lax.scan(layer, (x, outputs), layers)[0][1]
