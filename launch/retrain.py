"""Retrains a search's winner from scratch beside random architectures, and tests them.

    python -m launch.retrain --workdir=runs/enas [--compare=runs/enas_random]

The final form of each architecture is trained on train + validation by the recipe of
``config.retrain``, then tested once.  What is trained already is not trained again.
The winner of ``--compare``, a search by uniform sampling (``--config=FILE:random``), is
retrained alike.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from child_models.cost import count
from child_models.evaluators.from_scratch import FromScratch, from_scratch
from child_models.types import Dataset, Space
from launch import command
from launch.artifact import save_artifact
from launch.build import build_dataset, build_space, build_task, resolve
from launch.command import UserError, user_errors
from launch.driver import prepare_jax
from launch.settings import config_sha256
from launch.workdir import read_json, write_json

CALLS = 20  # compiled calls of a training, between which progress is shown


def retrain(
    config: Mapping[str, Any],
    workdir: epath.PathLike,
    *,
    compare: epath.PathLike | None = None,
) -> dict[str, Any]:
    """Trains and tests the winner and ``baseline.n`` random architectures.

    Args:
      config: of the search, resolved or not.
      workdir: of the search; gets ``retrain.json`` and ``winner.msgpack``.
      compare: workdir of another search in the same space, whose winner is shown too.

    Returns:
      what ``retrain.json`` holds: {"winner", "random", "compared", "recipe", "seed",
      "config_sha256"}.

    Raises:
      UserError: without a finished search, or on a mistake in ``config.retrain``.
    """
    config, folder = resolve(config), epath.Path(workdir)
    winner = _winner(folder)
    prepare_jax(config)
    dataset = build_dataset(config)
    options = config.to_dict()
    options["space"] |= options["retrain"]["space"] or {}
    options["task"]["label_smoothing"] = options["retrain"]["label_smoothing"]
    config = resolve(options)
    space = build_space(config, dataset.classes)
    old = read_json(folder / "retrain.json") or {}
    if old.get("config_sha256") != config_sha256(config):
        old = {}
    report = {
        "winner": None,
        "random": [],
        "compared": None,
        "recipe": options["retrain"],
        "seed": config.train.seed,
        "config_sha256": config_sha256(config),
    }
    known = [old.get("winner"), old.get("compared"), *old.get("random", [])]

    def train(name, decisions):
        for row in known:
            if row and tuple(row["decisions"]) == decisions:
                return row
        artifact = folder / "winner.msgpack" if name == "winner" else None
        return _train(config, dataset, space, name, decisions, artifact)

    report["winner"] = train("winner", winner)
    write_json(folder / "retrain.json", report | {"random": old.get("random", [])})
    for i, decisions in enumerate(_random(config, space, winner)):
        report["random"].append(train(f"random {i + 1}", decisions))
        write_json(folder / "retrain.json", report)
    if compare is not None:
        decisions = space.spec.validate(_winner(epath.Path(compare)))
        report["compared"] = train("compared", decisions)
    write_json(folder / "retrain.json", report)
    return report


def _winner(folder: epath.Path) -> tuple[int, ...]:
    result = read_json(folder / "result.json")
    if result is None:
        raise UserError(
            f"{folder} holds no finished search (result.json); run first: "
            f"python -m launch.search --config=... --workdir={folder}"
        )
    return tuple(result["best"]["decisions"])


def _random(config: ConfigDict, space: Space, winner: tuple[int, ...]) -> list:
    """Distinct random architectures, other than the winner."""
    key = jax.random.fold_in(jax.random.key(config.train.seed), 1)
    wanted = min(config.baseline.n, space.spec.size() - 1)
    sample = jax.jit(space.spec.sample)
    found: list[tuple[int, ...]] = []
    draw = 0
    while len(found) < wanted:
        decisions = tuple(np.asarray(sample(jax.random.fold_in(key, draw))).tolist())
        draw += 1
        if decisions != winner and decisions not in found:
            found.append(decisions)
    return found


def _train(
    config: ConfigDict,
    dataset: Dataset,
    space: Space,
    name: str,
    decisions: tuple[int, ...],
    artifact: epath.Path | None,
) -> dict[str, Any]:
    """Trains and tests one architecture; a row of the report."""
    recipe = config.retrain.to_dict()
    for key in ("space", "label_smoothing"):
        del recipe[key]
    task = build_task(config, dataset.classes)
    with user_errors("config.retrain"):
        training = from_scratch(space, task, dataset, decisions, **recipe)
    cost = count(
        space.module("final"),
        space.bind(np.asarray(decisions)),
        dataset.train.images.shape[1:],
    )
    start = time.perf_counter()
    variables, compile_seconds = _fit(training, config.train.seed, name)
    accuracy = float(jax.jit(training.test)(variables, training.data))
    seconds = time.perf_counter() - start
    if artifact is not None:
        save_artifact(artifact, config.space.to_dict(), decisions, dataset, variables)
    n = len(dataset.test.labels)
    return {
        "decisions": list(decisions),
        "genotype": space.spec.encode(decisions),
        "test_accuracy": accuracy,
        "standard_error": math.sqrt(accuracy * (1 - accuracy) / n),
        **cost._asdict(),
        "seconds": round(seconds, 1),
        "compile_seconds": round(compile_seconds, 1),
        "epochs": recipe["epochs"],
    }


def _fit(training: FromScratch, seed: int, name: str) -> tuple[dict[str, Any], float]:
    """The trained variables, and the seconds that compiling took.

    Raises:
      UserError: on a loss that is not finite.
    """
    start = time.perf_counter()
    state = jax.jit(training.init)(jax.random.key(seed), training.data)
    run = jax.jit(training.run, donate_argnums=0)
    compiled = run.lower(state, training.data, jnp.int32(1)).compile()
    compile_seconds = time.perf_counter() - start
    size = -(-training.steps // CALLS)
    with tqdm(total=training.steps, desc=name, unit="step") as bar:
        for begin in range(0, training.steps, size):
            state, metrics = compiled(state, training.data, jnp.int32(size))
            if bool(state.failed):
                raise UserError(
                    f"training of {name}: the loss of step {int(state.step)} is not "
                    "finite; lower config.retrain.learning_rate"
                )
            bar.set_postfix(loss=f"{float(metrics['loss']):.3f}", refresh=False)
            bar.update(min(size, training.steps - begin))
    return {"params": state.params, "batch_stats": state.batch_stats}, compile_seconds


# ---- the table ----------------------------------------------------------------------


def table(report: Mapping[str, Any]) -> str:
    """The closing table, and the winner's advantage in a sentence."""
    rows = [("winner", report["winner"])]
    rows += [(f"random {i + 1}", row) for i, row in enumerate(report["random"])]
    if report["compared"]:
        rows.append(("uniform search", report["compared"]))
    lines = [f"{'':16}{'test accuracy':>18}{'params':>12}{'macs':>14}{'seconds':>9}"]
    for name, row in rows:
        accuracy = f"{100 * row['test_accuracy']:.2f} +- "
        accuracy += f"{100 * row['standard_error']:.2f}"
        lines.append(
            f"{name:16}{accuracy:>18}{row['params']:>12,}{row['macs']:>14,}"
            f"{row['seconds']:>9.0f}"
        )
    if report["random"]:
        lines.append(_verdict(report["winner"], report["random"]))
    return "\n".join(lines)


def _verdict(winner: Mapping[str, Any], random: Sequence[Mapping[str, Any]]) -> str:
    n = len(random)
    difference = winner["test_accuracy"] - sum(r["test_accuracy"] for r in random) / n
    error = math.sqrt(
        winner["standard_error"] ** 2
        + sum(r["standard_error"] ** 2 for r in random) / n**2
    )
    verdict = "" if abs(difference) >= 2 * error and difference else ": no difference"
    return (
        f"winner - mean of {n} random: {100 * difference:+.2f} +- {100 * error:.2f} "
        f"points{verdict}"
    )


def main() -> None:
    """Retrains what the flags name, and prints the table."""
    options = flags.FLAGS
    config = read_json(epath.Path(options.workdir) / "config.json")
    if config is None:
        raise UserError(
            f"{options.workdir} is no workdir of a search; run first: python -m "
            f"launch.search --config=... --workdir={options.workdir}"
        )
    print(table(retrain(config, options.workdir, compare=options.compare)))


if __name__ == "__main__":
    command.define_workdir()
    flags.DEFINE_string(
        "compare", None, "workdir of a search whose winner is shown too"
    )
    command.run(main)
