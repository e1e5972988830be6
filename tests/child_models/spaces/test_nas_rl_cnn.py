"""The space of NAS with RL: sizes, anchors, concatenation, parameters by hand."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces.nas_rl_cnn import connect, nas_rl_cnn

# Two layers: 1x3 with 2 filters, 3x1 with 4; the second reads the first, or not.
SMALL = {"layers": 2, "heights": (1, 3), "widths": (1, 3), "filters": (2, 4)}
CHAIN, BESIDE = np.array([0, 1, 0, 1, 0, 1, 1]), np.array([0, 1, 0, 1, 0, 1, 0])


@pytest.mark.parametrize("layers", [1, 2, 6, 15])
def test_sizes(layers):
    spec = nas_rl_cnn(classes=10, layers=layers).spec
    assert spec.size() == 64**layers * 2 ** (layers * (layers - 1) // 2)


def test_decisions_say_what_they_build_and_read():
    spec = nas_rl_cnn(classes=10, layers=3).spec
    names = [d.name.removeprefix("layer/") for d in spec.decisions]
    assert names[:3] == ["0/height", "0/width", "0/filters"]
    assert names[-2:] == ["2/skip_0", "2/skip_1"]
    assert spec.decisions[2].choices == ("24", "36", "48", "64")
    assert spec.decisions[-1].targets == (1, 1) and spec.decisions[-1].node == 2
    text = spec.encode([0] * spec.length)
    assert json.loads(text)["layer/0/filters"] == "24"
    assert spec.decode(text) == (0,) * spec.length


def test_the_depth_may_be_a_decision_and_absent_layers_cost_nothing():
    """The paper's: 6 layers, and two more each time, up to 20."""
    spec = nas_rl_cnn(classes=10, layers=20, fewest=6).spec
    counts = range(6, 21, 2)
    assert spec.decisions[0].choices == tuple(map(str, counts))
    assert spec.size() == sum(64**n * 2 ** (n * (n - 1) // 2) for n in counts)
    alone = nas_rl_cnn(classes=5, **SMALL | {"layers": 1})
    space = nas_rl_cnn(classes=5, fewest=1, layer_step=1, **SMALL)
    single = np.array([0, *CHAIN[:3], *[0] * 4])
    net, shape = space.module("final"), (8, 8, 3)
    cost = count(net, space.bind(single), shape)
    own = count(alone.module("final"), alone.bind(CHAIN[:3]), shape)
    assert cost == own
    deep = np.array([1, *CHAIN])
    whole = nas_rl_cnn(classes=5, **SMALL)
    own = count(whole.module("final"), whole.bind(CHAIN), shape)
    assert count(net, space.bind(deep), shape) == own
    with pytest.raises(ValueError, match="decision 4 'layer/1/height' is 1; legal: 0"):
        space.bind(np.array([0, *CHAIN[:3], 1, 0, 0, 0]))


def test_anchors_connect_every_layer_whatever_the_bits():
    for mask in itertools.product((0, 1), repeat=6):
        bits = iter(mask)
        skips = [tuple(next(bits) for _ in range(i)) for i in range(4)]
        connections = connect(skips)
        # Nodes: 0 the image, 1 to 4 the layers, 5 the classifier.
        edges = {
            (j, i + 1)
            for i, reads in enumerate(connections.reads)
            for j, there in enumerate(reads)
            if there
        }
        edges |= {(j + 1, 5) for j, there in enumerate(connections.loose) if there}
        assert {j for _, j in edges} == {1, 2, 3, 4, 5}  # each has an input
        assert {i for i, _ in edges} == {0, 1, 2, 3, 4}  # each is read
        assert all(i < j for i, j in edges)
        # The image is read by the layers that read no other, and by no other.
        alone = {i + 1 for i, own in enumerate(skips) if not any(own)}
        assert {j for i, j in edges if i == 0} == alone


@pytest.mark.parametrize(
    ("decisions", "inputs", "features"), [(CHAIN, 2, 4), (BESIDE, 3, 2 + 4)]
)
def test_parameters_and_multiply_adds(decisions, inputs, features):
    space = nas_rl_cnn(classes=5, **SMALL)
    cost = count(space.module("final"), space.bind(decisions), (8, 8, 3))
    kernels = 3 * 3 * 2 + 3 * inputs * 4
    assert cost.params == kernels + 2 * (2 + 4) + features * 5 + 5
    assert cost.macs == 64 * kernels + features * 5


def test_the_child_of_shared_weights_has_the_centre_of_the_kernels():
    space = nas_rl_cnn(classes=5, **SMALL)
    net, x = space.module("search"), jnp.zeros((2, 8, 8, 3))
    shapes = jax.eval_shape(
        lambda: net.init(jax.random.key(0), space.bind(jnp.asarray(CHAIN)), x, True)
    )
    rng = np.random.default_rng(0)
    shared = jax.tree.map(lambda s: rng.normal(size=s.shape), shapes)
    assert shared["params"]["layer_1"]["kernel"].shape == (3, 3, 3 + 4, 4)
    for decisions, inputs, rows in (
        (CHAIN, [3, 4], [4, 5, 6, 7]),
        (BESIDE, [0, 1, 2], [0, 1, 4, 5, 6, 7]),
    ):
        child = space.extract(shared, decisions)["params"]
        first, second = (shared["params"][f"layer_{i}"]["kernel"] for i in (0, 1))
        np.testing.assert_array_equal(child["layer_0"]["kernel"], first[1:2, :, :, :2])
        np.testing.assert_array_equal(
            child["layer_1"]["kernel"], second[:, 1:2, inputs]
        )
        np.testing.assert_array_equal(
            child["classifier"]["kernel"],
            shared["params"]["classifier"]["kernel"][rows],
        )
        choices = space.bind(decisions)
        own = jax.eval_shape(
            lambda choices=choices: net.init(jax.random.key(0), choices, x, True)
        )
        extracted = jax.tree.map(np.shape, space.extract(shared, decisions))
        assert extracted == jax.tree.map(np.shape, own)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "classes is 0; it must be at least 1"),
        ({"layers": 0}, "layers is 0; it must be at least 1"),
        ({"fewest": 0}, "fewest is 0; it must be at least 1"),
        ({"layers": 7, "fewest": 4}, "fewest is 4, layers 7 and layer_step 2; steps"),
        ({"heights": (1, 2)}, r"heights is \(1, 2\); all must be odd"),
        ({"widths": ()}, r"widths is \(\); it needs numbers of at least 1"),
        ({"filters": (0, 24)}, r"filters is \(0, 24\); it needs numbers of at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        nas_rl_cnn(**{"classes": 10, **arguments})


def test_the_final_form_refuses_sampled_decisions():
    space = nas_rl_cnn(classes=3, **SMALL)
    with pytest.raises(ValueError, match="fixed decisions only"):
        space.module("final").init(
            jax.random.key(0),
            space.bind(jnp.asarray(CHAIN)),
            jnp.zeros((1, 8, 8, 3)),
        )
