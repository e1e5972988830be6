"""Measures the latency of every unit of a space on this device, into a table.

    python -m launch.latency --config=configs/darts_digits.py --workdir=runs/latency
        [--batch=1] [--repeats=50] [--networks=20]

A unit is an op at a shape, or whatever else the space's networks consist of; each is
compiled alone.  All take turns, so that whatever else the machine does is spread over
them; a time is the median of the repeats, one call before them apart, less that of a
call that does nothing.  ``latency.json`` in the workdir is the table that
``config.objective.table`` takes, see `child_models.latency`.  So many random networks
are timed whole too, and the correlation of the ranks of their times with those of the
sums says how well the table predicts.  The same command measures what is not there yet.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict
from scipy.stats import spearmanr
from tqdm import tqdm

from child_models.cost_model import cost_model
from child_models.cost_terms import Unit, unit
from child_models.latency import NANOSECONDS, device_name, units_of
from child_models.ops.layers import Identity
from child_models.types import Dataset, Space
from launch import command
from launch.benchmark import versions
from launch.build import build_dataset, build_space, resolve
from launch.command import UserError
from launch.objective import space_key
from launch.prepare import prepare_jax
from launch.suites.timing import in_turn
from launch.workdir import read_json, write_json

NAME = "latency.json"
_NOTHING = "nothing"  # a call that returns its input, measured beside the others


def unit_run(each: Unit, batch: int) -> Callable[[], Any]:
    """Compiles a unit alone; the call that is to be timed."""
    inputs = [jnp.zeros(x.shape, x.dtype) for x in each.inputs(batch)]
    variables = _variables(lambda *x: each.module.init(jax.random.key(0), *x), *inputs)
    return _compiled(each.module.apply, variables, *inputs)


def network_run(
    space: Space, decisions: Any, image: tuple[int, ...], batch: int
) -> Callable[[], Any]:
    """The same of a whole network, in its final form, outside training."""
    module, choices = space.module("final"), space.bind(np.asarray(decisions))
    x = jnp.zeros((batch, *image))
    init = functools.partial(module.init, jax.random.key(0), choices, train=False)
    variables = _variables(lambda x: init(x=x), x)
    return _compiled(lambda v, x: module.apply(v, choices, x, False), variables, x)


def milliseconds(
    runs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
    """The median time of each run less that of a call that does nothing."""
    nothing = unit_run(unit(Identity(), (1, 1, 1)), 1)
    times = in_turn({_NOTHING: nothing} | dict(runs), repeats)
    medians = {name: float(np.median(taken)) for name, taken in times.items()}
    idle = medians.pop(_NOTHING)
    return {name: max(0.0, median - idle) for name, median in medians.items()}


def _variables(init, *inputs):
    """Some of the right shapes; what they are does not change the time."""
    generator = np.random.default_rng(0)
    return jax.tree.map(
        lambda s: jnp.asarray(generator.uniform(0.1, 1, s.shape), s.dtype),
        jax.eval_shape(init, *inputs),
    )


def _compiled(function, *arguments):
    program = jax.jit(function).lower(*arguments).compile()
    return lambda: program(*arguments)


def measure(
    config: ConfigDict,
    dataset: Dataset,
    space: Space,
    path: epath.Path,
    *,
    batch: int,
    repeats: int,
    networks: int,
) -> dict[str, Any]:
    """Measures what the file lacks, units and then networks, and writes it.

    Args:
      config: resolved.
      dataset: whose images have the size.
      space: of the config.
      path: of the table.
      batch: images of a call.
      repeats: of each figure.
      networks: random ones that are measured whole.

    Returns:
      the table.

    Raises:
      UserError: if the space is no sum over units, or the file is of another one.
    """
    if space.terms is None:
        raise UserError(
            f"config.space.name={config.space.name} with these arguments is no "
            "sum over units"
        )
    image = dataset.train.images.shape[1:]
    terms = list(space.terms(image))
    table = _opened(path, config, dataset, batch, repeats)
    if not table["units"]:
        units = tqdm(units_of(terms).items(), desc="compiling units")
        runs = {name: unit_run(each, batch) for name, each in units}
        table["units"] = milliseconds(runs, repeats)
        write_json(path, table)
    nanoseconds = {k: round(v * NANOSECONDS) for k, v in table["units"].items()}
    model = cost_model(space.spec, terms, lambda each: nanoseconds[each.name])
    if len(table["networks"]) != networks:
        drawn = [space.spec.sample(jax.random.key(i)) for i in range(networks)]
        drawn = {str(i): np.asarray(decisions) for i, decisions in enumerate(drawn)}
        runs = {
            i: network_run(space, decisions, image, batch)
            for i, decisions in tqdm(drawn.items(), desc="compiling networks")
        }
        measured = milliseconds(runs, repeats)
        table["networks"] = [
            {
                "decisions": drawn[i].tolist(),
                "measured": measured[i],
                "predicted": model.count(drawn[i]) / NANOSECONDS,
            }
            for i in drawn
        ]
        table |= _agreement(table["networks"])
        write_json(path, table)
    return table


def _opened(path, config, dataset, batch, repeats) -> dict[str, Any]:
    about = {
        "space": space_key(config, dataset.classes),
        "image": list(dataset.train.images.shape[1:]),
        "batch": batch,
        "device": device_name(),
        "repeats": repeats,
        "versions": versions(),
    }
    old = read_json(path)
    if old is None:
        return about | {"units": {}, "networks": []} | _agreement([])
    differing = [name for name, value in about.items() if old.get(name) != value]
    if differing:
        raise UserError(
            f"{path} is a table of another {', '.join(differing)}; take another workdir"
        )
    return old


def _agreement(rows: list[dict[str, Any]]) -> dict[str, Any]:
    measured, predicted = (
        np.array([row[name] for row in rows]) for name in ("measured", "predicted")
    )
    if len(rows) < 2 or np.ptp(measured) == 0 or np.ptp(predicted) == 0:
        return {"rank_correlation": None, "ratio": None}
    return {
        "rank_correlation": float(spearmanr(measured, predicted).statistic),
        "ratio": float(np.median(predicted / measured)),
    }


def main() -> None:
    """Measures, writes ``latency.json``, and says how well the sums predict."""
    given, config = flags.FLAGS, resolve(command.config_from_flags())
    prepare_jax(config)
    dataset = build_dataset(config)
    space = build_space(config, dataset.classes)
    path = epath.Path(given.workdir) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from error
    table = measure(
        *(config, dataset, space, path),
        batch=given.batch,
        repeats=given.repeats,
        networks=given.networks,
    )
    print(f"{len(table['units'])} units on {table['device']}, batch {table['batch']}")
    if table["rank_correlation"] is not None:
        print(
            f"{len(table['networks'])} networks: rank correlation (Spearman) of sum "
            f"and measurement {table['rank_correlation']:.3f}; the sum is "
            f"{table['ratio']:.2f} of the measurement (median)"
        )
    print(f"--config.objective.cost=latency --config.objective.table={path}")


if __name__ == "__main__":
    command.define_config()
    command.define_workdir()
    flags.DEFINE_integer("batch", 1, "images of a call", lower_bound=1)
    flags.DEFINE_integer("repeats", 50, "timed runs of each figure", lower_bound=1)
    flags.DEFINE_integer("networks", 20, "random networks timed whole", lower_bound=0)
    command.run(main)
