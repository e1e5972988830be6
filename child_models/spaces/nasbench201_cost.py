"""What the networks of NAS-Bench-201's cells consist of, see `cost_terms`."""

from collections.abc import Iterator

from child_models.cost_terms import Shape, Term, term, unit
from child_models.ops.layers import Conv, Dense
from child_models.ops.normalization import BatchNorm
from child_models.spaces.nasbench201_network import Cell, Network, ResidualBlock, edges


def terms(network: Network, image: Shape) -> Iterator[Term]:
    """The terms of the final form; edges that reach no output are there too.

    Args:
      network: the form.
      image: (H, W, C).
    """
    rest = {"train": False, "dtype": network.dtype}
    stem = unit(Conv(network.channels, dtype=network.dtype), image)
    norm, x = BatchNorm(False, dtype=network.dtype), stem.output
    yield term((), stem, unit(norm, x))
    cell = Cell(False, True, None, network.dtype, network.nodes, network.ops)
    for stage in range(3):
        if stage:
            reduce = unit(ResidualBlock(network.channels * 2**stage, **rest), x)
            yield term((), reduce)
            x = reduce.output
        for t in range(len(edges(network.nodes))):
            for choice, branch in enumerate(cell.branches(x[2])):
                edge = unit(branch(), x)
                yield Term(((t, (choice,)),), ((edge, network.cells),))
    yield term(
        (), unit(norm, x), unit(Dense(network.classes, dtype=network.dtype), x[2:])
    )
