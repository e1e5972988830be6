"""Describes an architecture: parameters, multiply-adds, decisions, a picture in text.

    python -m launch.describe --arch=NASNet-A-mobile [--json] [--config.space.cells=9]
    python -m launch.describe --config=configs/enas_micro_cifar10.py --arch=ARC
    python -m launch.describe --arch=runs/enas/result.json

`--arch` is a published name, a result.json, a NAS-Bench-201 string, an ENAS arc, or a
genotype.  A published name carries its own sizes; a result.json those of its workdir;
a NAS-Bench-201 string or an ENAS arc without a config gets the space's default sizes.
Shapes suffice: nothing is compiled.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict

from child_models.cost import count
from child_models.spaces import PUBLISHED, SPACES
from child_models.types import Space
from launch import command
from launch.command import UserError, user_errors
from launch.settings import fill, to_dict


class Subject(NamedTuple):
    """What is to be described: sizes, and the architecture as text or decisions."""

    space: str
    options: Mapping[str, Any]
    image: tuple[int, int, int]
    classes: int
    arch: str | tuple[int, ...]


def describe(subject: Subject) -> dict[str, Any]:
    """Counts an architecture's final form.

    Returns:
      {"params", "params_aux", "macs", "decisions", "genotype"}.

    Raises:
      UserError: on an unknown argument of the space or an illegal architecture.
    """
    space = _build(subject)
    with user_errors("--arch"):
        if isinstance(subject.arch, str):
            decisions = space.spec.decode(subject.arch)
        else:
            decisions = space.spec.validate(subject.arch)
    with user_errors(f"config.space ({subject.space})"):
        choices = space.bind(decisions)
        cost = count(space.module("final"), choices, subject.image)
    return {
        **cost._asdict(),
        "decisions": list(decisions),
        "genotype": space.spec.encode(decisions),
    }


def _build(subject: Subject) -> Space:
    if subject.space not in SPACES:
        raise UserError(
            f"config.space.name is {subject.space!r}; known: {', '.join(SPACES)}"
        )
    factory = SPACES[subject.space]
    fill("config.space", factory, subject.options, {"classes"})
    with user_errors("config.space"):
        return factory(classes=subject.classes, **subject.options)


def subject_of(
    arch: str,
    config: Mapping[str, Any],
    image: tuple[int, int, int] | None = None,
    classes: int | None = None,
) -> Subject:
    """Finds out what text names.

    Args:
      arch: of ``--arch``.
      config: plain; its "space" overrides what the architecture carries.
      image: (H, W, C) of the images, or None for what fits.
      classes: number of classes, or None for what fits.

    Raises:
      UserError: if the text names nothing known.
    """
    options = dict(config.get("space", {}))
    name = options.pop("name", None)
    image_of = {"digits": (8, 8, 1)}.get(config.get("data", {}).get("name"))
    image, classes = image or image_of or (32, 32, 3), classes or 10
    if arch in PUBLISHED:
        known = PUBLISHED[arch]
        arguments = dict(known.arguments) | config.get("overrides", options)
        arguments.pop("name", None)
        carried = arguments.pop("classes", classes)
        return Subject(known.space, arguments, known.image, carried, known.decisions)
    if arch.endswith(".json") or pathlib.Path(arch).is_file():
        return _of_result(pathlib.Path(arch), name, options, image, classes)
    name = name or _guess(arch)
    if name is None:
        raise UserError(
            f"--arch {arch[:60]!r} is no file, NAS-Bench-201 string or ENAS arc; give "
            f"--config with its space, or one of: {', '.join(sorted(PUBLISHED))}"
        )
    if name == "nasbench201" and not config.get("space"):
        options = {"channels": 16, "cells": 5}
    if name == "enas_micro" and not options and (b := _numbers(arch)):
        options = {"nodes": len(b) // 8}
    if name == "enas_macro" and not options and (b := _numbers(arch)):
        options = {"layers": _layers(len(b))}
    return Subject(name, options, image, classes, arch)


def _of_result(path, name, options, image, classes) -> Subject:
    """A result.json; the sizes are those of the config beside it."""
    if not path.is_file():
        raise UserError(f"--arch: no file {path}")
    try:
        decisions = tuple(json.loads(path.read_text())["best"]["decisions"])
        beside = json.loads((path.parent / "config.json").read_text())
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UserError(
            f"--arch: {path} is no result.json with its config.json: {error}"
        ) from error
    sizes = beside["space"] | options
    if name is not None:
        sizes["name"] = name
    if beside["data"]["name"] == "digits":
        image = (8, 8, 1)
    return Subject(sizes.pop("name"), sizes, image, classes, decisions)


def _numbers(text: str) -> list[str]:
    return re.findall(r"\d+", text) if re.fullmatch(r"[\d\s,|\[\]()]+", text) else []


def _layers(length: int) -> int | None:
    """L with L + L (L - 1) / 2 numbers, or None."""
    return next((n for n in range(1, 100) if n * (n + 1) // 2 == length), None)


def _guess(arch: str) -> str | None:
    """The space that a text belongs to, if it shows."""
    if re.match(r"\|\w+~0\|", arch):
        return "nasbench201"
    n = len(_numbers(arch))
    if n and n % 8 == 0:
        return "enas_micro"
    return "enas_macro" if n and _layers(n) else None


def picture(space: Space, decisions: tuple[int, ...]) -> str:
    """The architecture as lines, one a node, or one a decision without nodes."""
    lines: dict[str, list[str]] = {}
    for decision, value in zip(space.spec.decisions, decisions, strict=True):
        node, _, field = decision.name.rpartition("/")
        label = (
            f"{field}={decision.choices[value]}" if field else decision.choices[value]
        )
        lines.setdefault(node, []).append(label)
    return "\n".join(f"  {node:12} {'  '.join(parts)}" for node, parts in lines.items())


def main() -> None:
    """Prints the description."""
    options = flags.FLAGS
    config = to_dict(options.config or ConfigDict())
    image = tuple(int(n) for n in options.image) if options.image else None
    if image is not None and len(image) != 3:
        raise UserError(f"--image is {options.image}; it must be H,W,C")
    overrides = command.overrides("space")
    subject = subject_of(
        options.arch, config | {"overrides": overrides}, image, options.classes
    )
    found = describe(subject)
    if options.json:
        print(json.dumps(found))
        return
    print(found["genotype"])
    print(picture(_build(subject), tuple(found["decisions"])))
    print(f"params      {found['params']:,}")
    print(f"params_aux  {found['params_aux']:,}")
    print(f"macs        {found['macs']:,}")


if __name__ == "__main__":
    command.define_config(required=False)
    flags.DEFINE_string("arch", None, "published name, file, string, arc or genotype")
    flags.mark_flag_as_required("arch")
    flags.DEFINE_bool("json", False, "one line of JSON")
    flags.DEFINE_list("image", None, "H,W,C of the images")
    flags.DEFINE_integer("classes", None, "number of classes", lower_bound=1)
    command.run(main)
