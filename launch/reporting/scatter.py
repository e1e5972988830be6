"""Scored architectures against what they cost, thinned so that a page can hold them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.reporting.run import Run, Scored, card, rounded

COUNTS = {"params": "parameters", "macs": "multiply-adds"}


def cost_names(config: Mapping[str, Any], number: int) -> list[str]:
    """What the objectives are called that trials carry beside their reward.

    Args:
      config: of the search.
      number: K, of objectives.
    """
    if (cost := config.get("objective", {}).get("cost")) is not None:
        return [f"the objective's cost: {COUNTS.get(cost, 'latency in ms')}"]
    if config["evaluator"]["name"] == "tabular" and number == 1:
        return ["seconds of training"]
    return ["cost"] if number == 1 else [f"cost {k}" for k in range(1, number + 1)]


def scatter(run: Run, found: Scored, counts: Mapping, points: int) -> dict[str, Any]:
    """Scored architectures, by what may stand on the horizontal axis.

    Args:
      run: of the search.
      found: its architectures.
      counts: of some of them.
      points: most points of an axis; where there are more trials, a point stands for
        all of a small rectangle, and shows the best of them.

    Returns:
      {"axes": {NAME: {"label", "points": [[x, reward, count, architecture]], "front",
      "plain"}}, "architectures": [{"encoding", "text", "reward", "round", ...}]}.
      "front" lists points that no other beats in both, where less of the axis is
      better; "plain" says whether rewards are those without the objective's cost.
    """
    trials = run.trials
    index: dict[str, int] = {}
    axes = {}
    valid = np.flatnonzero(np.isfinite(trials.reward))
    choices = {"trial": (valid.astype(float) + 1, valid)}
    labels = {"trial": "trial", **COUNTS}
    for name in COUNTS:
        counted = [i for i, text in enumerate(found.decisions) if text in counts]
        if counted:
            x = np.array([counts[found.decisions[i]][name] for i in counted], float)
            choices[name] = (x, found.first[counted])
    for k, label in enumerate(cost_names(run.config, trials.cost.shape[1])):
        kept = valid[np.isfinite(trials.cost[valid, k])]
        if len(kept):
            choices[f"cost{k}"] = (trials.cost[kept, k], kept)
            labels[f"cost{k}"] = label
    judged = run.config["objective"]["name"] != "reward"
    for name, (x, members) in choices.items():
        plain = judged and name != "trial"  # a cost counts once, on its own axis
        y = (trials.value if plain else trials.reward)[members]
        front = [] if name == "trial" else pareto(x, y)
        shown, sizes = _thin(x, y, points, front)
        places = [
            index.setdefault(trials.decisions[members[i]], len(index)) for i in shown
        ]
        axes[name] = {
            "label": labels[name],
            "points": [
                [rounded(x[i]), rounded(y[i]), n, place]
                for i, n, place in zip(shown, sizes, places, strict=True)
            ],
            "front": [shown.index(i) for i in front],
            "plain": plain,
        }
    reward = dict(zip(found.decisions, found.reward.tolist(), strict=True))
    first = dict(zip(found.decisions, found.first.tolist(), strict=True))
    return {
        "axes": axes,
        "architectures": [
            card(run, text, reward[text], int(trials.round[first[text]]), counts)
            for text in index
        ],
    }


def pareto(x: np.ndarray, y: np.ndarray) -> list[int]:
    """Indices of the points that none beats: less of x and more of y, by x.

    >>> pareto(np.array([3.0, 1.0, 2.0]), np.array([0.5, 0.2, 0.1]))
    [1, 0]
    """
    front, best = [], -np.inf
    for i in np.lexsort((-y, x)).tolist():
        if y[i] > best:
            front.append(i)
            best = y[i]
    return front


def _thin(x, y, points: int, keep: Sequence[int]) -> tuple[list[int], list[int]]:
    """The best of each rectangle of a grid, and how many are in it; `keep` stay."""
    if len(x) <= points:
        return list(range(len(x))), [1] * len(x)
    columns = max(1, int(np.sqrt(points * 1.5)))
    cell = _bin(x, columns) * points + _bin(y, max(1, points // columns))
    order = np.lexsort((-y, cell))
    _, starts, sizes = np.unique(cell[order], return_index=True, return_counts=True)
    shown = dict(zip(order[starts].tolist(), sizes.tolist(), strict=True))
    shown |= {i: shown.get(i, 1) for i in keep}
    return list(shown), list(shown.values())


def _bin(values: np.ndarray, bins: int) -> np.ndarray:
    span = np.ptp(values) or 1.0
    return np.minimum(((values - values.min()) / span * bins).astype(int), bins - 1)
