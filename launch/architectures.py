"""Architectures as the user names them: published names, files, texts."""

import difflib
import json
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from child_models.data import image_shape
from child_models.genotype import holds_genotype, read_genotype
from child_models.spaces import PUBLISHED, SPACES
from child_models.spaces.amoeba_cell import OPS as AMOEBA_OPS
from child_models.spaces.darts_ops import OPS as DARTS_OPS
from child_models.spaces.darts_spec import darts_arguments
from child_models.spaces.enas_text import micro_holds
from controller.spec import Spec
from launch.artifact import load_artifact
from launch.build import resolve
from launch.command import UserError, user_errors
from launch.final import final_config
from launch.workdir import read_config

# Sizes of the published networks, for a text that comes without a config.
_SIZES = {
    "nasbench201": {"channels": 16, "cells": 5},
    "enas_micro": {"channels": 36, "layers": 15},
    "enas_macro": {"channels": 96},
    "nasnet": {"channels": 32, "cells": 18},
    "amoeba_cell": {"channels": 32, "cells": 18},
    "darts": {"channels": 36, "cells": 20, "aux_head": True},
    "pnas_cell": {"channels": 48, "cells": 9},
}
_IMAGE, _CLASSES = (32, 32, 3), 10
_SETTINGS = {"mobile": ((224, 224, 3), 1000)}  # those of the paper, where others


class Subject(NamedTuple):
    """An architecture and the sizes of its network.

    Attributes:
      space: name of its space.
      options: of the space's factory, without "classes".
      image: (H, W, C) of the images.
      classes: number of classes.
      arch: its text, or its decisions.
    """

    space: str
    options: Mapping[str, Any]
    image: tuple[int, int, int]
    classes: int
    arch: str | tuple[int, ...] | None


def read_architecture(spec: Spec, text: str) -> tuple[int, ...]:
    """Decisions that a text, or a file that holds it, names in a space.

    Args:
      spec: of the space.
      text: readable form of the space; or the path of such a text, of a result.json, a
        retrain.json or an artefact.

    Raises:
      UserError: if the text is not of the space, or the file not one of these.
    """
    found = _read_file(text) if _is_file(text) else text
    with user_errors("--arch"):
        if isinstance(found, str):
            return spec.decode(found)
        return spec.validate(found)


def find(
    text: str | None,
    config: Mapping[str, Any] | None,
    overrides: Mapping[str, Any],
) -> Subject:
    """Finds out what a text names.

    Args:
      text: a published name; the path of a file, see `read_architecture`; a genotype, a
        NAS-Bench-201 string or an ENAS arc; None for a space without an architecture.
      config: of an experiment, if one was given; published names do without it.
      overrides: of the space's arguments, stronger than all else.

    Raises:
      UserError: if the text names nothing known.
    """
    changes = {key: value for key, value in overrides.items() if key != "name"}
    if text in PUBLISHED:
        known = PUBLISHED[text]
        sizes = {**known.arguments, **changes}
        classes = sizes.pop("classes", _CLASSES)
        return Subject(known.space, sizes, known.image, classes, known.decisions)
    if text is not None and _is_file(text):
        return _of_file(pathlib.Path(text), config, overrides)
    if config is not None:
        return _of_config(config, changes, text)
    guesses = {} if text is None else _guess(text)
    if "name" not in overrides and len(guesses) != 1:
        raise UserError(f"--arch is {_shorten(text)}: {_unknown(text, guesses)}")
    space = overrides.get("name") or next(iter(guesses))
    sizes = {**_SIZES.get(space, {}), **guesses.get(space, {}), **changes}
    image, classes = _SETTINGS.get(space, (_IMAGE, _CLASSES))
    return Subject(space, sizes, image, classes, text)


# ---- with a config ------------------------------------------------------------------


def _of_config(config: Mapping[str, Any], changes, arch) -> Subject:
    """The sizes are those of the network that the config retrains."""
    resolved = final_config(resolve(config))
    sizes = {**resolved.space.to_dict(), **changes}
    with user_errors("config.data"):
        image, classes = image_shape(**resolved.data.to_dict())
    return Subject(sizes.pop("name"), sizes, image, classes, arch)


def _of_file(path: pathlib.Path, config, overrides) -> Subject:
    """A file; without a config, the one beside it, or what an artefact says."""
    changes = {key: value for key, value in overrides.items() if key != "name"}
    if config is None and path.suffix == ".msgpack":
        known = load_artifact(path).description
        sizes = {**known["space"], **changes}
        name, classes = sizes.pop("name"), sizes.pop("classes")
        decisions = tuple(known["decisions"])
        return Subject(name, sizes, tuple(known["image"]), classes, decisions)
    found = _read_file(str(path))
    if config is not None:
        return _of_config(config, changes, found)
    if isinstance(found, str):
        return find(found, None, overrides)
    beside = read_config(path.parent)
    if beside is None:
        raise UserError(f"--arch: {path} has no config.json beside it; give --config")
    return _of_config(beside, changes, found)


def _is_file(text: str) -> bool:
    if text.endswith((".json", ".msgpack")):
        return True
    try:
        return os.path.isfile(text)
    except ValueError:  # what no path can be
        return False


def _read_file(path: str) -> str | tuple[int, ...]:
    """Decisions of a result.json, retrain.json or artefact; else the file's text."""
    if not os.path.isfile(path):
        raise UserError(f"--arch: no file {path}")
    if path.endswith(".msgpack"):
        return tuple(load_artifact(path).description["decisions"])
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--arch: cannot read {path} as text: {error}") from error
    try:
        content = json.loads(text)
        best = content.get("best") or content["winner"]
        return tuple(best["decisions"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if os.path.basename(path) in ("result.json", "retrain.json"):
            raise UserError(f"--arch: {path} names no best architecture") from error
        return text


# ---- without one --------------------------------------------------------------------


def _guess(text: str) -> dict[str, dict[str, Any]]:
    """The spaces that a text may belong to, and its sizes (of nodes) in each."""
    if text.lstrip().startswith("|") and "~" in text:
        return {"nasbench201": {}}
    if text.lstrip().startswith("{"):
        return _guess_json(text)
    if holds_genotype(text):
        return _guess_genotype(text)
    if re.fullmatch(r"(\s|\||k\d+e\d+|zero)+", text):
        return {"mobile": {}}
    if not re.fullmatch(r"[\d\s,|\[\]()]+", text):
        return {}
    return _by_length(len(re.findall(r"\d+", text)))


def _guess_genotype(text: str) -> dict[str, dict[str, Any]]:
    """ENAS's cells return the states that no node reads, DARTS's all nodes."""
    with user_errors("--arch"):
        found = read_genotype(text)
    sizes = darts_arguments(found)
    says_all = found.normal_concat is not None and "normal_concat" not in sizes
    if micro_holds(found) and not (says_all and sizes.keys() <= {"nodes"}):
        return {"enas_micro": {"nodes": len(found.normal) // 2}}
    return {"darts": sizes}


def _guess_json(text: str) -> dict[str, dict[str, Any]]:
    """Graphs have layers; genotypes of cells lists of blocks; others decisions' names.

    The PNAS space has one cell; blocks of the AmoebaNet space have no combiner.
    """
    try:
        content = json.loads(text)
    except ValueError:
        return _guess_genotype(text) if holds_genotype(text) else {}
    if "layers" in content:
        return {"large_scale": {}}
    if _is_genotype(content):
        return _guess_genotype(text)
    for cell in ("cell", "normal"):
        if isinstance(blocks := content.get(cell), list):
            adds = all(isinstance(b, list) and len(b) == 2 for b in blocks)
            two_cells = "amoeba_cell" if adds else "nasnet"
            space = "pnas_cell" if cell == "cell" else two_cells
            return {space: {"blocks": len(blocks)}}
    layers = sum(re.fullmatch(r"layer/\d+/op", name) is not None for name in content)
    if layers:
        return {"enas_macro": {"layers": layers}}
    names = (re.fullmatch(r"normal/\d+/op_left", name) for name in content)
    nodes = sum(name is not None for name in names)
    return {"enas_micro": {"nodes": nodes}} if nodes else {}


def _is_genotype(content: Mapping[str, Any]) -> bool:
    """Whether cells list (op, state) pairs, and not blocks of two of them.

    Pairs nested by node look like blocks of the AmoebaNet space: its ops are others.
    """
    normal = content.get("normal")
    if not isinstance(normal, list) or not normal:
        return False
    is_pair = isinstance(normal[0], list) and [*map(type, normal[0])] == [str, int]
    text, foreign = json.dumps(content), set(DARTS_OPS) - set(AMOEBA_OPS)
    named = any(f'"{op}"' in text for op in foreign)
    return is_pair or "normal_concat" in content or named


def _by_length(count: int) -> dict[str, dict[str, int]]:
    """An ENAS arc: micro has 8 numbers a node, macro L (L + 1) / 2."""
    guesses = {}
    if count and count % 8 == 0:
        guesses["enas_micro"] = {"nodes": count // 8}
    if layers := next((n for n in range(1, 100) if n * (n + 1) // 2 == count), None):
        guesses["enas_macro"] = {"layers": layers}
    return guesses


def _unknown(text: str | None, guesses: Mapping[str, Mapping[str, int]]) -> str:
    """Why it is not clear which space a text belongs to, and what to give."""
    if guesses:
        fits = [
            f"{space} ({', '.join(f'{n} {name}' for name, n in sizes.items())})"
            for space, sizes in guesses.items()
        ]
        choice = f"--config.space.name={next(iter(guesses))}"
        return f"it fits {' and '.join(fits)}; say which, as in {choice}"
    names = ", ".join(sorted(PUBLISHED))
    if text is None:
        return f"give --config, or one of: {names}"
    near: Sequence[str] = difflib.get_close_matches(text, PUBLISHED, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return (
        f"{hint}it is no file, NAS-Bench-201 string, ENAS arc, genotype or mobile net; "
        f"published names: {names}; for other text give --config or "
        f"--config.space.name ({', '.join(SPACES)})"
    )


def _shorten(text: str | None) -> str:
    if text is None:
        return "missing"
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
