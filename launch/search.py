"""Searches an architecture.

    python -m launch.search --config=configs/enas_micro_digits.py --workdir=runs/enas

The same command with the same workdir continues a search that was stopped.
"""

from absl import flags

from launch import command
from launch.command import command_line
from launch.driver import search


def main() -> None:
    """Runs the search that the flags name, and says what to do with the winner."""
    workdir = flags.FLAGS.workdir
    result = search(command.config_from_flags(), workdir)
    best, n = result["best"], len(result["candidates"])
    print(f"best of {n} candidates: {best['genotype']}")
    print(
        f"its reward is {best['reward']:.4f} on the validation split. That is a proxy, "
        "measured with shared weights: the network's own accuracy comes from training "
        "it from scratch:"
    )
    retrain = command_line("-m", "launch.retrain", f"--workdir={workdir}")
    print(f"  {retrain}", flush=True)


if __name__ == "__main__":
    command.define_config()
    command.define_workdir()
    command.run(main)
