"""Children with weights of their own: what a trial depends on, and what it is worth."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import child_models.evaluators.from_scratch as module_under_test
from child_models.choice import bind_all, choose
from child_models.evaluators.from_scratch import from_scratch
from child_models.recipe import recipe
from child_models.shared_params import extract
from child_models.tasks.classification import classification
from child_models.types import Dataset, Space, Split
from controller.loop import make_loop, schedule
from controller.spec import Decision, DecisionSpec
from controller.strategies.random_search import random_search
from controller.types import Proposal

CLASSES = 3
TASK = classification(classes=CLASSES)
SPEC = DecisionSpec(
    tuple(Decision(f"op{t}", ("linear", "tanh", "explode")) for t in range(2))
)
GOOD, OTHER, EXPLODING = (0, 1), (1, 0), (0, 2)


class Branch(nn.Module):
    """A dense layer and a function of its output."""

    act: str

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(8)(x)
        return {"linear": y, "tanh": nn.tanh(y), "explode": y * 1e30 * 1e30}[self.act]


class Toy(nn.Module):
    """Two chosen layers and a classifier."""

    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        x = x.reshape(x.shape[0], -1)
        for t, choice in enumerate(choices):
            branches = [
                lambda act=act, **kwargs: Branch(act, **kwargs)
                for act in SPEC.decisions[t].choices
            ]
            x = choose(choice, branches, x, name=f"layer_{t}")
        return nn.Dense(CLASSES)(x)


SPACE = Space(
    SPEC,
    lambda form: Toy(),
    lambda decisions: bind_all(SPEC, decisions),
    lambda variables, decisions: extract(Toy(), decisions, variables, (8, 8, 1)),
    running_statistics=False,
)


def split(n, seed):
    """Images whose mean grey level tells the class, roughly."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % CLASSES).astype(np.int32)
    noise = generator.integers(0, 120, (n, 8, 8, 1))
    return Split((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels)


DATASET = Dataset(
    "toy",
    split(20, 0),
    split(33, 1),
    split(4, 2),
    CLASSES,
    np.array([0.45], np.float32),
    np.array([0.3], np.float32),
)


def build(space=SPACE, **options):
    defaults = {"epochs": 3, "batch_size": 8, "reward_batch_size": 12}
    return from_scratch(space, TASK, DATASET, **(defaults | options))


class Compiled:
    """An evaluator with its functions compiled."""

    def __init__(self, **options):
        self.evaluator = build(**options)
        self.data = self.evaluator.data
        self.evaluate = jax.jit(self.evaluator.evaluate)
        self.score = jax.jit(self.evaluator.score)
        self.state = self.evaluator.init(jax.random.key(7), self.data)

    def trial(self, *rows, key=0):
        proposal = Proposal(jnp.array(rows, jnp.int32), jnp.zeros(len(rows)))
        key = jax.random.key(key) if isinstance(key, int) else key
        return self.evaluate(key, self.state, self.data, proposal)[1]


@pytest.fixture(scope="module")
def toy():
    return Compiled()


def test_a_short_training_is_worth_something(toy):
    trial = toy.trial(GOOD, OTHER, GOOD)
    assert trial.valid.all() and (trial.reward > 0.5).all()


def test_the_order_of_proposals_does_not_matter(toy):
    forth, back = toy.trial(GOOD, OTHER, EXPLODING), toy.trial(EXPLODING, OTHER, GOOD)
    np.testing.assert_array_equal(forth.reward, back.reward[::-1])
    np.testing.assert_array_equal(forth.valid, back.valid[::-1])


def test_decisions_and_key_make_the_reward_and_nothing_else_does(toy):
    rewards = [toy.trial(GOOD, other, GOOD, key=0).reward for other in (OTHER, GOOD)]
    assert len({float(r) for row in rewards for r in row[::2]}) == 1
    others = {float(toy.trial(GOOD, GOOD, GOOD, key=k).reward[0]) for k in range(5)}
    assert len(others) > 1


def test_a_child_that_diverges_is_an_invalid_trial_and_the_others_are_not(toy):
    trial = toy.trial(EXPLODING, GOOD, EXPLODING)
    assert trial.valid.tolist() == [False, True, False]
    assert trial.reward[0] == trial.reward[2] == 0 and trial.reward[1] > 0.5


def test_the_search_goes_on_after_a_child_that_diverges():
    plan = schedule(rounds=8, child_steps=0, policy_steps=1, samples=2)
    loop = make_loop(SPEC, random_search(SPEC), build(), plan, history=4)
    state, log = loop.run(loop.init(jax.random.key(1)), 8)
    exploding = (log.decisions[:8] == 2).any(2)
    assert exploding.any() and not exploding.all()
    np.testing.assert_array_equal(log.valid[:8], ~exploding)
    assert int(log.count) == 8 and not bool(state.failed)
    found = np.asarray(state.top_decisions)[np.isfinite(state.top_reward)]
    assert len(found) and not (found == 2).any()


def test_the_score_is_another_training_whose_key_is_that_of_all_candidates(toy):
    score = toy.score(toy.state, toy.data, jnp.array(GOOD))
    assert score == toy.trial(GOOD, GOOD, GOOD, key=toy.state.score_key).reward[0]
    assert np.isnan(toy.score(toy.state, toy.data, jnp.array(EXPLODING)))
    assert len(jax.tree.leaves(toy.state)) == 1


def test_a_huge_learning_rate_is_an_invalid_trial():
    trial = Compiled(learning_rate=1e30, clip_norm=None).trial(GOOD, GOOD)
    assert not trial.valid.any() and (trial.reward == 0).all()


def test_fewer_images_may_be_trained_on():
    evaluator = build(train_limit=9)
    np.testing.assert_array_equal(
        evaluator.data["train"].images, DATASET.train.images[:9]
    )
    assert len(evaluator.data["validation"].labels) == 33


# ---- the training of a child --------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """The training that the evaluator uses, its split, and one child of it."""
    built = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module_under_test,
            "recipe",
            lambda *args, **kwargs: built.append(recipe(*args, **kwargs)) or built[0],
        )
        data = build().data
    training = built[0]

    def traced(*args):
        traced.count += 1
        return training.run(*args)

    traced.count = 0
    init, run = jax.jit(training.init), jax.jit(traced)
    choices = SPACE.bind(jnp.array(GOOD))
    before = init(jax.random.key(3), data["train"], choices)
    after, _ = run(before, data["train"], choices, 6)
    return training, data, run, before, after


def test_weights_that_are_not_sampled_do_not_move(trained):
    *_, before, after = trained
    old, new = (dict(_leaves(state.params)) for state in (before, after))
    read = dict(_leaves(SPACE.extract(before.variables, GOOD)["params"])).keys()
    assert read < old.keys()
    assert {path for path in old if (old[path] != new[path]).any()} == read


def test_a_child_learns_as_it_would_alone(trained):
    training, data, _, before, after = trained
    choices = SPACE.bind(np.array(GOOD))
    start, end = (SPACE.extract(state.variables, GOOD) for state in (before, after))
    alone = training.init(jax.random.key(3), data["train"], choices).replace(**start)
    alone, _ = jax.jit(lambda s: training.run(s, data["train"], choices, 6))(alone)
    for a, b in zip(*map(jax.tree.leaves, (alone.variables, end)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_reward_may_be_a_power_of_the_best_of_the_last_epochs(trained):
    """Zoph & Le 2017: the best of the last five, cubed."""
    training, data, run, before, _ = trained
    choices, state, accuracies = SPACE.bind(jnp.array(GOOD)), before, []
    for _ in range(3):
        state, _ = run(state, data["train"], choices, training.steps_per_epoch)
        scores = training.measure(state.variables, data["validation"], choices)
        accuracies.append(float(scores["accuracy"]))
    toy = Compiled(reward_epochs=2, reward_power=3.0)
    trial = toy.trial(GOOD, EXPLODING, key=jax.random.key(3))
    np.testing.assert_allclose(trial.value, [max(accuracies[1:]), np.nan], rtol=1e-6)
    np.testing.assert_allclose(trial.reward, [max(accuracies[1:]) ** 3, 0], rtol=1e-5)
    assert trial.valid.tolist() == [True, False]
    score = toy.score(toy.state, toy.data, jnp.array(GOOD))
    assert score == toy.trial(GOOD, GOOD, key=toy.state.score_key).reward[0]


def test_one_compilation_trains_all_architectures(trained):
    training, data, run, before, _ = trained
    for decisions in (GOOD, OTHER, (0, 0), (1, 1)):
        choices = SPACE.bind(jnp.array(decisions))
        state, _ = run(before, data["train"], choices, 6)
        assert int(state.step) == 6 == training.steps
    assert run.__wrapped__.count == 1


def _leaves(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]


# ---- mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"reward_epochs": 4}, "reward_epochs is 4; it must be 1 to epochs=3"),
        ({"reward_power": 0.0}, "reward_power is 0.0; it must be positive"),
        ({"train_limit": 0}, "train_limit is 0; it must be 1 to 20"),
        ({"train_limit": 21}, "train_limit is 21; it must be 1 to 20"),
        ({"train_limit": 7}, "batch of 8 .* train split of 7"),
        ({"reward_batch_size": 34}, "batch of 34 .* validation split of 33"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"pad": -1}, "pad is -1"),
    ],
)
def test_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        build(**options)


def test_refuses_a_space_without_the_sampled_binding():
    with pytest.raises(ValueError, match="needs the binding 'sampled'.*only fixed"):
        build(SPACE._replace(bindings=frozenset({"fixed"})))


def test_refuses_a_schedule_with_child_steps():
    plan = schedule(rounds=2, child_steps=3, policy_steps=1)
    with pytest.raises(ValueError, match="child_steps is 3; .* must be 0"):
        make_loop(SPEC, random_search(SPEC), build(), plan)
