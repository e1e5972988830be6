"""A retrained network as one file: architecture, parameters, batch statistics.

The file is Flax's msgpack of plain arrays and text; it reloads to the same logits.
"""

import functools
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax import serialization

from child_models.data.preprocess import preprocess
from child_models.spaces import SPACES
from child_models.types import Dataset
from launch.command import UserError
from launch.workdir import write_bytes

SCHEMA = 1
FORM = "final"


class Artifact(NamedTuple):
    """A network that was loaded.

    Attributes:
      logits: ``(uint8[B, H, W, C]) -> float32[B, classes]``, with running statistics.
      variables: "params" and "batch_stats".
      description: {"schema", "form", "space": {"name", and its arguments},
        "decisions", "genotype", "image", "mean", "std"}.
    """

    logits: Callable[[jax.Array], jax.Array]
    variables: Mapping[str, Any]
    description: Mapping[str, Any]


def save_artifact(
    path: epath.PathLike,
    space: Mapping[str, Any],
    decisions: Sequence[int],
    dataset: Dataset,
    variables: Mapping[str, Any],
) -> None:
    """Writes the file in one step.

    Args:
      path: of the file.
      space: its "name" and all arguments of its factory, "classes" and "dtype" too.
      decisions: T integers.
      dataset: whose mean and standard deviation images are normalised with.
      variables: "params" and "batch_stats" of the final form.
    """
    options = dict(space)
    spec = SPACES[options.pop("name")](**options).spec
    description = {
        "schema": SCHEMA,
        "form": FORM,
        "space": dict(space),
        "decisions": list(decisions),
        "genotype": spec.encode(decisions),
        "image": list(dataset.train.images.shape[1:]),
        "mean": np.asarray(dataset.mean).tolist(),
        "std": np.asarray(dataset.std).tolist(),
    }
    content = {
        "description": json.dumps(description),
        "variables": jax.tree.map(np.asarray, dict(variables)),
    }
    write_bytes(path, serialization.msgpack_serialize(content))


def load_artifact(path: epath.PathLike) -> Artifact:
    """Reads a network.

    Raises:
      UserError: if there is no such file, it is damaged, or of another schema.
    """
    path = epath.Path(path)
    if not path.exists():
        raise UserError(f"no artefact {path}; launch.retrain writes it")
    try:
        content = serialization.msgpack_restore(path.read_bytes())
        description = json.loads(content["description"])
        schema, variables = description["schema"], content["variables"]
    except Exception as error:  # whatever a damaged file makes msgpack raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is no intact artefact: {reason}") from error
    if schema != SCHEMA:
        raise UserError(f"{path} is of schema {schema}; this version reads {SCHEMA}")
    # An argument: as constants, the weights would be folded and change the last bits.
    logits = functools.partial(jax.jit(forward(description)), variables)
    return Artifact(logits, variables, description)


def forward(description: Mapping[str, Any]) -> Callable[..., jax.Array]:
    """``(variables, uint8[B, H, W, C]) -> float32[B, classes]`` of a network."""
    options = dict(description["space"])
    space = SPACES[options.pop("name")](**options)
    module = space.module(description["form"])
    choices = space.bind(np.asarray(description["decisions"]))
    mean, std = (np.asarray(description[k], np.float32) for k in ("mean", "std"))
    scale = preprocess(types.SimpleNamespace(mean=mean, std=std))

    def logits(variables, images):
        return module.apply(variables, choices, scale(images), False)

    return logits
