"""The folder of a run: its JSON files, and whether a config may go on in it.

A workdir is local or remote (``gs://``); it is the interface to other tools.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from launch.command import UserError
from launch.settings import CHANGEABLE, as_json, differing_keys


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
    differing = differing_keys(old, config)
    refused = [key for key in differing if key not in CHANGEABLE]
    if refused:
        lines = [f"{k} ({differing[k][0]!r} -> {differing[k][1]!r})" for k in refused]
        more = f" and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise UserError(
            f"workdir {path} is of another config; these keys differ: "
            f"{', '.join(lines[:8])}{more}. Take another workdir, or the old values"
        )


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a file in one step: a reader sees the old one or the new one."""
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)


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


def cache_folder() -> pathlib.Path:
    """The project's folder in the user's cache."""
    if sys.platform == "darwin":
        base = pathlib.Path.home() / "Library" / "Caches"
    else:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "cellwright"
