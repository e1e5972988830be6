"""Whole searches under a budget, hundreds of seeds at once.

Where nothing is trained between proposals, as on a table, the search of a seed is a
scan of (propose, evaluate, update), and the searches of all seeds one compiled program
under `vmap`.

Shapes: S seeds, E evaluations, n architectures a proposal, T decisions.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.types import Evaluator, Strategy, check_gradients


class Budget(NamedTuple):
    """What a search may spend; one of the two is None.

    Attributes:
      seconds: the sum of what evaluations cost; one that would exceed it is not made.
      evaluations: their number.
    """

    seconds: float | None = None
    evaluations: int | None = None

    def check(self, dearest: float) -> None:
        """Checks that every evaluation can be paid for.

        Args:
          dearest: cost of one, in seconds.

        Raises:
          ValueError: if none or both are given, or one evaluation exceeds it, or it is
            infinite.

        >>> Budget(evaluations=100).check(dearest=2.0)
        >>> Budget(seconds=1.0).check(dearest=2.0)
        Traceback (most recent call last):
          ...
        ValueError: seconds is 1; one evaluation costs up to 2 seconds
        """
        if (self.seconds is None) == (self.evaluations is None):
            raise ValueError(
                f"the budget has seconds={self.seconds} and evaluations="
                f"{self.evaluations}; give one of them"
            )
        if self.evaluations is not None and self.evaluations < 1:
            raise ValueError(f"evaluations is {self.evaluations}; it must be 1 or more")
        if self.seconds == math.inf:
            raise ValueError("seconds is infinite; no search would end")
        if self.seconds is not None and not self.seconds >= dearest:
            raise ValueError(
                f"seconds is {self.seconds:g}; one evaluation costs up to "
                f"{dearest:.4g} seconds"
            )


class History(NamedTuple):
    """What searches did, in order; on the host.

    Attributes:
      decisions: int16[S, E, T].
      reward: float32[S, E], -inf of invalid trials.
      cost: float32[S, E], seconds.
      paid: bool[S, E], within the budget; False only at the end of a row, where the
        others hold nothing.
    """

    decisions: np.ndarray
    reward: np.ndarray
    cost: np.ndarray
    paid: np.ndarray

    def incumbent(self) -> np.ndarray:
        """int[S, E]: which evaluation was the best so far, the first of equal ones.

        -1 before one was valid.
        """
        reward = np.where(self.paid, self.reward, -np.inf)
        is_record = (
            reward
            > np.maximum.accumulate(
                np.pad(reward, ((0, 0), (1, 0)), constant_values=-np.inf), axis=1
            )[:, :-1]
        )
        steps = np.where(is_record, np.arange(reward.shape[1]), -1)
        return np.maximum.accumulate(steps, axis=1)


def many_searches(
    strategy: Strategy,
    evaluator: Evaluator,
    *,
    samples: int = 1,
    chunk: int = 16,
    slots: int = 100,
) -> Callable[[jax.Array, Budget], History]:
    """Builds ``(keys [S], budget) -> History``, which searches once a key.

    A search depends on its own key alone.  The program is compiled at the first call,
    and serves all later ones of as many slots.

    Args:
      strategy: proposes and learns.
      evaluator: of which only `evaluate` is used.
      samples: n.
      chunk: steps of one compiled call; results do not depend on it.
      slots: searches that run side by side; a finished one makes room for the next.

    Raises:
      ValueError: if the strategy needs gradients, and the evaluator gives none.
    """
    check_gradients(strategy, evaluator)
    step = _step(strategy, evaluator, samples)

    def start(key):
        strategy_key, evaluator_key, run_key = jax.random.split(key, 3)
        state = strategy.init(strategy_key)
        return state, evaluator.init(evaluator_key, evaluator.data), run_key

    compiled = _compiled(start, step, chunk)

    def run(keys, budget):
        if strategy.traceable:
            width = min(slots, len(keys))
            found = _side_by_side(compiled, keys, evaluator.data, budget, chunk, width)
        else:
            found = [_on_host(start, step, k, evaluator.data, budget) for k in keys]
        return _stacked([_within(search, budget) for search in found])

    return run


def _step(strategy, evaluator, samples):
    def step(carry, i, data):
        state, evaluator_state, run_key = carry
        keys = jax.random.split(jax.random.fold_in(run_key, i), 3)
        proposal, state = strategy.propose(keys[0], state, samples)
        evaluator_state, trial = evaluator.evaluate(
            keys[1], evaluator_state, data, proposal
        )
        state, _ = strategy.update(keys[2], state, trial)
        reward = jnp.where(trial.valid, trial.reward, -jnp.inf)
        cost = jnp.ones_like(reward) if trial.cost is None else trial.cost[:, 0]
        row = (proposal.decisions.astype(jnp.int16), reward, cost)
        return (state, evaluator_state, run_key), row

    return step


def _compiled(start, step, chunk):
    """Compiled: begin all slots, begin some of them anew, advance all by a chunk."""

    @functools.partial(jax.jit, donate_argnums=0)
    def replace(carry, is_new, keys):
        def choose(new, old):
            flags = is_new.reshape((-1,) + (1,) * (new.ndim - 1))
            return jax.lax.select(jnp.broadcast_to(flags, new.shape), new, old)

        return jax.tree.map(choose, jax.vmap(start)(keys), carry)

    @functools.partial(jax.jit, donate_argnums=0)
    def advance(carry, first, data):
        def one(carry, first):
            steps = first + jnp.arange(chunk)
            return jax.lax.scan(lambda c, i: step(c, i, data), carry, steps)

        return jax.vmap(one)(carry, first)

    return jax.jit(jax.vmap(start)), replace, advance


def _side_by_side(compiled, keys, data, budget, chunk, slots) -> list[tuple]:
    """(decisions, reward, cost) of every seed, at least as many as it can pay for."""
    begin, replace, advance = compiled
    parts: list[list[tuple]] = [[] for _ in keys]
    running = np.arange(slots)  # the seed in each slot, -1 for none
    first = np.zeros(slots, np.int32)
    waiting = iter(range(slots, len(keys)))
    carry = begin(keys[:slots])
    while (running >= 0).any():
        carry, rows = advance(carry, first, data)
        first = first + chunk
        rows = jax.tree.map(np.asarray, rows)
        is_new = np.zeros(slots, bool)
        for slot in np.flatnonzero(running >= 0):
            # [chunk, n, ...] -> [chunk * n, ...]
            parts[running[slot]].append(
                tuple(x[slot].reshape(-1, *x.shape[3:]) for x in rows)
            )
            if _is_spent(parts[running[slot]], budget):
                running[slot] = next(waiting, -1)
                is_new[slot] = running[slot] >= 0
        if is_new.any():
            carry = replace(carry, is_new, keys[np.maximum(running, 0)])
            first = np.where(is_new, 0, first)
    return [_joined(search) for search in parts]


def _on_host(start, step, key, data, budget) -> tuple:
    """(decisions, reward, cost) of one seed, step by step."""
    carry, rows = start(key), []
    while not rows or not _is_spent(rows, budget):
        carry, row = step(carry, len(rows), data)
        rows.append(jax.tree.map(np.asarray, row))
    return _joined(rows)


def _joined(parts):
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _is_spent(parts, budget) -> bool:
    if budget.evaluations is not None:
        return sum(len(reward) for _, reward, _ in parts) >= budget.evaluations
    return sum(cost.sum(dtype=np.float64) for _, _, cost in parts) > budget.seconds


def _within(search, budget) -> tuple:
    """What of a search its budget pays for."""
    cost = search[2]
    n = budget.evaluations
    if n is None:
        spent = np.cumsum(cost, dtype=np.float64)
        n = int(np.searchsorted(spent, budget.seconds, side="right"))
    return tuple(array[:n] for array in search)


def _stacked(searches) -> History:
    """One history of all seeds, rows filled up to the longest."""
    lengths = np.array([len(reward) for _, reward, _ in searches])

    def fill(arrays, value):
        rows = [
            np.pad(
                array,
                [(0, lengths.max() - len(array))] + [(0, 0)] * (array.ndim - 1),
                constant_values=value,
            )
            for array in arrays
        ]
        return np.stack(rows)

    decisions, reward, cost = zip(*searches, strict=True)
    paid = np.arange(lengths.max()) < lengths[:, None]
    return History(fill(decisions, 0), fill(reward, -np.inf), fill(cost, 0), paid)
