"""Compares strategies on a table, over hundreds of seeds.

    python -m launch.compare --config=configs/compare_nasbench201.py \
        --config.table=FILE.npz --workdir=DIR

Every strategy searches once a seed under the same budget, of simulated seconds or of
evaluations; the architecture of the best reward is the one that is reported.  Prints a
table, writes ``compare.json`` and the figure ``compare.png``.  A strategy that is done
is kept, so the same command continues.
"""

import dataclasses
import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from child_models.evaluators.tabular import lookup
from child_models.spaces import SPACES
from child_models.tables import Table, read_table, row_index, rows_of
from controller.budget import Budget, History, many_searches
from controller.spec import DecisionSpec
from controller.strategies import STRATEGIES, check_able
from controller.types import Evaluator, check_gradients
from launch import command, curves
from launch.build import resolve_named
from launch.command import UserError, user_errors
from launch.curves import Trace
from launch.kept import Kept
from launch.prepare import prepare_cache
from launch.settings import check_known, check_section, config_sha256, fill, to_dict
from launch.tables import align
from launch.workdir import write_json

OWN = "own"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """How strategies are compared.

    Attributes:
      table: file, see `child_models.tables`.
      reward: name of the column that searches see; "own" for a search of its own for
        each value, on the reward of the same name.
      seconds: budget of a search, simulated; None where evaluations are counted.
      evaluations: the same as a number.
      seeds: searches of each strategy.
      seed: of the first; the others follow it.
      nan: "refuse" or "mask", see `child_models.evaluators.tabular`.
    """

    table: str
    reward: str = OWN
    seconds: float | None = None
    evaluations: int | None = None
    seeds: int = 500
    seed: int = 0
    nan: str = "refuse"

    def __post_init__(self):
        for name, least in (("seeds", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be {least} or more"
                )


# ---- checking -----------------------------------------------------------------------


def resolve(config: Mapping[str, Any]) -> ConfigDict:
    """Checks a config and fills in defaults.

    Args:
      config: the fields of `Comparison`, "space", and "strategies": arguments of each
        by a name of the user's, the strategy's own under "name".

    Raises:
      UserError: on an unknown or missing key, or a value of another type.
    """
    given = to_dict(config)
    check_section("config", given)
    names = [field.name for field in dataclasses.fields(Comparison)]
    check_known("config", given, [*names, "space", "strategies"])
    plain = {k: v for k, v in given.items() if k in names}
    if not plain.get("table"):
        raise UserError("config.table is missing; give --config.table=FILE.npz")
    filled = fill("config", Comparison, plain)
    with user_errors("config"):
        Comparison(**filled)
    space = resolve_named("config.space", given.get("space", {}), SPACES, {"dtype"})
    strategies = given.get("strategies", {})
    check_section("config.strategies", strategies)
    if not strategies:
        raise UserError("config.strategies is empty; nothing is compared")
    filled["space"] = space
    filled["strategies"] = {}
    for name, options in strategies.items():
        where = f"config.strategies.{name}"
        check_section(where, options)
        options = dict(options)
        samples = options.pop("samples", 1)
        if not isinstance(samples, int) or samples < 1:
            raise UserError(f"{where}.samples is {samples!r}; it must be 1 or more")
        checked = resolve_named(where, options, STRATEGIES, {"spec", "steps_per_round"})
        filled["strategies"][name] = checked | {"samples": samples}
    return ConfigDict(filled).lock()


# ---- comparing ----------------------------------------------------------------------


def compare(config: Mapping[str, Any], workdir: epath.PathLike) -> dict[str, Any]:
    """Runs every strategy over all seeds.

    Args:
      config: see `resolve`.
      workdir: gets ``compare.json``, ``compare.png`` and ``searches/``.

    Returns:
      what ``compare.json`` holds: {"table", "reward", "budget_seconds",
      "budget_evaluations", "seeds", "datasets": {DATASET: {"best", "best_of_reward",
      "best_reward"}}, "strategies": {NAME: {DATASET: {"mean", "std", "median",
      "regret", "reward_regret", "evaluations"}}}, "seconds": {NAME}}.  A regret is the
      best of the table minus the mean.

    Raises:
      UserError: on anything that the user can put right.
    """
    config, workdir = resolve(config), epath.Path(workdir)
    chosen = Comparison(**{k: config[k] for k in _fields()})
    budget = Budget(chosen.seconds, chosen.evaluations)
    with user_errors("config.space"):
        options = config.space.to_dict()
        spec = SPACES[options.pop("name")](**options).spec
    with user_errors("config.table"):
        table = read_table(chosen.table, spec)
        targets = _targets(table, chosen.reward)
        evaluators = {r: lookup(spec, table, r, nan=chosen.nan) for r in targets}
        _check_values(table, targets, spec)
    if budget.seconds is not None:
        for reward in targets:
            if reward not in table.cost:
                known = ", ".join(table.cost) or "none"
                raise UserError(
                    f"config.seconds: the table has no cost {reward!r}; it has "
                    f"{known}; without costs count evaluations"
                )
    with user_errors("config"):
        for evaluator in evaluators.values():
            budget.check(float(evaluator.data["cost"].max()))
    index = row_index(table.decisions, spec)
    built = _strategies(config, spec, next(iter(evaluators.values())))
    digest = hashlib.sha256(epath.Path(chosen.table).read_bytes()).hexdigest()
    prepare_cache()
    keys = jax.vmap(jax.random.key)(np.arange(chosen.seeds) + chosen.seed)
    report: dict[str, Any] = {
        "table": chosen.table,
        "reward": chosen.reward,
        "budget_seconds": budget.seconds,
        "budget_evaluations": budget.evaluations,
        "seeds": chosen.seeds,
        "datasets": _ceilings(table, targets),
        "strategies": {},
        "seconds": {},
    }
    traces: dict[str, dict[str, Trace]] = {}
    for name, (strategy, samples) in built.items():
        rows, traces[name], report["seconds"][name] = {}, {}, 0.0
        if not strategy.traceable:
            print(f"{name} is driven from the host: one seed after the other")
        for reward, datasets in targets.items():
            path = workdir / "searches" / f"{name}-{reward}.npz"
            kept = Kept(path, _fingerprint(config, name, digest))
            search = many_searches(strategy, evaluators[reward], samples=samples)
            history, seconds = _searches(kept, search, keys, budget)
            _check_found(name, reward, history)
            report["seconds"][name] += seconds
            taken = rows_of(index, spec, history.decisions)
            rows |= _summaries(table, reward, datasets, history, taken)
            for dataset in datasets:
                traces[name][dataset] = _trace(
                    table.value[dataset][taken], history, budget
                )
        report["strategies"][name] = {d: rows[d] for d in report["datasets"]}
        write_json(workdir / "compare.json", report)
        print(f"{name}: {report['seconds'][name]:.1f} s", flush=True)
    curves.draw(workdir / "compare.png", traces, report)
    return report


def _searches(kept: Kept, search, keys, budget: Budget) -> tuple[History, float]:
    """The searches and the seconds that they took, now or when they were run."""
    try:
        arrays = kept.read()
    except UserError:  # of other settings or cut short; it is replaced
        arrays = None
    if arrays is None:
        start = time.perf_counter()
        history = search(keys, budget)
        arrays = history._asdict() | {"seconds": time.perf_counter() - start}
        kept.write(**arrays)
    seconds = float(arrays.pop("seconds"))
    return History(**arrays), seconds


def _check_found(name: str, reward: str, history: History) -> None:
    """Refuses searches that have nothing to report."""
    empty = int(np.sum(history.incumbent()[:, -1] < 0))
    if empty:
        raise UserError(
            f"{name} found nothing valid in {empty} of {len(history.reward)} searches "
            f"on reward_{reward}, most of which is masked; raise the budget"
        )


def _fields() -> list[str]:
    return [field.name for field in dataclasses.fields(Comparison)]


def _targets(table: Table, reward: str) -> dict[str, list[str]]:
    """The values that are reported of a search on each reward."""
    if reward != OWN:
        table.column("reward", reward)
        return {reward: list(table.value)}
    for name in table.value:
        table.column("reward", name)
    return {name: [name] for name in table.value}


def _check_values(
    table: Table, targets: Mapping[str, list[str]], spec: DecisionSpec
) -> None:
    """Refuses values that are not finite of architectures that a search may find."""
    for reward, datasets in targets.items():
        found = np.isfinite(table.reward[reward])
        if not found.any():
            raise ValueError(f"reward_{reward} is finite in no row of the table")
        for name in datasets:
            bad = np.flatnonzero(found & ~np.isfinite(table.value[name]))
            if len(bad):
                raise ValueError(
                    f"value_{name} is not finite in {len(bad)} rows whose "
                    f"reward_{reward} is, first of "
                    f"{spec.encode(table.decisions[bad[0]])}; it could not be "
                    "reported, so its reward must be NaN too, and config.nan 'mask'"
                )


def _finite(column: np.ndarray) -> np.ndarray:
    """A column with NaN for all that is not finite."""
    return np.where(np.isfinite(column), column, np.nan)


def _ceilings(table: Table, targets: Mapping[str, list[str]]) -> dict[str, Any]:
    rows = {}
    for reward, datasets in targets.items():
        signal = _finite(table.reward[reward])
        top = int(np.nanargmax(signal))
        for name in datasets:
            rows[name] = {
                "best": float(np.nanmax(_finite(table.value[name]))),
                "best_of_reward": float(table.value[name][top]),
                "best_reward": float(signal[top]),
            }
    return rows


def _strategies(
    config: ConfigDict, spec: DecisionSpec, evaluator: Evaluator
) -> dict[str, Any]:
    built = {}
    for name, options in config.strategies.to_dict().items():
        samples, method = options.pop("samples"), options.pop("name")
        with user_errors(f"config.strategies.{name}"):
            check_able(method, spec)
            built[name] = STRATEGIES[method](spec, **options), samples
            check_gradients(built[name][0], evaluator)
    return built


def _summaries(table, reward, datasets, history: History, taken) -> dict[str, Any]:
    last = history.incumbent()[:, -1:]
    rows = np.take_along_axis(taken, last, axis=1)[:, 0]
    signal = _finite(table.reward[reward])
    summaries = {}
    for name in datasets:
        values = table.value[name][rows]
        mean = float(np.mean(values))
        summaries[name] = {
            "mean": mean,
            "std": float(np.std(values)),
            "median": float(np.median(values)),
            "regret": float(np.nanmax(_finite(table.value[name]))) - mean,
            "reward_regret": float(np.nanmax(signal) - np.mean(signal[rows])),
            "evaluations": float(np.mean(history.paid.sum(axis=1))),
        }
    return summaries


def _trace(values, history: History, budget: Budget) -> Trace:
    """The incumbent's value over what was spent, over seeds."""
    which = history.incumbent()
    best = np.where(which < 0, np.nan, np.take_along_axis(values, which, axis=1))
    if budget.seconds is None:
        spent = np.broadcast_to(np.arange(1.0, best.shape[1] + 1), best.shape)
        grid = spent[0]
    else:
        spent = np.cumsum(history.cost, axis=1, dtype=np.float64)
        grid = np.linspace(0, budget.seconds, 201)[1:]
    rows = np.full((len(best), len(grid)), np.nan)
    for row, cost, value, paid in zip(rows, spent, best, history.paid, strict=True):
        step = np.searchsorted(cost[paid], grid, side="right") - 1
        row[step >= 0] = value[step[step >= 0]]
    return Trace.of(grid, rows)


# ---- what is kept -------------------------------------------------------------------


def _fingerprint(config: ConfigDict, name: str, digest: str) -> str:
    """Of everything that the searches of one strategy depend on.

    Args:
      config: resolved.
      name: of the strategy.
      digest: of the table's content; where the file lies does not matter.
    """
    plain = config.to_dict()
    own = plain.pop("strategies")[name]
    return config_sha256(plain | {"strategy": own, "table": digest})


# ---- the program --------------------------------------------------------------------


def text(report: Mapping[str, Any]) -> str:
    """Aligned rows, one a strategy and data set, under the ceilings of the table.

    Args:
      report: as ``compare.json``.
    """
    head = ("strategy", "data set", "mean", "std", "median", "regret", "in reward", "n")
    rows = [head]
    for name, datasets in report["strategies"].items():
        for dataset, row in datasets.items():
            keys = ("mean", "std", "median", "regret", "reward_regret")
            cells = [f"{row[key]:.2f}" for key in keys]
            rows.append((name, dataset, *cells, f"{row['evaluations']:.0f}"))
    if report["budget_seconds"] is None:
        budget = f"{report['budget_evaluations']} evaluations"
    else:
        budget = f"{report['budget_seconds']:,.0f} simulated seconds"
    lines = [f"{report['seeds']} seeds of {budget}; reward: {report['reward']}"]
    for name, row in report["datasets"].items():
        best, ceiling = row["best"], row["best_of_reward"]
        lines.append(f"{name}: best {best:.2f}; the best reward has {ceiling:.2f}")
    return "\n".join([*lines, *align(rows, left=(0, 1))])


def main() -> None:
    """Compares what the flags name."""
    report = compare(command.config_from_flags(), flags.FLAGS.workdir)
    print(text(report), flush=True)


if __name__ == "__main__":
    command.define_config()
    command.define_workdir()
    command.run(main)
