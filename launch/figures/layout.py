"""Where the parts of a drawing go: columns from left to right, no box on another.

Layers as of Sugiyama, Tagawa and Toda 1981: a node stands right of all that it reads;
the op of an edge is a box of its own, left of the node that it feeds.  A line that
passes a column has a place of its own there, and lines from one node share it.  In a
column, the order follows the mean of the neighbours; heights are least squares under
the distances that boxes need.

Lengths are in points, y runs downwards.
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import networkx as nx
import numpy as np

FONT_SIZE = 9.0
LINE_HEIGHT = 12.0
_PAD = (7.0, 4.0)  # around a label, x and y
_GAP = (26.0, 8.0)  # between columns, and between the parts of one
_SWEEPS = 24
# How much a segment asks to be level: lines that pass more than others, skips less.
_STRAIGHT, _SKIP = 8.0, 0.05


class Box(NamedTuple):
    """A labelled box, by its centre."""

    x: float
    y: float
    width: float
    height: float
    label: str
    kind: str  # "state", "layer", or "op"


class Line(NamedTuple):
    """A line from box to box: points from left to right, in horizontal pairs."""

    points: tuple[tuple[float, float], ...]
    kind: str  # "main" or "skip"
    source: int  # number of the node that it comes from
    arrow: bool  # whether it ends at a node, not at the op before it


class Layout(NamedTuple):
    """A drawing, with its upper left corner at (0, 0)."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    width: float
    height: float


def lay_out(graph: nx.MultiDiGraph, text_width) -> Layout:
    """Places a graph of `graphs`.

    Args:
      graph: acyclic.
      text_width: ``(text) -> float``, of a line of text in points.

    Returns:
      places of all boxes and lines.
    """
    expanded = _expand(graph)
    ranks = _ranks(graph, expanded)
    segments, columns = _route(expanded, ranks)
    sizes = {
        node: _size(data["label"], text_width)
        for node, data in expanded.nodes(data=True)
    }
    _order(columns, segments)
    ys = _heights(columns, segments, sizes)
    xs, widths = _columns(columns, sizes)
    boxes = {
        node: Box(xs[ranks[node]], ys[node], *sizes[node], data["label"], data["kind"])
        for node, data in expanded.nodes(data=True)
    }
    lines = tuple(_lines(expanded, ranks, boxes, ys, xs, widths))
    height = max((b.y + b.height / 2 for b in boxes.values()), default=0.0)
    height = max([height, *ys.values()])
    last = max(xs, default=None)
    width = 0.0 if last is None else xs[last] + widths[last] / 2
    return Layout(tuple(boxes.values()), lines, width, height)


def moved(layout: Layout, dx: float, dy: float) -> Layout:
    """The layout further to the right and down."""
    boxes = tuple(b._replace(x=b.x + dx, y=b.y + dy) for b in layout.boxes)
    lines = tuple(
        line._replace(points=tuple((x + dx, y + dy) for x, y in line.points))
        for line in layout.lines
    )
    return layout._replace(boxes=boxes, lines=lines)


# ---- columns ------------------------------------------------------------------------


def _expand(graph: nx.MultiDiGraph) -> nx.MultiDiGraph:
    """The graph with a node for each label of an edge."""
    expanded = nx.MultiDiGraph()
    expanded.add_nodes_from(graph.nodes(data=True))
    for source, target, key, data in graph.edges(keys=True, data=True):
        if not data["label"]:
            expanded.add_edge(source, target, kind=data["kind"])
            continue
        op = ("op", source, target, key)
        expanded.add_node(op, label=data["label"], kind="op")
        expanded.add_edge(source, op, kind=data["kind"])
        expanded.add_edge(op, target, kind=data["kind"])
    return expanded


def _ranks(graph, expanded) -> dict[Hashable, int]:
    """Columns: even ones for nodes, odd ones for ops and for lines that pass."""
    ranks: dict[Hashable, int] = {}
    for node in nx.topological_sort(graph):
        before = [ranks[source] for source in graph.predecessors(node)]
        ranks[node] = max(before, default=-2) + 2
    if (output := graph.graph.get("output")) is not None:  # stands alone at the end
        ranks[output] = max((r for n, r in ranks.items() if n != output), default=0) + 2
    for node in expanded:
        if node not in ranks:
            ranks[node] = ranks[node[2]] - 1
    return ranks


def _route(expanded, ranks):
    """Segments between neighbouring columns by weight, and the columns' members.

    Where a line passes a column stands ("line", source, kind, rank).
    """
    columns: dict[int, list[Hashable]] = {}
    for node in expanded:
        columns.setdefault(ranks[node], []).append(node)
    segments: dict[tuple[Hashable, Hashable], float] = {}
    for source, target, kind in expanded.edges(data="kind"):
        path = _path(source, target, kind, ranks)
        for pair in itertools.pairwise(path):
            passing = pair[0] != source and pair[1] != target
            weight = _STRAIGHT if passing else 1.0
            segments[pair] = weight * (_SKIP if kind == "skip" else 1.0)
        for node in path[1:-1]:
            column = columns.setdefault(node[3], [])
            if node not in column:
                column.append(node)
    return segments, dict(sorted(columns.items()))


def _path(source, target, kind, ranks) -> list[Hashable]:
    between = range(ranks[source] + 1, ranks[target])
    return [source, *(("line", source, kind, rank) for rank in between), target]


def _order(columns: dict[int, list[Hashable]], segments) -> None:
    """Sorts columns in place, back and forth; keeps the order of fewest crossings."""
    before, after = _neighbours(segments)
    best, fewest = None, None
    for sweep in range(_SWEEPS):
        crossings = sum(
            _crossings(columns[r], columns[r + 1], after)
            for r in columns
            if r + 1 in columns
        )
        if fewest is None or crossings < fewest:
            best, fewest = {r: list(c) for r, c in columns.items()}, crossings
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for rank in sorted(columns, reverse=not forward):
            beside = columns.get(rank - 1 if forward else rank + 1, [])
            place = {node: i / max(1, len(beside)) for i, node in enumerate(beside)}
            column = columns[rank]
            own = {node: i / len(column) for i, node in enumerate(column)}
            column.sort(
                key=lambda n, own=own, place=place: _mean(
                    [place[m] for m in neighbours.get(n, ())], own[n]
                )
            )
    columns.update(best or {})


def _crossings(left, right, after) -> int:
    """How many pairs of segments between two columns cross."""
    place = {node: i for i, node in enumerate(right)}
    ends = np.array([place[m] for n in left for m in _sorted(after, n, place)])
    return int(np.sum(np.triu(ends[:, None] > ends[None, :], 1))) if len(ends) else 0


def _sorted(after, node, place) -> list[Hashable]:
    """A node's neighbours by place, so that its own lines do not cross."""
    return sorted(after.get(node, ()), key=place.__getitem__)


def _neighbours(segments):
    before: dict[Hashable, list[Hashable]] = {}
    after: dict[Hashable, list[Hashable]] = {}
    for a, b in segments:
        after.setdefault(a, []).append(b)
        before.setdefault(b, []).append(a)
    return before, after


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


# ---- coordinates --------------------------------------------------------------------


def _size(label: str, text_width) -> tuple[float, float]:
    lines = label.split("\n")
    width = max(max(map(text_width, lines)) + 2 * _PAD[0], 2 * LINE_HEIGHT)
    return width, len(lines) * LINE_HEIGHT + 2 * _PAD[1]


def _heights(columns, segments, sizes) -> dict[Hashable, float]:
    """y of every part: near its neighbours, in order, as far apart as needed."""
    before, after = _neighbours(segments)
    offsets = {}
    pulls = {
        node: [
            *((m, segments[m, node]) for m in before.get(node, ())),
            *((m, segments[node, m]) for m in after.get(node, ())),
        ]
        for column in columns.values()
        for node in column
    }
    weights = {node: sum(w for _, w in pull) or 1.0 for node, pull in pulls.items()}
    ys: dict[Hashable, float] = {}
    for rank, column in columns.items():
        halves = [sizes.get(node, (0.0, 0.0))[1] / 2 for node in column]
        steps = [0.0, *(a + b + _GAP[1] for a, b in itertools.pairwise(halves))]
        offsets[rank] = np.cumsum(steps)
        middle = offsets[rank] - offsets[rank][-1] / 2
        ys |= dict(zip(column, middle.tolist(), strict=True))
    for sweep in range(_SWEEPS):
        for rank in sorted(columns, reverse=sweep % 2 == 1):
            column = columns[rank]
            wanted = [
                sum(w * ys[m] for m, w in pulls[n]) / weights[n] if pulls[n] else ys[n]
                for n in column
            ]
            offset = offsets[rank]
            weight = [weights[n] for n in column]
            placed = _increasing(np.array(wanted) - offset, weight) + offset
            ys |= dict(zip(column, placed.tolist(), strict=True))
    top = min(y - sizes.get(n, (0.0, 0.0))[1] / 2 for n, y in ys.items())
    return {node: y - top for node, y in ys.items()}


def _increasing(values: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """The nearest sequence that never falls, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights, strict=True):
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            other, mass, size = pools.pop()
            mean = (mean * weight + other * mass) / (weight + mass)
            weight, count = weight + mass, count + size
        pools.append((mean, weight, count))
    return np.array([mean for mean, _, count in pools for _ in range(count)])


def _columns(columns, sizes) -> tuple[dict[int, float], dict[int, float]]:
    """Centre and width of each column."""
    xs, widths, left = {}, {}, 0.0
    for rank, column in columns.items():
        width = max(sizes.get(node, (0.0, 0.0))[0] for node in column)
        xs[rank], widths[rank] = left + width / 2, width
        left += width + _GAP[0]
    return xs, widths


def _lines(
    expanded, ranks, boxes: Mapping[Hashable, Box], ys, xs, widths
) -> Iterable[Line]:
    """A line an edge, straight across columns."""
    numbers = {node: i for i, node in enumerate(expanded)}
    for source, target, kind in expanded.edges(data="kind"):
        points = []
        for node in _path(source, target, kind, ranks):
            rank = ranks[node] if node in ranks else node[3]
            left, right = xs[rank] - widths[rank] / 2, xs[rank] + widths[rank] / 2
            if node in boxes:
                half = boxes[node].width / 2
                left, right = (
                    (xs[rank] + half, right)
                    if node == source
                    else (left, xs[rank] - half)
                )
            points += [(left, ys[node]), (right, ys[node])]
        arrow = boxes[target].kind != "op"
        yield Line(tuple(points), kind, numbers[source], arrow)
