"""The final choice: candidates are scored again on the whole validation split."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from controller.graph_spec import trim
from controller.loop import SearchState
from controller.spec import Spec
from controller.types import Strategy
from launch.build import Search
from launch.command import UserError

_KEY_NUMBER = 0xFFFFFFFF  # no tick has it


def derive(
    search: Search, state: SearchState, *, between: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Scores the candidates and sorts them, the best one first.

    Args:
      search: the objects of the search.
      state: at its end.
      between: called before each candidate, and may raise.

    Returns:
      {"decisions", "genotype", "reward", "source"} each; reward is None where the score
      was not finite.  With a cost in the objective, the reward is the objective's, and
      there are "value", the score, and "cost" too.
    """
    scored = []
    for decisions, source in final_candidates(search, state):
        between()
        score = float(search.loop.score(state, np.array(decisions, np.int32)))
        more, reward = {}, score
        if search.costs is not None:
            cost = float(search.costs.count(decisions))
            reward = float(search.objective.reward(score, cost))
            more = {"value": score if math.isfinite(score) else None, "cost": cost}
        scored.append(
            {
                "decisions": list(decisions),
                "genotype": search.space.spec.encode(decisions),
                "reward": reward if math.isfinite(reward) else None,
                "source": source,
                **more,
            }
        )
    return sorted(scored, key=_loss)


def final_candidates(
    search: Search, state: SearchState
) -> list[tuple[tuple[int, ...], str]]:
    """The `candidates` of a search that are within the limit of its objective.

    Raises:
      UserError: if there is none.
    """
    parts = (search.space.spec, search.strategy, state, search.config.derive.n)
    if search.costs is None or (limit := search.objective.limit) is None:
        return candidates(*parts)
    found = candidates(*parts, lambda row: search.costs.count(row) <= limit)
    if not found:
        raise UserError(
            f"config.objective.limit is {limit:g}; no candidate is within it; "
            "raise it, or config.objective.redraws"
        )
    return found


def candidates(
    spec: Spec,
    strategy: Strategy,
    state: SearchState,
    n: int,
    fits: Callable[[Sequence[int]], bool] = lambda decisions: True,
) -> list[tuple[tuple[int, ...], str]]:
    """At most n distinct architectures: in turn the policy's, and the best of history.

    Args:
      spec: of the space.
      strategy: gives its own by `best`.
      state: holds the best scored architectures.
      n: how many.
      fits: says whether an architecture may be chosen.

    Returns:
      (decisions, "policy" or "history") each.
    """
    key = jax.random.fold_in(state.key, _KEY_NUMBER)
    best = np.asarray(strategy.best(key, state.strategy, n))
    rewards, table = np.asarray(state.top_reward), np.asarray(state.top_decisions)
    order = [i for i in np.argsort(-rewards, kind="stable") if np.isfinite(rewards[i])]
    queues = {
        source: list(filter(fits, _distinct(rows)))
        for source, rows in (("policy", best), ("history", table[order]))
    }
    chosen: dict[tuple[int, ...], str] = {}
    while len(chosen) < n and any(queues.values()):
        for source, queue in queues.items():
            while queue and queue[0] in chosen:
                queue.pop(0)
            if queue and len(chosen) < n:
                chosen[queue.pop(0)] = source
    return [(spec.validate(decisions), source) for decisions, source in chosen.items()]


def _loss(candidate: dict[str, Any]) -> float:
    """Sorting key; of equal ones the first proposed wins, as the sort is stable."""
    reward = candidate["reward"]
    return math.inf if reward is None else -reward


def _distinct(rows: Iterable[Sequence[int]]) -> list[tuple[int, ...]]:
    return list(dict.fromkeys(trim(row) for row in rows))
