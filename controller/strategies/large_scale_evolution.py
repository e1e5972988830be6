"""Large-scale evolution: graphs that grow by pairwise tournaments.

Real et al. 2017, https://arxiv.org/abs/1703.01041, section 3.1.  A worker draws two
individuals; the worse one dies, and the better one is copied, mutated and trained with
the weights that it can inherit, while it lives on itself.  A proposal is one such
event: between `propose` and `update` the population lacks the one that died.

Shapes: P individuals, of whom A are alive, n proposals, T integers of the longest one.
"""

import flax.struct
import jax
import numpy as np

from controller.graph_mutations import generator, mutate
from controller.graph_spec import GraphSpec, stack, trim
from controller.types import Proposal, Strategy

SELECTIONS = ("tournament", "uniform")


@flax.struct.dataclass
class Population:
    """The individuals that are alive, the first A rows; there is always a row."""

    decisions: np.ndarray  # int32[max(A, 1), T]
    fitness: np.ndarray  # float32[max(A, 1)]
    trial: np.ndarray  # int32[max(A, 1)], the number of each one's trial
    alive: np.ndarray  # int32[], A
    proposed: np.ndarray  # int32[], trials proposed so far
    trials: np.ndarray  # int32[], trials so far


def large_scale_evolution(
    spec: GraphSpec, *, population: int = 1000, selection: str = "tournament"
) -> Strategy:
    """Builds the strategy; the first P proposals are the spec's `initial` graph.

    A proposal names its parent, unless its mutation resets the weights.  Nobody dies
    for a child while others are missing, because trials were not valid.

    Args:
      spec: of a space of graphs.
      population: P; the paper's is 1000.
      selection: "tournament", or "uniform", where it is chance who dies: the control
        without selection.

    Returns:
      a Strategy, driven from the host.

    Raises:
      ValueError: on a number or name out of its range.
    """
    if population < 2:
        raise ValueError(f"population is {population}; it must be 2 or more")
    if selection not in SELECTIONS:
        raise ValueError(f"selection is {selection!r}; known: {', '.join(SELECTIONS)}")

    def init(key):
        return Population(
            decisions=spec.pack(spec.initial)[None],
            fitness=np.zeros(1, np.float32),
            trial=np.full(1, -1, np.int32),
            alive=np.int32(0),
            proposed=np.int32(0),
            trials=np.int32(0),
        )

    def one(key, state):
        """A graph, the trial that it inherits from, and the state without the dead."""
        running = state.proposed - state.trials
        full = state.alive + running >= population
        state = state.replace(proposed=state.proposed + 1)
        if state.proposed <= population or state.alive < 2:
            return spec.pack(spec.initial), -1, state
        draw_key, mutate_key = jax.random.split(key)
        pair = generator(draw_key).choice(state.alive, 2, replace=False)
        if (
            selection == "tournament"
            and state.fitness[pair[1]] > state.fitness[pair[0]]
        ):
            pair = pair[::-1]
        better, worse = pair
        parent = spec.unpack(state.decisions[better])
        name, child = mutate(mutate_key, parent, spec.first_channels)
        trial = -1 if name == "reset_weights" else state.trial[better]
        return spec.pack(child), trial, _without(state, worse) if full else state

    def propose(key, state, n):
        graphs, parents = [], []
        for i in range(n):
            graph, parent, state = one(jax.random.fold_in(key, i), state)
            graphs.append(graph)
            parents.append(parent)
        none = np.zeros(n, np.float32)
        return Proposal(stack(graphs), none, parent=np.array(parents, np.int32)), state

    def update(key, state, trial):
        for decisions, reward, valid in zip(
            np.asarray(trial.proposal.decisions),
            np.asarray(trial.reward),
            np.asarray(trial.valid & np.isfinite(trial.reward)),
            strict=True,
        ):
            if valid:
                state = _with(state, decisions, reward)
            state = state.replace(trials=state.trials + 1)
        fitness = state.fitness[: state.alive]
        return state, {
            "fitness_mean": np.float32(fitness.mean() if len(fitness) else 0),
            "fitness_max": np.float32(fitness.max() if len(fitness) else 0),
        }

    def best(key, state, n):
        order = np.argsort(-state.fitness[: max(state.alive, 1)], kind="stable")
        return state.decisions[order[:n]]

    def alive(state):
        return state.trial[: state.alive]

    return Strategy(init, propose, update, best, traceable=False, alive=alive)


def _with(state: Population, decisions: np.ndarray, reward: float) -> Population:
    """The population and a newcomer, of the trial that is being learnt from."""
    there = slice(0, int(state.alive))
    return state.replace(
        decisions=stack([*state.decisions[there], trim(decisions)]),
        fitness=np.append(state.fitness[there], np.float32(reward)),
        trial=np.append(state.trial[there], np.int32(state.trials)),
        alive=state.alive + 1,
    )


def _without(state: Population, dead: int) -> Population:
    """The population without one of at least two individuals."""
    keep = np.delete(np.arange(state.alive), dead)
    return state.replace(
        decisions=state.decisions[keep],
        fitness=state.fitness[keep],
        trial=state.trial[keep],
        alive=state.alive - 1,
    )
