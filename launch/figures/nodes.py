"""The nodes of an architecture, from the names and groups of its decisions alone.

What decisions mean is read from their names, as spaces customarily write them:

    CELL/NODE/input_left, op_left, ...    a node of two sides, each an op on a state
    [CELL/]SOURCE>TARGET                  an edge with an op; "none": no edge
    LAYER/FIELD, LAYER/skip_J             a chain of layers, and skips from layer J
"""

from collections.abc import Sequence
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
        if decision.group == "blocks":
            present = int(value.choice)
        if decision.group == "blocks" or decision.node >= present:
            continue
        name, _, field = decision.name.rpartition("/")
        name = name or f"node {decision.node + 1}"
        found.setdefault(name, {})[field] = value
    return found
