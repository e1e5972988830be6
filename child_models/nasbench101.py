"""NAS-Bench-101: its cells as decisions, and the table of its record files.

Ying et al. 2019, https://arxiv.org/abs/1902.09635; the files are
``nasbench_only108.tfrecord`` and ``nasbench_full.tfrecord``.

A cell is a directed acyclic graph of at most 7 nodes, the input, five ops and the
output, with at most 9 edges.  Its decisions are the 21 possible edges, row by row of
the upper triangle, and the five ops.  Nodes that are on no path from the input to the
output count for nothing, and the order of the others neither: many vectors are the same
cell, of which there are 423,624, and `canonical` is the one that a table holds.  A
vector without a path is none of the space.

Shapes: N cells, T = 26 decisions.
"""

import base64
import binascii
import dataclasses
import functools
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
from controller.spec import Decision, DecisionSpec, Rule

NODES, MOST_EDGES = 7, 9
OPS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
EDGES = tuple(itertools.combinations(range(NODES), 2))
# Different cells of so many nodes at most.
UNIQUE = {3: 7, 4: 91, 5: 2_532, 6: 64_542, 7: 423_624}
FAR = 99  # more edges than any path has
_BATCH = 4096  # cells that are brought into their canonical form at once

# ---- cells --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cells(Rule):
    """A rule: a path leads from the input to the output, by so many edges at most.

    Attributes:
      nodes: of a cell, the input and the output counted.
      most: edges.
    """

    nodes: int
    most: int

    def legal(self, spec: DecisionSpec, prefix: jax.Array, t: jax.Array) -> jax.Array:
        start, end = _ends(self.nodes)
        known = jnp.arange(len(start)) < t
        taken = known & (prefix[: len(start)] == 1)
        free = self.most - jnp.sum(taken)

        def fewest(new):
            """Edges that the shortest path lacks, if edge t costs so many."""
            cost = (
                jnp.where(taken, 0, jnp.where(known, FAR, 1))
                .at[t]
                .set(new, mode="drop")
            )
            lengths = [jnp.int32(0)]
            for node in range(1, self.nodes):
                (into,) = np.nonzero(end == node)
                before = jnp.stack([lengths[i] for i in start[into]])
                lengths.append(jnp.min(before + cost[into]))
            return lengths[-1]

        fits = jnp.stack([fewest(FAR) <= free, fewest(0) <= free - 1])
        allowed = jnp.pad(fits, (0, spec.max_choices - 2))
        return allowed | (t >= len(start))

    def prior(self, spec: DecisionSpec, prefix: jax.Array, t: jax.Array) -> jax.Array:
        """Odds by which all sets of so many edges at most are equally likely."""
        count = self.nodes * (self.nodes - 1) // 2
        sets = np.zeros((count + 1, self.most + 2), np.float32)  # [left, free edges]
        for left, free in itertools.product(range(count + 1), range(self.most + 1)):
            sets[left, free] = sum(math.comb(left, k) for k in range(free + 1))
        taken = jnp.sum(jnp.where(jnp.arange(count) < t, prefix[:count], 0))
        left, free = jnp.clip(count - 1 - t, 0), self.most - taken
        odds = jnp.stack(
            [jnp.asarray(sets)[left, free], jnp.asarray(sets)[left, free - 1]]
        )
        odds = jnp.pad(odds, (0, spec.max_choices - 2))
        return jnp.where(t < count, odds, 1.0)

    def size(self, spec: DecisionSpec) -> int:
        return _matrices(self.nodes, self.most) * len(OPS) ** (self.nodes - 2)

    def architectures(self, spec: DecisionSpec) -> int:
        return UNIQUE[self.nodes]

    def canonical(self, spec: DecisionSpec, decisions: jax.Array) -> jax.Array:
        return canonical(decisions, self.nodes)[0]


@functools.cache
def _matrices(nodes: int, most: int) -> int:
    """The number of sets of edges that a rule allows."""
    edges = list(itertools.combinations(range(nodes), 2))
    numbers = np.arange(2 ** len(edges))
    count, reached = np.zeros(len(numbers), int), [numbers >= 0]
    reached += [numbers < 0] * (nodes - 1)
    for bit, (i, j) in enumerate(edges):
        there = (numbers >> bit) % 2 == 1
        count += there
        reached[j] = reached[j] | (reached[i] & there)
    return int(np.sum(reached[-1] & (count <= most)))


def spec_of(nodes: int) -> DecisionSpec:
    """The decisions of cells of so many nodes at most.

    Raises:
      ValueError: on a number that is not 3 to 7.
    """
    if nodes not in UNIQUE:
        raise ValueError(f"nodes is {nodes}; it must be {min(UNIQUE)} to {NODES}")
    edges = itertools.combinations(range(nodes), 2)
    return DecisionSpec(
        (
            *(Decision(f"edge/{i}-{j}", ("no", "yes"), "edge", j) for i, j in edges),
            *(Decision(f"op/{i}", OPS, "op", i) for i in range(1, nodes - 1)),
        ),
        rule=Cells(nodes, MOST_EDGES),
    )


def canonical(decisions: jax.Array, nodes: int = NODES) -> tuple[jax.Array, jax.Array]:
    """The vector that stands for a cell, and whether it is a cell at all.

    Of all orders of the nodes in which edges go forward, it is the one whose decisions,
    read as a number, are the largest; nodes on no path are left without edges, with the
    first op.  Two vectors have the same one where their cells are isomorphic.

    Args:
      decisions: int32[T].
      nodes: of the cell, those on no path counted.

    Returns:
      int32[T], and bool[]: whether a path leads to the output, by 9 edges at most.
    """
    start, end = _ends(nodes)
    edges, ops = decisions[: len(start)], decisions[len(start) :]
    matrix = jnp.zeros((nodes, nodes), jnp.int32).at[start, end].set(edges)
    inside = _reached(matrix, 0) & _reached(matrix.T, nodes - 1)
    matrix = jnp.where(inside[:, None] & inside[None], matrix, 0)
    ops = jnp.where(inside[1:-1], ops, 0)
    inner = itertools.permutations(range(1, nodes - 1))
    orders = np.array([(0, *p, nodes - 1) for p in inner])
    forward = matrix[orders[:, start], orders[:, end]]
    vectors = jnp.concatenate([forward, ops[orders[:, 1:-1] - 1]], axis=1)
    total = jnp.sum(matrix)
    bases = np.array([2] * len(start) + [len(OPS)] * (nodes - 2))
    weights = np.append(np.cumprod(bases[:0:-1])[::-1], 1).astype(np.int32)
    numbers = jnp.where(jnp.sum(forward, axis=1) == total, vectors @ weights, -1)
    is_cell = inside[0] & inside[-1] & (total <= MOST_EDGES)
    return vectors[jnp.argmax(numbers)], is_cell


def _ends(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes from which the edges go, and to which."""
    start, end = np.array(list(itertools.combinations(range(nodes), 2))).T
    return start, end


def _reached(matrix, start):
    """bool[nodes]: those that paths from one lead to, itself included."""
    reached = jnp.arange(len(matrix)) == start
    for _ in range(len(matrix) - 1):
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


SPEC = spec_of(NODES)

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
