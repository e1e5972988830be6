"""What the keys of a config mean: a line each, out of the factories' docstrings."""

import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from launch.build import SECTIONS, factory_of
from launch.settings import to_dict

_SECTION = re.compile(r"^(Args|Attributes):\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<names>\w+(?:, \w+)*):\s*(?P<text>.*)$")
_WIDTH = 100


def arguments(factory: Callable[..., Any]) -> dict[str, str]:
    """What a factory's docstring says of its arguments, each in one line.

    Args:
      factory: a function, a partial one, or a dataclass.

    Returns:
      text by name; arguments that are not described are absent.
    """
    while isinstance(factory, functools.partial):
        factory = factory.func
    found: dict[str, str] = {}
    section = _SECTION.search(inspect.getdoc(factory) or "")
    names: list[str] = []
    for line in textwrap.dedent(section[2]).splitlines() if section else ():
        if entry := _ENTRY.match(line):
            names = entry["names"].split(", ")
            found |= dict.fromkeys(names, entry["text"])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def explain(config: Mapping[str, Any]) -> str:
    """A line a key: its dotted name, its value, and what it means.

    Args:
      config: resolved.
    """
    lines = []
    config = to_dict(config)
    for section in SECTIONS:
        factory = factory_of(section, config[section].get("name"))
        lines += _explain(f"config.{section}", config[section], factory)
    return "\n".join(lines)


def explain_comparison(config: Mapping[str, Any]) -> str:
    """The same of a config of `launch.compare`, which need not be complete."""
    from launch.compare import Comparison  # matplotlib takes a second to load

    config = to_dict(config)
    space, strategies = config.get("space", {}), config.get("strategies", {})
    known = {f.name: f.default for f in dataclasses.fields(Comparison)}
    missing = {k: v for k, v in known.items() if v is not dataclasses.MISSING}
    plain = {k: v for k, v in config.items() if k in known}
    lines = _explain("config", missing | plain, Comparison)
    lines += _explain("config.space", space, factory_of("space", space.get("name")))
    for name, options in strategies.items():
        factory = factory_of("strategy", options.get("name"))
        lines += _explain(f"config.strategies.{name}", options, factory, _SAMPLES)
    return "\n".join(lines)


_SAMPLES = {"samples": "architectures that are proposed at once; 1 by default."}


def _explain(
    where: str,
    options: Mapping[str, Any],
    factory,
    others: Mapping[str, str] | None = None,
) -> list[str]:
    known, lines = arguments(factory) | dict(others or {}), []
    for name, value in options.items():
        key = f"{where}.{name}"
        if name == "policy" and isinstance(value, Mapping):
            lines += _explain(key, value, factory_of("policy"))
            continue
        text = known.get(name)
        if name == "name" and text is None:
            text = (inspect.getdoc(factory) or "").partition("\n")[0]
        shown = textwrap.shorten(f"{key} = {value!r}", _WIDTH, placeholder=" ...")
        lines.append(f"{shown}\n    {text or 'not described'}")
    return lines
