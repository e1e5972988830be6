"""Where progressive search takes its candidates from.

Shapes: Q room in the queue, C candidates, K beam, T decisions.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from controller.evolution import uniform_population
from controller.spec import DecisionSpec

_PARENTS = 16  # the best trials, of which a pool takes mutations


class Source(NamedTuple):
    """Candidates of progressive search.

    Attributes:
      first: ``(key) -> int32[., T]``, what is trained first.
      candidates: ``(key, state) -> (int32[C, T], bool[C])``, what may come next.
      mark: ``(tried, int32[n, T]) -> tried``.
      size: of `tried`, 1 or more: checkpoints hold no empty arrays.
      room: Q, the longest queue that `first` fills.
      levels: number of levels.
    """

    first: Callable[[Any], jax.Array]
    candidates: Callable[[Any, Any], tuple[jax.Array, jax.Array]]
    mark: Callable[[jax.Array, jax.Array], jax.Array]
    size: int
    room: int
    levels: int


def _uniform(spec, n):
    return lambda key: uniform_population(spec, key, n)


def everything(spec: DecisionSpec, first: int) -> Source:
    """All architectures of a small space that were not tried."""
    table = jnp.array(list(spec.enumerate()), jnp.int32)
    index = np.full(np.prod(spec.num_choices), len(table), np.int32)
    index[np.ravel_multi_index(np.asarray(table).T, spec.num_choices)] = np.arange(
        len(table)
    )
    index = jnp.asarray(index)

    def mark(tried, decisions):
        flat = jnp.ravel_multi_index(decisions.T, spec.num_choices, mode="clip")
        return tried.at[index[flat]].set(True)

    def candidates(key, state):
        return table, ~state.tried

    return Source(_uniform(spec, first), candidates, mark, len(table), first, levels=1)


def pool(spec: DecisionSpec, first: int, size: int) -> Source:
    """Uniform draws, and mutations of the best trials, without those tried."""

    def candidates(key, state):
        draw_key, parent_key, mutate_key = jax.random.split(key, 3)
        there = jnp.arange(len(state.reward)) < state.count
        reward = jnp.where(there, state.reward, -jnp.inf)
        _, best = jax.lax.top_k(reward, min(_PARENTS, len(reward)))
        scored = jnp.clip(state.count, 1, len(best))
        rank = jax.random.randint(parent_key, (size // 2,), 0, scored)
        drawn = uniform_population(spec, draw_key, size)
        parents = jnp.where(
            state.count > 0, state.decisions[best[rank]], drawn[: size // 2]
        )
        near = jax.vmap(spec.mutate)(jax.random.split(mutate_key, size // 2), parents)
        rows = jnp.concatenate([near, drawn[size // 2 :]])
        # Equal rows have equal hashes; unequal ones rarely do, and then one is missed.
        known = jnp.where(there, _hash(state.decisions), 0)
        hashes = _hash(rows)
        order = jnp.argsort(hashes, stable=True)
        repeated = (
            jnp.zeros(size, bool)
            .at[order[1:]]
            .set(hashes[order[1:]] == hashes[order[:-1]])
        )
        return rows, ~repeated & ~jnp.isin(hashes, known)

    return Source(
        _uniform(spec, first), candidates, lambda tried, _: tried, 1, first, 1
    )


def _hash(decisions):
    """uint32 of each row, never 0."""
    factors = np.random.default_rng(0).integers(1, 2**32, decisions.shape[1], np.uint32)
    mixed = decisions.astype(jnp.uint32) + jnp.uint32(0x9E3779B9)
    mixed = mixed * (jnp.asarray(factors) | 1)[None]
    mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x2C1B3C6D)
    return jnp.sum(mixed ^ (mixed >> 13), axis=1, dtype=jnp.uint32) | 1


def levels(spec: DecisionSpec, beam: int) -> Source:
    """All cells of one block, then the queue's valid ones with every further block.

    The number of blocks is decision 0, and a block is a node, see `Decision.node`.
    After the last level there are no candidates, and its queue is trained again.

    Args:
      spec: one that `has_levels`.
      beam: K.
    """
    blocks = spec.num_choices[0]
    members = [
        [t for t, d in enumerate(spec.decisions) if d.node == b] for b in range(blocks)
    ]
    added = [spec.expansions(b) for b in range(blocks)]
    most = max(map(len, added))
    room = max(beam, len(added[0]))

    def extended(rows, number, values):
        """Cells of `number` blocks: rows with the last block's values."""
        cells = rows.at[..., 0].set(number - 1)
        return cells.at[..., np.array(members[number - 1])].set(values)

    def first(key):
        empty = jnp.zeros((len(added[0]), spec.length), jnp.int32)
        return extended(empty, 1, jnp.asarray(added[0]))

    def candidates(key, state):
        def of_level(number):
            """Each cell of the queue with each block, padded to the longest list."""
            values = jnp.asarray(added[number - 1])

            def build(queue):
                pairs = (len(queue), len(values))
                rows = jnp.broadcast_to(queue[:, None], (*pairs, spec.length))
                rows = extended(rows, number, values[None])
                missing = most - len(values)
                return jnp.pad(rows, ((0, 0), (0, missing), (0, 0)))

            return build

        builds = [of_level(min(level + 2, blocks)) for level in range(blocks)]
        rows = jax.lax.switch(state.level, builds, state.queue)
        count = jnp.array([len(added[min(b + 1, blocks - 1)]) for b in range(blocks)])
        there = jnp.arange(len(state.queue)) < state.length
        there = (there & ~state.failed)[:, None]
        there = there & (jnp.arange(most)[None] < count[state.level])
        there = there & (state.level < blocks - 1)
        return rows.reshape(-1, spec.length), there.reshape(-1)

    return Source(first, candidates, lambda tried, _: tried, 1, room, blocks)
