"""Rules: which choices of a `DecisionSpec` are legal after those taken before.

Shapes: T decisions, V the largest number of choices of any of them.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from controller.spec import DecisionSpec


_PREFIXES = 1024  # that are extended at once


class Rule(Protocol):
    """Prefix-aware legality; implementations are hashable (frozen dataclasses)."""

    def legal(self, spec: "DecisionSpec", prefix: jax.Array, t: jax.Array) -> jax.Array:
        """bool[V]: the choices of decision t that the earlier ones allow; traceable."""
        ...

    def size(self, spec: "DecisionSpec") -> int:
        """The exact number of decision vectors that are legal."""
        ...

    def prior(self, spec: "DecisionSpec", prefix: jax.Array, t: jax.Array) -> jax.Array:
        """float[V]: relative odds at which `sample` draws; equal by default."""
        return jnp.ones(spec.max_choices)

    def exchanges(self, spec: "DecisionSpec") -> tuple[tuple[int, int], ...]:
        """Pairs of decisions that may change together, by exchanging their values.

        They are neighbours where neither may take the other's value by itself; so an
        edge goes from one state to another where a node has as many as it must have.
        """
        return ()

    def architectures(self, spec: "DecisionSpec") -> int:
        """How many there are; fewer than vectors where several mean the same one."""
        return self.size(spec)

    def canonical(self, spec: "DecisionSpec", decisions: jax.Array) -> jax.Array:
        """int32[T]: of all vectors that mean the same the one that a table holds."""
        return decisions

    def derive(self, spec: "DecisionSpec", table: jax.Array) -> jax.Array:
        """int32[T]: the legal vector that relaxed weights stand for; traceable.

        Args:
          spec: of the space.
          table: float[T, V], -inf where a choice does not exist.
        """
        return greedy(spec, table)


def greedy(spec: "DecisionSpec", table: jax.Array) -> jax.Array:
    """int32[T]: the heaviest legal choice of each decision in turn, float[T, V]."""

    def step(prefix, t):
        row = jnp.where(spec.legal(prefix, t), table[t], -jnp.inf)
        return prefix.at[t].set(jnp.argmax(row).astype(jnp.int32)), None

    start = jnp.zeros(spec.length, jnp.int32)
    return jax.lax.scan(step, start, jnp.arange(spec.length))[0]


def enumerated(spec: "DecisionSpec") -> Iterator[tuple[int, ...]]:
    """Yields every vector that the rule allows, in lexicographic order.

    Prefixes grow by one decision, many at a time, the first ones first.
    """

    @jax.jit
    def masks(prefixes, t):
        return jax.vmap(spec.legal, in_axes=(0, None))(prefixes, t)

    waiting = [(0, np.zeros((1, spec.length), np.int32))]  # the last one is next
    while waiting:
        t, rows = waiting.pop()
        if t == spec.length:
            yield from map(tuple, rows.tolist())
            continue
        padded = np.pad(rows, ((0, _PREFIXES - len(rows)), (0, 0)))  # compiled once
        row, choice = np.nonzero(np.asarray(masks(padded, t))[: len(rows)])
        longer = rows[row]
        longer[:, t] = choice
        parts = np.split(longer, range(_PREFIXES, len(longer), _PREFIXES))
        waiting += [(t + 1, part) for part in reversed(parts)]


@dataclasses.dataclass(frozen=True)
class Distinct(Rule):
    """A rule: within each set of positions, no choice is taken twice.

    Covers two distinct inputs of a node, and levels that are used once (NAS-FPN).

    Attributes:
      sets: disjoint tuples of decision indices; all members of one set have the same
        number of choices.

    >>> from controller.spec import Decision, DecisionSpec
    >>> levels = ("P3", "P4", "P5")
    >>> pair = (Decision("left", levels), Decision("right", levels))
    >>> spec = DecisionSpec(pair, Distinct(((0, 1),)))
    >>> spec.size()
    6
    >>> spec.validate((1, 1))
    Traceback (most recent call last):
      ...
    ValueError: decision 1 'right' is 1; legal: 0 (P3), 2 (P5)
    """

    sets: tuple[tuple[int, ...], ...]

    def legal(self, spec: "DecisionSpec", prefix: jax.Array, t: jax.Array) -> jax.Array:
        peers = np.zeros((spec.length, spec.length), bool)  # [t, earlier peers of t]
        for positions in self.sets:
            for a, b in itertools.combinations(sorted(positions), 2):
                peers[b, a] = True
        taken = jax.nn.one_hot(prefix, spec.max_choices, dtype=bool)
        return ~jnp.any(taken & jnp.asarray(peers)[t][:, None], axis=0)

    def size(self, spec: "DecisionSpec") -> int:
        counts = [len(d.choices) for d in spec.decisions]
        grouped = {t for positions in self.sets for t in positions}
        free = math.prod(n for t, n in enumerate(counts) if t not in grouped)
        return free * math.prod(math.perm(counts[p[0]], len(p)) for p in self.sets)


@dataclasses.dataclass(frozen=True)
class FirstNodes(Rule):
    """A rule: decision 0 says how many nodes there are; those of the others are 0.

    Decision 0 has no node; the nodes are numbered from 0, and those that are there are
    the first.

    Attributes:
      counts: of nodes, by choice of decision 0, rising.
    """

    counts: tuple[int, ...]

    def legal(self, spec: "DecisionSpec", prefix: jax.Array, t: jax.Array) -> jax.Array:
        node = jnp.array([d.node for d in spec.decisions])[t]
        count = jnp.array(self.counts)[prefix[0]]
        return (node < count) | (jnp.arange(spec.max_choices) == 0)

    def size(self, spec: "DecisionSpec") -> int:
        return sum(
            math.prod(len(d.choices) for d in spec.decisions if 0 <= d.node < count)
            for count in self.counts
        )
