"""The space of large-scale evolution: graphs without bound.

Real et al. 2017, https://arxiv.org/abs/1703.01041, section 3.2.  See
`controller.graph.Graph` for what a graph is.  A vertex adds up its layer and its skips,
and then normalises and rectifies, or does nothing.  What a skip brings is fitted to the
vertex: to its size by nearest neighbours (zeroth-order interpolation), to its channels
by leaving out or by filling up with zeros.  The last vertex is averaged over all pixels
and classified by a dense layer.

Weights are named by the id of their layer, so that a child finds those of its parent
wherever the shapes agree.

Shapes: B images of H x W pixels, C channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.ops.layers import Conv, Dense
from child_models.ops.normalization import BatchNorm
from child_models.types import Space
from controller.spec import Graph, GraphSpec

INITIAL = '{"learning_rate": 0.1, "layers": []}'


def fit(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Fits ``[B, h, w, c]`` to ``[B, H, W, C]``: nearest pixels, first channels.

    Pixel i of n takes that of ``floor(i m / n)`` of m; missing channels are 0.

    Args:
      x: what a skip brings.
      shape: (H, W, C) of the vertex that it leads to.
    """
    height, width, channels = shape
    if x.shape[1:3] != (height, width):
        rows = np.arange(height) * x.shape[1] // height
        columns = np.arange(width) * x.shape[2] // width
        x = x[:, rows[:, None], columns[None]]
    missing = max(channels - x.shape[3], 0)
    return jnp.pad(x[..., :channels], ((0, 0), (0, 0), (0, 0), (0, missing)))


class Network(nn.Module):
    """The network of one graph.

    Attributes:
      classes: number of classes.
      dtype: of the computation.
    """

    classes: int
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: Graph,
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, D]`` to float32 logits ``[B, classes]``.

        Args:
          choices: the graph; its learning rate has no effect.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect; graphs drop no paths.
        """
        vertices = [x]
        for i, layer in enumerate(choices.layers, start=1):
            x = vertices[-1]
            if layer.op == "conv":
                # A stride beyond the image does what one of its size does, but slowly.
                stride = tuple(min(layer.stride, size) for size in x.shape[1:3])
                x = Conv(
                    layer.channels,
                    (layer.height, layer.width),
                    stride,
                    dtype=self.dtype,
                    name=f"layer_{layer.id}_conv",
                )(x)
            for source in (a for a, b in choices.skips if b == i):
                x = x + fit(vertices[source], x.shape[1:])
            if layer.activation == "bn_relu":
                norm = BatchNorm(train, dtype=self.dtype, name=f"layer_{layer.id}_norm")
                x = nn.relu(norm(x))
            vertices.append(x)
        pooled = jnp.mean(vertices[-1], (1, 2))
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(pooled)
        return logits.astype(jnp.float32)


def large_scale(
    *,
    classes: int,
    initial: str = INITIAL,
    first_channels: int = 3,
    distance: int = 20,
    dtype: Any = "float32",
) -> Space:
    """Builds the space.

    Both forms are the same network.  Learning rates belong to the search: a retraining
    has that of its recipe.

    Args:
      classes: number of classes.
      initial: JSON of the graph that evolution begins with; the paper's has no layer,
        and is a linear classifier of the mean colour.
      first_channels: of a convolution that is inserted before all others; those of the
        image in the paper.
      distance: mutations from the initial graph to a random one, such as a retraining
        compares with.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of the fixed binding only.

    Raises:
      ValueError: on a number out of its range, or a text that is no graph.
    """
    for name, value, least in (
        ("classes", classes, 1),
        ("first_channels", first_channels, 1),
        ("distance", distance, 0),
    ):
        if value < least:
            raise ValueError(
                f"large_scale: {name} is {value}; it must be at least {least}"
            )
    spec = GraphSpec(GraphSpec.parse(initial), first_channels, distance)
    network = Network(classes, jnp.dtype(dtype))

    def module(form: str) -> nn.Module:
        if form not in ("search", "final"):
            raise ValueError(f"form {form!r} must be one of: search, final")
        return network

    def bind(decisions: Any) -> Graph:
        return spec.unpack(np.asarray(decisions)).structure

    return Space(
        spec,
        module,
        bind,
        lambda variables, decisions: variables,
        bindings=frozenset({"fixed"}),
        learning_rate=lambda decisions: spec.unpack(decisions).learning_rate,
    )
