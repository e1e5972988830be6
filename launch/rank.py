"""How well shared weights rank architectures that a table has the truth of.

    python -m launch.rank --workdir=DIR --table=FILE.npz [--n=500]

Reads the newest checkpoint of a search, scores n uniformly drawn architectures with its
shared weights on the whole validation split, and prints Kendall's rank correlation with
the table, beside that of the parameter count alone.  Prints the table's value of the
search's winner too, beside answers that need no search.

FILE.npz holds `ops` int[N, T], the decisions of each row; a column of values, by
default `hp200_cifar10_test` (NAS-Bench-201's test accuracy after 200 epochs, percent);
and a column of parameter counts, by default `params_cifar10`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from scipy.stats import kendalltau
from tqdm import tqdm

from child_models.tables import needed, read_arrays
from launch import command
from launch.build import Search, build, resolve
from launch.checkpoints import Checkpoints
from launch.command import UserError, user_errors
from launch.workdir import read_config, read_result, write_json


def read_columns(path: str, columns: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The named columns of a table, and its ``ops``.

    Raises:
      UserError: on a missing file, one that is no npz, or a missing column, naming
        those there are.
    """
    with user_errors():
        table = read_arrays(path)
        return {name: needed(table, name) for name in ("ops", *columns)}


def rank(
    search: Search,
    state: Any,
    table: Mapping[str, np.ndarray],
    winner: tuple[int, ...],
    *,
    value: str,
    params: str,
    n: int,
    scored: int,
) -> dict[str, Any]:
    """Compares shared-weight scores with a table.

    Args:
      search: the objects of the search.
      state: its last `SearchState`.
      table: columns, from `read_columns`.
      winner: T decisions.
      value: column of the truth, higher is better.
      params: column of parameter counts.
      n: architectures that are ranked, drawn uniformly with key 0.
      scored: architectures the search scored, for the largest of as many at random.

    Returns:
      the figures, by name.

    Raises:
      UserError: if the table lacks one of these architectures.
    """
    rows = {tuple(ops): i for i, ops in enumerate(table["ops"].tolist())}
    sample = jax.jit(jax.vmap(search.space.spec.sample))
    drawn = np.asarray(sample(jax.random.split(jax.random.key(0), n)))
    for decisions in (winner, *map(tuple, drawn.tolist())):
        if decisions not in rows:
            raise UserError(
                f"the table's {len(rows)} rows lack the architecture "
                f"{search.space.spec.encode(decisions)}"
            )
    index = [rows[tuple(d)] for d in drawn.tolist()]
    scores = [float(search.loop.score(state, d)) for d in tqdm(drawn, desc="scoring")]
    truth = table[value][index]
    generator = np.random.default_rng(0)
    draws = generator.integers(len(rows), size=(100, max(scored, 1)))
    largest = [table[value][d[np.argmax(table[params][d])]] for d in draws]
    return {
        "winner": float(table[value][rows[winner]]),
        "mean_of_table": float(table[value].mean()),
        "best_of_table": float(table[value].max()),
        "largest_of_scored": float(np.mean(largest)),
        "kendall_scores": float(kendalltau(scores, truth).statistic),
        "kendall_params": float(kendalltau(table[params][index], truth).statistic),
        "n": n,
        "scored": scored,
    }


def main() -> None:
    """Prints the figures and writes ``rank.json`` into the workdir."""
    options = flags.FLAGS
    table = read_columns(options.table, (options.value, options.params))
    folder = epath.Path(options.workdir)
    config, result = read_config(folder), read_result(folder)
    if config is None or result is None:
        raise UserError(f"{folder} holds no finished search; run launch.search first")
    search = build(resolve(config))
    rows, length = table["ops"].shape, search.space.spec.length
    if rows[1:] != (length,):
        raise UserError(f"the table's ops are int{list(rows)}, not int[N, {length}]")
    like = jax.eval_shape(search.loop.init, jax.random.key(0))
    with Checkpoints(folder / "checkpoints", keep=None) as saved:
        restored = saved.restore(like)
    if restored is None:
        raise UserError(f"{folder} has no intact checkpoint")
    figures = rank(
        search,
        restored[0],
        table,
        tuple(result["best"]["decisions"]),
        value=options.value,
        params=options.params,
        n=options.n,
        scored=result["budget"]["scored"],
    )
    write_json(folder / "rank.json", figures)
    print(result["best"]["genotype"])
    for name, figure in figures.items():
        print(f"{name:20} {figure:.4g}")


if __name__ == "__main__":
    command.define_workdir()
    flags.DEFINE_string("table", None, "file of the table, .npz")
    flags.mark_flag_as_required("table")
    flags.DEFINE_string("value", "hp200_cifar10_test", "column of the truth")
    flags.DEFINE_string("params", "params_cifar10", "column of parameter counts")
    flags.DEFINE_integer("n", 500, "architectures to rank", lower_bound=2)
    command.run(main)
