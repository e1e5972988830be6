"""What the programs of this folder share: flags, and how user mistakes are told.

A mistake of the user ends a program with one or two lines on stderr and exit code 1;
a traceback means that the project is at fault.
"""

import contextlib
import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from absl import app, flags, logging

from launch import config_flag


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

    A full disk and a closed pipe are neither, and pass.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) or _disk_is_full(error):
            raise
        text = " ".join(str(error).split())
        raise UserError(f"{where}: {text}" if where else text) from error


def define_config(*, required: bool = True) -> None:
    """Defines ``--config``, and lets overrides ``--config.SECTION.KEY=VALUE`` pass."""
    flags.DEFINE_string("config", None, "a file of configs/, or FILE:smoke")
    if required:
        flags.mark_flag_as_required("config")


def override(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the overrides of the command line.

    Raises:
      UserError: on an override of something that holds no keys.
    """
    with user_errors():
        return config_flag.override(config, config_flag.split(sys.argv)[1])


def config_from_flags() -> dict[str, Any]:
    """The config that ``--config`` names, with its overrides; not checked yet.

    Raises:
      UserError: if there is no such file, or it is no config.
    """
    with user_errors():
        config = config_flag.read_file(flags.FLAGS.config)
    return override(config)


def define_workdir(*, required: bool = True) -> None:
    """Defines ``--workdir``."""
    flags.DEFINE_string("workdir", None, "folder of the run, local or gs://")
    if required:
        flags.mark_flag_as_required("workdir")


def define_seeds() -> None:
    """Defines ``--seeds``."""
    flags.DEFINE_list("seeds", "0,1,2", "seeds, separated by commas")


def seeds_from_flags() -> list[int]:
    """The seeds that ``--seeds`` lists; not checked yet.

    Raises:
      UserError: if they are no integers.
    """
    try:
        return [int(seed) for seed in flags.FLAGS.seeds]
    except ValueError as error:
        raise UserError(f"seeds are {flags.FLAGS.seeds}; expected integers") from error


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises `UserError` on repeated or negative seeds, and where there are none."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds are {list(seeds)}; they must be distinct and 0 or more")


def run(main: Callable[..., int | None], verbs: Sequence[str] = ()) -> None:
    """Runs a program: parses flags, calls ``main()``, exits with its code.

    Args:
      main: returns an exit code, None for 0; a `UserError` becomes ``error: ...`` on
        stderr and exit code 1; `Interrupted` and Ctrl-C the command to continue and
        128 + signum.
      verbs: what the program does; where there are any, the first argument is one of
        them, and ``main`` gets it.
    """

    def guarded(argv: Sequence[str]) -> None:
        if not flags.FLAGS["verbosity"].present:
            logging.set_verbosity(logging.ERROR)  # Orbax warns of a slow disk
        chosen = argv[1:2] if verbs else []
        if verbs and (not chosen or chosen[0] not in verbs):
            _fail(
                f"the first argument is {''.join(chosen)!r}; known: {', '.join(verbs)}"
            )
        if rest := argv[1 + len(chosen) :]:
            _fail(f"unexpected argument {rest[0]!r}; options start with --")
        try:
            code = main(*chosen)
            sys.stdout.flush()
            sys.exit(code)
        except UserError as error:
            _fail(error)
        except BrokenPipeError:  # who read the output has seen enough, as `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except Interrupted as stop:
            if jax.process_index() == 0:
                print(f"stopped, all saved; to continue: {this_command()}", flush=True)
            sys.exit(128 + stop.signum)
        except KeyboardInterrupt:  # while nothing heeds signals, or the second one
            print(f"stopped; to continue: {this_command()}", flush=True)
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if not _disk_is_full(error):
                raise
            text = " ".join(str(error).split())[:200]
            _fail(
                f"no space left on the disk ({text}); make room and run the same "
                "command again: what was saved is intact"
            )

    app.run(guarded, flags_parser=_parse)


def _parse(argv: Sequence[str]) -> list[str]:
    try:
        if "config" in flags.FLAGS:
            argv, _ = config_flag.split(argv)
        return flags.FLAGS(list(argv))
    except (flags.Error, ValueError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        _fail(lines[0].removeprefix("flag "))


def command_line(*arguments: str) -> str:
    """A command for the user's shell that runs this interpreter, by its short name."""
    local = os.path.join(".venv", "bin", "python")
    same = os.path.realpath(".venv") == os.path.realpath(sys.prefix)
    return shlex.join([local if same else "python", *arguments])


def _disk_is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, is that of a full disk."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            return True
        if os.strerror(errno.ENOSPC) in str(error):  # told by TensorStore in words
            return True
        error = error.__cause__ or error.__context__
    return False


def this_command() -> str:
    """The command line that started this program."""
    spec = sys.modules["__main__"].__spec__
    program = ["-m", spec.name] if spec is not None else [sys.argv[0]]
    return command_line(*program, *sys.argv[1:])


def _fail(message: object) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)
