"""One workdir as a report shows it: plain JSON, aggregated so that its size is bounded.

Shapes: R rounds, N trials; at most `BINS` points a curve and a given number of points a
scatter, whatever R and N are.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from child_models.types import Space
from launch.architectures import Subject, find
from launch.build import resolve
from launch.command import UserError
from launch.describe import build, describe
from launch.figures.text import picture
from launch.final import final_config
from launch.rounds import decisions_of, text_of
from launch.store import read_rounds, read_scored
from launch.workdir import read_commands, read_config, read_result, read_retrained

BINS = 240
CURVES = {
    "reward_mean": "mean reward",
    "best": "best reward so far",
    "baseline": "baseline",
    "entropy": "entropy of the policy, nats",
    "child_loss": "child loss",
    "child_accuracy": "child accuracy",
    "distinct": "share of different architectures",
    "hessian": "dominant Hessian eigenvalue of the validation loss",
}


class Trials(NamedTuple):
    """The trials of a search, in order; N of them."""

    round: np.ndarray  # int[N]
    decisions: list[str]
    encoding: dict[str, str | None]  # by decisions
    reward: np.ndarray  # float[N], NaN where a trial is not valid
    value: np.ndarray  # float[N], what is reported beside it; NaN where there is none
    cost: np.ndarray  # float[N, K], objectives beside the reward; NaN where unknown
    reasons: dict[str, int]  # how many are not valid, by reason


class Run(NamedTuple):
    """What a workdir holds."""

    workdir: epath.Path
    config: Mapping[str, Any]
    subject: Subject
    space: Space
    rounds: list[dict[str, Any]]
    trials: Trials
    result: Mapping[str, Any] | None
    retrained: Mapping[str, Any] | None
    commands: tuple[str, ...]
    uncounted: str | None = None  # why networks cannot be counted, where they cannot


def read_run(workdir: epath.PathLike) -> Run:
    """Reads a workdir; one that has scored nothing has no rounds and no trials.

    Raises:
      UserError: if the folder is no workdir of a search, or a file in it is damaged.
    """
    workdir = epath.Path(workdir)
    config = read_config(workdir)
    if config is None:
        raise UserError(
            f"{workdir} holds no config.json: it is not the workdir of a search"
        )
    subject, uncounted = _subject(config)
    stored = (workdir / "trials.sqlite").exists()
    return Run(
        workdir,
        config,
        subject,
        build(subject),
        read_rounds(workdir) if stored else [],
        _read_trials(workdir) if stored else _trials([]),
        read_result(workdir),
        read_retrained(workdir),
        tuple(read_commands(workdir)),
        uncounted,
    )


def _subject(config: Mapping[str, Any]) -> tuple[Subject, str | None]:
    """What is searched; without its data set, which counting needs, and why."""
    try:
        return find(None, config, {}), None
    except UserError as error:  # the workdir may come from another machine
        options = final_config(resolve(config)).space.to_dict()
        name = options.pop("name")
        return Subject(name, options, (0, 0, 0), 1, None), str(error)


def _read_trials(workdir: epath.Path) -> Trials:
    return _trials(read_scored(workdir))


def _trials(rows: Sequence[tuple]) -> Trials:
    reasons: dict[str, int] = {}
    for *_, reward, _, _, reason in rows:
        if reward is None:
            reason = reason or "no reason is known"
            reasons[reason] = reasons.get(reason, 0) + 1
    return Trials(
        np.array([row[0] for row in rows], int),
        [row[1] for row in rows],
        {row[1]: row[2] for row in rows},
        *(
            np.array([np.nan if row[i] is None else row[i] for row in rows], float)
            for i in (3, 4)
        ),
        _costs([row[5] for row in rows]),
        reasons,
    )


def _costs(cells: Sequence[Any]) -> np.ndarray:
    """float[N, K] of numbers, JSON lists of several objectives, and None."""
    rows = [json.loads(cell) if isinstance(cell, str) else [cell] for cell in cells]
    found = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for row, values in zip(found, rows, strict=True):
        row[: len(values)] = [np.nan if v is None else v for v in values]
    return found


# ---- curves -------------------------------------------------------------------------


def curves(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Curves of the round records, {"x": rounds from 1, "y"}; those without are absent.

    Values that are not finite are left out.  A curve of more than `BINS` rounds has
    means of equal numbers of them.
    """
    found, best = {}, None
    rows = []
    for record in rounds:
        largest = record.get("reward_max")
        if largest is not None:
            best = largest if best is None else max(best, largest)
        rows.append({**record, "best": best})
    for name in CURVES:
        values = [(r["round"] + 1, r.get(name)) for r in rows]
        pairs = [(x, y) for x, y in values if y is not None and np.isfinite(y)]
        if pairs:
            x, y = np.array(pairs, float).T
            parts = list(_parts(len(x)))
            found[name] = {
                "x": [rounded(x[part].mean()) for part in parts],
                "y": [rounded(y[part].mean()) for part in parts],
            }
    return found


def ops(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Shares of ops over rounds: {"names", "x", "shares"[op][bin]}; None without."""
    rows = [r for r in rounds if r.get("op_histogram")]
    if not rows:
        return None
    names = list(rows[0]["op_histogram"])
    x = np.array([r["round"] + 1 for r in rows], float)
    y = np.array([[r["op_histogram"].get(n, 0.0) for n in names] for r in rows])
    parts = list(_parts(len(rows), 120))
    return {
        "names": names,
        "x": [rounded(x[part].mean()) for part in parts],
        "shares": [[rounded(y[p, i].mean()) for p in parts] for i in range(len(names))],
    }


def _parts(n: int, bins: int = BINS) -> Iterator[slice]:
    edges = np.linspace(0, n, min(n, bins) + 1).astype(int)
    return (slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True))


def rounded(value: float) -> float:
    """Five significant digits: all that a chart shows."""
    return float(f"{value:.5g}")


# ---- architectures ------------------------------------------------------------------


class Scored(NamedTuple):
    """Different architectures that were scored, the highest reward first."""

    decisions: list[str]
    reward: np.ndarray  # float[M], the highest of each
    first: np.ndarray  # int[M], the trial that this reward came from


def scored(trials: Trials) -> Scored:
    """The different architectures of the valid trials."""
    best: dict[str, int] = {}
    for i in np.flatnonzero(np.isfinite(trials.reward)):
        text = trials.decisions[i]
        if text not in best or trials.reward[i] > trials.reward[best[text]]:
            best[text] = int(i)
    first = np.array(sorted(best.values(), key=lambda i: -trials.reward[i]), int)
    reward = trials.reward[first]
    return Scored([trials.decisions[i] for i in first], reward, first)


def count_some(
    run: Run, found: Scored, most: int, seconds: float
) -> dict[str, dict[str, int]]:
    """Parameters and multiply-adds of some architectures, by their decisions.

    The winner, the ten best, then others spread over all rewards, as many as the time
    allows; those that the workdir knows are taken from there.

    Args:
      run: of the search.
      found: its architectures.
      most: how many; the winner of the final choice may be one more.
      seconds: after which no other is counted.
    """
    counts = _known_counts(run)
    if not found.decisions or run.uncounted is not None:
        return counts
    begin = time.monotonic()
    spread = np.linspace(0, len(found.decisions) - 1, most).astype(int).tolist()
    order = dict.fromkeys([*range(min(10, len(found.decisions))), *_shuffled(spread)])
    winner = [] if run.result is None else [text_of(run.result["best"]["decisions"])]
    for text in [*winner, *(found.decisions[i] for i in order)]:
        if len(counts.keys() - {*winner}) >= most or time.monotonic() - begin > seconds:
            break
        if text not in counts:
            cost = describe(run.subject._replace(arch=decisions_of(text)))
            counts[text] = {name: cost[name] for name in ("params", "macs")}
    return counts


def _shuffled(values: list[int]) -> list[int]:
    """In an order of which every beginning is spread out."""
    return np.random.default_rng(0).permutation(values).tolist()


def _known_counts(run: Run) -> dict[str, dict[str, int]]:
    if run.retrained is None:
        return {}
    rows = [run.retrained["winner"], *run.retrained["random"], *run.retrained["others"]]
    scored_here = set(run.trials.decisions)
    counts = {}
    for row in rows:
        text = text_of(row["decisions"])
        if text in scored_here and {"params", "macs"} <= row.keys():
            counts[text] = {name: row[name] for name in ("params", "macs")}
    return counts


def card(run: Run, decisions: str, reward, round: int | None, counts: Mapping):
    """What a report says of one architecture."""
    return {
        "decisions": decisions,
        "encoding": run.trials.encoding.get(decisions)
        or run.space.spec.encode(decisions_of(decisions)),
        "text": picture(run.space.spec, decisions_of(decisions)),
        "reward": None if reward is None else rounded(reward),
        "round": None if round is None else round + 1,
        **counts.get(decisions, {}),
    }
