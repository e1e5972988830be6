"""The decisions about DARTS's two cells, as edges or as pairs, and their text.

States of a cell: 0 and 1 are the outputs of the cell before the last and of the last,
node i = 2, 3, ... is the sum of two ops, each on an earlier state.

In the searchable form every edge from a state to a later node decides for an op or for
"none", which means that it is absent; exactly two edges of a node are present.  In the
form of pairs a node decides for two (state, op) pairs, which may read one state twice,
as NASNet's cell does.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from child_models.choice import Choice, bind_all, is_fixed
from child_models.genotype import (
    GENOTYPE_CELLS,
    Block,
    Genotype,
    read_genotype,
    write_genotype,
)
from child_models.spaces.darts_ops import KNOWN_OPS, NONE, OPS
from child_models.spaces.enas_layers import stack_choices
from controller.spec import Codec, Decision, DecisionSpec, Rule

INPUTS = 2  # edges that enter a node

# Of a fixed child its blocks, else the choices of all edges, stacked.
Cells = dict[str, tuple[Block, ...] | Choice]


def edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """(source, target) of each edge of a cell, by target and then by source."""
    return tuple((s, node) for node in range(2, nodes + 2) for s in range(node))


@dataclasses.dataclass(frozen=True)
class TwoInputs(Rule):
    """A rule: of the decisions about one node, exactly two are not "none".

    Attributes:
      none: the number of the choice "none", of every decision.
      inputs: how many edges of a node are present.
    """

    none: int
    inputs: ClassVar[int] = INPUTS

    def legal(self, spec: DecisionSpec, prefix: jax.Array, t: jax.Array) -> jax.Array:
        present, left = self._progress(spec, prefix, t)
        absent = jnp.arange(spec.max_choices) == self.none
        return jnp.where(absent, present + left > INPUTS, present < INPUTS)

    def size(self, spec: DecisionSpec) -> int:
        ops = spec.max_choices - 1
        return math.prod(math.comb(n, INPUTS) * ops**INPUTS for n in _fans(spec))

    def prior(self, spec: DecisionSpec, prefix: jax.Array, t: jax.Array) -> jax.Array:
        """All architectures are equally likely: of the edges left any may be taken."""
        present, left = self._progress(spec, prefix, t)
        taken = (INPUTS - present) / left
        absent = jnp.arange(spec.max_choices) == self.none
        return jnp.where(absent, 1 - taken, taken / (spec.max_choices - 1))

    def exchanges(self, spec: DecisionSpec) -> tuple[tuple[int, int], ...]:
        """An edge into a node may come from another state, with its op."""
        nodes = [d.node for d in spec.decisions]
        pairs = itertools.combinations(range(spec.length), 2)
        return tuple((a, b) for a, b in pairs if nodes[a] == nodes[b])

    def derive(self, spec: DecisionSpec, table: jax.Array) -> jax.Array:
        """DARTS's derivation: a node keeps its two strongest edges, each its best op.

        An edge is as strong as its heaviest op; "none" does not count, neither as an op
        nor against one.  Of equal ops and of equal edges the first are taken, as by the
        authors' comparison and stable sort.
        """
        table = table.at[:, self.none].set(-jnp.inf)
        best, strength = jnp.argmax(table, axis=1), jnp.max(table, axis=1)
        chosen, first = [], 0
        for fan in _fans(spec):
            _, kept = jax.lax.top_k(strength[first : first + fan], INPUTS)
            is_kept = jnp.any(jnp.arange(fan)[:, None] == kept[None], axis=1)
            chosen.append(jnp.where(is_kept, best[first : first + fan], self.none))
            first += fan
        return jnp.concatenate(chosen).astype(jnp.int32)

    def _progress(self, spec, prefix, t):
        """Present edges of decision t's node before it; its edges from t on."""
        nodes = np.array([d.node for d in spec.decisions])
        peers = nodes[:, None] == nodes
        before, after = np.tril(peers, -1), np.triu(peers)
        present = jnp.sum(jnp.asarray(before)[t] & (prefix != self.none))
        return present, jnp.asarray(after.sum(1))[t]


def _fans(spec: DecisionSpec) -> list[int]:
    """The number of edges into each node of both cells."""
    nodes = [d.node for d in spec.decisions]
    return [nodes.count(node) for node in dict.fromkeys(nodes)]


# ---- specs --------------------------------------------------------------------------


def edge_spec(
    nodes: int, ops: Sequence[str], concats: tuple[Sequence[int], ...]
) -> DecisionSpec:
    """One decision an edge; the groups are the cells, so that a row is an edge.

    Args:
      nodes: of a cell.
      ops: choices of an edge, `NONE` among them.
      concats: the states that the normal and the reduction cell return.
    """
    decisions = tuple(
        Decision(f"{cell}/{target}/{source}>{target}", tuple(ops), cell, node)
        for c, cell in enumerate(GENOTYPE_CELLS)
        for source, target in edges(nodes)
        for node in (c * nodes + target - 2,)
    )
    return DecisionSpec(decisions, TwoInputs(list(ops).index(NONE)), _codec(concats))


def pair_spec(
    nodes: int, ops: Sequence[str], concats: tuple[Sequence[int], ...]
) -> DecisionSpec:
    """Four decisions a node; arguments as of `edge_spec`, but `NONE` is no op."""
    return DecisionSpec(pair_decisions(nodes, tuple(ops)), codec=_codec(concats))


def pair_decisions(nodes: int, ops: tuple[str, ...]) -> tuple[Decision, ...]:
    """(state, op) for each side of each node of both cells."""
    decisions = []
    for c, cell in enumerate(GENOTYPE_CELLS):
        for i in range(nodes):
            node = c * nodes + i
            targets = (-2, -1, *range(c * nodes, node))
            states = tuple(map(str, range(i + 2)))
            for side in ("left", "right"):
                name = f"{cell}/{i + 2}"
                decisions += [
                    Decision(f"{name}/input_{side}", states, "input", node, targets),
                    Decision(f"{name}/op_{side}", ops, "op", node),
                ]
    return tuple(decisions)


def _is_pairs(spec: DecisionSpec) -> bool:
    return spec.rule is None


# ---- binding ------------------------------------------------------------------------


def bind_cells(spec: DecisionSpec, decisions: Any) -> Cells:
    """What each cell is built from; see `Space.bind`.

    Returns:
      by cell: the blocks of a fixed child, whose ops are numbers; of other bindings one
      choice with a leading axis of edges.

    Raises:
      ValueError: if fixed decisions are illegal.
    """
    choices = bind_all(spec, decisions)
    half = spec.length // 2
    halves = (choices[:half], choices[half:])
    if is_fixed(choices[0]):
        cells = [tuple(_blocks(spec, half)) for half in halves]
    else:
        cells = [stack_choices(half, spec.max_choices) for half in halves]
    return dict(zip(GENOTYPE_CELLS, cells, strict=True))


def is_fixed_cell(cell: tuple[Block, ...] | Choice) -> bool:
    """Whether a bound cell is one of a fixed child."""
    return isinstance(cell, tuple) and isinstance(cell[0], Block)


def _blocks(spec: DecisionSpec, cell: Sequence[int]) -> list[Block]:
    if _is_pairs(spec):
        pairs = list(zip(cell[0::2], cell[1::2], strict=True))
    else:
        all_edges = edges(_num_nodes(spec))
        pairs = [
            (source, op)
            for (source, _), op in zip(all_edges, cell, strict=True)
            if op != spec.rule.none
        ]
    sides = zip(pairs[0::2], pairs[1::2], strict=True)
    return [Block(*zip(left, right, strict=True)) for left, right in sides]


def _num_nodes(spec: DecisionSpec) -> int:
    return (spec.decisions[-1].node + 1) // 2


def darts_arguments(found: Genotype) -> dict[str, Any]:
    """Arguments of `darts.darts` that make a genotype one of its architectures.

    Those that have another value than for DARTS's own cells; an unknown op is left to
    the reader to refuse.
    """
    nodes = len(found.normal) // INPUTS
    arguments: dict[str, Any] = {} if nodes == 4 else {"nodes": nodes}
    cells = [found.cell(name) for name in GENOTYPE_CELLS]
    names = {op for pairs, _ in cells for op, _ in pairs}
    if further := [op for op in KNOWN_OPS if op in names - set(OPS)]:
        arguments["ops"] = (*OPS, *further)
    if any(
        a[1] == b[1] for p, _ in cells for a, b in zip(p[0::2], p[1::2], strict=True)
    ):
        arguments["pairs"] = True
    for name, (_, concat) in zip(GENOTYPE_CELLS, cells, strict=True):
        if concat is not None and sorted(concat) != [*range(2, nodes + 2)]:
            arguments[f"{name}_concat"] = tuple(concat)
    return arguments


# ---- text ---------------------------------------------------------------------------


@functools.cache
def _codec(concats: tuple[Sequence[int], ...]) -> Codec:
    """Genotype text of cells that return these states, one object for equal specs."""
    return Codec(
        functools.partial(_encode, concats), functools.partial(_decode, concats)
    )


def _encode(concats, spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    ops = _ops(spec)
    fields: list[Any] = []
    for blocks, concat in zip(
        bind_cells(spec, decisions).values(), concats, strict=True
    ):
        pairs = [
            (ops[op], state)
            for block in blocks
            for op, state in zip(block.ops, block.inputs, strict=True)
        ]
        fields += [pairs, concat]
    return write_genotype(Genotype(*fields))


def _decode(concats, spec: DecisionSpec, text: str) -> list[int]:
    found, nodes = read_genotype(text), _num_nodes(spec)
    decisions: list[int] = []
    for name, concat in zip(GENOTYPE_CELLS, concats, strict=True):
        pairs, returned = found.cell(name)
        if len(pairs) != INPUTS * nodes:
            raise ValueError(
                f"cell {name!r} of the Genotype has {len(pairs)} edges; one of {nodes}"
                f" nodes has {INPUTS * nodes}, two a node"
            )
        if returned is not None and sorted(returned) != sorted(concat):
            raise ValueError(
                f"{name}_concat is {list(returned)}; this space returns the states"
                f" {list(concat)}"
            )
        for op, _ in pairs:
            if op not in _ops(spec) or op == NONE:
                known = ", ".join(o for o in _ops(spec) if o != NONE)
                raise ValueError(f"op {op!r} of cell {name!r} must be one of: {known}")
        decisions += (_read_pairs if _is_pairs(spec) else _read_edges)(
            spec, name, pairs
        )
    return decisions


def _ops(spec: DecisionSpec) -> tuple[str, ...]:
    """The choices of an op; a spec's last decision is always about one."""
    return spec.decisions[-1].choices


def _read_pairs(spec, name, pairs) -> list[int]:
    ops = _ops(spec)
    return [value for op, state in pairs for value in (state, ops.index(op))]


def _read_edges(spec, name, pairs) -> list[int]:
    ops, taken = _ops(spec), {}
    for i, (op, state) in enumerate(pairs):
        node = i // INPUTS + 2
        if (state, node) in taken:
            raise ValueError(
                f"node {node} of cell {name!r} takes state {state} twice; here its two"
                " states differ"
            )
        taken[state, node] = ops.index(op)
    return [taken.get(edge, spec.rule.none) for edge in edges(_num_nodes(spec))]
