"""Latency tables: milliseconds of every unit of a space, on one device.

ProxylessNAS, https://arxiv.org/abs/1812.00332, section 4.1 and appendix B: the latency
of a network is taken to be the sum over its units.  A table is JSON:

    {"space": {"name", and all arguments}, "image": [H, W, C], "batch": B,
     "device": TEXT, "versions": {...}, "units": {UNIT: milliseconds}, ...}
"""

import json
import platform
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from child_models.cost_terms import Shape, Term, Unit

NANOSECONDS = 1e6  # of a millisecond; costs are added as integers


def units_of(terms: Iterable[Term]) -> dict[str, Unit]:
    """Every unit of some terms once, by its name."""
    return {each.name: each for term in terms for each, _ in term.units}


def device_name() -> str:
    """What programs run on: the accelerator, or the processor's model."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return device.device_kind
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"^model name\s*: (.+)$", information.read_text(), re.M)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def read_latency(
    path: epath.PathLike,
    *,
    space: Mapping[str, Any],
    image: Shape,
    device: str | None,
    terms: Iterable[Term],
) -> dict[str, int]:
    """Nanoseconds of every unit, from a table of this space, size and device.

    Args:
      path: of the table.
      space: name and arguments, as a table has them.
      image: (H, W, C).
      device: where it must have been measured; None for the one that is here.
      terms: of the space.

    Raises:
      ValueError: if the file is no table, or one of another space, size or device.
    """
    try:
        table = json.loads(epath.Path(path).read_text())
        its = (table["space"], tuple(table["image"]), table["device"])
        units = {name: float(ms) for name, ms in table["units"].items()}
    except OSError as error:
        raise ValueError(f"cannot read latency table {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no latency table: {error!r}") from error
    remedy = "measure one by python -m launch.latency"
    space = json.loads(json.dumps(dict(space)))
    differing = [k for k in {**its[0], **space} if its[0].get(k) != space.get(k)]
    if differing:
        listed = ", ".join(
            f"{k} ({its[0].get(k)!r} there, {space.get(k)!r} here)" for k in differing
        )
        raise ValueError(f"{path} is of another space: {listed}; {remedy}")
    if its[1] != tuple(image):
        raise ValueError(
            f"{path} is of images {list(its[1])}; those here are {list(image)}; "
            f"{remedy}"
        )
    here = device_name() if device is None else device
    if its[2] != here:
        raise ValueError(
            f"{path} was measured on {its[2]!r}; this is {here!r}; {remedy}, or name "
            "that device as config.objective.device"
        )
    if missing := [name for name in units_of(terms) if name not in units]:
        raise ValueError(f"{path} lacks {missing[0]} and {len(missing) - 1} others")
    return {name: round(ms * NANOSECONDS) for name, ms in units.items()}
