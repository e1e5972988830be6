"""The figure of a comparison: what was found, against what was spent."""

import io
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from etils import epath

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from launch.workdir import write_bytes  # noqa: E402

_SHOWN = 0.1  # of the budget is cut off at the left, where curves are steep


class Trace(NamedTuple):
    """The value of the best so far, over seeds.

    Attributes:
      spent: float[G], seconds or evaluations.
      mean: float[G].
      low, high: float[G], the quartiles.
    """

    spent: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, spent: np.ndarray, values: np.ndarray) -> "Trace":
        """Over the rows of values[S, G]; NaN before a seed's first evaluation."""
        known = ~np.isnan(values).any(axis=0)
        values = values[:, known]
        quartiles = np.quantile(values, (0.25, 0.75), axis=0)
        return cls(spent[known], values.mean(axis=0), *quartiles)


def draw(
    path: epath.Path,
    traces: Mapping[str, Mapping[str, Trace]],
    report: Mapping[str, Any],
) -> None:
    """Draws one panel a data set: means, bands of quartiles, and the best there is.

    Args:
      path: of the PNG.
      traces: by strategy and data set.
      report: as ``compare.json``.
    """
    datasets = list(report["datasets"])
    figure, axes = plt.subplots(
        1, len(datasets), figsize=(5.2 * len(datasets), 4), squeeze=False
    )
    seconds = report["budget_seconds"] is not None
    for axis, dataset in zip(axes[0], datasets, strict=True):
        for name, of in traces.items():
            trace = of[dataset]
            (line,) = axis.plot(trace.spent, trace.mean, label=name)
            axis.fill_between(
                trace.spent, trace.low, trace.high, color=line.get_color(), alpha=0.15
            )
        best = report["datasets"][dataset]["best"]
        axis.axhline(best, color="black", lw=0.8, ls="--", label="best of the table")
        late = [
            t.mean[t.spent >= _SHOWN * t.spent[-1]]
            for t in (of[dataset] for of in traces.values())
        ]
        low = min(values.min() for values in late)
        if low < best:  # else all have found it
            axis.set_ylim(low, best + 0.05 * (best - low))
        axis.set_title(dataset)
        axis.set_xlabel("simulated seconds" if seconds else "evaluations")
    axes[0][0].set_ylabel("value of the best so far")
    axes[0][0].legend(loc="lower right", fontsize="small")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    write_bytes(path, buffer.getvalue())
