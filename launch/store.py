"""``trials.sqlite``: every trial as it ends, and one record a round.

Trials are keyed (seed, round, index) and replaced when a round is run again.  Two
processes may write: each waits for the other's transaction.  SQLite wants a local disk:
the file of a remote workdir lives in the user's cache and is copied at checkpoints.

    trials (seed, round, index, decisions, encoding, reward, value, cost, log_prob,
            parent, status, reason, worker)
    rounds (seed, round, record)        record: JSON
    about  (search)                     digest of the settings that trials depend on

The schema's version is SQLite's ``user_version``.
"""

import contextlib
import json
import pathlib
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from launch.command import UserError
from launch.workdir import local_folder

VERSION = 1
_SCHEMA = (
    """create table trials (
  seed integer, round integer, "index" integer, decisions text, encoding text,
  reward real, value real, cost, log_prob real, parent integer, status text,
  reason text, worker text, primary key (seed, round, "index"))""",
    """create table rounds (
  seed integer, round integer, record text, primary key (seed, round))""",
    "create table about (search text)",
    f"pragma user_version = {VERSION}",
)
_WAIT_SECONDS = 60.0  # for another process' transaction


_ADVICE = {
    sqlite3.SQLITE_FULL: "make room and run the same command again: nothing is lost",
    sqlite3.SQLITE_BUSY: f"another process has held it for {_WAIT_SECONDS:.0f} s",
    None: "if it is damaged, move it away: the search goes on without its earlier "
    "trials",
}


class Row(NamedTuple):
    """A trial, without its seed.

    Attributes:
      round, index: where it stands in the search.
      decisions: the integers, separated by commas.
      reward: what the strategy learnt from; None where the trial is not valid.
      valid: whether it counts; its status is "valid" or "invalid".
      log_prob: of the policy that proposed it.
      encoding: the architecture in readable form.
      value: what a table reports beside the reward; with a cost in the objective, the
        reward without it.
      cost: a number; JSON of several objectives.
      parent: trial whose weights it inherited, counted from 0 through all rounds.
      reason: why it is not valid.
      worker: that trained it; None for the process of the search.
    """

    round: int
    index: int
    decisions: str
    reward: float | None
    valid: bool
    log_prob: float
    encoding: str | None = None
    value: float | None = None
    cost: float | str | None = None
    parent: int | None = None
    reason: str | None = None
    worker: str | None = None


STATUSES = ("valid", "invalid")
NUMBERS = frozenset(
    {"seed", "round", "index", "reward", "value", "cost", "log_prob", "parent"}
)
COLUMNS = (
    "seed",
    "round",
    "index",
    "status",
    "reward",
    "value",
    "cost",
    "log_prob",
    "parent",
    "reason",
    "worker",
    "encoding",
    "decisions",
)
# How a condition compares a column with its value, by operator.
OPERATORS = {name: f"{{}} {name} ?" for name in ("<=", ">=", "!=", "=", "<", ">")}
OPERATORS["~"] = "instr({}, ?) > 0"


class Condition(NamedTuple):
    """What a trial must meet: one of `COLUMNS`, one of `OPERATORS`, a value."""

    column: str
    operator: str
    value: str | float


class Store:
    """The trials of one workdir; use as a context manager.

    Args:
      workdir: where ``trials.sqlite`` is.
      seed: of the trials that are written.
      search: digest of the settings that trials depend on; None for any.

    Raises:
      UserError: if the file cannot be used, or is of another schema or search.
    """

    def __init__(self, workdir: epath.PathLike, seed: int, search: str | None = None):
        self._seed = seed
        self._remote = epath.Path(workdir) / "trials.sqlite"
        self._local = local_folder(epath.Path(workdir)) / "trials.sqlite"
        with _errors(self._local):
            self._db = sqlite3.connect(self._local, timeout=_WAIT_SECONDS)
        try:
            with self._attached() as theirs, self._transaction():
                self._prepare(search, theirs)
        except BaseException:
            self._db.close()
            raise

    @contextlib.contextmanager
    def _attached(self) -> Iterator[bool]:
        """Whether there is a remote file; a copy of it is the schema "remote" then."""
        if self._is_local() or not self._remote.exists():
            yield False
            return
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trials.sqlite"
            self._remote.copy(path)
            with _errors(self._remote):
                self._db.execute("attach ? as remote", (str(path),))
                _check_version(self._db, self._remote, "remote")
            yield True
            self._db.execute("detach remote")

    def _prepare(self, search: str | None, theirs: bool) -> None:
        """Makes the tables, or checks those that are there."""
        if not _has_tables(self._db):
            for statement in _SCHEMA:
                self._db.execute(statement)
        _check_version(self._db, self._local)
        if theirs:
            self._merge()
        (found,) = self._db.execute("select max(search) from about").fetchone()
        if found is None and search is not None:
            self._db.execute("insert into about values (?)", (search,))
        elif None not in (found, search) and found != search:
            raise UserError(
                f"{self._local} holds the trials of another search, with other "
                "settings; take another workdir, or move the file away"
            )

    def _merge(self) -> None:
        """Takes what the remote file has, and the local one of the same search lacks.

        The local one has more where a process writes now, or was killed before it
        copied.  One of another search is left over from a workdir that is gone.
        """
        query = "select max(search) from {}.about"
        ours, theirs = (
            self._db.execute(query.format(schema)).fetchone()
            for schema in ("main", "remote")
        )
        for table in ("trials", "rounds", "about"):
            if ours != theirs:
                self._db.execute(f"delete from main.{table}")
            if ours != theirs or table != "about":
                self._db.execute(
                    f"insert or ignore into main.{table} select * from remote.{table}"
                )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.sync()
        finally:
            self._db.close()

    def add_trials(self, rows: Iterable[Sequence[Any]]) -> None:
        """Writes trials, in place of those of the same round and index.

        Args:
          rows: fields of `Row`, those with a default may be missing.

        Raises:
          UserError: if they cannot be written; then none of them is.
        """
        with self._transaction():
            marks = ", ".join("?" * len(COLUMNS))
            names = ", ".join(map(_quoted, COLUMNS))
            self._db.executemany(
                f"insert or replace into trials ({names}) values ({marks})",
                (self._columns(Row(*row)) for row in rows),
            )

    def _columns(self, row: Row) -> tuple[Any, ...]:
        values = row._asdict() | {"seed": self._seed}
        values["status"] = STATUSES[0] if row.valid else STATUSES[1]
        return tuple(values[name] for name in COLUMNS)

    def add_round(self, round: int, record: Mapping[str, Any]) -> None:
        """Writes the record of a round, in place of an earlier one."""
        with self._transaction():
            self._db.execute(
                "insert or replace into rounds values (?, ?, ?)",
                (self._seed, round, json.dumps(record)),
            )

    def sync(self) -> None:
        """Copies the file to a remote workdir; nothing where the workdir is local."""
        if not self._is_local():
            with self._transaction():  # while nobody writes
                epath.Path(self._local).copy(self._remote, overwrite=True)

    def _is_local(self) -> bool:
        return pathlib.Path(self._remote) == self._local

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; waits for another process to end its own."""
        with _errors(self._local), self._db:
            self._db.execute("begin immediate")
            yield


# ---- reading ------------------------------------------------------------------------


def read_trials(workdir: epath.PathLike) -> list[tuple]:
    """All rows (seed, round, index, decisions, reward, valid, log_prob), in order."""
    query = (
        'select seed, round, "index", decisions, reward, status = ?, log_prob '
        'from trials order by seed, round, "index"'
    )
    return _read(workdir, query, STATUSES[:1])


def read_scored(workdir: epath.PathLike) -> list[tuple]:
    """All rows (round, decisions, encoding, reward, value, cost, reason), in order."""
    query = (
        "select round, decisions, encoding, reward, value, cost, reason from trials "
        'order by seed, round, "index"'
    )
    return _read(workdir, query)


def read_rounds(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """The round records, in order."""
    rows = _read(workdir, "select record from rounds order by seed, round")
    return [json.loads(record) for (record,) in rows]


def find_trials(
    workdir: epath.PathLike,
    conditions: Iterable[Condition] = (),
    best: int | None = None,
) -> list[dict[str, Any]]:
    """The trials that meet all conditions, by `COLUMNS`, in order.

    Args:
      workdir: of a search.
      conditions: no condition on a column is met by a missing value.
      best: takes so many of the valid ones, the highest reward first; None for all.

    Raises:
      UserError: if there is no store, or one that cannot be used, or a condition
        compares costs of several objectives with a number.
    """
    conditions = list(conditions)
    order = 'seed, round, "index"'
    if best is not None:
        conditions.append(Condition("status", "=", STATUSES[0]))
        order = f"reward desc, {order} limit {best:d}"
    _check_costs(workdir, conditions)
    clauses = [OPERATORS[c.operator].format(_quoted(c.column)) for c in conditions]
    query = (
        f"select {', '.join(map(_quoted, COLUMNS))} from trials "
        f"where {' and '.join(clauses) or 'true'} order by {order}"
    )
    rows = _read(workdir, query, [c.value for c in conditions])
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def _check_costs(workdir: epath.PathLike, conditions: Iterable[Condition]) -> None:
    """Refuses to compare several objectives, which are text, with a number."""
    if any(c.column == "cost" and not isinstance(c.value, str) for c in conditions):
        query = "select cost from trials where typeof(cost) = 'text' limit 1"
        for (cost,) in _read(workdir, query):
            raise UserError(
                f"cost is of several objectives here, such as {cost}; no number can be "
                "compared with them, only text by ~"
            )


def _quoted(column: str) -> str:
    return f'"{column}"'


def _read(
    workdir: epath.PathLike, query: str, parameters: Sequence[Any] = ()
) -> list[tuple]:
    with tempfile.TemporaryDirectory() as folder:
        path = _file_to_read(epath.Path(workdir), pathlib.Path(folder))
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with (
            _errors(path),
            contextlib.closing(
                sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS)
            ) as db,
        ):
            _check_version(db, path)
            return db.execute(query, parameters).fetchall()


def _file_to_read(workdir: epath.Path, folder: pathlib.Path) -> pathlib.Path:
    """The file of a local workdir; of a remote one a copy, put into a folder."""
    stored = workdir / "trials.sqlite"
    if not stored.exists():
        raise UserError(f"{workdir} holds no trials.sqlite; a search writes it")
    if "://" not in str(workdir):
        return pathlib.Path(stored)
    stored.copy(folder / "trials.sqlite")
    return folder / "trials.sqlite"


def _has_tables(db: sqlite3.Connection) -> bool:
    return db.execute("select count(*) from sqlite_master").fetchone()[0] > 0


def _check_version(
    db: sqlite3.Connection, path: epath.PathLike, schema: str = "main"
) -> None:
    (version,) = db.execute(f"pragma {schema}.user_version").fetchone()
    if version != VERSION:
        raise UserError(
            f"{path} is a store of schema {version}, this program's is {VERSION}; take "
            "another workdir, or the version of the program that wrote it"
        )


@contextlib.contextmanager
def _errors(path: epath.PathLike) -> Iterator[None]:
    """Tells in one line what is wrong with the file, and what may help."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        advice = _ADVICE.get(code, _ADVICE[None])
        raise UserError(f"cannot use {path}: {error}; {advice}") from error
