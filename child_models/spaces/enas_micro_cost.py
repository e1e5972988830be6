"""What ENAS's micro networks consist of, see `child_models.cost_terms`.

A cell returns the states that nothing reads, so that what the two cells after it do
first depends on how many these are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn

from child_models.cost_terms import (
    Shape,
    Term,
    Unit,
    counted,
    none_reads,
    term,
    unit,
)
from child_models.ops.layers import Conv, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.spaces.enas_layers import Classifier, stage_lengths
from child_models.spaces.enas_micro_final import FinalNet, branches
from controller.spec import DecisionSpec


class Output(NamedTuple):
    """What a cell returns: as many states as are not read, side by side.

    Attributes:
      shape: of one state.
      readers: the decisions about inputs in that cell; none where there is one state.
      states: those that may be not read, beside the last, which never is.
    """

    shape: Shape
    readers: tuple[int, ...] = ()
    states: int = 0

    def wide(self, m: int) -> Shape:
        """Its shape where m of the states are not read, and the last."""
        return (*self.shape[:2], self.shape[2] * (m + 1))


def by_width(
    spec: DecisionSpec, x: Output, units: Callable[[Shape], Sequence[Unit]]
) -> Iterator[Term]:
    """The terms of units that depend on the width of an output."""
    return counted(
        x.states,
        lambda subset: none_reads(spec, x.readers, subset) if subset else (),
        lambda m: units(x.wide(m)),
    )


def terms(
    spec: DecisionSpec, network: FinalNet, nodes: int, image: Shape
) -> Iterator[Term]:
    """The terms of the final form.

    Args:
      spec: of the space.
      network: the form.
      nodes: of a cell.
      image: (H, W, C).
    """
    channels, dtype = network.channels, network.dtype
    make = {"train": False, "dtype": dtype}
    stem = unit(Conv(network.stem_multiplier * channels, dtype=dtype), image)
    yield term((), stem, unit(BatchNorm(False, dtype=dtype), stem.output))
    first, second, _ = stage_lengths(network.layers)
    reductions = (first, first + second + 1)
    s0 = s1 = Output(stem.output)
    for i in range(network.layers + 2):
        reduces = i in reductions
        channels *= 2 if reduces else 1
        project = ReLUConvBN(channels, **make)
        start = 4 * nodes if reduces else 0
        readers = tuple(range(start, start + 4 * nodes, 2))
        outer = (*s1.shape[:2], channels)
        halved = s0.shape[:2] != s1.shape[:2]
        reduce = FactorizedReduce(channels, **make)
        yield from by_width(
            spec, s0, _fit(reduce if halved else project, channels, always=halved)
        )
        yield from by_width(spec, s1, _fit(project, channels))
        yield term((), unit(project, outer))
        strides = 2 if reduces else 1
        inner = (*(-(-n // strides) for n in outer[:2]), channels)
        for t in readers:
            inputs, others = [0, 1], range(2, spec.num_choices[t])
            for states, stride, shape in ((inputs, strides, outer), (others, 1, inner)):
                for op, branch in enumerate(branches(channels, stride, False, dtype)):
                    if states:
                        when = [(t, states), (t + 1, [op])]
                        yield term(when, unit(branch(), shape))
        for state in (0, 1) if reduces else ():
            yield term(none_reads(spec, readers, [state]), unit(reduce, outer))
        s0, s1 = s1, Output(inner, readers, nodes + 1)
    head = Classifier(network.classes, 0.0, dtype)
    yield from by_width(spec, s1, lambda shape: [unit(head, shape)])


def _fit(module: nn.Module, channels: int, *, always: bool = False):
    """Units that bring an input to the cell's channels, where it has others."""

    def units(shape: Shape) -> Sequence[Unit]:
        return [unit(module, shape)] if always or shape[2] != channels else []

    return units
