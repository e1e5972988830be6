"""Tables of tabular benchmarks: what every architecture of a space earned and cost.

A table is an ``.npz`` of ``decisions`` int[N, T], one row for each architecture of the
space, and of columns float[N]:

  reward_NAME  what a search is told, higher is better
  value_NAME   what is reported of the architecture that it found
  cost_NAME    seconds that measuring reward_NAME took

Columns may instead be arrays indexed by the decisions themselves, of shape [V_1, ...,
V_T]; then ``decisions`` is absent.  NAS-Bench-201's columns as exported from NATS-Bench
(``ops``, ``hp12_...``, ``hp200_...``) are understood too, see `from_nasbench201`.

Shapes: N architectures, T decisions, V choices.
"""

import functools
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import DecisionSpec

KINDS = ("reward", "value", "cost")
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError)  # what reading such an npz raises
_PART = 4096  # rows that are looked at at once
DENSE = 2**24  # most decision vectors, legal or not, that an index is made for


class Table(NamedTuple):
    """A table whose columns are by name, without the kind in front.

    Attributes:
      decisions: int32[N, T].
      reward, value, cost: float64[N] each; cost may be empty.
    """

    decisions: np.ndarray
    reward: dict[str, np.ndarray]
    value: dict[str, np.ndarray]
    cost: dict[str, np.ndarray]

    def column(self, kind: str, name: str) -> np.ndarray:
        """float64[N].

        Raises:
          ValueError: if there is none of that name, naming those there are.

        >>> table = Table(np.zeros((1, 2)), {"digits": np.array([0.9])}, {}, {})
        >>> table.column("reward", "digits").tolist()
        [0.9]
        >>> table.column("value", "digits")
        Traceback (most recent call last):
          ...
        ValueError: the table has no value 'digits'; it has none
        """
        columns = getattr(self, kind)
        if name not in columns:
            known = ", ".join(columns) or "none"
            raise ValueError(f"the table has no {kind} {name!r}; it has {known}")
        return columns[name]


def read_table(path: str | os.PathLike, spec: DecisionSpec) -> Table:
    """Reads a table and checks that it is of the space.

    Args:
      path: of the npz.
      spec: of the space.

    Raises:
      ValueError: on a space without bound, a file that is no table, a column of another
        length, a row that is no architecture of the space, and on missing or repeated
        architectures.
    """
    if spec.size() == math.inf:
        raise ValueError(
            "the space has no bound; a table has a row for each of its architectures"
        )
    arrays = read_arrays(path)
    exported = "ops" in arrays or any(name.startswith("hp12_") for name in arrays)
    if exported and "decisions" not in arrays:
        table = from_nasbench201(arrays)
    else:
        table = _from_columns(arrays, spec)
    check_rows(table.decisions, spec)
    return table


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an npz, by name.

    Raises:
      ValueError: on a missing or damaged file, one that is no npz, or Python objects.
    """
    if not os.path.isfile(path):
        raise ValueError(f"no table {str(path)!r}")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"table {path} is no npz file")
    arrays, name = {}, None
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                arrays[name] = file[name]
    except DAMAGED as error:
        raise ValueError(f"table {path} is damaged: {error}") from error
    except ValueError as error:
        raise ValueError(f"array {name!r} of table {path}: {error}") from error
    return arrays


def needed(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """The array of that name.

    Raises:
      ValueError: if there is none, naming those there are; of many, those alike.

    >>> needed({"a_x": np.ones(3), "b_y": np.ones(3)}, "a_z")
    Traceback (most recent call last):
      ...
    ValueError: the table has no column 'a_z'; it has a_x, b_y
    """
    if name not in arrays:
        kind = name.split("_")[0]
        known = sorted(arrays, key=lambda k: k.split("_")[0] != kind)
        more = f" and {len(known) - 12} more" if len(known) > 12 else ""
        raise ValueError(
            f"the table has no column {name!r}; it has {', '.join(known[:12])}{more}"
        )
    return arrays[name]


def write_table(path: str | os.PathLike, table: Table, **others: np.ndarray) -> None:
    """Writes a table as `read_table` reads it; an existing file is replaced whole.

    Args:
      path: of the npz.
      table: what is read again.
      **others: more arrays, which `read_table` passes over; not named as a column.
    """
    arrays = {"decisions": table.decisions.astype(np.int16), **others}
    for kind in KINDS:
        arrays |= {f"{kind}_{k}": v for k, v in getattr(table, kind).items()}
    partial = f"{path}.partial"
    try:
        with open(partial, "wb") as file:
            np.savez_compressed(file, **arrays)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


# ---- layouts ------------------------------------------------------------------------


def _from_columns(file: Mapping[str, np.ndarray], spec: DecisionSpec) -> Table:
    columns: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in KINDS}
    for key in file:
        kind, _, name = key.partition("_")
        if kind in KINDS and name:
            try:
                columns[kind][name] = np.asarray(file[key], np.float64)
            except ValueError as error:
                raise ValueError(f"column {key} holds no numbers: {error}") from error
    for kind in ("reward", "value"):
        if not columns[kind]:
            raise ValueError(
                f"the table has no column {kind}_NAME; it has {', '.join(file)}"
            )
    if "decisions" in file:
        decisions = np.asarray(file["decisions"])
        for kind, named in columns.items():
            for name, values in named.items():
                _check_shape(f"{kind}_{name}", values, decisions.shape[:1])
        return Table(decisions, **columns)
    for kind, named in columns.items():
        for name, values in named.items():
            _check_shape(f"{kind}_{name}", values, spec.num_choices)
            named[name] = values.ravel()
    vectors = np.indices(spec.num_choices)
    return Table(np.stack([i.ravel() for i in vectors], axis=1), **columns)


def _check_shape(name: str, values: np.ndarray, expected: tuple[int, ...]) -> None:
    if values.shape != expected:
        raise ValueError(
            f"column {name} has shape {values.shape}; the space wants {expected}"
        )


def from_nasbench201(file: Mapping[str, np.ndarray]) -> Table:
    """The table of NAS-Bench-201 from columns as NATS-Bench names them.

    Rewards are validation accuracies of the 12-epoch schedule, values test accuracies
    of the 200-epoch one, percent.  Costs are 12/200 of the recorded training seconds of
    the 200-epoch schedule, which is the usual estimate.

    Args:
      file: arrays: ``ops`` int[15625, 6] and the columns.

    Raises:
      ValueError: on a missing column, naming those there are, or one of another length.
    """
    split = {"cifar10": "cifar10_valid", "cifar100": "cifar100"}
    split["imagenet16"] = "imagenet16"

    decisions = np.asarray(needed(file, "ops"))

    def column(name):
        values = np.asarray(needed(file, name), np.float64)
        _check_shape(name, values, decisions.shape[:1])
        return values

    def test(name):
        return f"hp200_{name}_{'test' if name == 'cifar10' else 'xtest'}"

    return Table(
        decisions=decisions,
        reward={k: column(f"hp12_{v}_xvalid") for k, v in split.items()},
        value={k: column(test(k)) for k in split},
        cost={
            k: column(f"hp200_train_seconds_{v}") * 12 / 200 for k, v in split.items()
        },
    )


# ---- rows ---------------------------------------------------------------------------


def check_rows(decisions: np.ndarray, spec: DecisionSpec) -> None:
    """Checks that every architecture of the space has one row.

    Raises:
      ValueError: where it has not; names the first offender.
    """
    if decisions.ndim != 2 or decisions.shape[1] != spec.length:
        raise ValueError(
            f"the table's decisions have shape {decisions.shape}; the space has "
            f"{spec.length} decisions"
        )
    if not np.issubdtype(decisions.dtype, np.integer):
        raise ValueError(f"the table's decisions are {decisions.dtype}, not integers")
    if not _merged(spec):
        check_size(spec)
    for row in np.flatnonzero(_illegal(decisions, spec))[:1]:
        try:
            spec.validate(decisions[row])
        except ValueError as error:
            raise ValueError(f"row {row} of the table: {error}") from error
    flat = np.ravel_multi_index(decisions.T, spec.num_choices)
    for row in np.flatnonzero(_numbers(decisions, spec) != flat)[:1]:
        raise ValueError(
            f"row {row} of the table is not in the canonical form of the space: "
            f"{spec.encode(decisions[row])}"
        )
    order = np.argsort(flat, kind="stable")
    repeated = np.flatnonzero(np.diff(flat[order]) == 0)
    if len(repeated):
        a, b = sorted(order[repeated[0] : repeated[0] + 2].tolist())
        raise ValueError(
            f"the table has an architecture twice, in rows {a} and {b}: "
            f"{spec.encode(decisions[a])}"
        )
    if _merged(spec) and len(flat) != (size := spec.rule.architectures(spec)):
        raise ValueError(
            f"the table has {len(flat):,} architectures, the space {size:,}"
        )
    if not _merged(spec) and len(flat) != spec.size():
        known = set(flat.tolist())
        missing = next(
            (
                d
                for d in spec.enumerate()
                if np.ravel_multi_index(d, spec.num_choices) not in known
            ),
            None,
        )
        example = "" if missing is None else f"; it lacks {spec.encode(missing)}"
        raise ValueError(
            f"the table has {len(flat):,} architectures, the space {spec.size():,}"
            f"{example}"
        )


def _illegal(decisions: np.ndarray, spec: DecisionSpec) -> np.ndarray:
    """bool[N]: the rows that are no architecture of the space."""
    outside = ((decisions < 0) | (decisions >= np.array(spec.num_choices))).any(axis=1)
    if spec.rule is None or outside.any():
        return outside
    return ~_by_parts(spec.is_legal, decisions)


def _merged(spec: DecisionSpec) -> bool:
    """Whether several vectors are one architecture."""
    return spec.rule is not None and spec.rule.architectures(spec) < spec.size()


def _numbers(decisions: np.ndarray, spec: DecisionSpec) -> np.ndarray:
    """int32[N]: the canonical form of each row, as a number."""
    if _merged(spec):
        canonical = functools.partial(spec.rule.canonical, spec)
        decisions = _by_parts(canonical, decisions)
    return np.ravel_multi_index(decisions.T, spec.num_choices)


def _by_parts(function, decisions: np.ndarray) -> np.ndarray:
    """The function of each row, compiled, for so many at once as fit into memory."""
    size = min(_PART, max(len(decisions), 1))
    of_all = jax.jit(lambda rows: jax.lax.map(function, rows, batch_size=size))
    return np.asarray(of_all(decisions.astype(np.int32)))


def check_size(spec: DecisionSpec) -> int:
    """The number of decision vectors of a space, legal or not.

    Raises:
      ValueError: if they are too many for a table.
    """
    total = math.prod(spec.num_choices)
    if total > DENSE:
        raise ValueError(
            f"the space has {total:,} vectors; tables are for {DENSE:,} at most"
        )
    return total


def row_index(decisions: np.ndarray, spec: DecisionSpec) -> dict[str, np.ndarray]:
    """Where `find_rows` looks.

    Returns:
      "row" int32[V_1 * ... * V_T], of each decision vector, -1 where none; where
      several are one architecture, "row" int32[N] of their "number" int32[N], rising.

    Raises:
      ValueError: if there are too many vectors.

    >>> from controller.spec import Decision
    >>> spec = DecisionSpec((Decision("a", ("x", "y")), Decision("b", ("x", "y"))))
    >>> row_index(np.array([[1, 0], [0, 0]]), spec)["row"].tolist()
    [1, -1, 0, -1]
    """
    if _merged(spec):
        numbers = np.ravel_multi_index(decisions.T, spec.num_choices)
        order = np.argsort(numbers).astype(np.int32)
        return {"number": numbers[order].astype(np.int32), "row": order}
    index = np.full(check_size(spec), -1, np.int32)
    index[np.ravel_multi_index(decisions.T, spec.num_choices)] = np.arange(
        len(decisions)
    )
    return {"row": index}


def find_rows(
    index: Mapping[str, jax.Array], spec: DecisionSpec, decisions: jax.Array
) -> jax.Array:
    """int32[n]: rows of decisions int32[n, T], -1 of no architecture; traceable."""
    inside = (decisions >= 0) & (decisions < np.array(spec.num_choices)[None])
    if "number" in index:
        canonical = functools.partial(spec.rule.canonical, spec)
        decisions = jax.vmap(canonical)(decisions)
    flat = jnp.ravel_multi_index(decisions.T, spec.num_choices, mode="clip")
    if "number" in index:
        number = jnp.asarray(index["number"])
        place = jnp.minimum(jnp.searchsorted(number, flat), len(number) - 1)
        row = jnp.where(number[place] == flat, jnp.asarray(index["row"])[place], -1)
    else:
        row = jnp.asarray(index["row"])[flat]
    return jnp.where(inside.all(axis=1), row, -1)


def rows_of(
    index: Mapping[str, np.ndarray], spec: DecisionSpec, decisions: np.ndarray
) -> np.ndarray:
    """int[...]: the same of decisions int[..., T] of the space, on the host."""
    decisions = np.asarray(decisions)
    if "number" not in index:
        vectors = np.moveaxis(decisions, -1, 0)
        return index["row"][np.ravel_multi_index(vectors, spec.num_choices)]
    flat = decisions.reshape(-1, spec.length)
    rows = _by_parts(lambda row: find_rows(index, spec, row[None])[0], flat)
    return rows.reshape(decisions.shape[:-1])
