"""Our steps beside those of another program, on the network that both build.

The other program prints one JSON line, {"enas_child", "enas_policy", "darts_weights",
"darts_alphas"} in milliseconds, of NAS-Bench-201's network with 16 channels, one cell a
stage and 64 images of 32 x 32.  The two take turns.
"""

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from launch.command import UserError
from launch.suites.children import setting, shared_variables
from launch.suites.loop import SPACE, search
from launch.suites.relaxed import STEPS, relaxed_steps
from launch.suites.timing import Row, in_turn

TICKS = 20  # of each kind in a round
SEARCH = {"ENAS child step": "enas_child", "ENAS policy step": "enas_policy"}
RELAXED = {"relaxed weight step": "darts_weights", "alpha step": "darts_alphas"}


def search_rows(peer: str, repeats: int) -> Iterator[Row]:
    """Yields the child step and the policy step of the search loop."""
    run = search(TICKS, policy_steps=TICKS)
    jax.block_until_ready((run(), run()))  # compiled; a whole round is done
    # Every first call has the child steps of a round, every second its policy steps.
    return _rows(peer, dict.fromkeys(SEARCH, run), TICKS, SEARCH, repeats)


def relaxed_rows(peer: str, repeats: int) -> Iterator[Row]:
    """Yields the weight step and the alpha step of the relaxed supernet."""
    case = setting(SPACE)
    steps = relaxed_steps(case, shared_variables(case)["params"])
    runs = {name: run for name, (run, _) in steps.items()}
    return _rows(peer, runs, STEPS, RELAXED, repeats)


def _rows(
    peer: str,
    runs: dict[str, Callable[[], Any]],
    steps: int,
    names: dict[str, str],
    repeats: int,
) -> Iterator[Row]:
    ours: dict[str, list[float]] = {name: [] for name in names}
    theirs: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        figures = ask(peer)
        taken = in_turn(runs, repeats)
        for name, key in names.items():
            if key not in figures:
                raise UserError(f"--peer printed no {key!r}; it has {list(figures)}")
            ours[name].append(float(np.median(taken[name])) / steps)
            theirs[name].append(figures[key])
    for name in names:
        note = "beside the peer"
        yield Row.of(f"{SPACE}: {name}", ours[name], theirs[name], note=note)


def ask(peer: str) -> dict[str, float]:
    """Runs the other program; its last line is the answer.

    Raises:
      UserError: if it fails, or that line is no JSON object of numbers.
    """
    try:
        done = subprocess.run(
            shlex.split(peer), capture_output=True, text=True, check=True
        )
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        return {key: float(value) for key, value in figures.items()}
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["no message"]
        raise UserError(f"--peer exits with {error.returncode}: {lines[-1]}") from error
    except OSError as error:
        raise UserError(f"--peer: {error}") from error
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise UserError("--peer: its last line is no JSON object of numbers") from error
