"""Random search: uniform proposals, whatever they earn."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from controller.evolution import uniform_population
from controller.graph_spec import GraphSpec, stack
from controller.losses import masked_mean
from controller.spec import Spec
from controller.types import Proposal, Strategy


@flax.struct.dataclass
class RandomState:
    """Nothing that is learnt."""

    step: jax.Array  # int32[], updates seen


def random_search(spec: Spec) -> Strategy:
    """Builds the strategy.

    Proposals, and the candidates of `best`, are drawn by the spec's `sample`; their
    log_prob is 0.  The metric "entropy" is that of draws of decisions.

    Args:
      spec: of the space.

    Returns:
      a Strategy; of graphs, one that the host drives.
    """
    if isinstance(spec, GraphSpec):
        return _random_graphs(spec)

    def init(key):
        return RandomState(step=jnp.int32(0))

    def propose(key, state, n):
        return Proposal(uniform_population(spec, key, n), jnp.zeros(n)), state

    def entropy(decisions):
        steps = jnp.arange(spec.length)
        legal = jax.vmap(spec.legal, in_axes=(None, 0))(decisions, steps)
        return jnp.sum(jnp.log(jnp.sum(legal, axis=1).astype(jnp.float32)))

    def update(key, state, trial):
        nats = jax.vmap(entropy)(trial.proposal.decisions)
        metrics = dict.fromkeys(("loss", "advantage", "baseline"), jnp.float32(0))
        metrics["entropy"] = masked_mean(nats, trial.valid)
        return state.replace(step=state.step + 1), metrics

    def best(key, state, n):
        return uniform_population(spec, key, n)

    return Strategy(init, propose, update, best)


def _random_graphs(spec: GraphSpec) -> Strategy:
    """The same of graphs, which have neither one length nor an entropy."""

    def draw(key, n):
        return stack(spec.sample(jax.random.fold_in(key, i)) for i in range(n))

    def propose(key, state, n):
        return Proposal(draw(key, n), np.zeros(n, np.float32)), state

    return Strategy(
        lambda key: RandomState(step=np.int32(0)),
        propose,
        lambda key, state, trial: (state.replace(step=state.step + 1), {}),
        lambda key, state, n: draw(key, n),
        traceable=False,
    )
