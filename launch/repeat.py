"""Repeats search and retraining over seeds, and makes one table.

    python -m launch.repeat --config=configs/enas_micro_digits.py --seeds=0,1,2 \
        --workdir=runs/enas_digits

Each seed has a workdir of its own, ``seed_N``, as one search and one retraining would
leave it.  The search is compiled once; the same command continues where it stopped.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from launch import command
from launch.build import build, resolve
from launch.command import check_seeds
from launch.driver import search
from launch.prepare import prepare_jax
from launch.retrain import retrain
from launch.tables import mean_accuracy
from launch.workdir import write_json


def repeat(
    config: Mapping[str, Any], workdir: epath.PathLike, seeds: Sequence[int]
) -> dict[str, Any]:
    """Searches and retrains once a seed.

    Args:
      config: resolved or not; ``train.seed`` is replaced.
      workdir: gets a folder a seed, and ``repeat.json``.
      seeds: distinct.

    Returns:
      what ``repeat.json`` holds: {"seeds": [one summary each], "summary"}.

    Raises:
      UserError: as `search` does, and on repeated or negative seeds.
    """
    check_seeds(seeds)
    config = resolve(config)
    prepare_jax(config)
    built = build(config)
    runs = []
    for seed in seeds:
        print(f"== seed {seed}", flush=True)
        runs.append(_one(_with_seed(config, seed), epath.Path(workdir), seed, built))
        report = {"seeds": runs, "summary": summarise(runs)}
        write_json(epath.Path(workdir) / "repeat.json", report)
    return report


def _one(config, workdir, seed, built) -> dict[str, Any]:
    folder = workdir / f"seed_{seed}"
    found = search(config, folder, built=built)
    trained = retrain(config, folder)
    return {
        "seed": seed,
        "genotype": found["best"]["genotype"],
        "reward": found["best"]["reward"],
        "collapse": found["diagnostics"]["collapse"],
        "budget": found["budget"],
        "winner": trained["winner"],
        "random": trained["random"],
    }


def _with_seed(config: ConfigDict, seed: int) -> ConfigDict:
    plain = config.to_dict()
    return ConfigDict(plain | {"train": plain["train"] | {"seed": seed}})


# ---- the table ----------------------------------------------------------------------


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds, and the winner's advantage paired by seed.

    The standard error of a mean over seeds is their sample deviation over sqrt(n); of
    one seed, it comes from the size of the test set alone.

    Args:
      runs: {"winner", "random"} with "test_accuracy" and "standard_error" each.

    Returns:
      {"winner", "random", "difference"}: {"mean", "standard_error"} each, the last two
      None without random architectures; and "verdict", whether the difference is two
      standard errors or more.
    """
    winners = [mean_accuracy([run["winner"]]) for run in runs]
    summary = {"winner": _over_seeds(winners), "random": None, "difference": None}
    if not all(run["random"] for run in runs):
        return summary | {"verdict": None}
    randoms = [mean_accuracy(run["random"]) for run in runs]
    differences = [
        (w[0] - r[0], math.hypot(w[1], r[1]))
        for w, r in zip(winners, randoms, strict=True)
    ]
    difference = _over_seeds(differences)
    real = abs(difference["mean"]) >= 2 * difference["standard_error"]
    better = "winner better" if difference["mean"] > 0 else "winner worse"
    return summary | {
        "random": _over_seeds(randoms),
        "difference": difference,
        "verdict": better if real and difference["mean"] else "no difference",
    }


def _over_seeds(values: Sequence[tuple[float, float]]) -> dict[str, float]:
    means = [mean for mean, _ in values]
    if len(means) == 1:
        error = values[0][1]
    else:
        error = float(np.std(means, ddof=1)) / math.sqrt(len(means))
    return {"mean": math.fsum(means) / len(means), "standard_error": error}


def table(name: str, report: Mapping[str, Any]) -> str:
    """The README's Markdown: a row a seed, and the mean over seeds.

    Args:
      name: of the config.
      report: as `repeat` returns it.
    """
    head = [name, "winner, test %", "random, test %", "difference", "params"]
    head.append("search, s")
    rows = [head, ["---"] * len(head)]
    for run in report["seeds"]:
        winner = mean_accuracy([run["winner"]])
        random, difference = "-", "-"
        if run["random"]:
            mean, error = mean_accuracy(run["random"])
            random = _pair(mean, error)
            difference = _percent(winner[0] - mean, "+")
        params = f"{run['winner']['params']:,}"
        seconds = f"{run['budget']['seconds']:.0f}"
        label = f"seed {run['seed']}"
        rows.append([label, _pair(*winner), random, difference, params, seconds])
    summary = report["summary"]
    random, difference = "-", "-"
    if summary["random"] is not None:
        random = _pair(**summary["random"])
        difference = f"{_pair(**summary['difference'], sign='+')}: {summary['verdict']}"
    label = f"mean of {len(report['seeds'])}"
    rows.append([label, _pair(**summary["winner"]), random, difference, "", ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.2f}"


def _pair(mean: float, standard_error: float, sign: str = "") -> str:
    return f"{_percent(mean, sign)} ± {_percent(standard_error)}"


# ---- the program --------------------------------------------------------------------


def main() -> None:
    """Repeats over the seeds of the flags, and prints the table."""
    seeds = command.seeds_from_flags()
    config = command.config_from_flags()
    report = repeat(config, flags.FLAGS.workdir, seeds)
    name = os.path.basename(flags.FLAGS.config).replace(".py", "")
    print(table(name, report), flush=True)


if __name__ == "__main__":
    command.define_config()
    command.define_workdir()
    command.define_seeds()
    command.run(main)
