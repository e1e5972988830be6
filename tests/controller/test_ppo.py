"""PPO: its first step is REINFORCE's, and later ones stop at the clip."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.spaces.nasnet import nasnet
from controller.policies.lstm import lstm_policy
from controller.spec import Decision, DecisionSpec
from controller.strategies.ppo import ppo
from controller.strategies.random_search import random_search
from controller.strategies.reinforce import reinforce
from controller.types import Proposal, Trial

SPEC = DecisionSpec(tuple(Decision(f"op{t}", ("a", "b", "c")) for t in range(2)))
COMMON = {
    "learning_rate": 0.01,
    "entropy_weight": 0.0,
    "policy": {"hidden": 4, "init_scale": 1.0},
}
DECISIONS = np.array([(0, 0), (0, 2), (1, 0), (2, 1), (2, 2)], np.int32)
REWARD = jnp.array([0.1, 0.9, 0.4, 0.6, 0.2])


@pytest.fixture(scope="module")
def updates():
    """States after one update by each strategy, and PPO's loss after its many steps."""
    policy = lstm_policy(SPEC, **COMMON["policy"])
    one = reinforce(SPEC, **COMMON)
    many = ppo(SPEC, epochs=40, epsilon=0.1, **COMMON)
    first = ppo(SPEC, epochs=1, epsilon=0.1, **COMMON)

    @jax.jit
    def run(key):
        state = one.init(key)
        old = policy.evaluate(state.params, DECISIONS).log_prob
        proposal = Proposal(jnp.asarray(DECISIONS), old)
        trial = Trial(proposal, REWARD, jnp.ones(len(REWARD), bool))
        updated = {
            name: strategy.update(key, state, trial)[0]
            for name, strategy in {"one": one, "first": first, "many": many}.items()
        }
        # Metrics are of the policy before its update: here, of the one after `many`.
        _, metrics = many.update(key, updated["many"], trial)
        return updated, metrics["policy_loss"]

    return run(jax.random.key(0))


def test_the_first_step_is_that_of_reinforce(updates):
    updated, _ = updates
    # Adam divides each gradient by its size, so that a tiny one may turn by rounding;
    # its moments are the gradients themselves.
    moments = [updated[name].opt_state[1][0].mu for name in ("one", "first")]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), *moments
    )
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(moments)) > 1e-3
    assert float(updated["one"].baseline) == float(updated["first"].baseline)


def test_later_steps_go_to_the_clip_and_stop(updates):
    _, loss = updates
    advantage = np.asarray(REWARD) - np.mean(REWARD)
    bound = -np.mean(advantage * np.where(advantage > 0, 1.1, 0.9))
    assert bound - 1e-6 <= float(loss) < 0.9 * bound


def test_it_beats_random_search_on_an_additive_reward(quick_jit):
    """Of NASNet cells, whose decisions have a worth each, at an equal budget."""
    spec, seeds, samples, updates = nasnet(classes=3, blocks=1).spec, 4, 20, 60
    worth = np.random.default_rng(0).uniform(size=(spec.length, spec.max_choices))
    worth, places = jnp.asarray(worth, jnp.float32), jnp.arange(spec.length)

    def rewards(strategy):
        """[seeds, updates, samples]"""

        def update(state, key):
            propose_key, update_key = jax.random.split(key)
            proposal, state = strategy.propose(propose_key, state, samples)
            reward = worth[places[None], proposal.decisions].mean(1)
            trial = Trial(proposal, reward, jnp.ones(samples, bool))
            return strategy.update(update_key, state, trial)[0], reward

        def one(key):
            keys = jax.random.split(key, updates)
            return jax.lax.scan(update, strategy.init(key), keys)[1]

        return quick_jit(jax.vmap(one))(jax.random.split(jax.random.key(0), seeds))

    options = {"learning_rate": 0.02, "baseline_decay": 0.9, "policy": {"hidden": 8}}
    learnt = rewards(ppo(spec, **options))
    drawn = rewards(random_search(spec))
    assert learnt.max((1, 2)).mean() > drawn.max((1, 2)).mean()
    assert np.all(learnt[:, -5:].mean((1, 2)) > np.quantile(drawn, 0.95))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, r"epsilon is 0.0; it must lie in \(0, 1\)"),
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ppo(SPEC, **options)
