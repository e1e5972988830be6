"""The cost of any architecture of a space, from its decisions alone.

A cost is a sum over conditions: ``c(d) = sum_i a_i prod_t [d_t in A_it]`` with integers
``a_i``, see `child_models.cost_terms`.  The sum is exact; it is traceable; and where
decisions are independent draws, ``E c = sum_i a_i prod_t p_t(A_it)`` is exact too, and
differentiable: ProxylessNAS's expected latency (https://arxiv.org/abs/1812.00332,
section 4.1), of which that of sums over ops is a special case.

Shapes: n architectures, T decisions, V choices, I conditions of A decisions each.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from child_models.cost_terms import Term, Unit, When
from controller.spec import DecisionSpec

_DIGIT = 2**16  # sums are carried as high * 2^16 + low, exact in int32
_LARGEST = 2**46


class _Conditions(NamedTuple):
    """Those of one number A of decisions."""

    decisions: np.ndarray  # int32[I, A]
    allowed: np.ndarray  # bool[I, A, V]
    amount: np.ndarray  # int64[I]


@dataclasses.dataclass(frozen=True)
class CostModel:
    """A cost of one kind of all architectures of a space.

    Attributes:
      spec: of the space.
      base: what all have in common.
      conditions: what depends on decisions.
    """

    spec: DecisionSpec
    base: int
    conditions: tuple[_Conditions, ...]

    def count(self, decisions: Sequence[int]) -> int:
        """The exact cost of int[T], on the host."""
        return int(self.counts(np.asarray(decisions)[None])[0])

    def counts(self, decisions: np.ndarray) -> np.ndarray:
        """The exact costs int64[n] of int[n, T], on the host."""
        totals = np.full(len(decisions), self.base, np.int64)
        for c in self.conditions:
            totals += _holds(np, c, decisions) @ c.amount
        return totals

    def traced(self, decisions: jax.Array) -> jax.Array:
        """float32[n] of int32[n, T], traceable; exact but for the last rounding."""
        high, low = self._digits(decisions)
        return high.astype(jnp.float32) * _DIGIT + low.astype(jnp.float32)

    def within(self, decisions: jax.Array, limit: float) -> jax.Array:
        """bool[n]: whether the costs of int32[n, T] are at most the limit, exactly."""
        most = int(np.floor(np.clip(limit, -_LARGEST, _LARGEST)))
        high, low = self._digits(decisions)
        return (high < most // _DIGIT) | (
            (high == most // _DIGIT) & (low <= most % _DIGIT)
        )

    def expected(self, weights: Mapping[str, jax.Array]) -> jax.Array:
        """The expected cost of independent draws, traceable and differentiable.

        Args:
          weights: probabilities of the choices, like `DecisionSpec.relaxed`.  Edges
            that a space's rule would leave out count as the others.

        Returns:
          float32[].
        """
        table = jnp.zeros((self.spec.length, self.spec.max_choices))
        for group, members in self.spec.groups.items():
            width = self.spec.relaxed[group][1]
            table = table.at[jnp.array(members), :width].set(weights[group])
        total = jnp.float32(self.base)
        for c in self.conditions:
            share = jnp.sum(table[c.decisions] * c.allowed, axis=-1)
            amount = jnp.asarray(c.amount, jnp.float32)
            total = total + jnp.sum(amount * jnp.prod(share, axis=-1))
        return total

    def _digits(self, decisions):
        """(high, low) int32[n] of int32[n, T], 0 <= low < 2^16."""
        high, low = jnp.int32(self.base // _DIGIT), jnp.int32(self.base % _DIGIT)
        for c in self.conditions:
            holds = _holds(jnp, c, decisions).astype(jnp.int32)
            high = high + holds @ jnp.asarray(c.amount // _DIGIT, jnp.int32)
            low = low + holds @ jnp.asarray(c.amount % _DIGIT, jnp.int32)
        return high + low // _DIGIT, low % _DIGIT

    @functools.cached_property
    def floor(self) -> int:
        """No architecture costs less; some may not cost so little."""
        tables = np.zeros((self.spec.length, self.spec.max_choices), np.int64)
        floor = self.base
        for c in self.conditions:
            if c.decisions.shape[1] == 1:
                shares = c.allowed[:, 0] * c.amount[:, None]
                np.add.at(tables, c.decisions[:, 0], shares)
            else:
                floor += int(np.minimum(c.amount, 0).sum())
        choices = zip(tables, self.spec.num_choices, strict=True)
        return floor + sum(int(row[:n].min()) for row, n in choices)

    def smallest(self, starts: int = 8) -> tuple[int, tuple[int, ...], bool]:
        """The least cost that is found by going downhill from some random starts.

        Returns:
          the cost, its decisions, and whether none can be less.
        """
        spec = self.spec
        neighbors, sample = jax.jit(spec.neighbors), jax.jit(spec.sample)
        move = jax.jit(jax.vmap(spec.move, (None, 0)))
        every = jnp.arange(spec.num_moves)
        best, decisions = None, None
        for i in range(starts):
            here = np.asarray(sample(jax.random.key(i)))
            cost = self.count(here)
            while True:
                around = np.asarray(move(here, every))[np.asarray(neighbors(here))]
                costs = self.counts(around)
                if not len(costs) or costs.min() >= cost:
                    break
                cost, here = int(costs.min()), around[np.argmin(costs)]
            if best is None or cost < best:
                best, decisions = cost, here
            if best == self.floor:
                break
        return best, tuple(decisions.tolist()), best == self.floor


def cost_model(
    spec: DecisionSpec, terms: Iterable[Term], price: Callable[[Unit], int]
) -> CostModel:
    """Adds up what units cost.

    Args:
      spec: of the space.
      terms: of its networks, ``space.terms(image)``.
      price: of a unit.

    Raises:
      ValueError: on costs too large to be added exactly.
    """
    sums: dict[When, int] = {}
    for when, units in terms:
        amount = sum(times * price(unit) for unit, times in units)
        sums[when] = sums.get(when, 0) + amount
    if sum(map(abs, sums.values())) >= _LARGEST:
        raise ValueError(f"costs add up to more than {_LARGEST}")
    base, by_arity = sums.pop((), 0), {}
    for when, amount in sums.items():
        if amount:
            by_arity.setdefault(len(when), []).append((when, amount))
    conditions = tuple(
        _conditions(spec, arity, by_arity[arity]) for arity in sorted(by_arity)
    )
    return CostModel(spec, base, conditions)


def _conditions(spec, arity, items) -> _Conditions:
    decisions = np.zeros((len(items), arity), np.int32)
    allowed = np.zeros((len(items), arity, spec.max_choices), bool)
    for i, (when, _) in enumerate(items):
        for a, (t, choices) in enumerate(when):
            decisions[i, a] = t
            allowed[i, a, list(choices)] = True
    return _Conditions(decisions, allowed, np.array([a for _, a in items], np.int64))


def _holds(xp: Any, c: _Conditions, decisions: Any) -> Any:
    """bool[n, I], by NumPy or JAX."""
    rows, columns = np.indices(c.decisions.shape)
    taken = decisions[:, c.decisions]
    return xp.all(xp.asarray(c.allowed)[rows, columns, taken], axis=2)
