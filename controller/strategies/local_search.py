"""Local search: go to a better neighbour until there is none, then start anew.

White et al. 2020, https://arxiv.org/abs/2005.02960, in the form that moves as soon as a
neighbour is better.  Neighbours are a move apart, see `DecisionSpec.neighbors`.

Shapes: n trials, T decisions, M moves.
"""

import flax.struct
import jax
import jax.numpy as jnp

from controller.evolution import uniform_population
from controller.spec import DecisionSpec
from controller.strategies.distinct import distinct
from controller.types import Proposal, Strategy


@flax.struct.dataclass
class LocalState:
    """Where the search stands."""

    decisions: jax.Array  # int32[T]
    reward: jax.Array  # float32[], -inf before the start was scored
    number: jax.Array  # int32[], of the trial that scored it; -1 before
    untried: jax.Array  # bool[M], neighbours
    best: jax.Array  # int32[T], of all starts
    best_reward: jax.Array  # float32[]
    starts: jax.Array  # int32[]
    seen: jax.Array  # int32[], trials so far


def local_search(spec: DecisionSpec) -> Strategy:
    """Builds the strategy.

    A proposal is n distinct neighbours that were not tried, in random order; where
    fewer are left, the last of them repeat.  An update goes to the best of the n where
    it is better than the present one; that one, and the rest of the n, are not asked
    for again.  Where several proposals are under way, a neighbour may be tried twice.
    A proposal names the present one as its parent, whose weights it may inherit.

    Args:
      spec: of the space.

    Returns:
      a Strategy.
    """

    def init(key):
        return LocalState(
            decisions=spec.sample(key),
            reward=jnp.float32(-jnp.inf),
            number=jnp.int32(-1),
            untried=jnp.zeros(spec.num_moves, bool),
            best=jnp.zeros(spec.length, jnp.int32),
            best_reward=jnp.float32(-jnp.inf),
            starts=jnp.int32(0),
            seen=jnp.int32(0),
        )

    def propose(key, state, n):
        start_key, order_key = jax.random.split(key)
        starts = uniform_population(spec, start_key, n)
        noise = jax.random.uniform(order_key, state.untried.shape)
        order = jnp.argsort(jnp.where(state.untried, noise, 2.0))
        left = jnp.sum(state.untried)
        chosen = order[jnp.minimum(jnp.arange(n), jnp.maximum(left, 1) - 1)]
        moves = jax.vmap(lambda i: spec.move(state.decisions, i))(chosen)
        decisions = jnp.where(left > 0, moves, starts)
        parents = jnp.full(n, jnp.where(left > 0, state.number, -1))
        return Proposal(decisions, jnp.zeros(n), parent=parents), state

    def moves_to(others, start):
        """bool[M]: the moves from the start that lead to one of the others."""
        ends = jax.vmap(lambda i: spec.move(start, i))(jnp.arange(spec.num_moves))
        return jnp.any(jnp.all(ends[:, None] == others[None], axis=2), axis=1)

    def update(key, state, trial):
        valid = trial.valid & jnp.isfinite(trial.reward)
        reward = jnp.where(valid, trial.reward, -jnp.inf)
        decisions = trial.proposal.decisions
        i = jnp.argmax(reward)
        is_start = ~state.untried.any()
        state = state.replace(
            reward=jnp.where(is_start, -jnp.inf, state.reward),
            starts=state.starts + (is_start & valid.any()),
        )
        better = valid[i] & (reward[i] > state.reward)
        scored = jnp.isfinite(state.reward)
        moved = state.replace(
            decisions=decisions[i],
            reward=reward[i],
            number=state.seen + i.astype(jnp.int32),
            untried=spec.neighbors(decisions[i])
            & ~(moves_to(state.decisions[None], decisions[i]) & scored)
            & ~moves_to(decisions, decisions[i]),
        )
        hit = moves_to(decisions, state.decisions)
        stayed = state.replace(untried=state.untried & ~hit)
        state = jax.tree.map(lambda a, b: jnp.where(better, a, b), moved, stayed)
        record = valid[i] & (reward[i] > state.best_reward)
        state = state.replace(
            best=jnp.where(record, decisions[i], state.best),
            best_reward=jnp.where(record, reward[i], state.best_reward),
        )
        state = state.replace(seen=state.seen + len(reward))
        finite = jnp.where(jnp.isfinite(state.reward), state.reward, 0.0)
        metrics = {"reward": finite, "starts": state.starts.astype(jnp.float32)}
        return state, metrics

    def best(key, state, n):
        near_key, key = jax.random.split(key)
        first = jnp.where(jnp.isfinite(state.best_reward), state.best, spec.sample(key))
        near = jax.vmap(lambda k: spec.mutate(k, first))(
            jax.random.split(near_key, 4 * n)
        )
        return distinct(jnp.vstack([first, near]), n)

    return Strategy(init, propose, update, best, alive=lambda state: state.number)
