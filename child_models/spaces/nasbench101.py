"""NAS-Bench-101, for tables only: its cells have no networks here.

Ying et al. 2019, https://arxiv.org/abs/1902.09635; see `child_models.nasbench101`.
"""

from typing import Any, NoReturn

from child_models.nasbench101 import NODES, spec_of
from child_models.types import Space


def nasbench101(
    *, classes: int = 10, nodes: int = NODES, dtype: str = "float32"
) -> Space:
    """Builds the space.

    Args:
      classes, dtype: not used; nothing is trained.
      nodes: most nodes of a cell, 3 to 7.

    Returns:
      a space without bindings: a search takes its rewards from a table.

    Raises:
      ValueError: on a number of nodes out of its range.
    """

    def none(*_: Any) -> NoReturn:
        raise ValueError("nasbench101 has no networks; it is for tables")

    return Space(spec_of(nodes), none, none, none, bindings=frozenset())
