"""Architectures without bound: the DNA of large-scale evolution.

Real et al. 2017, https://arxiv.org/abs/1703.01041, section 3.2.  A graph is a backbone
of layers with identity connections, skips, across it; that is all that the paper's
mutations reach.  Vertices are arrays of shape [height, width, channels]: vertex 0 is
the image, and layer i, an identity or a convolution, leads from vertex i to i + 1.  A
vertex is the activation of the sum of what comes in.  The layer is its primary edge,
which sets its shape; what skips bring is fitted to that.

L layers join L + 1 vertices.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

OPS = ("identity", "conv")
ACTIVATIONS = ("linear", "bn_relu")


class Layer(NamedTuple):
    """An edge of the backbone, and the activation of the vertex that it leads to.

    Attributes:
      id: names its weights; unique in a graph, and kept where others come and go.
      op: one of `OPS`; an identity leaves the numbers below alone.
      height, width: of the filter, odd.
      stride: a power of two.
      channels: that the convolution makes.
      activation: one of `ACTIVATIONS`.
    """

    id: int
    op: str
    height: int = 1
    width: int = 1
    stride: int = 1
    channels: int = 1
    activation: str = "linear"


@dataclasses.dataclass(frozen=True)
class Graph:
    """An architecture.

    Attributes:
      learning_rate: it is trained with; a float32.
      layers: the backbone, from the image on.
      skips: pairs (from, to) of vertices, from < to, sorted.
    """

    learning_rate: float
    layers: tuple[Layer, ...] = ()
    skips: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        with np.errstate(over="ignore"):
            rate = np.float32(self.learning_rate)
        if not (np.isfinite(rate) and rate > 0):
            raise ValueError(
                f"learning_rate is {self.learning_rate}; it must be a positive float32"
            )
        # The shortest decimal of that float32, so that texts are readable and exact.
        object.__setattr__(self, "learning_rate", float(str(rate)))
        for i, layer in enumerate(self.layers):
            _check_layer(i, layer)
        ids = [layer.id for layer in self.layers]
        if repeated := {i for i in ids if ids.count(i) > 1}:
            raise ValueError(f"ids of layers repeat: {sorted(repeated)}")
        for source, target in self.skips:
            if not 0 <= source < target <= len(self.layers):
                raise ValueError(
                    f"skip {source} -> {target}: it must lead forwards, between "
                    f"vertices 0 to {len(self.layers)}"
                )
        if list(self.skips) != sorted(set(self.skips)):
            raise ValueError(f"skips {self.skips} must be sorted and distinct")

    @property
    def structure(self) -> "Graph":
        """The graph but for its learning rate: all that a compiled program knows."""
        return dataclasses.replace(self, learning_rate=1.0)


def _check_layer(i: int, layer: Layer) -> None:
    for name, value, known in (
        ("op", layer.op, OPS),
        ("activation", layer.activation, ACTIVATIONS),
    ):
        if value not in known:
            raise ValueError(
                f"layer {i}: {name} is {value!r}; known: {', '.join(known)}"
            )
    for name, least in (
        ("id", 0),
        ("height", 1),
        ("width", 1),
        ("stride", 1),
        ("channels", 1),
    ):
        value = getattr(layer, name)
        if type(value) is not int or not least <= value < 2**31:
            raise ValueError(
                f"layer {i}: {name} is {value!r}; it must be an integer from {least} on"
            )
    if layer.height % 2 == 0 or layer.width % 2 == 0:
        raise ValueError(
            f"layer {i}: the filter is {layer.height}x{layer.width}; both must be odd"
        )
    if layer.stride & (layer.stride - 1):
        raise ValueError(
            f"layer {i}: stride is {layer.stride}; it must be a power of 2"
        )


def insert(graph: Graph, place: int, layer: Layer) -> Graph:
    """Puts a layer behind vertex `place`; vertices behind it move on by one.

    >>> graph = Graph(0.1, (Layer(0, "conv"), Layer(1, "identity")), skips=((0, 2),))
    >>> insert(graph, 1, Layer(2, "conv")).skips
    ((0, 3),)
    """
    layers = (*graph.layers[:place], layer, *graph.layers[place:])
    skips = tuple((a + (a > place), b + (b > place)) for a, b in graph.skips)
    return dataclasses.replace(graph, layers=layers, skips=skips)


def remove(graph: Graph, place: int) -> Graph:
    """Takes out the layer behind vertex `place`, whose two vertices become one.

    The skips of either become skips of that one.
    """
    layers = graph.layers[:place] + graph.layers[place + 1 :]
    moved = {(a - (a > place), b - (b > place)) for a, b in graph.skips}
    skips = tuple(sorted((a, b) for a, b in moved if a < b))
    return dataclasses.replace(graph, layers=layers, skips=skips)
