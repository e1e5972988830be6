"""ProxylessNAS's space: sizes, published counts, text, mistakes.

That the bindings of the search form agree is tested with those of the other spaces.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import Cost, count
from child_models.spaces.mobile import OPS, PUBLISHED, mobile

DIGITS = {
    "widths": (8, 12),
    "blocks": (2, 1),
    "strides": (1, 2),
    "stem": 6,
    "stem_strides": 1,
    "first": 8,
    "last": 16,
}


def counted(space, decisions, image):
    return count(space.module("final"), space.bind(decisions), image)


# ---- decisions ----------------------------------------------------------------------


def test_six_blocks_have_six_choices_and_fifteen_have_seven():
    spec = mobile(classes=1000).spec
    assert spec.size() == 6**6 * 7**15
    assert spec.relaxed == {"op": (21, 7)}
    firsts = [t for t, n in enumerate(spec.num_choices) if n == 6]
    assert firsts == [0, 4, 8, 12, 16, 20]
    small = mobile(classes=10, **DIGITS).spec
    assert small.num_choices == (7, 7, 6)  # the first has a residual, too


def test_text_has_the_blocks_of_each_stage():
    spec = mobile(classes=10, **DIGITS).spec
    assert spec.decode("zero k5e6 | k3e3") == (6, 3, 0)
    assert spec.encode((6, 3, 0)) == "zero k5e6 | k3e3"
    assert spec.decode("k7e6|k3e6") == (5, 6, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k3e3", r"has 1 stages, between bars; this space has 2: 'k3e3'"),
        ("k3e3 k3e3 zero | k3e3", "'k3e3 k3e3 zero' has 3 blocks; .* at most 2"),
        ("k3e3 | zero", "stage_2/block_1 is 'zero'; it must be one of: k3e3, k3e6"),
        ("k3e3 | ", "stage_2/block_1 is 'zero'; it must be one of"),
        ("k9e3 | k3e3", "stage_1/block_1 is 'k9e3'; it must be one of: k3e3"),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        mobile(classes=10, **DIGITS).spec.decode(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": (4, 4)}, r"blocks is \(4, 4\); .* each of the 6 stages"),
        ({"strides": (2, 2, 0, 1, 2, 1)}, "strides is .* positive number"),
        ({"last": 0}, "last is 0; it must be at least 1"),
        ({"ops": ()}, "ops are none given; one at least is needed"),
        ({"ops": ("k3e3", "k3e3")}, "ops are k3e3, k3e3; .* must be different"),
        ({"ops": ("k4e3",)}, "op 'k4e3' must be k<kernel>e<expansion> with an odd"),
        ({"ops": ("zero",)}, "op 'zero' must be k<kernel>e<expansion>"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must be in \[0, 1\)"),
    ],
)
def test_sizes_that_no_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as mistake:
        mobile(classes=10, **arguments)
    assert "\n" not in str(mistake.value)


# ---- counts -------------------------------------------------------------------------


def expected_cost(
    text, image, classes, widths, strides, stem, stem_strides, first, last
):
    """The counts of a network, written out block by block; blocks kept only."""
    params, macs, side = 0, 0, image[0] // stem_strides

    def conv(weights, features, side):
        nonlocal params, macs
        params, macs = params + weights + 2 * features, macs + weights * side**2

    conv(9 * image[2] * stem, stem, side)
    conv(9 * stem, stem, side)
    conv(stem * first, first, side)
    width = first
    for ops, features, stride in zip(text.split("|"), widths, strides, strict=True):
        for i, op in enumerate(ops.split()):
            if op == "zero":
                continue
            kernel, expansion = int(op[1]), int(op[3])
            wide = expansion * width
            conv(width * wide, wide, side)
            side = side // stride if i == 0 else side
            conv(kernel**2 * wide, wide, side)
            conv(wide * features, features, side)
            width = features
    conv(width * last, last, side)
    return Cost(params + last * classes + classes, 0, macs + last * classes)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ProxylessNAS-mobile", 4_080_512),
        pytest.param("ProxylessNAS-gpu", 7_119_848, marks=pytest.mark.slow),
        pytest.param("ProxylessNAS-cpu", 4_361_648, marks=pytest.mark.slow),
    ],
)
def test_published_networks_have_their_published_size(name, params):
    known = PUBLISHED[name]
    space = mobile(**known.arguments)
    cost = counted(space, known.decisions, known.image)
    sizes = {"stem": 32, "first": 16, "last": 1280} | known.arguments
    text = space.spec.encode(known.decisions)
    strides = {"strides": (2, 2, 2, 1, 2, 1), "stem_strides": 2}
    assert cost == expected_cost(text, known.image, **strides, **sizes)
    assert cost.params == params


def test_random_networks_cost_what_their_blocks_do():
    space = mobile(classes=10, **DIGITS)
    sizes = {k: v for k, v in DIGITS.items() if k != "blocks"}
    for key in jax.random.split(jax.random.key(0), 4):
        decisions = space.spec.validate(space.spec.sample(key))
        text = space.spec.encode(decisions)
        expected = expected_cost(text, (8, 8, 1), classes=10, **sizes)
        assert counted(space, decisions, (8, 8, 1)) == expected


def test_zero_on_all_optional_blocks_leaves_a_network_of_six():
    spec = mobile(classes=1000).spec
    space, decisions = mobile(classes=1000), spec.decode(" | ".join(["k3e3"] * 6))
    assert [spec.decisions[t].choices[d] for t, d in enumerate(decisions)].count(
        "zero"
    ) == 15
    choices, init = space.bind(decisions), space.module("final").init_with_output
    logits, variables = jax.eval_shape(
        lambda x: init(jax.random.key(0), choices, x, True),
        jnp.ones((1, 224, 224, 3)),
    )
    assert logits.shape == (1, 1000)
    stages = [p for name, p in variables["params"].items() if name.startswith("stage")]
    assert len(stages) == 6 and all(set(stage) == {"first"} for stage in stages)


# ---- the network --------------------------------------------------------------------


def test_zero_leaves_a_block_out():
    """A network with its only optional block left out, against one without it."""
    sizes = {**DIGITS, "widths": (8,), "strides": (1,), "first": 6}
    with_zero = mobile(classes=3, **{**sizes, "blocks": (2,)})
    without = mobile(classes=3, **{**sizes, "blocks": (1,)})
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))

    def logits(space, decisions, variables):
        net, choices = space.module("search"), space.bind(decisions)
        return jax.jit(lambda v: net.apply(v, choices, x, False))(variables)

    net, choices = without.module("search"), without.bind((0,))
    variables = jax.jit(lambda x: net.init(jax.random.key(1), choices, x, True))(x)
    expected = logits(without, (0,), variables)
    found = logits(with_zero, (0, len(OPS)), variables)
    np.testing.assert_array_equal(found, expected)


def test_the_final_form_takes_fixed_decisions_only():
    space = mobile(classes=10, **DIGITS)
    with pytest.raises(ValueError, match="takes fixed decisions only"):
        space.module("final").init(
            jax.random.key(0),
            space.bind(jnp.zeros(3, jnp.int32)),
            jnp.ones((1, 8, 8, 1)),
        )
