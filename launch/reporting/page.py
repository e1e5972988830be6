"""``report.html``: one file that holds its styles, its program, its data and pictures.

The page is a template with places for JSON; what is shown and how is in
``launch/report_assets``, what is known in `launch.reporting`.
"""

import html
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from launch.command import UserError
from launch.figures.graphs import graphs
from launch.figures.image import inline_svg
from launch.repeat import summarise
from launch.reporting.run import (
    CURVES,
    Run,
    card,
    count_some,
    curves,
    ops,
    scored,
)
from launch.reporting.scatter import scatter
from launch.reporting.words import diagnoses, facts
from launch.rounds import decisions_of, text_of
from launch.settings import differing_keys
from launch.tables import mean_accuracy

MAX_BYTES = 3_000_000
_POINTS = (
    1200,
    300,
    60,
)  # of all scatters; the first number whose page is small enough
_ROWS = 30  # of the table of architectures


def page(runs: Mapping[str, Run], *, count: int = 40, seconds: float = 20.0) -> str:
    """The page of some runs of one space.

    Args:
      runs: by the name that they are shown by.
      count: architectures of a run whose parameters are counted.
      seconds: that counting may take, all runs together.

    Returns:
      HTML text of less than `MAX_BYTES`.

    Raises:
      UserError: if runs are so many that their page is larger.
    """
    counted = {}
    for name, run in runs.items():
        found = scored(run.trials)
        counts = count_some(run, found, count, seconds / len(runs))
        counted[name] = (found, counts)
    drawn = {name: _drawings(run, *counted[name], runs) for name, run in runs.items()}
    for points in _POINTS:
        data = {
            "curves": CURVES,
            "runs": [
                _run(name, run, *counted[name], drawn[name], points // len(runs))
                for name, run in runs.items()
            ],
            "retrained": _retrained(runs),
            "differences": _differences(runs),
        }
        text = _fill(data, runs)
        if len(text.encode()) < MAX_BYTES:
            return text
    raise UserError(
        f"a report of {len(runs)} workdirs has more than {MAX_BYTES / 1e6:g} MB; name "
        "fewer at once"
    )


def _fill(data: Mapping[str, Any], runs: Mapping[str, Run]) -> str:
    first = next(iter(runs.values()))
    title = f"{first.config['space']['name']}: {', '.join(runs)}"
    assets = importlib.resources.files("launch") / "report_assets"
    parts = {
        "title": html.escape(title),
        "css": (assets / "report.css").read_text("utf-8"),
        "js": (assets / "report.js").read_text("utf-8"),
        # "</script>" or "<!--" within a string would end the element, or hide its end.
        "data": json.dumps(_finite(data), allow_nan=False).replace("<", "\\u003c"),
    }
    text = (assets / "report.html").read_text("utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _run(name, run: Run, found, counts, drawn, points) -> dict[str, Any]:
    best = [
        card(run, text, reward, int(run.trials.round[first]), counts)
        for text, reward, first in list(zip(*found, strict=True))[:_ROWS]
    ]
    return {
        "name": name,
        "commands": list(run.commands),
        "facts": facts(run),
        "diagnoses": diagnoses(run, found),
        "curves": curves(run.rounds),
        "ops": ops(run.rounds),
        "scatter": scatter(run, found, counts, points),
        "counted": [len(counts.keys() & {*found.decisions}), len(found.decisions)],
        "best": best,
        "drawn": drawn,
        "config": run.config,
    }


# ---- drawings -----------------------------------------------------------------------


def _drawings(run: Run, found, counts, runs) -> list[dict[str, Any]]:
    """The winner, and the architectures of the highest rewards, as pictures."""
    most = {1: 4, 2: 2, 3: 2}.get(len(runs), 1)
    chosen: dict[str, tuple[str, float | None]] = {}
    if run.result is not None:
        best = run.result["best"]
        text = text_of(best["decisions"])
        chosen[text] = ("winner of the final choice", best["reward"])
    for text, reward in zip(found.decisions, found.reward.tolist(), strict=True):
        if len(chosen) >= most:
            break
        chosen.setdefault(text, (f"reward {reward:.4f} as a trial", reward))
    return [
        {
            **card(run, text, reward, None, counts),
            "title": title,
            "svg": _svg(run, text),
        }
        for text, (title, reward) in chosen.items()
    ]


def _svg(run: Run, text: str) -> str:
    subject, decisions = run.subject, decisions_of(text)
    found = graphs(run.space.spec, decisions, subject.space, subject.options)
    return inline_svg(found, f"drawing of the architecture {text}")


# ---- tables -------------------------------------------------------------------------


def _retrained(runs: Mapping[str, Run]) -> dict[str, Any] | None:
    """Winners beside random architectures, a row a run, and their mean over runs."""
    known = {n: r.retrained for n, r in runs.items() if r.retrained is not None}
    if not known:
        return None
    rows = []
    for name, of in known.items():
        rows.append(_row(f"{name}: winner", of["winner"]))
        if of["random"]:
            rows.append(_random_row(f"{name}: random", of["random"]))
        rows += [_row(f"{name}: {row['name']}", row) for row in of["others"]]
    summary = None
    if len(known) > 1 and all(of["random"] for of in known.values()):
        summary = summarise(list(known.values()))
    return {"rows": rows, "summary": summary}


def _row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "n": 1,
        "mean": row["test_accuracy"],
        "standard_error": row["standard_error"],
        "spread": None,
        **{key: row.get(key) for key in ("params", "macs")},
    }


def _random_row(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mean, error = mean_accuracy(rows)
    accuracies = [row["test_accuracy"] for row in rows]
    return {
        "name": name,
        "n": len(rows),
        "mean": mean,
        "standard_error": error,
        "spread": float(np.std(accuracies, ddof=1)) if len(rows) > 1 else None,
        **{key: round(np.mean([r[key] for r in rows])) for key in ("params", "macs")},
    }


def _differences(runs: Mapping[str, Run]) -> list[list[Any]]:
    """Dotted keys of the configs that are not the same in all runs, and their values.

    Each row is [key, value of run 1, value of run 2, ...].
    """
    configs = [run.config for run in runs.values()]
    keys = sorted({k for c in configs[1:] for k in differing_keys(configs[0], c)})
    values = [_flat(config) for config in configs]
    return [
        [key, *(json.dumps(v[key]) if key in v else "-" for v in values)]
        for key in keys
    ]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not None by dotted key."""
    return {key: pair[0] for key, pair in differing_keys(config, {}).items()}
