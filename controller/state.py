"""What a search carries from tick to tick, and what it tells of them.

Shapes: n samples a policy step, T decisions, C objectives beside the reward, K ticks
that a call's log has room for.
"""

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from controller.spec import Spec
from controller.types import Evaluator, Key, Strategy


@flax.struct.dataclass
class SearchState:
    """All that changes in a search."""

    key: jax.Array  # the run's key, constant
    step: jax.Array  # int32[], ticks done
    round: jax.Array  # int32[]
    tick: jax.Array  # int32[], within the round
    strategy: Any
    evaluator: Any
    top_reward: jax.Array  # float32[history], best so far of distinct architectures
    top_decisions: jax.Array  # int32[history, T]
    failed: jax.Array  # bool[], a loss or reward was not finite
    failed_decisions: jax.Array  # int32[T], of which architecture
    pending: Any = ()  # proposals without a trial, of a loop that the host drives


class Log(NamedTuple):
    """What the ticks of one call did; rows beyond `count` are zero."""

    count: jax.Array  # int32[]
    round: jax.Array  # int32[K]
    learn: jax.Array  # bool[K], a policy tick
    child: dict[str, jax.Array]  # float32[K] each, of child ticks
    policy: dict[str, jax.Array]  # float32[K] each, of policy ticks
    decisions: jax.Array  # int32[K, n, T], of policy ticks, as all below
    reward: jax.Array  # float32[K, n]
    valid: jax.Array  # bool[K, n]
    log_prob: jax.Array  # float32[K, n]
    parent: jax.Array | None = None  # int32[K, n], None where proposals have none
    cost: jax.Array | None = None  # float32[K, n, C], None where trials have none
    value: jax.Array | None = None  # float32[K, n], None where trials have none
    reason: Any = None  # object[K, n], text or None, of a loop that the host drives
    worker: Any = None  # the same


def begin(
    spec: Spec,
    strategy: Strategy,
    evaluator: Evaluator,
    history: int,
    key: Key,
    data: Any,
) -> SearchState:
    """The state before the first tick.

    Args:
      spec, strategy, evaluator, history: as of `make_loop`.
      key: of the search; consumed.
      data: the evaluator's.
    """
    run_key, strategy_key, evaluator_key = jax.random.split(key, 3)
    return SearchState(
        key=run_key,
        step=jnp.int32(0),
        round=jnp.int32(0),
        tick=jnp.int32(0),
        strategy=strategy.init(strategy_key),
        evaluator=evaluator.init(evaluator_key, data),
        top_reward=jnp.full(history, -jnp.inf, jnp.float32),
        top_decisions=jnp.zeros((history, spec.length), jnp.int32),
        failed=jnp.array(False),
        failed_decisions=jnp.zeros(spec.length, jnp.int32),
    )


class PolicyKeys(NamedTuple):
    """The keys of a policy tick."""

    propose: Key
    evaluate: Key
    update: Key


def policy_keys(key: Key, number: Any) -> PolicyKeys:
    """Those of tick `number` of a search with `SearchState.key`."""
    return PolicyKeys(*jax.random.split(jax.random.fold_in(key, number), 3))
