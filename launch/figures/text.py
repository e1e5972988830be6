"""Architectures as text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

from controller.spec import Graph, GraphSpec, Spec
from launch.figures.nodes import ABSENT, nodes, sides, skip_source


def picture(spec: Spec, decisions: Sequence[int]) -> str:
    """The architecture as lines, one a node: ``normal/2  sep_conv_3x3(0) + ...``.

    >>> from child_models.spaces import SPACES
    >>> spec = SPACES["nasbench201"](classes=10, nodes=3).spec
    >>> print(picture(spec, (3, 0, 1)))
      node 1  nor_conv_3x3(0)
      node 2  skip_connect(1)
    """
    if isinstance(spec, GraphSpec):
        return "\n".join(_lines(spec.unpack(decisions)))
    found = {
        name: {field: value.choice for field, value in fields.items()}
        for name, fields in nodes(spec, decisions).items()
    }
    width = max(map(len, found))
    return "\n".join(f"  {n.ljust(width)}  {_formula(f)}" for n, f in found.items())


def _lines(architecture: Graph) -> Iterator[str]:
    """A graph, a vertex a line: ``vertex 2  conv 3x3/2 to 16 channels + vertex 0``."""
    yield "  vertex 0  the image"
    for i, layer in enumerate(architecture.layers, start=1):
        terms = ["identity"]
        if layer.op == "conv":
            stride = f"/{layer.stride}" if layer.stride > 1 else ""
            size = f"{layer.height}x{layer.width}{stride}"
            terms = [f"conv {size} to {layer.channels} channels"]
        terms += [f"vertex {a}" for a, b in architecture.skips if b == i]
        yield f"  vertex {i}  {' + '.join(terms)}, {layer.activation}"


def _formula(fields: Mapping[str, str]) -> str:
    """What a node computes of its inputs, from the decisions about it."""
    if known := sides(fields):
        terms = [f"{fields[f'op_{s}']}({fields[f'input_{s}']})" for s in known]
        if fields.get("combiner") == "concat":
            return f"concat({', '.join(terms)})"
        return " + ".join(terms)
    edges = [(f.partition(">")[0], op) for f, op in fields.items() if ">" in f]
    if edges:
        terms = [f"{op}({source})" for source, op in edges if op not in ABSENT]
        return " + ".join(terms) or "0"
    yes = [field for field, choice in fields.items() if choice == "yes"]
    if all(choice in ("yes", "no") and "-" in f for f, choice in fields.items()):
        return " ".join(yes) or "no connections"
    skips = [str(j) for field in yes if (j := skip_source(field)) is not None]
    others = [
        choice if field == "op" else f"{field} {choice}"
        for field, choice in fields.items()
        if skip_source(field) is None
    ]
    return ", ".join(others + ([f"skips from {' '.join(skips)}"] if skips else []))
