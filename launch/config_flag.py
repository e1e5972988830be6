"""``--config``: the file that it names, and the overrides beside it.

    --config=FILE[:ARG] --config.SECTION.KEY=VALUE

A value is a Python literal, or none, true or false; any other text stands for itself.
Which keys and types there are is checked by `launch.build.resolve`.
"""

import ast
import copy
import os
import re
import runpy
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

_WORDS = {"none": None, "true": True, "false": False}


def split(argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Takes the overrides out of a command line.

    Returns:
      the other arguments, and the values by dotted key; of equal keys the last counts.

    Raises:
      ValueError: on an override without a value.
    """
    others, given = [], {}
    for argument in argv:
        found = re.fullmatch(r"--?config\.([^=]*)(?:=(.*))?", argument, re.DOTALL)
        if found is None:
            others.append(argument)
        elif found[2] is None:
            raise ValueError(f"{argument} has no value; give {argument}=VALUE")
        else:
            given[found[1]] = _value(found[2])
    return others, given


def _value(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def override(config: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested sections with the values of dotted keys.

    Sections that are missing, or None, are made.

    Raises:
      ValueError: if a key leads through a value that is no section.
    """
    result = copy.deepcopy(dict(config))
    for key, value in given.items():
        *parents, name = key.split(".")
        section = result
        for depth, parent in enumerate(parents, 1):
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                where = ".".join(parents[:depth])
                raise ValueError(
                    f"config has no key {key!r}; config.{where} is {section!r}"
                )
        section[name] = value
    return result


def read_file(name: str) -> dict[str, Any]:
    """The config that a file makes.

    Args:
      name: ``FILE`` or ``FILE:ARG``, for its ``get_config()`` or ``get_config(ARG)``.

    Raises:
      ValueError: if there is no such file, or it makes no config.
    """
    path, colon, argument = name.partition(":")
    if not os.path.isfile(path):
        known = [f"configs/{name}" for name in _experiments("configs")]
        hint = f"; there are {', '.join(known)}" if known else ""
        raise ValueError(f"no config file {path!r}{hint}")
    try:
        content = runpy.run_path(path)
        config = content["get_config"](*([argument] if colon else []))
        return ConfigDict(config).to_dict()
    except Exception as error:  # whatever the user's file raises
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, ValueError):
            reason = str(error)
        elif isinstance(error, KeyError) and "get_config" in error.args:
            reason = "it has no function get_config"
        reason = " ".join(reason.split())
        raise ValueError(f"config file {path}: {reason}") from error


def _experiments(folder: str) -> list[str]:
    """Names of the config files in a folder."""
    files = os.listdir(folder) if os.path.isdir(folder) else []
    helpers = ("__init__.py", "common.py")
    return sorted(f for f in files if f.endswith(".py") and f not in helpers)
