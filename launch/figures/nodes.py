"""The nodes of an architecture, from the names and groups of its decisions alone.

What decisions mean is read from their names, as spaces customarily write them:

    CELL/NODE/input_left, op_left, ...    a node of two sides, each an op on a state
    [CELL/]SOURCE>TARGET                  an edge with an op; "none": no edge
    LAYER/FIELD, LAYER/skip_J             a chain of layers, and skips from layer J
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from controller.spec import Decision, DecisionSpec

ABSENT = frozenset({"none", "absent"})
SIDES = ("left", "right")


class Value(NamedTuple):
    """A decision, and which of its choices was taken."""

    decision: Decision
    index: int

    @property
    def choice(self) -> str:
        """The name of the choice."""
        return self.decision.choices[self.index]

    @property
    def target(self) -> int:
        """The node behind the choice, of a decision about earlier nodes."""
        return self.decision.targets[self.index]


Fields = dict[str, Value]
"""What is decided about one node, by the last part of the decision's name."""


def nodes(spec: DecisionSpec, decisions: Sequence[int]) -> dict[str, Fields]:
    """The nodes that exist, by name, in order.

    Args:
      spec: of the space.
      decisions: int[T], legal.

    Returns:
      the fields of each node.  A decision whose name has no "/" belongs to
      ``node N + 1``, N its node.
    """
    found: dict[str, Fields] = {}
    present = float("inf")  # how many nodes there are, where that is decided
    for decision, index in zip(spec.decisions, decisions, strict=True):
        value = Value(decision, int(index))
        if decision.group == "blocks" and value.choice.isdigit():
            present = int(value.choice)
        elif decision.node < present:
            name, _, field = decision.name.rpartition("/")
            name = name or f"node {decision.node + 1}"
            found.setdefault(name, {})[field] = value
    return found


def sides(fields: Iterable[str]) -> list[str]:
    """The sides of a node that have an op and what it is applied to."""
    fields = set(fields)
    return [side for side in SIDES if {f"op_{side}", f"input_{side}"} <= fields]


def skip_source(field: str) -> int | None:
    """The layer that a field ``skip_J`` skips from, None of other fields.

    >>> skip_source("skip_12"), skip_source("skip_connect")
    (12, None)
    """
    number = field.removeprefix("skip_")
    return int(number) if field != number and number.isdigit() else None
