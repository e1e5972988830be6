"""The closing table of a retraining, as aligned plain text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]  # of one network: "test_accuracy", "standard_error", ...

_COLUMNS = ("network", "test accuracy, %", "params", "macs", "seconds", "compile")


def closing_table(report: Mapping[str, Any]) -> str:
    """A row a network, and below it whether the winner beats random architectures.

    Args:
      report: as ``retrain.json``.
    """
    named = [("winner", report["winner"])]
    named += [(f"random {i}", row) for i, row in enumerate(report["random"], 1)]
    named += [(row["name"], row) for row in report["others"]]
    lines = align([_COLUMNS, *(_cells(name, row) for name, row in named)])
    return "\n".join([*lines, verdict(report["winner"], report["random"])])


def _cells(name: str, row: Row) -> tuple[str, ...]:
    return (
        name,
        _percent(row["test_accuracy"], row["standard_error"]),
        f"{row['params']:,}",
        f"{row['macs']:,}",
        f"{row['seconds']:.0f}",
        f"{row['compile_seconds']:.0f}",
    )


def align(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Lines with the columns of `left` to the left and the others to the right.

    >>> for line in align([("network", "params"), ("winner", "1,234")]):
    ...     print(line)
    network  params
    winner    1,234
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


# ---- statistics ---------------------------------------------------------------------


def mean_accuracy(rows: Sequence[Row]) -> tuple[float, float]:
    """Mean test accuracy of networks, and its standard error by the test set's size."""
    mean = math.fsum(row["test_accuracy"] for row in rows) / len(rows)
    variance = math.fsum(row["standard_error"] ** 2 for row in rows)
    return mean, math.sqrt(variance) / len(rows)


def verdict(winner: Row, random: Sequence[Row]) -> str:
    """The winner's advantage in a sentence: none below two standard errors.

    The standard error is that of the test set's size; the spread over seeds is what
    `launch.repeat` measures.
    """
    if not random:
        return "no random architecture beside the winner: baseline.n is 0"
    accuracy, error = mean_accuracy([winner])
    mean, mean_error = mean_accuracy(random)
    difference, error = accuracy - mean, math.hypot(error, mean_error)
    text = f"winner - mean of {len(random)} random = {_percent(difference, error, '+')}"
    if difference and abs(difference) >= 2 * error:
        word = "better" if difference > 0 else "worse"
        return f"{text} points: the winner is {word}"
    return f"{text} points: no difference"


def _percent(value: float, error: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f} ± {100 * error:.2f}"
