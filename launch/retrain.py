"""Retrains a search's winner from scratch beside random architectures, and tests them.

    python -m launch.retrain --workdir=runs/enas [--compare=DIR] [--arch=TEXT]

The final form of each architecture is trained on train + validation by the recipe of
``config.retrain``, with one seed, and tested once.  ``--compare`` adds the winner of
another search, such as that by uniform sampling (``--config=FILE:random``), ``--arch``
any architecture of the space.  ``--config.retrain.*`` and ``--config.baseline.*`` may
change the recipe.  What ``retrain.json`` holds already is not trained again, and the
same command goes on where it stopped.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from child_models.cost import count
from child_models.retraining import retraining
from child_models.types import Dataset, Space
from controller.spec import DecisionSpec, Spec
from launch import command
from launch.architectures import read_architecture
from launch.artifact import save_artifact
from launch.build import SECTIONS, build_dataset, build_task, resolve
from launch.command import UserError, command_line, user_errors
from launch.final import final_config, final_space, recipe_options
from launch.prepare import prepare_jax
from launch.settings import as_json, check_known, config_sha256, differing_keys
from launch.signals import Signals
from launch.tables import closing_table
from launch.training import NotFinite, train
from launch.workdir import (
    list_differences,
    read_config,
    read_result,
    read_retrained,
    record_command,
    write_json,
)

# Folded into the key of the seed: what random architectures and trainings come from.
_RANDOM, _TRAIN = 0xFFFFFFFE, 0xFFFFFFFD


def retrain(
    config: Mapping[str, Any],
    workdir: epath.PathLike,
    *,
    compare: epath.PathLike | None = None,
    arch: str | None = None,
) -> dict[str, Any]:
    """Trains and tests the winner and ``baseline.n`` random architectures.

    Args:
      config: of the search, resolved or not.
      workdir: of the search; gets ``retrain.json`` and ``winner.msgpack``.
      compare: workdir of a search by another strategy, all else equal.
      arch: text or file of an architecture of the space.

    Returns:
      what ``retrain.json`` holds: {"winner", "random", "others", "recipe", "seed",
      "config_sha256"}; of each network {"decisions", "genotype", "test_accuracy",
      "standard_error", "params", "params_aux", "macs", "seconds", "compile_seconds",
      "epochs"}.

    Raises:
      UserError: without a finished search, on a mistake in ``config.retrain``, or if a
        loss is not finite.
      Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    config, folder = resolve(config), epath.Path(workdir)
    winner = _winner(folder)["decisions"]
    prepare_jax(config)
    with Signals() as signals:
        retraining = _Retraining(config, folder, signals)
        spec = retraining.space.spec
        others = {} if compare is None else compared(spec, folder, epath.Path(compare))
        if arch is not None:
            decisions = read_architecture(spec, arch)
            digest = hashlib.sha256(str(decisions).encode()).hexdigest()[:8]
            others[f"arch {digest}"] = decisions
        return retraining.run(spec.validate(winner), others)


def _winner(folder: epath.Path) -> dict[str, Any]:
    """The result of a search: its best, its strategy, its budget."""
    result = read_result(folder)
    if result is None:
        raise UserError(
            f"{folder} holds no finished search (result.json); run first: "
            + _search_command(folder)
        )
    return result["best"] | {k: result[k] for k in ("strategy", "budget")}


def _search_command(folder: epath.PathLike) -> str:
    arguments = ("--config=...", f"--workdir={folder}")
    return command_line("-m", "launch.search", *arguments)


def compared(
    spec: Spec, folder: epath.Path, other: epath.Path
) -> dict[str, tuple[int, ...]]:
    """Name and decisions of the winner of a search that differs in strategy and seed.

    Raises:
      UserError: if that search is not finished, or differs in other settings.
    """
    ours, theirs = _winner(folder), _winner(other)
    settings = [_compared_settings(path) for path in (folder, other)]
    if differing := differing_keys(*settings):
        raise UserError(
            f"--compare={other} is a search that differs from that in {folder} by more "
            f"than its strategy: {list_differences(differing)}"
        )
    scored = [result["budget"]["scored"] for result in (ours, theirs)]
    if scored[0] != scored[1]:
        text = f"{other} scored {scored[1]} architectures, this search {scored[0]}"
        print(f"note: {text}")
    return {f"{theirs['strategy']} winner": spec.validate(theirs["decisions"])}


def _compared_settings(folder: epath.Path) -> dict[str, Any]:
    """The settings that two searches must share for a comparison of strategies."""
    config = _read_config(folder)
    sections = ("data", "space", "task", "evaluator", "schedule", "derive")
    train = {key: config["train"].get(key) for key in ("rounds", "dtype")}
    return {section: config[section] for section in sections} | {"train": train}


def _read_config(folder: epath.Path) -> dict[str, Any]:
    config = read_config(folder)
    if config is None:
        raise UserError(
            f"{folder} is no workdir of a search; run first: {_search_command(folder)}"
        )
    return config


def random_architectures(
    space: Space, seed: int, n: int, winner: tuple[int, ...]
) -> list[tuple[int, ...]]:
    """Draws n architectures, distinct and other than the winner; fewer in a tiny space.

    Args:
      space: whose spec draws by its `sample`.
      seed: of the search.
      n: how many; the first ones do not depend on it.
      winner: T decisions.
    """
    key = jax.random.fold_in(jax.random.key(seed), _RANDOM)
    wanted = min(n, space.spec.size() - 1)
    sample = space.spec.sample
    if isinstance(space.spec, DecisionSpec):
        sample = jax.jit(sample)
    found: list[tuple[int, ...]] = []
    draw = 0
    while len(found) < wanted:
        decisions = tuple(np.asarray(sample(jax.random.fold_in(key, draw))).tolist())
        draw += 1
        if decisions != winner and decisions not in found:
            found.append(decisions)
    return found


class _Retraining:
    """All trainings of one workdir, and their report."""

    def __init__(self, config: ConfigDict, folder: epath.Path, signals: Signals):
        self._folder, self._signals = folder, signals
        self._config = final_config(config)
        self._dataset = build_dataset(config)
        self.space = final_space(config, self._dataset.classes)
        recipe = as_json(recipe_of(self._config, self._dataset))
        old = read_retrained(folder)
        if old is None or (old["recipe"], old["seed"]) != (recipe, config.train.seed):
            old = {"winner": None, "random": [], "others": []}
        rows = [old["winner"], *old["random"], *old["others"]]
        self._done = {tuple(row["decisions"]): row for row in rows if row}
        self._report = {
            "winner": None,
            "random": [],
            "others": old["others"],
            "recipe": recipe,
            "seed": config.train.seed,
            "config_sha256": config_sha256(config),
        }

    def run(
        self, winner: tuple[int, ...], others: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Any]:
        """Trains what is not trained yet.

        Args:
          winner: T decisions.
          others: the same of more networks, by name.

        Returns:
          the report.
        """
        report, seed, n = self._report, self._report["seed"], self._config.baseline.n
        report["winner"] = self._network("winner", winner, "winner.msgpack")
        self._write()
        for decisions in random_architectures(self.space, seed, n, winner):
            name = f"random {len(report['random']) + 1}"
            report["random"].append(self._network(name, decisions))
            self._write()
        for name, decisions in others.items():
            file = f"{name.replace(' ', '_')}.msgpack"
            row = {"name": name} | self._network(name, decisions, file)
            kept = [row for row in report["others"] if row["name"] != name]
            report["others"] = [*kept, row]
            self._write()
        checkpoints = self._folder / "retrain"
        if checkpoints.exists():
            checkpoints.rmtree()
        return report

    def _write(self) -> None:
        write_json(self._folder / "retrain.json", self._report)

    def _network(
        self, name: str, decisions: tuple[int, ...], file: str | None = None
    ) -> dict[str, Any]:
        """The row of a network; trained if it is not yet, and saved to a file."""
        done = self._done.get(decisions)
        if done and (file is None or self._saved(done, file)):
            return {key: done[key] for key in done if key != "name"}
        genotype = self.space.spec.encode(decisions)
        print(f"{name}: {genotype}", flush=True)
        options = recipe_options(self._config)
        task = build_task(self._config, self._dataset.classes)
        with user_errors("config.retrain"):
            training = retraining(self.space, task, self._dataset, decisions, **options)
        shape = self._dataset.train.images.shape[1:]
        cost = count(self.space.module("final"), self.space.bind(decisions), shape)
        try:
            trained = train(
                training,
                jax.random.fold_in(jax.random.key(self._report["seed"]), _TRAIN),
                name=name,
                folder=self._folder / "retrain" / self._digest(decisions),
                checkpoint_seconds=self._config.train.checkpoint_seconds,
                signals=self._signals,
            )
        except NotFinite as error:
            raise UserError(
                f"{name}: {error}, of architecture {genotype}; a smaller "
                "--config.retrain.learning_rate or clip_norm may help"
            ) from error
        if file is not None:
            save_artifact(
                self._folder / file,
                self._report["recipe"]["space"],
                decisions,
                self._dataset,
                trained.variables,
            )
        accuracy = trained.test_metric
        error = math.sqrt(accuracy * (1 - accuracy) / len(self._dataset.test.labels))
        print(
            f"{name}: {100 * accuracy:.2f} ± {100 * error:.2f} % on the test set after "
            f"{trained.seconds:.0f} s, compiled in {trained.compile_seconds:.0f} s",
            flush=True,
        )
        return {
            "decisions": list(decisions),
            "genotype": genotype,
            "test_accuracy": accuracy,
            "standard_error": error,
            **cost._asdict(),
            "seconds": trained.seconds,
            "compile_seconds": trained.compile_seconds,
            "epochs": options["epochs"],
            "artifact": file,
        }

    def _saved(self, row: Mapping[str, Any], file: str) -> bool:
        return row["artifact"] == file and (self._folder / file).exists()

    def _digest(self, decisions: tuple[int, ...]) -> str:
        """Names a training: what it depends on, briefly."""
        parts = [decisions, self._report["recipe"], self._report["seed"]]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def recipe_of(config: ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """All that the networks have in common, and that a result depends on."""
    return {
        **config.retrain.to_dict(),
        "space": {
            **config.space.to_dict(),
            "classes": dataset.classes,
            "dtype": config.train.dtype,
        },
        "task": config.task.to_dict(),
        "train_images": len(dataset.train.labels) + len(dataset.validation.labels),
        "test_images": len(dataset.test.labels),
        "batch_norm": "running statistics in the test",
    }


# ---- the program --------------------------------------------------------------------

_OPEN = ("retrain", "baseline")  # sections that this command's flags may change


def _config(workdir: str) -> dict[str, Any]:
    """The config of a workdir, with this command's overrides.

    Raises:
      UserError: if there is none, or the flags change what was searched.
    """
    config = _read_config(epath.Path(workdir))
    if flags.FLAGS.config is not None:
        raise UserError(f"the config is that of {workdir}; leave out --config=FILE")
    given = command.override({})
    check_known("config", given, SECTIONS)
    if closed := [section for section in given if section not in _OPEN]:
        raise UserError(
            f"config.{closed[0]} belongs to the search in {workdir}; this command may "
            f"change config.{' and config.'.join(_OPEN)} only"
        )
    return command.override(config)


def main() -> None:
    """Retrains what the flags name, and prints the table."""
    options = flags.FLAGS
    config = _config(options.workdir)
    record_command(options.workdir, command.this_command())
    report = retrain(
        config,
        options.workdir,
        compare=options.compare,
        arch=options.arch,
    )
    print(closing_table(report), flush=True)


if __name__ == "__main__":
    command.define_config(required=False)
    command.define_workdir()
    flags.DEFINE_string("compare", None, "workdir of a search whose winner is added")
    flags.DEFINE_string("arch", None, "an architecture that is added: text or a file")
    command.run(main)
