"""The eleven mutations of large-scale evolution.

Real et al. 2017, https://arxiv.org/abs/1703.01041, section 3.2.  A number x becomes
``x 2^u``, u uniform in (-1, 1), rounded to the nearest legal value.  A layer that is
inserted gets an id of its own, so that all others keep their weights.

Each function takes a generator, a graph, and the number of channels of a convolution
that is inserted before all others; it returns the graph that it makes, or None where it
does not apply.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import numpy as np

from controller.graph import Graph, Layer, insert, remove

LARGEST = 2**15  # of a layer's numbers


def mutate(key: jax.Array, graph: Graph, first_channels: int) -> tuple[str, Graph]:
    """Applies one mutation, each of those that apply with equal probability.

    Args:
      key: consumed.
      graph: is left as it is.
      first_channels: of a convolution that is inserted before all others.

    Returns:
      name of the mutation, and the graph that it made.
    """
    rng = generator(key)
    for name in rng.permutation(list(MUTATIONS)).tolist():
        child = MUTATIONS[name](rng, graph, first_channels)
        if child is not None:
            return name, child
    raise AssertionError("the identity always applies")


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator of a JAX key, which is consumed."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


# ---- places -------------------------------------------------------------------------


def _new_id(graph: Graph) -> int:
    return 1 + max((layer.id for layer in graph.layers), default=-1)


def _convolutions(graph: Graph) -> list[int]:
    return [i for i, layer in enumerate(graph.layers) if layer.op == "conv"]


def _activation(rng: np.random.Generator) -> str:
    return "bn_relu" if rng.random() < 0.5 else "linear"


# ---- numbers ------------------------------------------------------------------------


def scaled(rng: np.random.Generator, value: float) -> float:
    """``value 2^u``, u uniform in (-1, 1)."""
    return value * 2 ** rng.uniform(-1, 1)


def nearest(value: float) -> int:
    """The nearest number of channels."""
    return min(max(round(value), 1), LARGEST)


def nearest_odd(value: float) -> int:
    """The nearest odd size of a filter, in logarithms: 1 would never become 3 else."""
    below = 2 * math.floor((max(value, 1) - 1) / 2) + 1
    return min(below + 2 * (value**2 > below * (below + 2)), LARGEST - 1)


def nearest_power(value: float) -> int:
    """The nearest power of two, in logarithms, 1 or more."""
    return min(2 ** max(round(math.log2(value)), 0), LARGEST)


def _change(rng, graph, field: str, rounded: Callable[[float], int]) -> Graph | None:
    """Scales a number of a random convolution."""
    places = _convolutions(graph)
    if not places:
        return None
    place = int(rng.choice(places))
    layer = graph.layers[place]
    value = rounded(scaled(rng, getattr(layer, field)))
    layers = list(graph.layers)
    layers[place] = layer._replace(**{field: value})
    return dataclasses.replace(graph, layers=tuple(layers))


# ---- the mutations ------------------------------------------------------------------


def alter_learning_rate(rng, graph, first_channels):
    """Scales the learning rate."""
    return dataclasses.replace(graph, learning_rate=scaled(rng, graph.learning_rate))


def keep_training(rng, graph, first_channels):
    """Changes nothing: the child trains on with the weights of its parent."""
    return graph


def reset_weights(rng, graph, first_channels):
    """Changes nothing; whoever proposes the child lets it inherit nothing."""
    return graph


def insert_convolution(rng, graph, first_channels):
    """Inserts a 3x3 convolution of stride 1 or 2 that keeps the number of channels."""
    place = int(rng.integers(len(graph.layers) + 1))
    before = [i for i in _convolutions(graph) if i < place]
    channels = graph.layers[before[-1]].channels if before else first_channels
    stride, activation = int(rng.integers(1, 3)), _activation(rng)
    numbers = (3, 3, stride, channels, activation)
    return insert(graph, place, Layer(_new_id(graph), "conv", *numbers))


def remove_convolution(rng, graph, first_channels):
    """Removes a random convolution."""
    places = _convolutions(graph)
    return remove(graph, int(rng.choice(places))) if places else None


def alter_stride(rng, graph, first_channels):
    """Scales the stride of a random convolution."""
    return _change(rng, graph, "stride", nearest_power)


def alter_number_of_channels(rng, graph, first_channels):
    """Scales the number of channels of a random convolution."""
    return _change(rng, graph, "channels", nearest)


def filter_size(rng, graph, first_channels):
    """Scales the height or the width of a random convolution's filter."""
    field = "height" if rng.random() < 0.5 else "width"
    return _change(rng, graph, field, nearest_odd)


def insert_one_to_one(rng, graph, first_channels):
    """Inserts an identity."""
    place = int(rng.integers(len(graph.layers) + 1))
    layer = Layer(_new_id(graph), "identity", activation=_activation(rng))
    return insert(graph, place, layer)


def add_skip(rng, graph, first_channels):
    """Adds a skip between two random vertices that have none."""
    pairs = itertools.combinations(range(len(graph.layers) + 1), 2)
    free = sorted(set(pairs) - set(graph.skips))
    if not free:
        return None
    skips = sorted([*graph.skips, free[int(rng.integers(len(free)))]])
    return dataclasses.replace(graph, skips=tuple(skips))


def remove_skip(rng, graph, first_channels):
    """Removes a random skip."""
    if not graph.skips:
        return None
    gone = int(rng.integers(len(graph.skips)))
    skips = graph.skips[:gone] + graph.skips[gone + 1 :]
    return dataclasses.replace(graph, skips=skips)


MUTATIONS: dict[str, Callable[..., Graph | None]] = {
    "alter_learning_rate": alter_learning_rate,
    "identity": keep_training,
    "reset_weights": reset_weights,
    "insert_convolution": insert_convolution,
    "remove_convolution": remove_convolution,
    "alter_stride": alter_stride,
    "alter_number_of_channels": alter_number_of_channels,
    "filter_size": filter_size,
    "insert_one_to_one": insert_one_to_one,
    "add_skip": add_skip,
    "remove_skip": remove_skip,
}
