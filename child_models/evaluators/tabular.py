"""Tabular evaluation: a table tells what an architecture earns.

Shapes: n proposals, N rows of the table, T decisions.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from child_models.tables import Table, find_rows, read_table, row_index
from child_models.types import Dataset, Space, Task
from controller.spec import DecisionSpec
from controller.types import Evaluator, Trial, no_improvement

NANS = ("refuse", "mask")


def tabular(
    space: Space,
    task: Task,
    dataset: Dataset,
    *,
    table: str,
    reward: str,
    scale: float = 0.01,
    nan: str = "refuse",
    mesh: Mesh | None = None,
) -> Evaluator:
    """Builds the evaluator of a file; there is nothing to train.

    Args:
      space: of the table.
      task, dataset: not used; what the table was made on.
      table: file, see `child_models.tables`.
      reward: name of the reward's column, without the kind in front.
      scale: factor of the reward; 0.01 makes accuracies of percents.
      nan: what becomes of rewards that are not finite: "refuse", or "mask", which makes
        their trials invalid; where their cost is NaN too, it is the largest known.
      mesh: not used.

    Returns:
      an Evaluator; cost[:, 0] is in seconds, and 1 where the table has no cost.  The
      trials' value is the column of the reward's name, where the table has one, scaled
      as the reward.

    Raises:
      ValueError: as `read_table` does, on an unknown column, and on rewards that are
        not finite unless they are masked.
    """
    return lookup(
        space.spec, read_table(table, space.spec), reward, scale=scale, nan=nan
    )


def lookup(
    spec: DecisionSpec,
    table: Table,
    reward: str,
    *,
    scale: float = 0.01,
    nan: str = "refuse",
) -> Evaluator:
    """`tabular` of a table that was read."""
    if nan not in NANS:
        raise ValueError(f"nan is {nan!r}; known: {', '.join(NANS)}")
    rewards = table.column("reward", reward)
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad) and nan == "refuse":
        raise ValueError(
            f"reward_{reward} is not finite in {len(bad)} rows of the table, first of "
            f"{spec.encode(table.decisions[bad[0]])}; nan='mask' makes their trials "
            "invalid"
        )
    costs = table.cost.get(reward, np.ones(len(rewards)))
    unknown = np.isnan(costs) & ~np.isfinite(rewards)
    costs = np.where(unknown, np.nanmax(costs, initial=0.0), costs)
    if not np.all(costs > 0):
        row = np.flatnonzero(~(costs > 0))[0]
        raise ValueError(
            f"cost_{reward} is {costs[row]} in row {row}, of "
            f"{spec.encode(table.decisions[row])}; it must be > 0"
        )
    data = {
        "index": jax.tree.map(jnp.asarray, row_index(table.decisions, spec)),
        "reward": jnp.asarray(scale * rewards, jnp.float32),
        "cost": jnp.asarray(costs, jnp.float32),
    }

    values = table.value.get(reward, np.full(len(rewards), np.nan))
    data["value"] = jnp.asarray(scale * values, jnp.float32)

    def look_up(data, decisions):
        """Rows, and the rewards there; NaN of what is no architecture."""
        row = find_rows(data["index"], spec, decisions)
        return row, jnp.where(row >= 0, data["reward"][row], jnp.nan)

    def evaluate(key, state, data, proposal):
        row, earned = look_up(data, proposal.decisions)
        valid = jnp.isfinite(earned)
        reward = jnp.where(valid, earned, 0.0)
        value = jnp.where(valid, data["value"][row], jnp.nan)
        # What is no architecture is not proposed; it would cost the most.
        cost = jnp.where(row >= 0, data["cost"][row], jnp.max(data["cost"]))
        return state, Trial(proposal, reward, valid, cost[:, None], value=value)

    def score(state, data, decisions):
        return look_up(data, decisions[None])[1][0]

    return Evaluator(
        data,
        lambda key, data: (),
        no_improvement,
        evaluate,
        score,
        invalid="the table has no finite reward",
    )
