"""Searches an architecture.

    python -m launch.search --config=configs/enas_micro_digits.py --workdir=runs/enas

The same command with the same workdir continues a search that was stopped.

Several hosts search together where each runs the command; on Cloud TPU and Slurm they
find each other, elsewhere each is told where process 0 is, and which one it is:

    --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

from typing import Any

from absl import flags
from ml_collections import ConfigDict

from launch import command, distributed
from launch.build import resolve
from launch.command import Interrupted, command_line
from launch.driver import search
from launch.proxy import of_winner


def main() -> None:
    """Runs the search that the flags name, and says what to do with the winner."""
    workdir, line = flags.FLAGS.workdir, command.this_command()
    config = resolve(command.config_from_flags())
    with distributed.joined(distributed.arguments_from_flags()):
        try:
            result = search(config, workdir, command=line, quiet=flags.FLAGS.quiet)
        except (Interrupted, KeyboardInterrupt):
            if distributed.is_main():
                print(f"to retrain the winner, once there is one: {_retrain(workdir)}")
            raise  # the command to continue is told for all programs alike
    if distributed.is_main():
        _tell(result, workdir, config)
        print("to search on from here, give the same command more rounds:")
        print(f"  {line} --config.train.rounds={2 * config.train.rounds}", flush=True)


def _tell(result: dict[str, Any], workdir: str, config: ConfigDict) -> None:
    best, n = result["best"], len(result["candidates"])
    print(f"best of {n} candidates: {best['genotype']}\n{result['text']}")
    if "cost" in best:
        print(
            f"its cost, {config.objective.cost}, is {best['cost']:g}; its reward "
            f"without the cost {best['value']:.4f}"
        )
    print(
        f"its reward is {best['reward']:.4f} on the validation split: "
        f"{of_winner(config.evaluator.name)}. The network's own accuracy comes from "
        "training it from scratch:"
    )
    print(f"  {_retrain(workdir)}", flush=True)


def _retrain(workdir: str) -> str:
    return command_line("-m", "launch.retrain", f"--workdir={workdir}")


if __name__ == "__main__":
    command.define_config()
    command.define_workdir()
    distributed.define_flags()
    flags.DEFINE_bool("quiet", False, "print warnings and the result only")
    command.run(main)
