"""A search space at a glance: its decisions, and how large its networks are.

Shapes suffice: nothing is loaded or compiled.  Networks take a moment each to count, so
that of many samples some are counted and the others estimated from them.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from child_models.cost import Cost, count
from child_models.types import Space
from controller.spec import DecisionSpec
from launch.tables import align

SAMPLES = 1000
SECONDS = 8.0
_FIRST = 8  # samples that are counted before any is estimated
_NAMES = 72  # columns for the names of choices


def decisions_table(spec: DecisionSpec) -> str:
    """A line a group of decisions: how many there are, and the choices of each."""
    rows = [("group", "decisions", "choices", "names")]
    for group, members in spec.groups.items():
        numbers = sorted({spec.num_choices[t] for t in members})
        span = f"{numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{numbers[0]}"
        names = dict.fromkeys(c for t in members for c in spec.decisions[t].choices)
        text = " ".join(names)
        if len(text) > _NAMES:
            text = f"{text[: _NAMES - 4]} ..."
        rows.append((group, str(len(members)), span, text))
    return "\n".join(align(rows, left=(0, 3)))


# ---- sizes of networks --------------------------------------------------------------


class Sizes(NamedTuple):
    """Networks of some samples, by their parameters.

    Attributes:
      named: cost of the "smallest", "median" and "largest".
      counted: how many were counted.
      samples: how many there were.
    """

    named: dict[str, Cost]
    counted: int
    samples: int


def sizes(
    space: Space,
    image: Sequence[int],
    *,
    samples: int = SAMPLES,
    seconds: float = SECONDS,
) -> Sizes:
    """Finds the smallest, median and largest of random architectures, final form.

    Where time does not suffice to count all, least squares on how often each choice is
    taken tells which are worth counting.

    Args:
      space: of the architectures.
      image: (H, W, C).
      samples: how many to draw.
      seconds: that counting may take; eleven are counted in any case.
    """
    keys = jax.random.split(jax.random.key(0), samples)
    drawn = np.asarray(jax.vmap(space.spec.sample)(keys))
    features = _features(space.spec, drawn)
    counted: dict[int, Cost] = {}
    begin = time.monotonic()
    wanted = list(range(min(_FIRST, samples)))
    while wanted:
        for i in wanted:
            bound = space.bind(drawn[i])
            counted[i] = count(space.module("final"), bound, image)
        order = np.argsort(_estimate(counted, features), kind="stable").tolist()
        picked = [order[0], order[-1], order[len(order) // 2]]
        if time.monotonic() - begin > seconds and len(counted) > _FIRST:
            break
        left = [*picked, *_missing(order, counted)]
        wanted = [i for i in dict.fromkeys(left) if i not in counted][:3]
    return _named(counted, features)


def _missing(order: list[int], counted) -> list[int]:
    """Those that are not counted, from both ends inwards."""
    left = [i for i in order if i not in counted]
    return [i for pair in zip(left, reversed(left), strict=True) for i in pair]


def _features(spec: DecisionSpec, drawn: np.ndarray) -> np.ndarray:
    """float[n, F]: how often each choice of a group is taken; 1."""
    columns = [np.ones(len(drawn))]
    for members in spec.groups.values():
        most = max(spec.num_choices[t] for t in members)
        columns += [np.sum(drawn[:, members] == v, axis=1) for v in range(1, most)]
    return np.stack(columns, axis=1).astype(float)


def _estimate(counted: dict[int, Cost], features: np.ndarray) -> np.ndarray:
    """Parameters of all samples; those that are counted exactly."""
    rows = list(counted)
    params = np.array([counted[i].params for i in rows], float)
    mean, known = params.mean(), features[rows]
    ridge = 1e-3 * np.eye(features.shape[1])
    solved = np.linalg.solve(known.T @ known + ridge, known.T @ (params - mean))
    estimate = features @ solved + mean
    estimate[rows] = params
    return estimate


def _named(counted: dict[int, Cost], features: np.ndarray) -> Sizes:
    order = np.argsort(_estimate(counted, features), kind="stable")
    by_size = sorted(counted.values())
    middle = np.flatnonzero(np.isin(order, list(counted)))
    nearest = order[middle[np.argmin(np.abs(middle - len(order) // 2))]]
    named = {
        "smallest": by_size[0],
        "median": counted[int(nearest)],
        "largest": by_size[-1],
    }
    return Sizes(named, len(counted), len(features))


def sizes_table(found: Sizes) -> str:
    """A line a network, and what they are out of."""
    rows = [("network", "params", "macs")]
    for name, cost in found.named.items():
        rows.append((name, f"{cost.params:,}", f"{cost.macs:,}"))
    note = f"of {found.samples:,} random architectures, by parameters"
    if found.counted < found.samples:
        note += f"; {found.counted} were counted, the others estimated from these"
    return "\n".join([*align(rows), note])
