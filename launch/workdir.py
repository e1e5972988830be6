"""The folder of a run: its JSON files, and whether a config may go on in it.

A workdir is local or remote (``gs://``); it is the interface to other tools.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from child_models.data.prepared import cache_folder
from controller.objectives import Objective
from launch.build import SECTIONS
from launch.command import UserError
from launch.settings import CHANGEABLE, as_json, differing_keys

NO_OBJECTIVE = dataclasses.asdict(Objective())


def open_workdir(path: str | os.PathLike, config: ConfigDict) -> epath.Path:
    """Makes the folder and writes ``config.json``, or checks the one that is there.

    Args:
      path: local or remote.
      config: resolved.

    Returns:
      the folder.

    Raises:
      UserError: if the folder cannot be written, or belongs to another config.
    """
    workdir = epath.Path(path)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / ".writable").write_text("")
        (workdir / ".writable").unlink()
    except OSError as error:
        raise UserError(f"cannot write to workdir {path}: {error.strerror}") from error
    if (old := read_json(workdir / "config.json")) is not None:
        _check_same(path, old, config)
    write_json(workdir / "config.json", as_json(config))
    return workdir


def _check_same(path: str | os.PathLike, old: Mapping, config: ConfigDict) -> None:
    # Written before there were objectives.
    differing = differing_keys({"objective": NO_OBJECTIVE} | old, config)
    refused = {k: pair for k, pair in differing.items() if k not in CHANGEABLE}
    if refused:
        raise UserError(
            f"workdir {path} is of another config; these keys differ: "
            f"{list_differences(refused)}. Take another workdir, or the old values"
        )


def record_command(workdir: epath.PathLike, command: str) -> None:
    """Adds a command to ``commands.txt``, unless it is the last one there."""
    path = epath.Path(workdir) / "commands.txt"
    lines = read_commands(workdir)
    if lines[-1:] != [command]:
        path.write_text("\n".join([*lines, command]) + "\n")


def read_commands(workdir: epath.PathLike) -> list[str]:
    """The commands that worked in a workdir, in order."""
    path = epath.Path(workdir) / "commands.txt"
    return path.read_text().splitlines() if path.exists() else []


def list_differences(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Dotted keys with both values, eight at most."""
    items = [f"{k} ({old!r} -> {new!r})" for k, (old, new) in differing.items()]
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return f"{', '.join(items[:8])}{more}"


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a file of JSON, see `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_bytes(path: epath.PathLike, content: bytes) -> None:
    """Writes a file in one step: a reader sees the old one or the new one."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: epath.PathLike) -> Any:
    """What a file holds; None where there is none.

    Raises:
      UserError: if it is not JSON.
    """
    path = epath.Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error


def read_config(workdir: epath.PathLike) -> dict[str, Any] | None:
    """The config of a workdir; None where there is none.

    Raises:
      UserError: if the file is damaged, or lacks a section.
    """
    config = _read_report(
        epath.Path(workdir) / "config.json",
        {"": [section for section in SECTIONS if section != "objective"]},
    )
    return config and {"objective": NO_OBJECTIVE} | config


def read_result(workdir: epath.PathLike) -> dict[str, Any] | None:
    """The result of a search; None where it is not finished.

    Raises:
      UserError: if the file is damaged, or lacks a key.
    """
    keys = {
        "": ("best", "strategy", "budget", "config_sha256"),
        "best": ("decisions", "genotype", "reward"),
        "budget": ("scored",),
    }
    return _read_report(epath.Path(workdir) / "result.json", keys)


def read_retrained(workdir: epath.PathLike) -> dict[str, Any] | None:
    """What a workdir's networks reached; None where none was retrained.

    Raises:
      UserError: if the file is damaged, or lacks a key.
    """
    keys = {
        "": ("winner", "random", "others", "recipe", "seed"),
        "winner": ("decisions",),
    }
    return _read_report(epath.Path(workdir) / "retrain.json", keys)


def _read_report(
    path: epath.Path, keys: Mapping[str, Iterable[str]]
) -> dict[str, Any] | None:
    """A JSON object, with these keys in it ("") and in its members."""
    report = read_json(path)
    if report is None and not path.exists():
        return None
    for member, wanted in keys.items():
        holder = report[member] if member else report
        for key in wanted:
            if not isinstance(holder, dict) or key not in holder:
                raise UserError(f"{path} is not as cellwright writes it: no {key!r}")
    return report


def local_folder(workdir: epath.Path) -> pathlib.Path:
    """The workdir if it is local, else a folder for what must be written locally."""
    if "://" not in os.fspath(workdir):
        return pathlib.Path(workdir)
    digest = hashlib.sha256(os.fspath(workdir).encode()).hexdigest()[:16]
    folder = cache_folder() / "workdirs" / digest
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def commit() -> str | None:
    """The commit of the project's checkout; None where it was installed otherwise."""
    root = pathlib.Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "rev-parse", "--verify", "-q", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
