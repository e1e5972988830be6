"""Static tables that tell an autoregressive policy what each step of a spec is.

A policy scans over one row a decision, so that it compiles one step and not T.

Shapes: T decisions, V choices (padded), M cell inputs, N nodes.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from controller.spec import Decision, DecisionSpec


class Rows(NamedTuple):
    """One row a step; all arrays have a leading axis T."""

    attends: np.ndarray  # bool[T], whether the decision has targets
    head: np.ndarray  # int32[T], of the group's weights among those of its kind
    targets: np.ndarray  # int32[T, V], rows of the anchors behind the choices
    skip: np.ndarray  # bool[T]
    skip_weight: np.ndarray  # float[T], 1 / nodes with skips; 0 for other decisions
    built: np.ndarray  # int32[T], row of the anchors that the step overwrites


class Tables(NamedTuple):
    """The rows of a spec, and the sizes of what they index.

    Anchors are numbered: M cell inputs, N nodes, and one that is never read.  A step
    overwrites the anchor of the node that the decision before it helped to build: it is
    the first whose hidden state has seen that decision.
    """

    rows: Rows
    linear_groups: tuple[str, ...]  # of decisions without targets
    attention_groups: tuple[str, ...]  # of decisions with targets
    inputs: int  # M
    nodes: int  # N


def is_skip(decision: Decision) -> bool:
    """Whether the decision is a skip: two choices about one and the same node."""
    return len(decision.targets) == 2 and len(set(decision.targets)) == 1


def tables(spec: DecisionSpec) -> Tables:
    """Reads the tables off a spec.

    Raises:
      ValueError: if a target is a node that no earlier decision builds.
    """
    decisions = spec.decisions
    _check_targets(decisions)
    inputs = sorted({j for d in decisions for j in d.targets if j < 0}, reverse=True)
    nodes = sorted({d.node for d in decisions if d.node >= 0})
    anchors = {j: i for i, j in enumerate((*inputs, *nodes))}
    groups: dict[bool, list[str]] = {False: [], True: []}
    for d in decisions:
        if d.group not in groups[bool(d.targets)]:
            groups[bool(d.targets)].append(d.group)
    with_skips = len({d.node for d in decisions if is_skip(d)})

    targets = np.zeros((spec.length, spec.max_choices), np.int32)
    for t, d in enumerate(decisions):
        targets[t, : len(d.targets)] = [anchors[j] for j in d.targets]
    skip = np.array([is_skip(d) for d in decisions])
    spare = len(anchors)
    row_of = [anchors[d.node] if d.node >= 0 else spare for d in decisions]
    rows = Rows(
        attends=np.array([bool(d.targets) for d in decisions]),
        head=np.array(
            [groups[bool(d.targets)].index(d.group) for d in decisions], np.int32
        ),
        targets=targets,
        skip=skip,
        skip_weight=skip / max(with_skips, 1),
        built=np.array([spare, *row_of[:-1]], np.int32),
    )
    return Tables(
        rows, tuple(groups[False]), tuple(groups[True]), len(inputs), len(nodes)
    )


def _check_targets(decisions: Sequence[Decision]) -> None:
    built: set[int] = set()
    for d in decisions:
        for j in d.targets:
            if j >= 0 and (j not in built or j == d.node):
                raise ValueError(
                    f"decision {d.name!r} has target {j}; a target is a node of earlier"
                    " decisions, or negative for a cell's input"
                )
        built.add(d.node)


def choice_bias(
    spec: DecisionSpec, group: str, bias: Mapping[str, float] | Sequence[float]
) -> np.ndarray:
    """Values by choice of the group's decisions.

    Args:
      spec: holds the group.
      group: whose decisions all have the same choices.
      bias: by name of the choice, 0 where not named; or one value a choice.

    Returns:
      float64[V], zero beyond the group's choices.

    Raises:
      ValueError: if the bias does not fit the choices, or there is no such group.
    """
    choices = {spec.decisions[t].choices for t in spec.groups.get(group, ())}
    if len(choices) != 1:
        raise ValueError(
            f"op_bias needs decisions of group {group!r} that have the same choices;"
            f" this spec has {len(choices)} different ones"
        )
    (names,) = choices
    if isinstance(bias, Mapping):
        if unknown := [name for name in bias if name not in names]:
            raise ValueError(
                f"op_bias names {', '.join(map(repr, unknown))};"
                f" known: {', '.join(names)}"
            )
        bias = [bias.get(name, 0.0) for name in names]
    if len(bias) != len(names):
        raise ValueError(
            f"op_bias has {len(bias)} values; it needs one a choice: {', '.join(names)}"
        )
    padding = spec.max_choices - len(names)
    return np.pad(np.asarray(bias, float), (0, padding))
