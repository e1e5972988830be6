"""What the programs of this folder share: flags, and how user mistakes are told.

A mistake of the user ends a program with one or two lines on stderr and exit code 1;
a traceback means that the project is at fault.
"""

import contextlib
import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

_NO_CONFIG = str(pathlib.Path(__file__).parent / "no_config.py")


class UserError(ValueError):
    """A mistake of the user, told in a line or two."""


class Interrupted(Exception):
    """The program was asked to stop, and has saved its work.

    Args:
      signum: of the signal.
    """

    def __init__(self, signum: int):
        super().__init__(f"signal {signum}")
        self.signum = signum


@contextlib.contextmanager
def user_errors(where: str = "") -> Iterator[None]:
    """Turns errors that call a value or a file wrong into a `UserError`.

    Args:
      where: put before the message, e.g. ``"config.space"``.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        text = " ".join(str(error).split())
        raise UserError(f"{where}: {text}" if where else text) from error


def define_config(*, required: bool = True) -> None:
    """Defines ``--config``; `launch.build.resolve` checks the keys of overrides."""
    with _override_errors(sys.argv):  # a default is parsed at once
        config_flags.DEFINE_config_file(
            "config",
            default=None if required else _NO_CONFIG,
            help_string="a file of configs/, with an argument as FILE:smoke",
            lock_config=False,
            accept_new_attributes=True,
        )
    if required:
        flags.mark_flag_as_required("config")


def config_is_given() -> bool:
    """Whether ``--config`` names a file, where it need not."""
    return flags.FLAGS["config"].config_filename != _NO_CONFIG


def overrides(section: str) -> dict[str, Any]:
    """What the command line gives of a section, by key."""
    given = config_flags.get_override_values(flags.FLAGS["config"])
    prefix = f"{section}."
    return {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}


def define_workdir() -> None:
    """Defines ``--workdir``."""
    flags.DEFINE_string("workdir", None, "folder of the run, local or gs://")
    flags.mark_flag_as_required("workdir")


def config_from_flags() -> ConfigDict:
    """The config with its overrides.

    Raises:
      UserError: if there is no such file.
    """
    name = flags.FLAGS["config"].config_filename
    path = name.split(":")[0]
    if not os.path.isfile(path):
        known = [f"configs/{name}" for name in _experiments("configs")]
        hint = f"; there are {', '.join(known)}" if known else ""
        raise UserError(f"no config file {path!r}{hint}")
    return flags.FLAGS.config


def run(main: Callable[[], int | None]) -> None:
    """Runs a program: parses flags, calls ``main()``, exits with its code.

    Args:
      main: returns an exit code, None for 0; a `UserError` becomes ``error: ...`` on
        stderr and exit code 1, `Interrupted` the command to continue and 128 + signum.
    """

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.WARNING)  # Orbax tells every step at INFO
        if len(argv) > 1:
            _fail(f"unexpected argument {argv[1]!r}; options start with --")
        try:
            sys.exit(main())
        except UserError as error:
            _fail(error)
        except Interrupted as stop:
            print(f"stopped, all saved; to continue: {_command()}", flush=True)
            sys.exit(128 + stop.signum)

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        with _override_errors(argv):
            return flags.FLAGS(list(argv))
    except flags.Error as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        if "Error whilst parsing config file:" in str(error):
            _fail(lines[-1].removeprefix("ValueError: "))
        _fail(lines[0].removeprefix("flag "))


@contextlib.contextmanager
def _override_errors(argv: Sequence[str]) -> Iterator[None]:
    """Ends the program where ml_collections cannot take an override."""
    try:
        yield
    except (AttributeError, KeyError, TypeError) as error:  # of ml_collections
        if not any(arg.lstrip("-").startswith("config.") for arg in argv):
            raise
        _fail(f"config override: {str(error).splitlines()[0]}")


def _command() -> str:
    """The command line that started this program."""
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec is not None else [sys.argv[0]]
    return shlex.join(["python", *program, *sys.argv[1:]])


def _fail(message: object) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def _experiments(folder: str) -> list[str]:
    """Names of the config files in a folder."""
    files = os.listdir(folder) if os.path.isdir(folder) else []
    helpers = ("__init__.py", "common.py")
    return sorted(f for f in files if f.endswith(".py") and f not in helpers)
