"""Lists the trials of a search, filters them, and exports them as CSV.

    python -m launch.trials --workdir=DIR --best=10
    python -m launch.trials --workdir=DIR --status=invalid
    python -m launch.trials --workdir=DIR --where='reward>=0.9' --where='encoding~sep'
    python -m launch.trials --workdir=DIR --csv=trials.csv

A condition is COLUMN OPERATOR VALUE with = != < <= > >=, or ~ for text that contains
the value.  Columns are those of ``trials.sqlite``, see `launch.store`.  It may be run
while the search runs.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from etils import epath

from launch import command
from launch.command import UserError, user_errors
from launch.settings import check_known
from launch.store import COLUMNS, NUMBERS, OPERATORS, STATUSES, Condition, find_trials
from launch.tables import align

_PATTERN = re.compile(rf"\s*(\w+)\s*({'|'.join(OPERATORS)})\s*(.*?)\s*")


def parse_condition(text: str) -> Condition:
    """Reads ``COLUMN OPERATOR VALUE``.

    Raises:
      UserError: on another form, an unknown column, or a value that is no number where
        the column holds numbers.
    """
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise UserError(
            f"--where={text!r} is no condition; it must be COLUMN OPERATOR VALUE with "
            f"one of {' '.join(OPERATORS)}"
        )
    column, operator, value = found.groups()
    check_known("--where", [column], COLUMNS)
    if column not in NUMBERS or operator == "~":
        return Condition(column, operator, value)
    try:
        return Condition(column, operator, float(value))
    except ValueError as error:
        raise UserError(
            f"--where={text!r}: {value!r} is no number, as {column} holds"
        ) from error


def listing(trials: Sequence[Mapping[str, Any]]) -> str:
    """A line a trial; columns that are empty throughout are left out, and decisions."""
    shown = [
        name
        for name in COLUMNS
        if name != "decisions" and any(trial[name] is not None for trial in trials)
    ]
    rows = [[_cell(trial[name]) for name in shown] for trial in trials]
    left = [i for i, name in enumerate(shown) if name not in NUMBERS]
    return "\n".join(align([shown, *rows], left)) if trials else "no trials"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def write_csv(path: epath.PathLike, trials: Sequence[Mapping[str, Any]]) -> None:
    """Writes all columns; what is missing is empty.

    Raises:
      UserError: if the file cannot be written.
    """
    with user_errors(f"cannot write {path}"), epath.Path(path).open("w") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(trials)


def main() -> None:
    """Lists or exports the trials that the flags ask for."""
    options = flags.FLAGS
    conditions = [parse_condition(text) for text in options.where]
    if options.status is not None:
        conditions.append(Condition("status", "=", options.status))
    trials = find_trials(options.workdir, conditions, options.best)
    if options.csv is None:
        print(listing(trials), flush=True)
    else:
        write_csv(options.csv, trials)
        print(f"{len(trials)} trials written to {options.csv}", flush=True)


if __name__ == "__main__":
    command.define_workdir()
    flags.DEFINE_integer("best", None, "so many, the highest reward first", 1)
    flags.DEFINE_enum("status", None, STATUSES, "trials of this status only")
    flags.DEFINE_multi_string("where", [], "a condition; may be given several times")
    flags.DEFINE_string("csv", None, "a file that is written in place of the list")
    command.run(main)
