"""A retrained network as one file: architecture, parameters, batch statistics.

The file is Flax's msgpack of plain arrays and text; it reloads to the same logits.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax import serialization

from child_models.data.preprocess import preprocess
from child_models.spaces import SPACES
from child_models.types import Dataset
from launch.command import UserError

SCHEMA = 1


class Artifact(NamedTuple):
    """A network that was loaded.

    Attributes:
      logits: ``(uint8[B, H, W, C]) -> float32[B, classes]``.
      variables: "params" and "batch_stats".
      description: {"space", "classes", "decisions", "mean", "std"}.
    """

    logits: Callable[[jax.Array], jax.Array]
    variables: Mapping[str, Any]
    description: Mapping[str, Any]


def save_artifact(
    path: epath.PathLike,
    space: Mapping[str, Any],
    decisions: tuple[int, ...],
    dataset: Dataset,
    variables: Mapping[str, Any],
) -> None:
    """Writes the file in one step.

    Args:
      path: of the file.
      space: name and arguments, as ``config.space``.
      decisions: T integers.
      dataset: whose mean and standard deviation images are normalised with.
      variables: "params" and "batch_stats" of the final form.
    """
    description = {
        "schema": SCHEMA,
        "space": dict(space),
        "classes": dataset.classes,
        "decisions": list(decisions),
        "mean": np.asarray(dataset.mean).tolist(),
        "std": np.asarray(dataset.std).tolist(),
    }
    content = {
        "description": json.dumps(description),
        "variables": jax.tree.map(np.asarray, dict(variables)),
    }
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(serialization.msgpack_serialize(content))
    temporary.replace(path)


def load_artifact(path: epath.PathLike) -> Artifact:
    """Reads a network.

    Raises:
      UserError: if there is no such file, or it is of another schema.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"no artefact {path}; launch.retrain writes it")
    content = serialization.msgpack_restore(path.read_bytes())
    description = json.loads(content["description"])
    if description["schema"] != SCHEMA:
        raise UserError(f"{path} is of schema {description['schema']}, not {SCHEMA}")
    options = dict(description["space"])
    space = SPACES[options.pop("name")](classes=description["classes"], **options)
    module = space.module("final")
    choices = space.bind(np.asarray(description["decisions"]))
    scale = preprocess(_Normalisation(description["mean"], description["std"]))
    variables = content["variables"]

    def logits(images):
        return module.apply(variables, choices, scale(images), False)

    return Artifact(jax.jit(logits), variables, description)


class _Normalisation:
    """What `preprocess` reads of a data set."""

    def __init__(self, mean, std):
        self.mean, self.std = np.float32(mean), np.float32(std)
