"""Makes tables of tabular benchmarks.

    python -m launch.tabular convert --source=nasbench201_table.npz --out=TABLE.npz
    python -m launch.tabular convert --source=NATS-tss-v1_0-3ffb9-simple --out=TABLE.npz
    python -m launch.tabular convert --source=nasbench_only108.tfrecord --out=TABLE.npz
    python -m launch.tabular build --config=configs/table_digits.py --workdir=DIR \
        --out=TABLE.npz [--seeds=0,1,2]

`convert` reads NAS-Bench-201: its columns as an npz, see `launch.compare`, or
NATS-Bench's own files; and NAS-Bench-101: a record file, see
`child_models.nasbench101`.  `build` trains every architecture of a small space, once a
seed; the same command continues.
"""

import os

import numpy as np
from absl import flags

from child_models.nasbench101 import from_nasbench101
from child_models.nats_bench import from_nats_bench, open_api
from child_models.spaces.nasbench201 import SPEC as NASBENCH201
from child_models.tables import KINDS, Table, check_rows, read_table, write_table
from launch import command
from launch.command import UserError, user_errors
from launch.measuring import measure
from launch.tables import align


def convert(source: str, out: str) -> Table:
    """Reads a published table and writes it as `child_models.tables` describes.

    Args:
      source: npz of columns, a file or folder of NATS-Bench, or a record file of
        NAS-Bench-101.
      out: npz to write.

    Raises:
      UserError: if the source is no such table, or `out` cannot be written.
    """
    with user_errors():
        if source.endswith(".tfrecord"):
            table = from_nasbench101(source)
        elif source.endswith(".npz"):
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
            figures = (known.min(), known.mean(), known.max()) if len(known) else ()
            bad = str(len(column) - len(known))
            cells = [f"{x:.2f}" for x in figures] or ["-"] * 3
            rows.append((f"{kind}_{name}", *cells, bad))
    return "\n".join([f"{len(table.decisions):,} architectures", *align(rows)])


def main(verb: str) -> None:
    """Makes the table that the flags name, and prints what it holds."""
    given = flags.FLAGS
    needed = {"convert": ("source",), "build": ("config", "workdir")}
    for kind, names in needed.items():
        for name in names:
            if kind == verb and not given[name].value:
                raise UserError(f"{verb} needs --{name}")
            if kind != verb and given[name].value:
                raise UserError(f"--{name} is of {kind}, not of {verb}")
    if verb == "build":
        config, seeds = command.config_from_flags(), command.seeds_from_flags()
        table = measure(config, given.workdir, given.out, seeds)
    else:
        if os.path.abspath(given.source) == os.path.abspath(given.out):
            raise UserError(f"--source and --out are both {given.out}")
        table = convert(given.source, given.out)
    print(summary(table))


if __name__ == "__main__":
    flags.DEFINE_string("source", None, "of convert: a published table")
    flags.DEFINE_string("out", None, "npz to write")
    flags.mark_flag_as_required("out")
    command.define_config(required=False)
    command.define_workdir(required=False)
    command.define_seeds()
    command.run(main, verbs=("convert", "build"))
