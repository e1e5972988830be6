"""Whole searches under a budget, hundreds of seeds at once.

Where nothing is trained between proposals, as on a table, the search of a seed is a
scan of (propose, evaluate, update), and the searches of all seeds one compiled program
under `vmap`.

Shapes: S seeds, E evaluations, n architectures a proposal, T decisions.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.types import Evaluator, Strategy


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
          ValueError: if none or both are given, or one evaluation exceeds it.
        """
        if (self.seconds is None) == (self.evaluations is None):
            raise ValueError(
                f"budget has seconds={self.seconds} and evaluations={self.evaluations};"
                " give one of them"
            )
        if self.evaluations is not None and self.evaluations < 1:
            raise ValueError(
                f"budget.evaluations is {self.evaluations}; it must be 1 or more"
            )
        if self.seconds is not None and not self.seconds >= dearest:
            raise ValueError(
                f"budget.seconds is {self.seconds:g}; one evaluation costs up to "
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
        """int[S, E]: which evaluation was the best so far, the first of equal ones."""
        reward = np.where(self.paid, self.reward, -np.inf)
        is_record = (
            reward
            > np.maximum.accumulate(
                np.pad(reward, ((0, 0), (1, 0)), constant_values=-np.inf), axis=1
            )[:, :-1]
        )
        steps = np.where(is_record, np.arange(reward.shape[1]), 0)
        return np.maximum.accumulate(steps, axis=1)


def run_seeds(
    strategy: Strategy,
    evaluator: Evaluator,
    keys: jax.Array,
    budget: Budget,
    *,
    samples: int = 1,
    chunk: int = 32,
) -> History:
    """Searches once a key.

    Args:
      strategy: proposes and learns.
      evaluator: of which only `evaluate` is used.
      keys: key[S]; a search depends on its own key alone.
      budget: of each search.
      samples: n.
      chunk: steps of one compiled call; results do not depend on it.

    Returns:
      the History; E is a multiple of n * chunk unless the budget counts evaluations.
    """
    step = _step(strategy, evaluator, samples)

    def start(key):
        strategy_key, evaluator_key, run_key = jax.random.split(key, 3)
        state = strategy.init(strategy_key)
        return state, evaluator.init(evaluator_key, evaluator.data), run_key

    def advance(carry, first, data):
        return jax.lax.scan(
            lambda c, i: step(c, i, data), carry, first + jnp.arange(chunk)
        )

    if strategy.traceable:
        carry = jax.jit(jax.vmap(start))(keys)
        run = jax.jit(jax.vmap(advance, in_axes=(0, None, None)), donate_argnums=0)
        return _collect(lambda c, i: run(c, i, evaluator.data), carry, budget, chunk)
    histories = []
    for key in keys:

        def one(carry, first):
            carry, rows = step(carry, first, evaluator.data)
            return carry, jax.tree.map(lambda x: np.asarray(x)[None, None], rows)

        histories.append(_collect(one, start(key), budget, 1))
    return _stacked(histories)


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


def _collect(run, carry, budget, chunk) -> History:
    """Runs chunks until every seed has spent its budget."""
    parts: list[Any] = []
    steps = 0
    while True:
        carry, rows = run(carry, steps)
        steps += chunk
        # [S, chunk, n, ...] -> [S, chunk * n, ...]
        parts.append(
            jax.tree.map(
                lambda x: np.asarray(x).reshape(x.shape[0], -1, *x.shape[3:]), rows
            )
        )
        decisions, reward, cost = (
            np.concatenate(p, 1) for p in zip(*parts, strict=True)
        )
        if budget.evaluations is not None:
            if reward.shape[1] >= budget.evaluations:
                keep = slice(0, budget.evaluations)
                decisions, reward, cost = (
                    decisions[:, keep],
                    reward[:, keep],
                    cost[:, keep],
                )
                return History(decisions, reward, cost, np.ones(reward.shape, bool))
        else:
            paid = np.cumsum(cost, axis=1, dtype=np.float64) <= budget.seconds
            if not paid[:, -1].any():
                paid = paid[:, : int(paid.sum(axis=1).max())]
                return _blanked(decisions, reward, cost, paid)


def _blanked(decisions, reward, cost, paid) -> History:
    """Without what was not paid for."""
    n = paid.shape[1]
    return History(
        np.where(paid[..., None], decisions[:, :n], 0),
        np.where(paid, reward[:, :n], -np.inf),
        np.where(paid, cost[:, :n], 0),
        paid,
    )


def _stacked(histories) -> History:
    """One history of all seeds, rows filled up to the longest."""
    most = max(h.reward.shape[1] for h in histories)

    def fill(x, value=0):
        width = [(0, 0), (0, most - x.shape[1])] + [(0, 0)] * (x.ndim - 2)
        return np.pad(x, width, constant_values=value)

    return History(
        np.concatenate([fill(h.decisions) for h in histories]),
        np.concatenate([fill(h.reward, -np.inf) for h in histories]),
        np.concatenate([fill(h.cost) for h in histories]),
        np.concatenate([fill(h.paid, False) for h in histories]),
    )
