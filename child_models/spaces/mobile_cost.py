"""What ProxylessNAS's networks consist of, see `child_models.cost_terms`."""

from collections.abc import Iterator

from child_models.cost_terms import Shape, Term, term, unit
from child_models.ops.layers import Dense
from child_models.spaces.mobile_network import (
    ConvNorm,
    MBConv,
    Network,
    block_shapes,
    parse_op,
)


def terms(network: Network, image: Shape) -> Iterator[Term]:
    """The terms of the final form; "zero" has no unit.

    Args:
      network: the form.
      image: (H, W, C).
    """
    rest = {"train": False, "dtype": network.dtype}
    stem, strides, first, last = network.skeleton[3:]
    head = unit(ConvNorm(stem, 3, strides, True, **rest), image)
    fixed = unit(MBConv(first, 3, 1, 1, **rest), head.output)
    yield term((), head, fixed)
    x = fixed.output
    for t, (_, _, shape) in enumerate(block_shapes(network.skeleton)):
        for choice, op in enumerate(network.ops):
            size = (shape.features, *parse_op(op), shape.strides)
            block = unit(MBConv(*size, **rest), x)
            yield term([(t, [choice])], block)
        x = block.output
    tail = unit(ConvNorm(last, 1, 1, True, **rest), x)
    yield term((), tail)
    yield term((), unit(Dense(network.classes, dtype=network.dtype), (last,)))
