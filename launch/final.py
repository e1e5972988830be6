"""The network that a search's winner becomes, and how it is trained from scratch."""

from typing import Any

from ml_collections import ConfigDict

from child_models.retraining import check_recipe
from child_models.types import Dataset, Space
from launch.build import build_space, build_task, resolve
from launch.command import UserError, user_errors


def final_config(config: ConfigDict) -> ConfigDict:
    """The config of a network that is retrained: ``retrain.space`` over ``space``.

    Args:
      config: resolved.
    """
    options = config.to_dict()
    options["space"] |= options["retrain"]["space"] or {}
    options["task"]["label_smoothing"] = options["retrain"]["label_smoothing"]
    return resolve(options)


def final_space(config: ConfigDict, classes: int) -> Space:
    """The space of the sizes that are retrained.

    Args:
      config: of the search, resolved.
      classes: number of classes.

    Raises:
      UserError: on a size that no network has, or one that changes the decisions.
    """
    try:
        space = build_space(final_config(config), classes)
    except UserError as error:
        text = str(error).removeprefix("config.space: ")
        raise UserError(f"config.retrain.space: {text}") from error
    if space.spec.decisions != build_space(config, classes).spec.decisions:
        raise UserError(
            "config.retrain.space changes what the decisions are; it may change sizes "
            "that leave them alone, such as channels"
        )
    return space


def recipe_options(config: ConfigDict) -> dict[str, Any]:
    """What ``config.retrain`` says of the training; the rest is of space and task."""
    others = ("space", "label_smoothing")
    return {k: v for k, v in config.retrain.to_dict().items() if k not in others}


def check_retraining(config: ConfigDict, dataset: Dataset) -> None:
    """Tells mistakes in ``config.retrain`` before the search, not after it.

    Args:
      config: of the search, resolved.
      dataset: of ``config.data``.

    Raises:
      UserError: as retraining would.
    """
    space = final_space(config, dataset.classes)
    if not space.bindings or config.evaluator.name == "tabular":
        return  # a table's data set is there for its number of classes alone
    task = build_task(final_config(config), dataset.classes)
    with user_errors("config.retrain"):
        check_recipe(space, task, dataset, **recipe_options(config))
