"""``trials.sqlite``: every scored architecture, and one record a round.

Trials are keyed (seed, round, index) and replaced when a round is run again.  SQLite
wants a local disk: the file of a remote workdir lives in the user's cache and is copied
at checkpoints.

    trials (seed, round, index, decisions, reward, valid, log_prob)
    rounds (seed, round, record)        record: JSON

``decisions`` is text, the integers separated by commas.
"""

import contextlib
import json
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from launch.command import UserError
from launch.workdir import local_folder

_SCHEMA = """
create table if not exists trials (
  seed integer, round integer, "index" integer, decisions text, reward real,
  valid integer, log_prob real, primary key (seed, round, "index"));
create table if not exists rounds (
  seed integer, round integer, record text, primary key (seed, round));
"""

Row = tuple[int, int, str, float, bool, float]
"""round, index, decisions, reward, valid, log_prob"""


class Store:
    """The trials of one workdir; use as a context manager.

    Args:
      workdir: where ``trials.sqlite`` is.
      seed: of the trials that are written.
    """

    def __init__(self, workdir: epath.PathLike, seed: int):
        self._seed = seed
        self._remote = epath.Path(workdir) / "trials.sqlite"
        self._local = local_folder(epath.Path(workdir)) / "trials.sqlite"
        if not self._is_local() and self._remote.exists():
            self._remote.copy(self._local, overwrite=True)
        with _errors(self._local):
            self._db = sqlite3.connect(self._local)
            self._db.executescript(_SCHEMA)

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.sync()
        self._db.close()

    def add_trials(self, rows: Iterable[Row]) -> None:
        """Writes trials, in place of those of the same round and index."""
        with _errors(self._local):
            self._db.executemany(
                "insert or replace into trials values (?, ?, ?, ?, ?, ?, ?)",
                ((self._seed, *row) for row in rows),
            )
            self._db.commit()

    def add_round(self, round: int, record: Mapping[str, Any]) -> None:
        """Writes the record of a round, in place of an earlier one."""
        with _errors(self._local):
            self._db.execute(
                "insert or replace into rounds values (?, ?, ?)",
                (self._seed, round, json.dumps(record)),
            )
            self._db.commit()

    def sync(self) -> None:
        """Copies the file to a remote workdir; nothing where the workdir is local."""
        self._db.commit()
        if not self._is_local():
            epath.Path(self._local).copy(self._remote, overwrite=True)

    def _is_local(self) -> bool:
        return pathlib.Path(self._remote) == self._local


def read_trials(workdir: epath.PathLike) -> list[tuple]:
    """All rows (seed, round, index, decisions, reward, valid, log_prob), in order."""
    return _read(workdir, 'select * from trials order by seed, round, "index"')


def read_rounds(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The round records, in order."""
    rows = _read(workdir, "select record from rounds order by seed, round")
    return [json.loads(record) for (record,) in rows]


@contextlib.contextmanager
def _errors(path: pathlib.Path) -> Iterator[None]:
    """Tells a file that is damaged, locked or no database in one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise UserError(
            f"cannot use {path}: {error}; if it is damaged, move it away: the search "
            "goes on without its earlier trials"
        ) from error


def _read(workdir: epath.PathLike, query: str) -> list[tuple]:
    path = local_folder(epath.Path(workdir)) / "trials.sqlite"
    with _errors(path), sqlite3.connect(path) as db:
        return db.execute(query).fetchall()
