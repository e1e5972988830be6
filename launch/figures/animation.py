"""An animation of the best architecture over the rounds, as a GIF."""

import io

import numpy as np
from etils import epath
from PIL import Image

from launch.figures.graphs import graphs
from launch.figures.image import pixels
from launch.reporting.run import Run
from launch.rounds import decisions_of

MAX_FRAMES = 40
_MILLISECONDS, _LAST = 700, 2500  # that a frame is shown for
_WHITE = 255


def improvements(run: Run) -> list[tuple[int, str, float]]:
    """(round, decisions, reward) where a round ends with another best than before.

    Of more than `MAX_FRAMES` the first and the last are kept, and some between.
    """
    trials, found = run.trials, []
    best = -np.inf
    rewards = np.nan_to_num(trials.reward, nan=-np.inf)
    rounds, starts = np.unique(trials.round, return_index=True)  # they are in order
    ends = [*starts[1:], len(rewards)][: len(starts)]
    for round, start, end in zip(rounds, starts, ends, strict=True):
        i = int(start + np.argmax(rewards[start:end]))
        if rewards[i] > best:
            best = float(rewards[i])
            found.append((int(round), trials.decisions[i], best))
    if len(found) > MAX_FRAMES:
        kept = np.linspace(0, len(found) - 1, MAX_FRAMES).astype(int)
        found = [found[i] for i in kept]
    return found


def write_animation(path: epath.PathLike, run: Run) -> int:
    """Writes the GIF; returns its number of frames.

    Raises:
      ValueError: where nothing was scored yet.
    """
    frames = []
    for round, decisions, reward in improvements(run):
        subject, values = run.subject, decisions_of(decisions)
        drawn = graphs(run.space.spec, values, subject.space, subject.options)
        frames.append(pixels(drawn, f"round {round + 1}, reward {reward:.4f}"))
    if not frames:
        raise ValueError(f"{run.workdir} has scored nothing yet: there is no animation")
    height, width = (max(f.shape[axis] for f in frames) for axis in (0, 1))
    images = []
    for frame in frames:
        padded = np.full((height, width, 3), _WHITE, np.uint8)
        padded[: frame.shape[0], : frame.shape[1]] = frame
        images.append(Image.fromarray(padded).quantize(64))
    durations = [_MILLISECONDS] * (len(images) - 1) + [_LAST]
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
    )
    epath.Path(path).write_bytes(buffer.getvalue())
    return len(images)
