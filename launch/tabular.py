"""Makes tables of tabular benchmarks.

    python -m launch.tabular convert --source=nasbench201_table.npz --out=TABLE.npz
    python -m launch.tabular convert --source=NATS-tss-v1_0-3ffb9-simple --out=TABLE.npz

`convert` reads NAS-Bench-201: its columns as an npz, see `launch.compare`, or
NATS-Bench's own files.
"""

import os

import numpy as np
from absl import flags

from child_models.nats_bench import from_nats_bench, open_api
from child_models.spaces.nasbench201 import SPEC as NASBENCH201
from child_models.tables import KINDS, Table, check_rows, read_table, write_table
from launch import command
from launch.command import UserError, user_errors
from launch.tables import align


def convert(source: str, out: str) -> Table:
    """Reads a published table and writes it as `child_models.tables` describes.

    Args:
      source: npz of columns, or a file or folder of NATS-Bench.
      out: npz to write.

    Raises:
      UserError: if the source is no such table, or `out` cannot be written.
    """
    with user_errors():
        if source.endswith(".npz"):
            table = read_table(source, NASBENCH201)
        else:
            table = from_nats_bench(open_api(source), NASBENCH201)
            check_rows(table.decisions, NASBENCH201)
        write_table(out, table)
    return table


def summary(table: Table) -> str:
    """Aligned rows: each column with its least, mean and largest value."""
    rows = [("column", "least", "mean", "largest", "not finite")]
    for kind in KINDS:
        for name, column in getattr(table, kind).items():
            known = column[np.isfinite(column)]
            figures = (known.min(), known.mean(), known.max())
            bad = str(len(column) - len(known))
            rows.append((f"{kind}_{name}", *(f"{x:.2f}" for x in figures), bad))
    return "\n".join([f"{len(table.decisions):,} architectures", *align(rows)])


def main(verb: str) -> None:
    """Makes the table that the flags name, and prints what it holds."""
    given = flags.FLAGS
    if not given.source:
        raise UserError(f"{verb} needs --source=FILE")
    if os.path.abspath(given.source) == os.path.abspath(given.out):
        raise UserError(f"--source and --out are both {given.out}")
    print(summary(convert(given.source, given.out)))


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "of convert: a published table")
    flags.DEFINE_string("out", None, "npz to write")
    flags.mark_flag_as_required("out")
    command.run(main, verbs=("convert",))
