"""Pairwise tournaments: who dies, who reproduces, and how many are left."""

import jax
import numpy as np
import pytest

from controller.graph import Graph
from controller.graph_mutations import MUTATIONS
from controller.graph_spec import GraphSpec, stack
from controller.strategies.large_scale_evolution import (
    Population,
    large_scale_evolution,
)
from controller.types import Trial

SPEC = GraphSpec(Graph(0.1))


def trial_of(proposal, rewards, valid=True):
    rewards = np.asarray(rewards, np.float32)
    return Trial(proposal, rewards, np.broadcast_to(valid, rewards.shape))


def depth(decisions):
    """A synthetic fitness: more layers are better."""
    return [len(SPEC.unpack(row).layers) for row in decisions]


def evolve(strategy, events, fitness=depth, n=1, seed=0, valid=lambda event: True):
    """Yields (proposal, state before the update, state after it) of each event."""
    key = jax.random.key(seed)
    state = strategy.init(key)
    for event in range(events):
        proposal, state = strategy.propose(jax.random.fold_in(key, event), state, n)
        before = state
        trial = trial_of(proposal, fitness(proposal.decisions), valid(event))
        state, metrics = strategy.update(jax.random.key(event), state, trial)
        yield proposal, before, state
    assert set(metrics) == {"fitness_mean", "fitness_max"}


def test_evolution_begins_with_equal_individuals_and_makes_better_ones():
    strategy = large_scale_evolution(SPEC, population=8)
    events = list(evolve(strategy, 150))
    for proposal, _, state in events[:8]:
        assert SPEC.unpack(proposal.decisions[0]) == SPEC.initial
        assert proposal.parent.tolist() == [-1]
    state = events[-1][2]
    assert state.fitness.mean() > 5
    best = strategy.best(jax.random.key(0), state, 4)
    assert depth(best)[0] == state.fitness.max()
    assert depth(best) == sorted(depth(best), reverse=True)


def test_the_population_lacks_one_while_a_child_trains_and_is_whole_after_it():
    strategy = large_scale_evolution(SPEC, population=6)
    for event, (_, before, after) in enumerate(evolve(strategy, 60)):
        assert before.alive == (event if event < 6 else 5)
        assert after.alive == min(event + 1, 6)
        assert len(after.fitness) == len(after.trial) == len(after.decisions)
        assert after.trials == after.proposed == event + 1


@pytest.mark.parametrize("n", [1, 3])
def test_the_best_is_never_killed(n):
    strategy = large_scale_evolution(SPEC, population=10)
    rng = np.random.default_rng(0)
    best = -np.inf

    def fitness(decisions):
        return rng.random(len(decisions))

    for _, _, state in evolve(strategy, 120, fitness, n):
        assert state.fitness.max() >= best
        best = state.fitness.max()


def test_a_child_is_its_living_parent_after_one_mutation():
    strategy = large_scale_evolution(SPEC, population=5)
    kinds = set()
    known = {}
    for number, (proposal, before, _) in enumerate(evolve(strategy, 120)):
        graph = SPEC.unpack(proposal.decisions[0])
        known[number] = graph
        parent = int(proposal.parent[0])
        if parent >= 0:
            assert parent in strategy.alive(before)
            difference = len(graph.layers) - len(known[parent].layers)
            assert abs(difference) <= 1
            kinds.add(difference)
        elif number >= 5:
            assert graph in known.values()  # the weights are reset, no more
    assert kinds == {-1, 0, 1}


def test_a_share_of_the_proposals_resets_the_weights():
    strategy = large_scale_evolution(SPEC, population=5)
    parents = [p.parent[0] for p, _, _ in evolve(strategy, 300)][5:]
    share = np.mean(np.array(parents) == -1)
    assert 0.03 < share < 0.2  # one of 11 mutations, or of fewer that apply
    assert "reset_weights" in MUTATIONS


def two_types(n, better):
    """A population whose first individuals are of the better type."""
    return Population(
        decisions=stack([SPEC.pack(SPEC.initial)] * n),
        fitness=(np.arange(n) < better).astype(np.float32),
        trial=np.arange(n, dtype=np.int32),
        alive=np.int32(n),
        proposed=np.int32(n),
        trials=np.int32(n),
    )


@pytest.mark.parametrize(
    "selection, expected", [("tournament", 1 - 0.7**2), ("uniform", 0.3)]
)
def test_takeover_of_a_population_of_two_types(selection, expected):
    """One draw takes a fraction f of parents to 2 f - f^2 = 1 - (1 - f)^2."""
    strategy = large_scale_evolution(SPEC, population=100, selection=selection)
    state = two_types(100, 30)
    draws, winners, left = 500, 0, []
    for i in range(draws):
        proposal, after = strategy.propose(jax.random.key(i), state, 1)
        left.append(after.fitness.sum())
        dead = set(range(100)) - set(after.trial.tolist())
        assert len(dead) == 1
        if proposal.parent[0] >= 0:
            winners += proposal.parent[0] < 30
        else:
            draws -= 1
    assert abs(winners / draws - expected) < 4 * np.sqrt(0.25 / draws)
    # Of a pair of both types the worse one dies.
    killed = 30 - np.mean(left)
    assert abs(killed - (0.3**2 if selection == "tournament" else 0.3)) < 0.08


def test_equal_fitness_kills_the_other_one_and_not_the_parent():
    strategy = large_scale_evolution(SPEC, population=2)
    for i in range(20):
        proposal, after = strategy.propose(jax.random.key(i), two_types(2, 2), 1)
        if proposal.parent[0] >= 0:
            assert after.trial.tolist() == proposal.parent.tolist()


def test_trials_that_are_not_valid_are_no_individuals_and_cost_no_life():
    strategy = large_scale_evolution(SPEC, population=4)
    events = list(evolve(strategy, 60, valid=lambda event: event % 3 != 1))
    sizes = [int(after.alive) for _, _, after in events]
    assert max(sizes) == 4 and min(sizes[12:]) == 3
    for event, (_, _, after) in enumerate(events):
        assert not any(number % 3 == 1 for number in after.trial[: after.alive])
        if event > 8 and event % 3 == 0:  # the event after one that failed
            assert after.alive == 4


def test_where_everything_fails_evolution_begins_again():
    strategy = large_scale_evolution(SPEC, population=3)
    for proposal, _, after in evolve(strategy, 8, valid=lambda event: False):
        assert SPEC.unpack(proposal.decisions[0]) == SPEC.initial
        assert after.alive == 0 and len(strategy.alive(after)) == 0
    assert SPEC.unpack(strategy.best(jax.random.key(0), after, 5)[0]) == SPEC.initial


def test_the_same_key_gives_the_same_events():
    strategy = large_scale_evolution(SPEC, population=6)
    runs = [[p.decisions for p, _, _ in evolve(strategy, 40)] for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *runs)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"population": 1}, "population is 1; it must be 2 or more"),
        ({"selection": "x"}, "selection is 'x'; known: tournament, uniform"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        large_scale_evolution(SPEC, **options)
