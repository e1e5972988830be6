"""Retraining: the final form of one fixed architecture from scratch, then its test."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from child_models.data.batches import Batches
from child_models.recipe import Recipe, TrainState, recipe
from child_models.types import Dataset, Space, Split, Task


class Retraining(NamedTuple):
    """The training of one network.

    Attributes:
      data: {"train", "test"}: `Split`s, on the device.
      steps: in all epochs together.
      steps_per_epoch: batches in an epoch.
      init: ``(key, data) -> TrainState``.
      run: ``(state, data, count) -> (state, {"loss", "accuracy"})``, see `Recipe.run`.
        To be compiled with the state donated.
      test: ``(variables, data) -> float32[]``, the mean metric over the test split,
        with running statistics.
    """

    data: dict[str, Split]
    steps: int
    steps_per_epoch: int
    init: Callable[[jax.Array, Any], TrainState]
    run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    test: Callable[[Any, Any], jax.Array]


def retraining(
    space: Space,
    task: Task,
    dataset: Dataset,
    decisions: Any,
    *,
    batch_size: int = 96,
    **options: Any,
) -> Retraining:
    """Builds the training of an architecture's final form on train + validation.

    Args:
      space: of the sizes that the network is to have.
      task: loss and metric.
      dataset: test is read by `test` only.
      decisions: T integers.
      batch_size: B.
      **options: of `recipe`; "epochs" must be there.

    Returns:
      the functions of the training; nothing is compiled.

    Raises:
      ValueError: on illegal decisions, or a batch larger than the images.
    """
    choices = space.bind(np.asarray(decisions))
    training = _recipe(space, task, dataset, batch_size, options)
    everything = Split(
        np.concatenate([dataset.train.images, dataset.validation.images]),
        np.concatenate([dataset.train.labels, dataset.validation.labels]),
    )
    data = jax.tree.map(jnp.asarray, {"train": everything, "test": dataset.test})

    def init(key, data):
        return training.init(key, data["train"], choices)

    def run(state, data, count):
        return training.run(state, data["train"], choices, count)

    def test(variables, data):
        return training.measure(variables, data["test"], choices)["accuracy"]

    return Retraining(data, training.steps, training.steps_per_epoch, init, run, test)


def check_recipe(
    space: Space, task: Task, dataset: Dataset, *, batch_size: int = 96, **options: Any
) -> None:
    """Raises what `retraining` would, of any architecture; copies no images."""
    _recipe(space, task, dataset, batch_size, options)


def _recipe(space, task, dataset, batch_size, options) -> Recipe:
    total = len(dataset.train.labels) + len(dataset.validation.labels)
    batches = Batches(total, batch_size, "train + validation")
    module = space.module("final")
    return recipe(module, task, dataset, batches, measure_batch=batch_size, **options)
