"""The network that ENAS macro retrains: a fixed chain of layers with skips.

Published at https://arxiv.org/abs/1802.03268; after the authors' code, melodyguan/enas.
A layer applies its operation to the output of the layer before (ReLU, 1x1, batch norm,
then ReLU, the kernel, batch norm, or a pool), concatenates the outputs that it skips
from, and brings them to C channels by ReLU, a 1x1 convolution and batch norm.  Two
reductions halve every stored output and double C.  Unlike there, the separable
convolutions are separable, pools exist, and skip bit j reads layer j (there: layer
j - 1, or the stem).
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import choose, is_fixed
from child_models.ops.layers import Conv, FactorizedReduce, Pool, ReLUConvBN, SepConv
from child_models.ops.normalization import BatchNorm
from child_models.spaces.enas_layers import Classifier, stage_lengths
from child_models.spaces.enas_macro_search import OPS, Layer


class Op(nn.Module):
    """ReLU, 1x1 and batch norm, then one of `OPS`."""

    op: str
    channels: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, make = self.channels, {"train": self.train, "dtype": self.dtype}
        x = ReLUConvBN(c, **make)(x)
        if "pool" in self.op:
            return Pool(self.op[:3])(x)
        size = int(self.op[-1])
        if "sep" in self.op:
            return SepConv(c, size, 1, repeats=1, **make)(x)
        return ReLUConvBN(c, kernel=(size, size), **make)(x)


class FinalNet(nn.Module):
    """Stem, layers with two reductions among them, classifier."""

    classes: int
    channels: int
    layers: int
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: tuple[Layer, ...],
        x: jax.Array,
        train: bool = False,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, C]`` to logits ``[B, classes]``.

        Args:
          choices: of each layer.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect; a chain has no paths to drop.

        Raises:
          ValueError: if the choices are not fixed.
        """
        if not all(is_fixed(c) for op, skips in choices for c in (op, *skips)):
            raise ValueError("the final form of enas_macro takes fixed decisions only")
        make = {"train": train, "dtype": self.dtype}
        channels = self.channels
        x = Conv(channels, dtype=self.dtype, name="stem")(x)
        x = BatchNorm(train, dtype=self.dtype, name="stem_norm")(x)
        outputs: list[jax.Array] = []
        first, second, _ = stage_lengths(self.layers)
        for i, (op, skips) in enumerate(choices):
            if i in (first, first + second) and i:
                channels *= 2
                outputs = [
                    FactorizedReduce(channels, name=f"reduce_{i}_{j}", **make)(h)
                    for j, h in enumerate(outputs)
                ]
                x = outputs[-1]
            options = [
                functools.partial(Op, o, channels, train, self.dtype) for o in OPS
            ]
            x = choose(op, options, x, name=f"layer_{i}")
            if i:
                skipped = [h for bit, h in zip(skips, outputs, strict=True) if bit]
                x = jnp.concatenate([*skipped, x], axis=-1)
                x = ReLUConvBN(channels, name=f"join_{i}", **make)(x)
            outputs.append(x)
        head = Classifier(self.classes, self.dropout, self.dtype, name="classifier")
        return head(x)
