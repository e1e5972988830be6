"""Children that go on from their parents, and those that fail."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.evaluators.inherited import inheritance, inherited
from child_models.spaces.large_scale import Network, large_scale
from child_models.tasks.classification import classification
from child_models.types import Dataset, Space, Split
from controller.graph import Graph, Layer
from controller.graph_spec import stack
from controller.spec import Decision, DecisionSpec
from controller.types import Proposal

CLASSES = 3
SPACE = large_scale(classes=CLASSES)
TASK = classification(classes=CLASSES)


def split(n, seed):
    """Images whose mean grey level tells the class, roughly."""
    generator = np.random.default_rng(seed)
    labels = (np.arange(n) % CLASSES).astype(np.int32)
    noise = generator.integers(0, 120, (n, 8, 8, 1))
    return Split((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels)


DATASET = Dataset(
    "toy",
    split(24, 0),
    split(33, 1),
    split(4, 2),
    CLASSES,
    np.array([0.45], np.float32),
    np.array([0.3], np.float32),
)


def build(**options):
    sizes = {"epochs": 4, "batch_size": 8, "reward_batch_size": 12}
    return inherited(SPACE, TASK, DATASET, **sizes | options)


EVALUATOR = build(max_macs=100_000)
PLAIN = Graph(0.1, (Layer(0, "conv", 3, 3, channels=4),))
STILL = Graph(1e-30, PLAIN.layers)  # whatever it is trained, its weights stay
DIVERGING = Graph(1e30, PLAIN.layers)
LARGE = Graph(0.1, (Layer(0, "conv", 3, 3, channels=500),))
BROKEN = Graph(0.1, (Layer(0, "conv", 2**15 - 1, 2**15 - 1, channels=2**15),))


def evaluate(state, *graphs, parent=None, key=0, evaluator=EVALUATOR):
    rows = stack(SPACE.spec.pack(graph) for graph in graphs)
    parents = np.full(len(graphs), -1) if parent is None else np.array(parent)
    proposal = Proposal(rows, np.zeros(len(graphs)), parent=parents)
    return evaluator.evaluate(jax.random.key(key), state, evaluator.data, proposal)


@pytest.fixture(scope="module")
def start():
    return EVALUATOR.init(jax.random.key(7), EVALUATOR.data)


@pytest.fixture(scope="module")
def family(start):
    """A state in which trial 0 is there, and its trial."""
    return evaluate(start, PLAIN)


def predict(variables, graph=PLAIN):
    choices = SPACE.bind(SPACE.spec.pack(graph))
    images = jnp.asarray(DATASET.test.images, jnp.float32)
    return SPACE.module("search").apply(variables, choices, images, False)


def test_a_child_learns(family):
    state, trial = family
    assert trial.valid.all() and trial.reward[0] > 0.5
    assert list(trial.reason) == [None]
    assert list(state.weights) == ["0"] and state.trials == 1


def test_an_unchanged_child_has_the_logits_of_its_parent_before_training(family):
    parent = family[0].weights["0"]
    state, trial = evaluate(family[0], STILL, parent=[0])
    assert trial.reward == family[1].reward
    np.testing.assert_array_equal(predict(state.weights["1"]), predict(parent))
    alone, _ = evaluate(family[0], STILL)
    assert not np.allclose(predict(alone.weights["1"]), predict(parent))


def test_batch_statistics_are_inherited_too():
    layers = (Layer(0, "conv", channels=4, activation="bn_relu"),)
    shapes = jax.eval_shape(
        lambda: SPACE.module("search").init(
            jax.random.key(0), Graph(1.0, layers), jnp.zeros((2, 8, 8, 1)), True
        )
    )
    parent = jax.tree.map(lambda x: np.ones(x.shape), shapes)
    given, taken = inheritance(shapes, parent)
    assert all(jax.tree.leaves(taken))
    assert set(given) == {"params", "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, given, parent)


def test_a_weight_is_inherited_where_its_name_and_shape_agree():
    shapes = {
        "params": {
            "same": jax.ShapeDtypeStruct((2,), jnp.float32),
            "wider": jax.ShapeDtypeStruct((3,), jnp.float32),
            "new": jax.ShapeDtypeStruct((2,), jnp.float32),
        },
        "batch_stats": {},
    }
    parent = {"params": {name: np.ones(2) for name in ("same", "wider", "gone")}}
    given, taken = inheritance(shapes, parent)
    assert taken["params"] == {"same": True, "wider": False, "new": False}
    assert given["params"]["same"].tolist() == [1, 1]
    assert given["params"]["wider"].tolist() == [0, 0, 0]
    assert not any(jax.tree.leaves(inheritance(shapes, None)[1]))


class Chosen(nn.Module):
    """Dense layers of one width or another, which no child of a supernet shares."""

    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        x = x.reshape(len(x), -1)
        for i, width in enumerate(choices["widths"]):
            x = nn.tanh(nn.Dense((4, 8)[width], name=f"layer_{i}")(x))
        return nn.Dense(CLASSES, name="classifier")(x)


def test_decisions_inherit_as_graphs_do():
    spec = DecisionSpec(tuple(Decision(f"width{i}", ("4", "8")) for i in range(2)))
    space = Space(
        spec,
        lambda form: Chosen(),
        lambda decisions: {"widths": spec.validate(decisions)},
        lambda variables, decisions: variables,
        bindings=frozenset({"fixed"}),
    )
    evaluator = inherited(
        *(space, TASK, DATASET),
        epochs=4,
        batch_size=8,
        reward_batch_size=12,
        learning_rate=1e-30,
    )
    state = evaluator.init(jax.random.key(7), evaluator.data)
    for number, row in enumerate([(0, 1), (0, 0)]):
        parent = np.array([number - 1])
        proposal = Proposal(np.array([row], np.int32), np.zeros(1), parent=parent)
        key = jax.random.key(number)
        state, trial = evaluator.evaluate(key, state, evaluator.data, proposal)
        assert trial.valid.all()
    older, child = (state.weights[name]["params"] for name in "01")
    np.testing.assert_array_equal(
        older["layer_0"]["kernel"], child["layer_0"]["kernel"]
    )
    assert child["layer_1"]["kernel"].shape == (4, 4)
    assert child["classifier"]["kernel"].shape == (4, CLASSES)


def test_more_training_pays(family):
    state, trial = family
    rewards = [float(trial.reward[0])]
    for number in range(3):
        state, trial = evaluate(state, PLAIN, parent=[number], key=number + 1)
        rewards.append(float(trial.reward[0]))
    assert max(rewards[1:]) > rewards[0] or rewards[0] > 0.95


def test_a_trial_depends_on_its_graph_parent_and_key_alone(family):
    state = family[0]
    both, together = evaluate(state, PLAIN, STILL, parent=[0, 0])
    _, alone = evaluate(state, STILL, parent=[0])
    assert together.reward[1] == alone.reward[0]
    _, again = evaluate(both, PLAIN, parent=[0])
    assert again.reward[0] == together.reward[0]


def test_one_program_serves_all_learning_rates_and_weights(start):
    traces = []

    class Counted(Network):
        def __call__(self, choices, *arguments):
            traces.append(choices)
            return super().__call__(choices, *arguments)

    counted = SPACE._replace(module=lambda form: Counted(CLASSES))
    evaluator = inherited(
        counted, TASK, DATASET, epochs=1, batch_size=8, reward_batch_size=12
    )
    state, _ = evaluate(start, PLAIN, evaluator=evaluator)
    before = len(traces)
    evaluate(state, Graph(0.07, PLAIN.layers), parent=[0], evaluator=evaluator)
    assert len(traces) == before > 0
    evaluate(state, Graph(0.1), evaluator=evaluator)
    assert len(traces) > before


@pytest.mark.parametrize(
    "graph, reason",
    [
        (DIVERGING, "its loss is not finite"),
        (LARGE, "289,500 multiply-adds; max_macs=100,000"),
    ],
)
def test_a_child_that_fails_is_not_valid_and_says_why(family, graph, reason):
    state, trial = evaluate(family[0], graph, PLAIN, parent=[0, 0])
    assert trial.valid.tolist() == [False, True]
    assert trial.reward[0] == 0 and np.isfinite(trial.reward).all()
    assert list(trial.reason) == [reason, None]
    assert set(state.weights) == {"0", "2"} and state.trials == 3


def test_whatever_is_raised_is_a_reason(start):
    unlimited = build()
    _, trial = evaluate(start, BROKEN, evaluator=unlimited)
    assert not trial.valid[0]
    assert trial.reason[0].startswith("MemoryError: Unable to allocate")


def test_weights_of_the_dead_are_forgotten(family):
    state, _ = evaluate(family[0], PLAIN, parent=[0])
    assert set(EVALUATOR.keep(state, np.array([1])).weights) == {"1"}
    assert set(EVALUATOR.keep(state, np.array([0, 1, 7])).weights) == {"0", "1"}


def test_the_score_is_a_training_from_scratch(family):
    decisions = SPACE.spec.pack(PLAIN)
    scores = [
        float(EVALUATOR.score(state, EVALUATOR.data, decisions))
        for state in (family[0], EVALUATOR.keep(family[0], np.array([])))
    ]
    assert scores[0] == scores[1] > 0.4
    diverged = SPACE.spec.pack(DIVERGING)
    assert np.isnan(EVALUATOR.score(family[0], EVALUATOR.data, diverged))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epochs": 0}, "epochs is 0; it must be 1 or more"),
        ({"max_macs": 0}, "max_macs is 0; it must be 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be positive"),
        ({"batch_size": 25}, "25"),
        ({"reward_batch_size": 34}, "34"),
        ({"train_limit": 25}, "train_limit is 25; it must be 1 to 24"),
        ({"executor": "compiled"}, "compiled one by one, by 'local' or 'ray'"),
        ({"workers": 0}, "workers is 0; it must be 1 or more"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
