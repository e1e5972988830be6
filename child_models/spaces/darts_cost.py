"""What DARTS's networks consist of, see `child_models.cost_terms`."""

from collections.abc import Iterator

from child_models.cost_terms import Shape, Term, term, unit
from child_models.genotype import GENOTYPE_CELLS
from child_models.ops.layers import Dense, FactorizedReduce, ReLUConvBN
from child_models.spaces.darts_final import FinalNetwork, Stem, layout
from child_models.spaces.darts_ops import NONE, operation
from child_models.spaces.darts_spec import edges
from controller.spec import DecisionSpec


def terms(
    spec: DecisionSpec, network: FinalNetwork, nodes: int, image: Shape
) -> Iterator[Term]:
    """The terms of the final form, whose cells return states that are not searched.

    Args:
      spec: of edges, or of pairs.
      network: the form.
      nodes: of a cell.
      image: (H, W, C).
    """
    rest = {"train": False, "dtype": network.dtype}
    stem = unit(
        Stem(network.stem, network.channels, network.stem_multiplier, **rest), image
    )
    yield term((), stem)
    s0, s1 = stem.outputs
    half = spec.length // 2
    concats = (network.normal_concat, network.reduce_concat)
    for layer in layout(network.cells, network.channels, network.stem):
        fit = FactorizedReduce if layer.after_reduction else ReLUConvBN
        first = unit(fit(layer.features, **rest), s0)
        second = unit(ReLUConvBN(layer.features, **rest), s1)
        yield term((), first, second)
        outer = first.output
        inner = (*(-(-n // layer.strides) for n in outer[:2]), layer.features)
        number = GENOTYPE_CELLS.index(layer.cell)
        for when, op, enters in _ops(spec, network.ops, nodes, number * half):
            make = operation(op, layer.features, layer.strides if enters else 1, **rest)
            yield term(when, unit(make(), outer if enters else inner))
        s0, s1 = s1, (*inner[:2], layer.features * len(concats[number]))
    yield term((), unit(Dense(network.classes, dtype=network.dtype), s1[2:]))


def _ops(spec: DecisionSpec, ops: tuple[str, ...], nodes: int, first: int):
    """(condition, op, whether it reads an input of the cell), of one cell.

    Args:
      first: of the cell's decisions.
    """
    if spec.rule is not None:
        for t, (source, _) in enumerate(edges(nodes), start=first):
            for choice, op in enumerate(ops):
                if op != NONE:
                    yield [(t, [choice])], op, source < 2
        return
    for t in range(first, first + spec.length // 2, 2):
        for choice, op in enumerate(ops):
            inputs, others = [0, 1], range(2, spec.num_choices[t])
            yield [(t, inputs), (t + 1, [choice])], op, True
            if others:
                yield [(t, others), (t + 1, [choice])], op, False
