"""What the two ENAS spaces share: classifier, heads, stages, stacked choices.

Pham et al., Efficient Neural Architecture Search via Parameter Sharing,
https://arxiv.org/abs/1802.03268, and the authors' code, melodyguan/enas.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice
from child_models.ops.layers import Conv
from child_models.ops.normalization import BatchNorm


def linear(features: int, x: jax.Array, *, name: str, dtype: Any = None) -> jax.Array:
    """A linear layer without bias, ``[B, C] -> [B, features]``, in a compact module."""
    return Conv(features, (1, 1), dtype=dtype, name=name)(x[:, None, None, :])[:, 0, 0]


class Classifier(nn.Module):
    """Global average pool, dropout where a key is given, linear without bias."""

    classes: int
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to float32 logits ``[B, classes]``."""
        x = jnp.mean(x, axis=(1, 2))
        keep_all = not self.has_rng("dropout")
        x = nn.Dropout(self.dropout, deterministic=keep_all, name="dropout")(x)
        x = linear(self.classes, x, name="linear", dtype=self.dtype)
        return x.astype(jnp.float32)


class AuxiliaryHead(nn.Module):
    """A second classifier, in training only, on an inner layer.

    ReLU, average pool 5x5 with stride 3, 1x1 to 128, batch norm, ReLU, a convolution
    over all that remains to 768, batch norm, ReLU, linear.  Images smaller than the
    pool are averaged as a whole.
    """

    classes: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to float32 logits ``[B, classes]``."""
        window = (min(5, x.shape[1]), min(5, x.shape[2]))
        x = nn.avg_pool(nn.relu(x), window, (3, 3))
        x = Conv(128, (1, 1), dtype=self.dtype)(x)
        x = BatchNorm(True, dtype=self.dtype)(x)
        x = Conv(768, x.shape[1:3], padding="valid", dtype=self.dtype)(nn.relu(x))
        x = BatchNorm(True, dtype=self.dtype)(x)
        x = linear(self.classes, nn.relu(x)[:, 0, 0], name="linear", dtype=self.dtype)
        return x.astype(jnp.float32)


def stage_lengths(layers: int) -> tuple[int, int, int]:
    """Layers before, between and after the two reductions; 15 gives (5, 5, 5)."""
    third = layers // 3
    return third, third, layers - 2 * third


def stack_choices(choices: Sequence[Choice], n: int) -> Choice:
    """Sampled or relaxed choices of E decisions as one, to be scanned over.

    Args:
      choices: E choices among n or fewer.
      n: to which relaxed weights are padded.

    Returns:
      int32[E], or a `Weighted` of ``[E, n]``.
    """

    def pad(leaf):
        return jnp.pad(leaf, (0, n - len(leaf))) if leaf.ndim else leaf

    return jax.tree.map(lambda *leaves: jnp.stack([*map(pad, leaves)]), *choices)
