"""Measures speed and memory on this machine, and prints a table.

    python -m launch.benchmark --suite=NAME [--json] [--peer=COMMAND]
        [--spaces=enas_micro,nasbench201] [--n=20] [--repeats=5]

Suites:

    supernet   a sampled architecture's training step beside the same child alone
    relaxed    the steps of the relaxed supernet beside a sampled one
    memory     temporary memory of compiled training steps
    scaling    images a second of the search by number of devices
    tabular    whole searches on a table, hundreds of seeds at once
    differentiable  what PC-DARTS and ProxylessNAS save, in memory and time

Programs that are compared take turns in one run; compilation is no part of a time.
``--peer`` is a command that prints one JSON line of milliseconds, see
`launch.suites.peer`; it takes turns with our steps in `supernet` and `relaxed`.
``--json`` adds a last line, {"suite", "device", "versions", "rows": [{"name", "ours",
"reference", "ratio", "unit", "spread", "note"}]}.
"""

import itertools
import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version

import jax
from absl import flags

from launch import command
from launch.command import UserError
from launch.suites import peer
from launch.suites.children import SIZES
from launch.suites.differentiable import differentiable
from launch.suites.memory import memory
from launch.suites.relaxed import relaxed
from launch.suites.scaling import scaling
from launch.suites.supernet import supernet
from launch.suites.tabular import tabular
from launch.suites.timing import Options, Row
from launch.tables import align

SUITES: dict[str, Callable[[Options], Iterator[Row]]] = {
    "supernet": supernet,
    "relaxed": relaxed,
    "memory": memory,
    "scaling": scaling,
    "tabular": tabular,
    "differentiable": differentiable,
}
PEERS = {"supernet": peer.search_rows, "relaxed": peer.relaxed_rows}

_COLUMNS = ("measured", "ours", "reference", "unit", "ratio", "quartiles", "")


def table(rows: list[Row]) -> str:
    """Aligned lines, one a row; what stands beside a figure is told in the last."""
    return "\n".join(align([_COLUMNS, *map(_cells, rows)], left=(0, 6)))


def _cells(row: Row) -> tuple[str, ...]:
    def optional(value, form):
        return "" if value is None else form.format(value)

    return (
        row.name,
        f"{row.ours:.1f}",
        optional(row.reference, "{:.1f}"),
        row.unit,
        optional(row.ratio, "{:.2f}"),
        optional(row.spread, "{0[0]:.2f} to {0[1]:.2f}"),
        row.note,
    )


def versions() -> dict[str, str]:
    """Of Python, and of the packages that a figure depends on."""
    packages = {name: version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"python": platform.python_version()} | packages


def device() -> str:
    """What programs run on."""
    found = jax.devices()
    return f"{len(found)} x {found[0].device_kind} ({found[0].platform})"


def _options() -> Options:
    given = flags.FLAGS
    for name in given.spaces:
        if name not in SIZES:
            raise UserError(f"--spaces: {name!r} is unknown; known: {', '.join(SIZES)}")
    if given.peer is not None and given.suite not in PEERS:
        raise UserError(f"--peer goes with --suite={' or '.join(PEERS)}")
    return Options(tuple(given.spaces), given.n, given.repeats)


def main() -> None:
    """Measures a suite; every row is told as it comes, and all in a table."""
    given, options = flags.FLAGS, _options()
    found = [SUITES[given.suite](options)]
    if given.peer is not None:
        peer.ask(given.peer)  # a mistake in the command is told before anything else
        found.insert(0, PEERS[given.suite](given.peer, options.repeats))
    rows = []
    for row in itertools.chain(*found):
        print("  ".join(filter(None, _cells(row))), flush=True)
        rows.append(row)
    about = {"suite": given.suite, "device": device(), "versions": versions()}
    print(f"\n{about['device']}, {about['versions']}\n{table(rows)}", flush=True)
    if given.json:
        print(json.dumps(about | {"rows": [row._asdict() for row in rows]}))


if __name__ == "__main__":
    flags.DEFINE_enum("suite", None, list(SUITES), "what to measure")
    flags.mark_flag_as_required("suite")
    flags.DEFINE_list("spaces", list(SIZES), "of the suites that go over spaces")
    flags.DEFINE_integer("n", 20, "random architectures of a space", lower_bound=1)
    flags.DEFINE_integer("repeats", 5, "measured calls of a program", lower_bound=1)
    flags.DEFINE_string("peer", None, "command of a program to stand beside")
    flags.DEFINE_boolean("json", False, "end with one line of JSON")
    command.run(main)
