"""NAS-Bench-101: its cells as decisions, and the table of its record files.

Ying et al. 2019, https://arxiv.org/abs/1902.09635; the files are
``nasbench_only108.tfrecord`` and ``nasbench_full.tfrecord``.

A cell is a directed acyclic graph of at most 7 nodes, the input, five ops and the
output, with at most 9 edges.  Its decisions are the 21 possible edges, row by row of
the upper triangle, and the five ops.  Nodes that are on no path from the input to the
output count for nothing, and the order of the others neither: many vectors are the same
cell, of which there are 423,624, and `canonical` is the one that a table holds.

Shapes: N cells, T = 26 decisions.
"""

import base64
import binascii
import dataclasses
import itertools
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from child_models.tables import Table
from child_models.tf_record import double, fields, records
from controller.spec import Decision, DecisionSpec

NODES, MOST_EDGES = 7, 9
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
EDGES = tuple(itertools.combinations(range(NODES), 2))
INNER = range(1, NODES - 1)
_FROM, _TO = np.array(EDGES).T
_BATCH = 4096  # cells that are brought into their canonical form at once

# ---- cells --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class AtMost:
    """A rule: of the first decisions, all yes or no, only so many are yes.

    Attributes:
      first: how many decisions these are.
      most: of them that may be 1.
    """

    first: int
    most: int

    def legal(self, spec: DecisionSpec, prefix: jax.Array, t: jax.Array) -> jax.Array:
        steps = jnp.arange(spec.length)
        counted = (steps < t) & (steps < self.first)
        full = jnp.sum(jnp.where(counted, prefix, 0)) >= self.most
        forbidden = full & (t < self.first)
        return ~forbidden | (jnp.arange(spec.max_choices) == 0)

    def size(self, spec: DecisionSpec) -> int:
        free = math.prod(spec.num_choices[self.first :])
        return free * sum(math.comb(self.first, k) for k in range(self.most + 1))


SPEC = DecisionSpec(
    (
        *(Decision(f"edge/{i}-{j}", ("no", "yes"), "edge", j) for i, j in EDGES),
        *(Decision(f"op/{i}", OPS, "op", i) for i in INNER),
    ),
    rule=AtMost(len(EDGES), MOST_EDGES),
)


def canonical(decisions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The vector that stands for a cell, and whether it is a cell at all.

    Of all orders of the nodes in which edges go forward, it is the one whose decisions,
    read as a number, are the largest; nodes on no path are left without edges, with the
    first op.  Two vectors have the same one where their cells are isomorphic.

    Args:
      decisions: int32[T].

    Returns:
      int32[T], and bool[]: whether a path leads to the output, by 9 edges at most.
    """
    edges, ops = decisions[: len(EDGES)], decisions[len(EDGES) :]
    matrix = jnp.zeros((NODES, NODES), jnp.int32).at[_FROM, _TO].set(edges)
    inside = _reached(matrix, 0) & _reached(matrix.T, NODES - 1)
    matrix = jnp.where(inside[:, None] & inside[None], matrix, 0)
    ops = jnp.where(inside[1:-1], ops, 0)
    orders = np.array([(0, *p, NODES - 1) for p in itertools.permutations(INNER)])
    forward = matrix[orders[:, _FROM], orders[:, _TO]]
    vectors = jnp.concatenate([forward, ops[orders[:, 1:-1] - 1]], axis=1)
    total = jnp.sum(matrix)
    numbers = jnp.where(jnp.sum(forward, axis=1) == total, vectors @ _WEIGHTS, -1)
    is_cell = inside[0] & inside[-1] & (total <= MOST_EDGES)
    return vectors[jnp.argmax(numbers)], is_cell


_BASES = [2] * len(EDGES) + [len(OPS)] * len(INNER)
_WEIGHTS = np.array([math.prod(_BASES[t + 1 :]) for t in range(len(_BASES))], np.int32)


def _reached(matrix, start):
    """bool[7]: the nodes that paths from one lead to, itself included."""
    reached = jnp.arange(NODES) == start
    for _ in range(NODES - 1):
        reached = reached | jnp.any(reached[:, None] & (matrix > 0), axis=0)
    return reached


def cell(adjacency: str, operations: str) -> list[int]:
    """Decisions of a cell as record files write it.

    Args:
      adjacency: the matrix row by row, "0" and "1".
      operations: "input", the ops and "output", separated by commas.

    Raises:
      ValueError: if this is no cell of the space.
    """
    ops = operations.split(",")
    nodes, inner = len(ops), ops[1:-1]
    text = f"the cell {adjacency} of {operations}"
    if not 2 <= nodes <= NODES or len(adjacency) != nodes**2:
        raise ValueError(f"{text} is no square matrix of 2 to {NODES} nodes")
    if ops[0] != "input" or ops[-1] != "output" or set(inner) - set(OPS):
        known = ", ".join(OPS)
        raise ValueError(f"{text}: ops are input, some of {known}, and output")
    place = [*range(nodes - 1), NODES - 1]
    edges = {
        (place[k // nodes], place[k % nodes])
        for k, bit in enumerate(adjacency)
        if bit == "1"
    }
    if not edges <= set(EDGES) or set(adjacency) - {"0", "1"}:
        raise ValueError(f"{text} has something else than edges that go forward")
    indices = [OPS.index(op) for op in inner] + [0] * (NODES - nodes)
    return [int(edge in edges) for edge in EDGES] + indices


# ---- the table ----------------------------------------------------------------------


def from_nasbench101(path: str | os.PathLike) -> Table:
    """The table of a record file; its rows are `canonical`, in the order of the file.

    Column NAME is ``cifar10_EPOCHS``, of each schedule in the file: the reward is the
    validation accuracy after it, in percent, the cost its seconds of training, and the
    value the test accuracy after the longest schedule.  All are means over the runs.

    Raises:
      ValueError: on another file, a cell that is none of the space or comes twice, or
        one that lacks a schedule.
    """
    cells, measured = [], {}  # by hash: (row, {epochs: [accuracies and seconds]})
    for adjacency, operations, name, epochs, figures in _runs(path):
        if name not in measured:
            measured[name] = {}
            cells.append(cell(adjacency, operations))
        measured[name].setdefault(epochs, []).append(figures)
    if not measured:
        raise ValueError(f"{path} holds no records")
    schedules = sorted(set().union(*measured.values()))
    means = np.empty((len(measured), len(schedules), 3))
    for row, (name, runs) in enumerate(measured.items()):
        for column, epochs in enumerate(schedules):
            if epochs not in runs:
                raise ValueError(
                    f"{path} has no run of {epochs} epochs of cell {name}; it has "
                    f"{', '.join(map(str, sorted(runs)))}"
                )
            means[row, column] = np.mean(runs[epochs], axis=0)
    names = [f"cifar10_{epochs}" for epochs in schedules]
    columns = dict(zip(names, np.moveaxis(means, 1, 0), strict=True))
    return Table(
        _canonical_rows(np.array(cells, np.int32)),
        reward={k: 100 * column[:, 0] for k, column in columns.items()},
        value={k: 100 * means[:, -1, 1] for k in columns},
        cost={k: column[:, 2] for k, column in columns.items()},
    )


def _runs(path) -> Iterator[tuple[str, str, str, int, tuple[float, float, float]]]:
    for record in records(path):
        try:
            name, epochs, adjacency, operations, metrics = json.loads(record)
            figures = _figures(base64.b64decode(metrics, validate=True))
        except (binascii.Error, TypeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(
                f"{path} is no record file of NAS-Bench-101: {error}"
            ) from error
        yield adjacency, operations, name, epochs, figures


def _figures(message: bytes) -> tuple[float, float, float]:
    """Validation and test accuracy, and seconds, at the end of a run.

    In ``ModelMetrics`` field 1 is repeated: at the beginning, half-way, and at the end.
    In each, field 2 is training_time, 4 validation_accuracy, 5 test_accuracy.
    """
    evaluations: list[Any] = [value for number, value in fields(message) if number == 1]
    if len(evaluations) != 3:
        raise ValueError(f"a run has {len(evaluations)} evaluations, not 3")
    last = dict(fields(evaluations[-1]))
    if missing := {2, 4, 5} - set(last):
        raise ValueError(f"an evaluation lacks field {min(missing)}")
    return double(last[4]), double(last[5]), double(last[2])


def _canonical_rows(cells: np.ndarray) -> np.ndarray:
    rows, is_cell = _canonical_of_many(jnp.asarray(cells))
    rows = np.asarray(rows)
    for row in np.flatnonzero(~np.asarray(is_cell))[:1]:
        raise ValueError(
            f"cell {row} has no path to its output, or more than {MOST_EDGES} edges: "
            f"{cells[row].tolist()}"
        )
    _, first, counts = np.unique(rows, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        row = first[np.argmax(counts > 1)]
        raise ValueError(f"a cell comes twice: {SPEC.encode(rows[row])}")
    return rows


@jax.jit
def _canonical_of_many(cells):
    return jax.lax.map(canonical, cells, batch_size=min(_BATCH, len(cells)))
