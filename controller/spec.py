"""Decision specifications: what an architecture is to a search strategy.

An architecture is a vector ``decisions: int32[T]``.  A `DecisionSpec` names each of
the T decisions, its choices and its group, says which choices are legal after a
prefix of earlier ones, counts the space exactly and translates to readable text.
It is hashable plain Python; the methods that strategies call inside compiled code
(`legal`, `sample`, `mutate`, `one_hot`, `derive`) are traceable.

Shapes: T decisions, V the largest number of choices of any of them.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.codec import JSON_CODEC, Codec
from controller.graph import Graph as Graph
from controller.graph_spec import GraphSpec
from controller.rules import Distinct as Distinct
from controller.rules import FirstNodes as FirstNodes
from controller.rules import Rule as Rule
from controller.rules import enumerated, greedy


class Decision(NamedTuple):
    """One decision of a spec.

    Attributes:
      name: unique within the spec, e.g. ``"normal/3/op_left"``.
      choices: readable names of the choices, unique within the decision.
      group: decisions of one group have the same kind of choices; policies share
        embeddings within a group.  Customary: "op", "input", "skip", "combiner",
        "blocks" (how many nodes there are).
      node: the node that this decision helps to build (0, 1, ...), or -1.
      targets: for decisions about earlier nodes, the node behind each choice;
        negative numbers stand for a cell's inputs.  Empty for other decisions.  A
        skip decision ("no", "yes") names the node skipped from twice.
    """

    name: str
    choices: tuple[str, ...]
    group: str = "op"
    node: int = -1
    targets: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class DecisionSpec:
    """The decisions of a search space.

    Attributes:
      decisions: the T decisions, in the order in which a policy takes them.
      rule: legality beyond the number of choices, or None where all are independent.
      codec: the readable form; a JSON object of names where a space has no other.
      symmetries: pairs of equally long tuples of positions; where the values of both
        are exchanged, the architecture stays the same.  No position is in two pairs.

    >>> choice = ("conv", "pool", "skip")
    >>> spec = DecisionSpec((Decision("a", choice), Decision("b", choice)))
    >>> spec.size(), spec.length, spec.groups
    (9, 2, {'op': (0, 1)})
    >>> spec.encode((0, 2))
    '{"a": "conv", "b": "skip"}'
    >>> spec.decode('{"a": "pool", "b": "conv"}')
    (1, 0)
    >>> spec.validate((0, 3))
    Traceback (most recent call last):
      ...
    ValueError: decision 1 'b' is 3; legal: 0 (conv), 1 (pool), 2 (skip)
    """

    decisions: tuple[Decision, ...]
    rule: Rule | None = None
    codec: Codec = JSON_CODEC
    symmetries: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    def __post_init__(self):
        names = [d.name for d in self.decisions]
        if repeated := {n for n in names if names.count(n) > 1}:
            raise ValueError(f"decision names repeat: {', '.join(sorted(repeated))}")
        for d in self.decisions:
            if not d.choices or len(set(d.choices)) != len(d.choices):
                raise ValueError(
                    f"decision {d.name!r} needs at least one choice, and distinct ones;"
                    f" it has {d.choices}"
                )
            if d.targets and len(d.targets) != len(d.choices):
                raise ValueError(f"decision {d.name!r} needs one target a choice")

    @property
    def length(self) -> int:
        """T, the number of decisions."""
        return len(self.decisions)

    @functools.cached_property
    def num_choices(self) -> tuple[int, ...]:
        """Number of choices of each decision."""
        return tuple(len(d.choices) for d in self.decisions)

    @property
    def max_choices(self) -> int:
        """V, the largest number of choices."""
        return max(self.num_choices)

    @functools.cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Indices of the decisions of each group, groups in order of appearance."""
        members: dict[str, list[int]] = {}
        for t, decision in enumerate(self.decisions):
            members.setdefault(decision.group, []).append(t)
        return {group: tuple(indices) for group, indices in members.items()}

    def size(self) -> int:
        """The exact number of architectures."""
        return (
            math.prod(self.num_choices) if self.rule is None else self.rule.size(self)
        )

    def enumerate(self) -> Iterator[tuple[int, ...]]:
        """Every legal decision vector, in lexicographic order; for small spaces."""
        if self.rule is None:
            return itertools.product(*map(range, self.num_choices))
        return enumerated(self)

    # ---- legality -------------------------------------------------------------------

    def legal(self, prefix: jax.Array, t: jax.Array | int) -> jax.Array:
        """The choices of decision t that are legal after a prefix.

        Args:
          prefix: int32[T]; only entries before t are read.
          t: which decision, may be traced.

        Returns:
          bool[V], False beyond the decision's own number of choices.
        """
        exists = np.arange(self.max_choices) < np.array(self.num_choices)[:, None]
        mask = jnp.asarray(exists)[t]
        return mask if self.rule is None else mask & self.rule.legal(self, prefix, t)

    def is_legal(self, decisions: jax.Array) -> jax.Array:
        """bool[]: whether the whole vector is legal; traceable."""
        steps = jnp.arange(self.length)
        masks = jax.vmap(self.legal, in_axes=(None, 0))(jnp.asarray(decisions), steps)
        within = (decisions >= 0) & (decisions < jnp.array(self.num_choices))
        chosen = jnp.take_along_axis(masks, jnp.asarray(decisions)[:, None], axis=1)
        return jnp.all(chosen[:, 0] & within)

    def validate(self, decisions: Sequence[int]) -> tuple[int, ...]:
        """Returns decisions as a tuple of int.

        Raises:
          ValueError: on another length, or naming the first illegal decision, its
            value and the legal ones.
        """
        values = np.asarray(decisions)
        if values.shape != (self.length,):
            raise ValueError(
                f"expected {self.length} decisions, got shape {values.shape}"
            )
        if not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"decisions are integers, got dtype {values.dtype}")
        for t, (decision, value) in enumerate(zip(self.decisions, values, strict=True)):
            if self.rule is None:
                legal = range(len(decision.choices))
            else:
                prefix = np.where(np.arange(self.length) < t, values, 0)
                with jax.ensure_compile_time_eval():  # a fixed child is bound anywhere
                    legal = np.flatnonzero(self.legal(jnp.asarray(prefix), t)).tolist()
            if value not in legal:
                named = ", ".join(
                    f"{i} ({decision.choices[i]})"
                    if str(i) != decision.choices[i]
                    else f"{i}"
                    for i in legal
                )
                raise ValueError(
                    f"decision {t} {decision.name!r} is {value}; "
                    f"legal: {named or 'none'}"
                )
        return tuple(int(v) for v in values)

    # ---- symmetry -------------------------------------------------------------------

    def canonical(self, decisions: jax.Array) -> jax.Array:
        """One of all the vectors that `symmetries` make the same architecture.

        Of each pair the lesser values, in lexicographic order, come first.

        Args:
          decisions: int32[..., T], legal.

        Returns:
          int32[..., T].
        """
        decisions = jnp.asarray(decisions)
        for left, right in self.symmetries:
            a, b = decisions[..., np.array(left)], decisions[..., np.array(right)]
            first = jnp.argmax(a != b, axis=-1, keepdims=True)  # difference
            swap = jnp.take_along_axis(a > b, first, axis=-1)
            decisions = decisions.at[..., np.array(left)].set(jnp.where(swap, b, a))
            decisions = decisions.at[..., np.array(right)].set(jnp.where(swap, a, b))
        return decisions

    def expansions(self, node: int) -> np.ndarray:
        """Every way to build a node, once: int32[n, D], values of its D decisions.

        These are the decisions of that `Decision.node`, in order; one of each set that
        `symmetries` within the node make equal.  The rule is not asked.
        """
        members = [t for t, d in enumerate(self.decisions) if d.node == node]
        values = list(itertools.product(*(range(self.num_choices[t]) for t in members)))
        vectors = np.zeros((len(values), self.length), np.int32)
        vectors[:, members] = values
        unique = np.all(np.asarray(self.canonical(vectors)) == vectors, axis=1)
        return vectors[unique][:, members]

    # ---- random draws ---------------------------------------------------------------

    def sample(self, key: jax.Array) -> jax.Array:
        """Draws int32[T]: each decision among the choices that its prefix allows.

        They are equally likely, unless the rule has a `Rule.prior`.
        """

        rule = self.rule

        def step(prefix, inputs):
            key, t = inputs
            prior = jnp.ones(()) if rule is None else rule.prior(self, prefix, t)
            logits = jnp.where(self.legal(prefix, t), jnp.log(prior), -jnp.inf)
            return prefix.at[t].set(jax.random.categorical(key, logits)), None

        keys = jax.random.split(key, self.length)
        start = jnp.zeros(self.length, jnp.int32)
        return jax.lax.scan(step, start, (keys, jnp.arange(self.length)))[0]

    # ---- moves ----------------------------------------------------------------------

    @functools.cached_property
    def exchanges(self) -> tuple[tuple[int, int], ...]:
        """The P pairs of `Rule.exchanges`."""
        return () if self.rule is None else self.rule.exchanges(self)

    @property
    def num_moves(self) -> int:
        """M = T V + P: decision t becomes v, in turn, and then the exchanges."""
        return self.length * self.max_choices + len(self.exchanges)

    def move(self, decisions: jax.Array, i: jax.Array) -> jax.Array:
        """int32[T]: the vector after move i of M, legal where `neighbors` says so."""
        t, value = jnp.divmod(i, self.max_choices)
        changed = decisions.at[t].set(value, mode="drop")
        if not self.exchanges:
            return changed
        a, b = jnp.array(self.exchanges)[i - self.length * self.max_choices]
        swapped = decisions.at[a].set(decisions[b]).at[b].set(decisions[a])
        return jnp.where(t < self.length, changed, swapped)

    def neighbors(self, decisions: jax.Array) -> jax.Array:
        """The moves that lead to another legal vector; each to one of its own.

        Args:
          decisions: int32[T], legal.

        Returns:
          bool[M], see `num_moves`.
        """
        values = jnp.arange(self.max_choices, dtype=jnp.int32)
        different = values[None] != decisions[:, None]
        if self.rule is None:
            exists = values[None] < jnp.array(self.num_choices)[:, None]
            return (different & exists).ravel()

        def leads_to_legal(i):
            return self.is_legal(self.move(decisions, i))

        legal = jax.vmap(leads_to_legal)(jnp.arange(self.num_moves))
        single = legal[: different.size].reshape(different.shape) & different
        if not self.exchanges:
            return single.ravel()
        a, b = jnp.array(self.exchanges).T
        x, y = decisions[a], decisions[b]
        both = legal[different.size :] & (x != y) & ~single[a, y] & ~single[b, x]
        return jnp.concatenate([single.ravel(), both])

    def mutate(
        self, key: jax.Array, decisions: jax.Array, weights: jax.Array | None = None
    ) -> jax.Array:
        """Makes one move, see `neighbors`; where there is none, the vector stays.

        Without exchanges the decision is drawn among those that can change, and its
        value uniformly over its alternatives; with them, all moves are equally likely.

        Args:
          key: consumed.
          decisions: int32[T], legal.
          weights: float[T], relative probability of each decision, and of the first of
            an exchange; None for equal ones.

        Returns:
          int32[T], legal.
        """
        moves = self.neighbors(decisions)
        weights = jnp.ones(self.length) if weights is None else weights
        if self.exchanges:
            a, _ = jnp.array(self.exchanges).T
            weights = jnp.append(jnp.repeat(weights, self.max_choices), weights[a])
            logits = jnp.where(moves, jnp.log(weights), -jnp.inf)
            i = jax.random.categorical(key, jnp.where(moves.any(), logits, 0.0))
            return jnp.where(moves.any(), self.move(decisions, i), decisions)
        table = moves.reshape(self.length, self.max_choices)
        position_key, value_key = jax.random.split(key)
        movable = jnp.any(table, axis=1)
        masked = jnp.where(movable, jnp.log(weights), -jnp.inf)
        t = jax.random.categorical(position_key, jnp.where(movable.any(), masked, 0.0))
        row = jnp.where(table[t], 0.0, -jnp.inf)
        value = jax.random.categorical(value_key, row).astype(jnp.int32)
        return jnp.where(movable.any(), decisions.at[t].set(value), decisions)

    # ---- relaxation -----------------------------------------------------------------

    @functools.cached_property
    def relaxed(self) -> dict[str, tuple[int, int]]:
        """Shapes of the relaxed weights by group: a row a decision, padded choices."""
        return {
            group: (len(members), max(self.num_choices[t] for t in members))
            for group, members in self.groups.items()
        }

    def one_hot(self, decisions: jax.Array) -> dict[str, jax.Array]:
        """Relaxed weights that stand for one architecture.

        Args:
          decisions: int32[T].

        Returns:
          float32 of shape `relaxed[group]` for each group.
        """
        decisions = jnp.asarray(decisions)
        return {
            group: jax.nn.one_hot(decisions[jnp.array(members)], self.relaxed[group][1])
            for group, members in self.groups.items()
        }

    def derive(self, weights: Mapping[str, jax.Array]) -> jax.Array:
        """Decodes relaxed weights, traceable.

        A rule may have its own way, `Rule.derive`; without one, the heaviest legal
        choice of each decision in turn, the first of several that are equal.

        Args:
          weights: as `relaxed`.

        Returns:
          int32[T], legal.
        """
        table = jnp.full((self.length, self.max_choices), -jnp.inf)
        for group, members in self.groups.items():
            width = self.relaxed[group][1]
            table = table.at[jnp.array(members), :width].set(weights[group])

        return (
            greedy(self, table) if self.rule is None else self.rule.derive(self, table)
        )

    # ---- readable form --------------------------------------------------------------

    def encode(self, decisions: Sequence[int]) -> str:
        """The readable form of legal decisions; `decode` reads it back."""
        return self.codec.encode(self, self.validate(decisions))

    def decode(self, text: str) -> tuple[int, ...]:
        """Reads decisions from text, validated.

        Raises:
          ValueError: if the text is not of this space, or names an illegal decision.
        """
        return self.validate(self.codec.decode(self, text))


def has_levels(spec: DecisionSpec) -> bool:
    """Whether decision 0, of group "blocks", counts them one by one, from 1 on."""
    first = spec.decisions[0]
    numbers = range(1, len(first.choices) + 1)
    return first.group == "blocks" and first.choices == tuple(map(str, numbers))


Spec = DecisionSpec | GraphSpec
"""What a space has: decisions, or graphs without bound."""
