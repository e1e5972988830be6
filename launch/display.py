"""What a search shows while it runs: a progress line, printed lines, TensorBoard."""

import re
import sys
import time
from typing import Any

import numpy as np
from etils import epath
from tensorboardX import SummaryWriter
from tqdm import tqdm

from launch.workdir import local_folder

HEARTBEAT_SECONDS = 60.0
COLUMNS = 110  # of a round's line, after its number


class Display:
    """Shows rounds; use as a context manager.

    On a terminal there is one tqdm line; elsewhere a line every `log_every` rounds, and
    one a minute while a round lasts.  A quiet one tells warnings only.

    Args:
      workdir: events go to ``tensorboard/`` in it.
      total: ticks of the search.
      rounds: of the search.
      start: (tick, round) that the search goes on from; later events are purged.
      log_every: rounds between printed lines.
      quiet: whether no progress is shown; events are written all the same.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        *,
        total: int,
        rounds: int,
        start: tuple[int, int],
        log_every: int,
        quiet: bool = False,
    ):
        self._remote = epath.Path(workdir) / "tensorboard"
        self._events = local_folder(epath.Path(workdir)) / "tensorboard"
        self._writer = SummaryWriter(str(self._events), purge_step=start[1])
        self._rounds = rounds
        self._log_every = log_every
        self._quiet = quiet
        self._printed = time.monotonic()
        self._bar = None
        if sys.stderr.isatty() and not quiet:
            style = "{percentage:3.0f}%|{bar:20}| {desc}"
            self._bar = tqdm(total=total, initial=start[0], bar_format=style)

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._writer.close()
        self.sync()

    def sync(self) -> None:
        """Flushes events, and copies them where the workdir is remote."""
        self._writer.flush()
        if "://" in str(self._remote):
            self._remote.mkdir(parents=True, exist_ok=True)
            for path in self._events.iterdir():
                epath.Path(path).copy(self._remote / path.name, overwrite=True)

    def round(self, record: dict[str, Any], best: float | None, left: float) -> None:
        """Shows a complete round.

        Args:
          record: of the round.
          best: highest reward so far, None where nothing was scored.
          left: expected seconds to the end.
        """
        number = record["round"] + 1
        for tag, value in _scalars(record).items():
            self._writer.add_scalar(tag, value, record["round"])
        line = describe(record, best, left)
        if self._bar is not None:
            self._bar.set_description_str(f"round {number}/{self._rounds}  {line}")
        elif number % self._log_every == 0 or number == self._rounds:
            self._print(f"round {number}/{self._rounds}  {line}")

    def best(
        self, round: int, reward: float, text: str, image: np.ndarray | None
    ) -> None:
        """Shows the best architecture so far.

        Args:
          round: after which it is the best.
          reward: of it.
          text: a line a node.
          image: uint8[H, W, 3] for TensorBoard, or None.
        """
        if image is not None:
            self._writer.add_image("best", image, round, dataformats="HWC")
        if not self._quiet:
            tqdm.write(f"best after round {round + 1}, reward {reward:.4f}:\n{text}")

    def ticks(self, done: int, left: float) -> None:
        """Shows that the search has come to a tick."""
        if self._bar is not None:
            self._bar.n = done
            self._bar.refresh()
        elif time.monotonic() - self._printed > HEARTBEAT_SECONDS:
            self._print(f"tick {done}  {duration(left)} left")

    def say(self, text: str) -> None:
        """Prints a line without breaking the progress line."""
        tqdm.write(text, file=sys.stderr)

    def _print(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)
        self._printed = time.monotonic()


def describe(record: dict[str, Any], best: float | None, left: float) -> str:
    """A round in one line; the most frequent ops fill it up."""
    parts = []
    if record["warm_up"]:
        parts.append("warm-up: the policy does not learn yet")
    if record["reward_mean"] is not None:
        mean, largest = record["reward_mean"], record["reward_max"]
        reward = f"reward {mean:.3f} max {largest:.3f} best {best:.3f}"
        if record["baseline"] is not None:
            reward += f" baseline {record['baseline']:.3f}"
        parts.append(reward)
    if record["entropy"] is not None:
        parts.append(f"entropy {record['entropy']:.1f}")
    if record.get("alpha_entropy") is not None:
        entropy, changes = record["alpha_entropy"], record["changes"]
        parts.append(f"alpha entropy {entropy:.2f}  skips {record['skips']:.0f}")
        parts.append(f"changes {changes:.0f}")
        if record.get("hessian") is not None:
            parts.append(f"hessian {record['hessian']:.3g}")
    elif record["distinct"] is not None:
        parts.append(f"distinct {record['distinct']:.0%}")
    if record["child_loss"] is not None:
        parts.append(f"loss {record['child_loss']:.2f}")
    if record.get("steps_per_second") is not None:
        parts.append(f"{record['steps_per_second']:.3g} steps/s")
    parts.append(f"{duration(left)} left")
    line = "  ".join(parts)
    ops = _histogram(record["op_histogram"], COLUMNS - len(line) - 2)
    return f"{line}  {ops}" if ops else line


def _histogram(shares: dict[str, float], room: int) -> str:
    """The most frequent ops that fit, two at least: ``sep3 41% skip 22%``."""
    text = ""
    for i, (op, share) in enumerate(sorted(shares.items(), key=lambda item: -item[1])):
        longer = f"{text} {_short(op)} {share:.0%}".lstrip()
        if not share or (i > 1 and len(longer) > room):
            break
        text = longer
    return text


def _short(op: str) -> str:
    """An op's name in brief: sep_conv_3x3 -> sep3, skip_connect -> skip."""
    kind, *rest = op.removeprefix("nor_").split("_")
    sizes = [re.sub(r"^(\d+)x\1$", r"\1", word) for word in rest if word[0].isdigit()]
    return kind + "+".join(sizes)


def duration(seconds: float) -> str:
    """Seconds for people: 42s, 3m10s, 2h05m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds // 60 % 60:02d}m"


def _scalars(record: dict[str, Any]) -> dict[str, float]:
    """TensorBoard tags of a record."""
    scalars = {
        f"search/{name}": value
        for name, value in record.items()
        if isinstance(value, float)
    }
    rows = record.get("row_entropy") or {}
    scalars |= {f"alpha_entropy/{name}": value for name, value in rows.items()}
    return scalars | {f"op/{op}": share for op, share in record["op_histogram"].items()}
