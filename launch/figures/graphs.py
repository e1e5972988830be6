"""Architectures as graphs, for drawing; from the names and groups of decisions alone.

A graph is a `networkx.MultiDiGraph`, one a cell or a network; its attribute "output"
names the node that ends it, where there is one.  Nodes have a "label" and a "kind":
"state", what a cell computes with, or "layer", an operation of a chain.  An edge has a
"label", the op that it applies ("" for none), and a "kind", "main" or "skip".

A space that wires its nodes by other rules has an entry in `_WIRING`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import networkx as nx

from controller.spec import Graph, GraphSpec, Spec
from launch.figures.nodes import ABSENT, Fields, nodes, sides, skip_source

OUTPUT = "c_{k}"
INPUTS = {-2: "c_{k-2}", -1: "c_{k-1}"}


def graphs(
    spec: Spec,
    decisions: Sequence[int],
    space: str = "",
    options: Mapping[str, Any] | None = None,
) -> dict[str, nx.MultiDiGraph]:
    """The graphs of an architecture, by the name of their cell ("" for a network).

    Args:
      spec: of the space.
      decisions: int[T].
      space: its name; some spaces wire nodes by rules of their own.
      options: arguments of the space; "concat", "normal_concat" and "reduce_concat" are
        the states that a cell returns, where it returns others than those unused.

    Raises:
      ValueError: on illegal decisions.
    """
    if isinstance(spec, GraphSpec):
        return {"": _layered(spec.unpack(decisions))}
    found = nodes(spec, spec.validate(decisions))
    if space in _WIRING:
        return _WIRING[space](found)
    if any(">" in field for of in found.values() for field in of):
        return _edges(found, options or {})
    if all(_is_two_sided(of) for of in found.values()):
        return _cells(found, options or {}, space in _ALL_RETURNED)
    return {"": _chain(found)}


def cell_of(node: str) -> str:
    """The cell in the name of a node, "" where it names none."""
    return node.rpartition("/")[0]


def _is_two_sided(fields: Fields) -> bool:
    """Whether a node applies ops to states that decisions name."""
    known = sides(fields)
    return bool(known) and all(fields[f"input_{s}"].decision.targets for s in known)


def _grouped(found: Mapping[str, Fields], key: Callable[[str], str]) -> dict[str, dict]:
    groups: dict[str, dict[str, Fields]] = {}
    for name, fields in found.items():
        groups.setdefault(key(name), {})[name] = fields
    return groups


# ---- cells of two-sided nodes -------------------------------------------------------


def _cells(found, options, all_returned: bool) -> dict[str, nx.MultiDiGraph]:
    cells = {}
    for cell, members in _grouped(found, cell_of).items():
        computed = range(2, len(members) + 2) if all_returned else None
        cells[cell] = _cell(members, _concat(cell, options) or computed)
    return cells


def _concat(cell: str, options: Mapping[str, Any]) -> Sequence[int] | None:
    """The states that the options say a cell returns."""
    return options.get(f"{cell}_concat") or options.get("concat")


def _cell(members: Mapping[str, Fields], concat: Sequence[int] | None):
    graph = nx.MultiDiGraph()
    first = next(iter(members.values()))
    targets = first[f"input_{sides(first)[0]}"].decision.targets
    numbers = list(targets[:2])  # of the states: the inputs as the space orders them
    for number in sorted(numbers):
        graph.add_node(number, label=INPUTS.get(number, str(number)), kind="state")
    for i, fields in enumerate(members.values()):
        combined = fields.get("combiner")
        number = next(iter(fields.values())).decision.node
        label = f"{i} concat" if combined and combined.choice == "concat" else str(i)
        numbers.append(number)
        graph.add_node(number, label=label, kind="state")
        for side in sides(fields):
            op = fields[f"op_{side}"].choice
            source = fields[f"input_{side}"].target
            graph.add_edge(source, number, label=op, kind="main")
    returned = [numbers[i] for i in concat] if concat else _unread(graph)
    _return(graph, returned)
    return graph


def _unread(graph: nx.MultiDiGraph) -> list[Any]:
    return [node for node, degree in graph.out_degree() if not degree]


def _return(graph: nx.MultiDiGraph, states: Sequence[Any], label: str = OUTPUT) -> None:
    graph.add_node(label, label=label, kind="state")
    graph.graph["output"] = label
    for state in states:
        graph.add_edge(state, label, label="", kind="main")


# ---- cells of edges -----------------------------------------------------------------


def _edges(found, options) -> dict[str, nx.MultiDiGraph]:
    """One input: the last node is the output.  Two: all computed ones are returned."""
    cells: dict[str, list[tuple[str, str, str]]] = {}
    for name, fields in found.items():
        for field, value in fields.items():
            source, arrow, target = field.partition(">")
            if arrow:
                cell, _, node = name.rpartition("/")
                cell = (
                    cell
                    if node in (target, f"node {value.decision.node + 1}")
                    else name
                )
                cells.setdefault(cell, []).append((source, target, value.choice))
    return {c: _of_edges(edges, _concat(c, options)) for c, edges in cells.items()}


def _of_edges(
    edges: Sequence[tuple[str, str, str]], concat: Sequence[int] | None
) -> nx.MultiDiGraph:
    names = sorted({n for s, t, _ in edges for n in (s, t)}, key=_as_number)
    fed = {target for _, target, _ in edges}
    inputs = [name for name in names if name not in fed]
    labels = dict(zip(reversed(inputs), ("c_{k-1}", "c_{k-2}"), strict=False))
    computed = [name for name in names if name in fed]
    first = 1 if len(inputs) == 1 else 0
    labels |= {name: str(i) for i, name in enumerate(computed, first)}
    if len(inputs) == 1:
        labels[names[-1]] = OUTPUT
    graph = nx.MultiDiGraph()
    for name in names:
        graph.add_node(name, label=labels.get(name, name), kind="state")
    for source, target, op in edges:
        if op not in ABSENT:
            graph.add_edge(source, target, label=op, kind="main")
    if len(inputs) == 1:
        graph.graph["output"] = names[-1]
        loose = [n for n in names[1:-1] if not graph.degree(n)]
        graph.remove_nodes_from(loose)
    else:
        _return(graph, computed if concat is None else [names[i] for i in concat])
    return graph


def _as_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (10**9, name)


# ---- chains -------------------------------------------------------------------------


def _layers(found: Mapping[str, Fields]) -> tuple[nx.MultiDiGraph, dict[str, list]]:
    """A graph of layers alone; by name in order, the layers that each skips from.

    A layer that only skips name, as nothing is decided about it, is there too.
    """
    skips = {name: _skips(name, fields) for name, fields in found.items()}
    names = list(dict.fromkeys([*(n for of in skips.values() for n in of), *found]))
    names = sorted(names, key=_number) if set(names) - set(found) else list(found)
    graph = nx.MultiDiGraph()
    graph.add_node("image", label="image", kind="state")
    for i, name in enumerate(names):
        known = {f: v for f, v in found.get(name, {}).items() if not _is_skip(f)}
        number = _number(name) if name.rpartition("/")[2].isdigit() else i
        graph.add_node(name, label=_layer_label(number, known), kind="layer")
    return graph, {name: skips.get(name, []) for name in names}


def _number(layer: str) -> int:
    return int(layer.rpartition("/")[2])


def _is_skip(field: str) -> bool:
    return skip_source(field) is not None


def _skips(name: str, fields: Fields) -> list[str]:
    """The layers that a layer skips from, named as it is but for the number."""
    sources = [skip_source(f) for f, value in fields.items() if value.choice == "yes"]
    return [f"{cell_of(name)}/{j}" for j in sources if j is not None]


def _layer_label(number: int, fields: Fields) -> str:
    if "op" in fields or len(fields) == 1:
        rest = [v.choice for f, v in fields.items() if f != "op" and len(fields) > 1]
        op = fields["op"] if "op" in fields else next(iter(fields.values()))
        return "\n".join([str(number), op.choice, *rest])
    if {"height", "width"} <= fields.keys():
        size = f"{fields['height'].choice}x{fields['width'].choice}"
        rest = [
            f"{f} {v.choice}" for f, v in fields.items() if f not in ("height", "width")
        ]
        return "\n".join([str(number), f"conv {size}", *rest])
    return "\n".join([str(number), *(f"{f} {v.choice}" for f, v in fields.items())])


def _chain(found: Mapping[str, Fields]) -> nx.MultiDiGraph:
    graph, skips = _layers(found)
    for source, target in zip(["image", *skips], skips, strict=False):
        graph.add_edge(source, target, label="", kind="main")
        for skipped in skips[target]:
            graph.add_edge(skipped, target, label="", kind="skip")
    _return(graph, list(skips)[-1:], "logits")
    return graph


def _layered(architecture: Graph) -> nx.MultiDiGraph:
    """A graph of `layers` in a row, and `skips` between vertices; 0 is the image."""
    graph = nx.MultiDiGraph()
    graph.add_node(0, label="image", kind="state")
    for i, layer in enumerate(architecture.layers, start=1):
        text = [str(i), layer.op]
        if layer.op == "conv":
            stride = f"/{layer.stride}" if layer.stride > 1 else ""
            text[1] = f"conv {layer.height}x{layer.width}{stride}"
            text.append(f"to {layer.channels}")
        graph.add_node(i, label="\n".join([*text, layer.activation]), kind="layer")
        graph.add_edge(i - 1, i, label="", kind="main")
    for source, target in architecture.skips:
        graph.add_edge(source, target, label="", kind="skip")
    _return(graph, [len(architecture.layers)], "logits")
    return graph


def _anchored(found: Mapping[str, Fields]) -> dict[str, nx.MultiDiGraph]:
    """Zoph & Le 2017: a layer reads what its anchors name, else the image."""
    graph, skips = _layers(found)
    for name, sources in skips.items():
        for source in sources or ["image"]:
            graph.add_edge(source, name, label="", kind="main")
    _return(graph, _unread(graph), "logits")
    return {"": graph}


def _stages(found: Mapping[str, Fields]) -> dict[str, nx.MultiDiGraph]:
    """Xie & Yuille 2017: nodes that no bit names do not exist."""
    return {stage: _stage(fields) for stage, fields in found.items()}


def _stage(fields: Fields) -> nx.MultiDiGraph:
    graph = nx.MultiDiGraph()
    graph.add_node("input", label="input", kind="state")
    pairs = [
        tuple(map(int, pair.split("-")))
        for pair, value in fields.items()
        if value.choice == "yes"
    ]
    for node in sorted({n for pair in pairs for n in pair}):
        graph.add_node(node, label=str(node), kind="state")
    for i, j in pairs:
        graph.add_edge(i, j, label="", kind="main")
    starts = [n for n, degree in graph.in_degree() if not degree and n != "input"]
    for node in starts:
        graph.add_edge("input", node, label="", kind="main")
    if pairs:
        _return(graph, _unread(graph), "output")
    return graph


_ALL_RETURNED = {"darts"}  # cells of two-sided nodes that return all of them
_WIRING = {"genetic_cnn": _stages, "nas_rl_cnn": _anchored}
