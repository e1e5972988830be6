"""What networks of NASNet's cells consist of, see `child_models.cost_terms`.

A cell returns the states that no block takes, unless the space says which.
"""

from collections.abc import Iterator
from typing import NamedTuple

from child_models.cost_terms import (
    Shape,
    Term,
    Unit,
    none_reads,
    term,
    unit,
)
from child_models.ops.layers import FactorizedReduce, ReLUConvBN
from child_models.spaces.enas_micro_cost import Output, by_width
from child_models.spaces.nasnet_final import (
    Classifier,
    FinalNetwork,
    Layer,
    Match,
    Stem,
    layout,
)
from child_models.spaces.nasnet_ops import combiners, operation
from controller.spec import DecisionSpec


class Half(NamedTuple):
    """The decisions about one side of a block: its input and its op."""

    state: int
    op: int


def terms(spec: DecisionSpec, network: FinalNetwork, image: Shape) -> Iterator[Term]:
    """The terms of the final form.

    Args:
      spec: of `nasnet_spec.cell_spec`, of cells with all their blocks.
      network: the form.
      image: (H, W, C).
    """
    rest = {"train": False, "dtype": network.dtype}
    width = Stem.width(network.stem, network.channels, network.stem_multiplier)
    stem = unit(Stem(width, network.stem, **rest), image)
    yield term((), stem)
    outputs: list[Output | None] = [None, Output(stem.output)]
    for layer in layout(
        network.cells,
        network.stem,
        network.skip_reduction_layer_input,
        network.reductions_within,
    ):
        current, previous = outputs[-1], outputs[layer.previous]
        states, units = _inputs(spec, network, layer, current, previous)
        yield from units
        output = yield from _cell(spec, network, layer, states)
        outputs.append(output)
    head = Classifier(network.classes, dtype=network.dtype)
    yield from by_width(spec, outputs[-1], lambda shape: [unit(head, shape)])


def _inputs(spec, network, layer: Layer, current: Output, previous: Output | None):
    """The shapes of states 0 and 1, and the terms of what brings them there."""
    features = int(network.channels * layer.width)
    rest = {"train": False, "dtype": network.dtype}
    project = ReLUConvBN(features, **rest)
    state = (*current.shape[:2], features)
    found = list(by_width(spec, current, lambda shape: [unit(project, shape)]))
    if previous is None:
        return (state, current.shape), found

    def fit(shape: Shape) -> list[Unit]:
        units = []
        while shape[0] > state[0]:
            units.append(unit(FactorizedReduce(features, **rest), shape))
            shape = units[-1].output
        return units if shape[2] == features else [*units, unit(project, shape)]

    found += by_width(spec, previous, fit)
    return (state, state), found


def _cell(spec, network, layer: Layer, inputs):
    """The terms of a cell's blocks and of what it returns; returns its output."""
    features = int(network.channels * layer.width)
    rest = {"train": False, "dtype": network.dtype}
    strides = 2 if layer.cell == "reduce" else 1
    inner = (*(-(-n // strides) for n in inputs[0][:2]), features)
    halves, joined = _decisions(spec, layer.cell)
    for half in halves:
        others = range(2, spec.num_choices[half.state])
        for states, shape in (([0], inputs[0]), ([1], inputs[1]), (others, inner)):
            for choice, name in enumerate(network.operations if states else ()):
                module = operation(
                    name,
                    inputs=shape[2],
                    features=features,
                    strides=strides if states[0] < 2 else 1,
                    **rest,
                )
                when = [(half.state, states), (half.op, [choice])]
                yield term(when, unit(module(), shape))
    for b in range(len(halves) // 2):
        for choice, combine in enumerate(combiners(**rest)):
            if joined:
                yield term([(joined[b], [choice])], unit(combine(), inner, inner))
            elif not choice:
                yield term((), unit(combine(), inner, inner))
    readers = tuple(half.state for half in halves)
    concats = {"normal": network.normal_concat, "reduce": network.reduce_concat}
    concat, last = concats[layer.cell], len(halves) // 2 + 1
    for state, shape in enumerate(inputs):
        if shape != inner and (concat is None or state in concat):
            match = Match(features, inner[0], **rest)
            when = none_reads(spec, readers, [state]) if concat is None else ()
            yield term(when, unit(match, shape))
    if concat is None:
        return Output(inner, readers, last)
    return Output((*inner[:2], features * len(concat)))


def _decisions(spec: DecisionSpec, cell: str) -> tuple[list[Half], list[int]]:
    """The halves of a cell's blocks, and the decisions about how they are combined."""
    names = {d.name: t for t, d in enumerate(spec.decisions)}
    cells = list(dict.fromkeys(name.partition("/")[0] for name in names))
    prefix = cells[0 if cell == "normal" else -1]
    blocks = list(dict.fromkeys(n.split("/")[1] for n in names))
    halves = [
        Half(names[f"{prefix}/{b}/input_{side}"], names[f"{prefix}/{b}/op_{side}"])
        for b in blocks
        for side in ("left", "right")
    ]
    combined = [f"{prefix}/{b}/combiner" for b in blocks]
    return halves, [names[name] for name in combined if name in names]
