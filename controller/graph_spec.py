"""The specification of a space of graphs.

To strategies and stores a graph is a vector of integers, like any architecture; but its
length T differs from graph to graph.  Where several stand together, -1 fills them up.

Shapes: L layers, S skips; T = 3 + 7 L + 2 S.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from controller.graph import ACTIVATIONS, OPS, Graph, Layer
from controller.graph_mutations import mutate


def stack(vectors: Iterable[Sequence[int]]) -> np.ndarray:
    """Vectors of different lengths as int32[n, T]; -1 fills up the shorter ones."""
    rows = [np.asarray(v, np.int32) for v in vectors]
    table = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int32)
    for row, out in zip(rows, table, strict=True):
        out[: len(row)] = row
    return table


def trim(row: Sequence[int]) -> tuple[int, ...]:
    """The integers of one architecture, without what fills up a graph."""
    return tuple(int(value) for value in row if value >= 0)


# ---- the specification --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GraphSpec:
    """What strategies see of a space of graphs; hashable, and nothing is traceable.

    Attributes:
      initial: the graph that evolution begins with.
      first_channels: of a convolution that is inserted before all others.
      distance: mutations that lead from `initial` to a sample.
    """

    initial: Graph
    first_channels: int = 3
    distance: int = 20

    @property
    def decisions(self) -> tuple[()]:
        """None: the integers of a graph are no decisions of their own."""
        return ()

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """None, as there are no decisions."""
        return {}

    @property
    def length(self) -> int:
        """T of the smallest graph."""
        return 3

    def size(self) -> float:
        """Graphs have no bound."""
        return math.inf

    def pack(self, graph: Graph) -> np.ndarray:
        """int32[T]: bits of the rate, L, S, seven integers a layer, two a skip."""
        rate = int(np.float32(graph.learning_rate).view(np.int32))
        numbers = [rate, len(graph.layers), len(graph.skips)]
        for layer in graph.layers:
            numbers += [
                layer.id,
                OPS.index(layer.op),
                *layer[2:6],
                ACTIVATIONS.index(layer.activation),
            ]
        for skip in graph.skips:
            numbers += skip
        return np.array(numbers, np.int32)

    def unpack(self, decisions: Sequence[int]) -> Graph:
        """The graph that a vector stands for, filled up or not.

        Raises:
          ValueError: if it stands for none.
        """
        values = np.asarray(decisions)
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(
                f"a graph is a vector of integers, got {values.dtype}{values.shape}"
            )
        numbers = list(trim(values))
        layers, skips = (numbers + [0, 0, 0])[1:3]
        if len(numbers) != 3 + 7 * layers + 2 * skips:
            raise ValueError(
                f"{len(numbers)} integers are no graph of {layers} layers and {skips} "
                f"skips, which has {3 + 7 * layers + 2 * skips}"
            )
        rows = np.reshape(numbers[3 : 3 + 7 * layers], (layers, 7)).tolist()
        pairs = np.reshape(numbers[3 + 7 * layers :], (skips, 2)).tolist()
        return Graph(
            float(np.int32(numbers[0]).view(np.float32)),
            tuple(
                Layer(row[0], _name(OPS, row[1]), *row[2:6], _name(ACTIVATIONS, row[6]))
                for row in rows
            ),
            tuple(map(tuple, pairs)),
        )

    def validate(self, decisions: Sequence[int]) -> tuple[int, ...]:
        """Returns a graph's integers, not filled up.

        Raises:
          ValueError: if they stand for no graph.
        """
        return tuple(self.pack(self.unpack(decisions)).tolist())

    def sample(self, key: jax.Array) -> np.ndarray:
        """Draws int32[T]: `initial` after `distance` mutations."""
        decisions = self.pack(self.initial)
        for step in range(self.distance):
            decisions = self.mutate(jax.random.fold_in(key, step), decisions)
        return decisions

    def mutate(self, key: jax.Array, decisions: Sequence[int]) -> np.ndarray:
        """int32[T]: the graph after one mutation, see `controller.graph_mutations`."""
        graph = self.unpack(decisions)
        return self.pack(mutate(key, graph, self.first_channels)[1])

    # ---- readable form --------------------------------------------------------------

    def encode(self, decisions: Sequence[int]) -> str:
        """A graph as JSON; `decode` reads it back."""
        graph = self.unpack(decisions)
        layers = [layer._asdict() for layer in graph.layers]
        for layer in layers:
            if layer["op"] == "identity":
                for name in ("height", "width", "stride", "channels"):
                    del layer[name]
        return json.dumps(
            {
                "learning_rate": graph.learning_rate,
                "layers": layers,
                "skips": graph.skips,
            }
        )

    def decode(self, text: str) -> tuple[int, ...]:
        """Reads JSON, see `parse`."""
        return self.validate(self.pack(self.parse(text)))

    @staticmethod
    def parse(text: str) -> Graph:
        """The graph of a JSON text; a layer without an id gets the number of its place.

        Raises:
          ValueError: if the text is no graph.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not the JSON of a graph: {text[:80]!r}") from error
        known = [field.name for field in dataclasses.fields(Graph)]
        content = _object("a graph", content, known, ["learning_rate", "layers"])
        layers = [
            Layer(**{"id": i} | _object(f"layer {i}", layer, Layer._fields, ["op"]))
            for i, layer in enumerate(_list("layers", content["layers"]))
        ]
        skips = [
            tuple(_list(f"skip {i}", skip, of=2, kind=int))
            for i, skip in enumerate(_list("skips", content.get("skips", [])))
        ]
        rate = content["learning_rate"]
        if isinstance(rate, bool) or not isinstance(rate, int | float):
            raise ValueError(f"learning_rate is {rate!r}; it must be a number")
        return Graph(rate, tuple(layers), tuple(sorted(skips)))


def _name(names: Sequence[str], index: int) -> str:
    return names[index] if index < len(names) else f"number {index}"


def _object(
    what: str, content: Any, known: Sequence[str], needed: Sequence[str]
) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{what} must be a JSON object, got {str(content)[:80]!r}")
    for name in needed:
        if name not in content:
            raise ValueError(f"{what} has no {name!r}")
    for name in content:
        if name not in known:
            raise ValueError(f"{what} has no key {name!r}; known: {', '.join(known)}")
    return dict(content)


def _list(
    what: str, content: Any, of: int | None = None, kind: type = object
) -> list[Any]:
    right = isinstance(content, list) and len(content) == (of or len(content))
    if not right or not all(isinstance(item, kind) for item in content):
        expected = "a list" if of is None else f"a list of {of} integers"
        raise ValueError(f"{what} must be {expected}, got {str(content)[:80]}")
    return content
