"""Writes a report of one search, or of several side by side, as one HTML file.

    python -m launch.report --workdir=runs/enas
    python -m launch.report --workdir=runs/enas,runs/uniform [--out=FILE.html]
    python -m launch.report --workdir=runs/enas --gif=best.gif

The file needs no network and no server; without ``--out`` it is ``report.html`` in the
first workdir.  It may be written while the search runs, and is of the stage that a
search in stages is in.  Workdirs shown together are of one space.  ``--count``
architectures of each are counted for the scatters by parameters and multiply-adds, for
``--seconds`` at most.
"""

import os
from collections.abc import Mapping, Sequence

from absl import flags
from etils import epath

from launch import command
from launch.command import UserError, user_errors
from launch.describe import summary
from launch.reporting.run import Run, read_run
from launch.stages import latest_stage


def read_runs(workdirs: Sequence[str]) -> dict[str, Run]:
    """The runs of some workdirs, by the shortest ends of their paths that differ.

    Raises:
      UserError: if there is none, one is given twice or is no workdir, or they are of
        different spaces.
    """
    paths = [os.path.normpath(path) if "://" not in path else path for path in workdirs]
    if not paths or len(set(paths)) < len(paths):
        raise UserError(f"--workdir is {','.join(workdirs)!r}; name each workdir once")
    names = _names(paths)
    paths = [os.fspath(latest_stage(epath.Path(path))) for path in paths]
    runs = dict(zip(names, map(read_run, paths), strict=True))
    (first, reference), *others = runs.items()
    for name, run in others:
        same = run.subject.space == reference.subject.space
        specs = [of.space.spec for of in (run, reference)]
        if not same or len({getattr(spec, "decisions", None) for spec in specs}) > 1:
            raise UserError(
                f"{first} searches {_space(reference)}, {name} {_space(run)}: workdirs "
                "of different spaces do not go into one report"
            )
    return runs


def _space(run: Run) -> str:
    return f"{run.subject.space} of {summary(run.space.spec)}"


def _names(paths: Sequence[str]) -> list[str]:
    parts = [path.rstrip("/").split("/") for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def _animate(path: str, runs: Mapping[str, Run]) -> None:
    from launch.figures.animation import write_animation

    if not path.lower().endswith(".gif"):
        raise UserError(f"--gif is {path!r}; its name must end with .gif")
    if len(runs) > 1:
        raise UserError("--gif shows one search; give one workdir")
    with user_errors("--gif"):
        frames = write_animation(path, next(iter(runs.values())))
    print(f"{path}: {frames} frames", flush=True)


def main() -> None:
    """Writes the report that the flags ask for."""
    options = flags.FLAGS
    runs = read_runs(options.workdir)
    if options.gif is not None:
        _animate(options.gif, runs)
        return
    from launch.reporting.page import page  # matplotlib takes a second to load

    text = page(runs, count=options.count, seconds=options.seconds)
    out = epath.Path(options.out or epath.Path(options.workdir[0]) / "report.html")
    with user_errors(f"cannot write {out}"):
        out.write_text(text)
    print(f"{out}: {len(text.encode()) / 1e6:.2f} MB", flush=True)


if __name__ == "__main__":
    flags.DEFINE_list("workdir", None, "folders of searches, separated by commas")
    flags.mark_flag_as_required("workdir")
    flags.DEFINE_string("out", None, "the file; by default report.html in the first")
    flags.DEFINE_string("gif", None, "an animation of the best so far, and no report")
    flags.DEFINE_integer("count", 40, "architectures to count in each", 0)
    flags.DEFINE_float("seconds", 20.0, "that counting may take", 0.0)
    command.run(main)
