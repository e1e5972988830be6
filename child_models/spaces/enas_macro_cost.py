"""What ENAS's chains consist of, see `child_models.cost_terms`."""

from collections.abc import Iterator

from child_models.cost_terms import Shape, Term, counted, term, unit
from child_models.ops.layers import Conv, FactorizedReduce, ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.spaces.enas_layers import Classifier, stage_lengths
from child_models.spaces.enas_macro_final import FinalNet, Op
from child_models.spaces.enas_macro_search import OPS


def terms(network: FinalNet, image: Shape) -> Iterator[Term]:
    """The terms of the final form; a layer joins as many outputs as it skips from.

    Args:
      network: the form.
      image: (H, W, C).
    """
    make = {"train": False, "dtype": network.dtype}
    channels = network.channels
    stem = unit(Conv(channels, dtype=network.dtype), image)
    yield term((), stem, unit(BatchNorm(False, dtype=network.dtype), stem.output))
    x, t = stem.output, 0
    first, second, _ = stage_lengths(network.layers)
    for i in range(network.layers):
        if i in (first, first + second) and i:
            channels *= 2
            reduce = unit(FactorizedReduce(channels, **make), x)
            yield term((), *[reduce] * i)
            x = reduce.output
        for choice, op in enumerate(OPS):
            yield term([(t, [choice])], unit(Op(op, channels, **make), x))
        x = (*x[:2], channels)
        if i:
            join = ReLUConvBN(channels, **make)
            yield from counted(
                i,
                lambda skips, t=t: [(t + 1 + j, [1]) for j in skips],
                lambda m, join=join, x=x: [unit(join, (*x[:2], (m + 1) * x[2]))],
            )
        t += 1 + i
    yield term((), unit(Classifier(network.classes, 0.0, network.dtype), x))
