"""Measures every architecture of a small space, for a table.

Each is trained by the trials of `from_scratch`, once a seed, all by one program.  Their
accuracy on the validation split is the reward, that on the test split the value: no
search sees it, a comparison reports it.  What is measured is kept after every training.

Shapes: N architectures, S seeds, T decisions.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from child_models.evaluators.from_scratch import Trainings, trainings
from child_models.tables import Table, check_size, write_table
from controller.types import Execution
from launch.build import Search, build, build_mesh, resolve
from launch.command import UserError, check_seeds, user_errors
from launch.kept import Kept
from launch.prepare import prepare_jax
from launch.settings import config_sha256
from launch.signals import Signals
from launch.workdir import open_workdir

FILE = "build.npz"  # in the workdir
SECTIONS = ("data", "space", "evaluator", "task", "train")  # that trainings depend on


@dataclasses.dataclass(frozen=True)
class Measured:
    """What trainings came to."""

    reward: np.ndarray  # float64[N, S], accuracy on validation; NaN: it diverged
    value: np.ndarray  # float64[N, S], the same on test
    seconds: np.ndarray  # float64[N, S], of a training; NaN where there was none yet

    @classmethod
    def nothing(cls, decisions: Sequence, seeds: Sequence) -> "Measured":
        """Before the first training."""
        shape = len(decisions), len(seeds)
        return cls(*(np.full(shape, np.nan) for _ in range(3)))

    def left(self) -> np.ndarray:
        """int[n, 2]: architecture and seed of what is not measured, seed by seed."""
        return np.argwhere(np.isnan(self.seconds.T))[:, ::-1]


def measure(
    config: Mapping[str, Any],
    workdir: epath.PathLike,
    out: str | os.PathLike,
    seeds: Sequence[int],
) -> Table:
    """Measures all architectures, or goes on with what is in the workdir.

    Args:
      config: of a search by trials, resolved or not.
      workdir: gets ``config.json`` and ``build.npz``.
      out: npz to write, see `table_of`.
      seeds: S, distinct; all else of `config` being equal, each is the key of N
        trainings.

    Returns:
      the table, its columns named after the data set.

    Raises:
      UserError: on a mistake of the user, before anything compiles.
      Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    check_seeds(seeds)
    config = resolve(config)
    if config.evaluator.name != "from_scratch":
        raise UserError(
            f"config.evaluator.name is {config.evaluator.name!r}; a table is measured "
            "by 'from_scratch'"
        )
    prepare_jax(config)
    built = build(config)
    with user_errors("config.space"):
        check_size(built.space.spec)
    _check_out(out)
    kept = Kept(open_workdir(workdir, config) / FILE, _fingerprint(config, seeds))
    decisions = np.array(list(built.space.spec.enumerate()), np.int32)
    arrays = kept.read()
    done = Measured(**arrays) if arrays else Measured.nothing(decisions, seeds)
    _run(_trainings(built), decisions, seeds, done, kept)
    table = table_of(decisions, done, column_name(config.data.name))
    with user_errors(str(out)):
        write_table(out, table, **_by_seed(done, seeds, column_name(config.data.name)))
    return table


def _check_out(out: str | os.PathLike) -> None:
    folder = os.path.dirname(os.path.abspath(out))
    if os.path.isdir(out) or not os.access(folder, os.W_OK):
        raise UserError(
            f"cannot write the table {out}: it must be a file in a folder that exists"
        )


def _trainings(built: Search) -> Trainings:
    options = built.config.evaluator.to_dict()
    for name in ("name", *Execution._fields):  # trainings run here, one by one
        del options[name]
    for name in ("reward_epochs", "reward_power"):
        if (value := options.pop(name)) != 1:
            raise UserError(
                f"config.evaluator.{name} is {value}; it must be 1: a table holds "
                "accuracies after the last epoch"
            )
    with user_errors("config.evaluator"):
        return trainings(
            built.space,
            built.task,
            built.dataset,
            ("validation", "test"),
            mesh=build_mesh(built.config.train.devices),
            **options,
        )


def _run(training, decisions, seeds, done: Measured, kept: Kept) -> None:
    """Fills in what is left; one training a call, for the seconds are each one's own.

    The seconds include the look at the test split, which a search would not take.
    """
    left = done.left()
    if not len(left):
        return
    print(
        f"{len(left)} of {done.reward.size} trainings are left; compiling", flush=True
    )
    compiled = _compile(training, decisions[0])
    told = time.monotonic()
    with Signals() as signals:
        for count, (row, column) in enumerate(left, 1):
            key = jax.random.key(seeds[column])
            begin = time.perf_counter()
            result = compiled(key, training.data, jnp.asarray(decisions[row]))
            accuracy, valid = jax.device_get(result)
            done.seconds[row, column] = time.perf_counter() - begin
            if valid:
                done.reward[row, column] = accuracy["validation"]
                done.value[row, column] = accuracy["test"]
            kept.write(**dataclasses.asdict(done))
            if time.monotonic() - told > 10 or count == len(left):
                told = time.monotonic()
                print(f"{count} of {len(left)} trainings", flush=True)
            signals.heed()


def _compile(training: Trainings, decisions: np.ndarray) -> Callable[..., Any]:
    """`Trainings.run` as a program, so that no training's seconds compile it."""
    example = (jax.random.key(0), training.data, jnp.asarray(decisions))
    return jax.jit(training.run).lower(*example).compile()


# ---- the table ----------------------------------------------------------------------


def table_of(decisions: np.ndarray, done: Measured, name: str) -> Table:
    """The table of means over seeds.

    Args:
      decisions: int[N, T].
      done: all of them.
      name: of the columns.

    Returns:
      reward and value in percent, NaN where a seed diverged; cost in seconds.
    """
    return Table(
        decisions,
        reward={name: 100 * done.reward.mean(axis=1)},
        value={name: 100 * done.value.mean(axis=1)},
        cost={name: done.seconds.mean(axis=1)},
    )


def column_name(dataset: str) -> str:
    """``config.data.name`` without its kind and folder: npz:/a/b.npz is b."""
    return pathlib.PurePath(dataset.partition(":")[2] or dataset).stem


def _by_seed(done: Measured, seeds, name) -> dict[str, np.ndarray]:
    """What the means are of, as further arrays of the file."""
    return {
        "seeds": np.array(seeds),
        f"seeds_reward_{name}": 100 * done.reward,
        f"seeds_value_{name}": 100 * done.value,
    }


def _fingerprint(config: ConfigDict, seeds: Sequence[int]) -> str:
    """Of everything that the trainings depend on."""
    own = {section: config[section].to_dict() for section in SECTIONS}
    own["train"] = {"dtype": config.train.dtype}
    return config_sha256(own | {"seeds": list(seeds)})
