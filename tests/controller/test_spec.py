import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from controller.spec import Codec, Decision, DecisionSpec, Distinct

OPS = ("none", "skip", "conv")
# Two decisions of three ops, one of two inputs: 18 architectures.
FREE = DecisionSpec(
    (
        Decision("a/op", OPS),
        Decision("b/input", ("0", "1"), group="input", node=1, targets=(-1, 0)),
        Decision("b/op", OPS),
    )
)
# Levels used once (3 of 4, ordered), and a free one: 4 * 3 * 2 * 2 = 48.
ONCE = DecisionSpec(
    (
        *(Decision(f"level{i}", tuple("wxyz"), group="level") for i in range(3)),
        Decision("last", ("no", "yes"), group="skip"),
    ),
    rule=Distinct(((0, 1, 2),)),
)


# A node of two sides (input, op), which may be exchanged: of 36, 21 differ.
SIDES = DecisionSpec(
    tuple(
        Decision(f"0/{name}_{side}", choices, name, 0)
        for name, choices in (("input", ("0", "1")), ("op", OPS))
        for side in ("left", "right")
    ),
    symmetries=(((0, 2), (1, 3)),),
)

LEGAL = {spec: tuple(spec.enumerate()) for spec in (FREE, ONCE)}


@pytest.fixture(params=[FREE, ONCE], ids=["free", "distinct"])
def spec(request):
    return request.param


# ---- size and form ------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "size"), [(FREE, 18), (ONCE, 48)])
def test_size_is_exact_and_enumerated(spec, size):
    vectors = LEGAL[spec]
    assert spec.size() == size
    assert len(set(vectors)) == len(vectors) == size
    assert all(spec.validate(v) == v for v in vectors)


def test_ruled_spaces_are_enumerated_in_order_part_by_part():
    """More prefixes than are extended at once."""
    choices, rule = tuple("abcdef"), Distinct(((0, 1, 3),))
    spec = DecisionSpec(tuple(Decision(str(i), choices) for i in range(5)), rule)
    every = itertools.product(range(6), repeat=5)
    legal = [v for v in every if len({v[0], v[1], v[3]}) == 3]
    assert spec.size() == len(legal) == 4320
    assert list(spec.enumerate()) == legal


def test_size_of_large_spaces_is_exact():
    spec = DecisionSpec(tuple(Decision(str(i), OPS) for i in range(60)))
    assert spec.size() == 3**60
    levels = tuple(Decision(str(i), tuple(map(str, range(30)))) for i in range(30))
    ordered = DecisionSpec(levels, rule=Distinct((tuple(range(30)),)))
    assert ordered.size() == math.factorial(30)


def test_shape_of_a_spec():
    assert (FREE.length, FREE.max_choices, FREE.num_choices) == (3, 3, (3, 2, 3))
    assert FREE.groups == {"op": (0, 2), "input": (1,)}
    assert FREE.relaxed == {"op": (2, 3), "input": (1, 2)}


def test_specs_are_hashable_and_equal_by_value():
    again = DecisionSpec(tuple(Decision(*d) for d in ONCE.decisions), rule=ONCE.rule)
    assert again == ONCE and hash(again) == hash(ONCE) and again != FREE


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ((Decision("a", OPS), Decision("a", OPS)), "decision names repeat: a"),
        ((Decision("a", ()),), "'a' needs at least one choice"),
        ((Decision("a", ("x", "x")),), "'a' needs at least one choice, and distinct"),
        ((Decision("a", ("x", "y"), targets=(0,)),), "'a' needs one target a choice"),
    ],
)
def test_malformed_specs_are_refused(decisions, message):
    with pytest.raises(ValueError, match=message):
        DecisionSpec(decisions)


# ---- legality -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "decisions", "message"),
    [
        (FREE, (0, 1), r"expected 3 decisions, got shape \(2,\)"),
        (FREE, (0.0, 1.0, 2.0), "decisions are integers, got dtype float64"),
        (FREE, (0, 2, 0), r"decision 1 'b/input' is 2; legal: 0, 1$"),
        (
            FREE,
            (-1, 0, 0),
            r"decision 0 'a/op' is -1; legal: 0 \(none\), 1 \(skip\), 2 \(conv\)$",
        ),
        (ONCE, (2, 0, 2, 1), r"decision 2 'level2' is 2; legal: 1 \(x\), 3 \(z\)$"),
    ],
)
def test_validate_names_the_decision_its_value_and_the_legal_ones(
    spec, decisions, message
):
    with pytest.raises(ValueError, match=message):
        spec.validate(decisions)


def test_validate_returns_plain_integers():
    values = FREE.validate(jnp.array([2, 1, 0]))
    assert values == (2, 1, 0) and all(type(v) is int for v in values)


def test_integers_are_validated_inside_compiled_code():
    total = jax.jit(lambda x: x + sum(ONCE.validate((0, 2, 1, 1))))
    assert total(1) == 5


def test_legal_reads_only_the_prefix():
    legal = jax.jit(ONCE.legal)
    expected = [False, True, False, True]
    assert legal(jnp.array([0, 2, 1, 1]), 2).tolist() == expected
    assert legal(jnp.array([0, 2, 3, 0]), 2).tolist() == expected
    assert legal(jnp.array([0, 2, 1, 0]), 0).tolist() == [True] * 4
    assert legal(jnp.array([0, 2, 1, 0]), 3).tolist() == [True, True, False, False]


def test_is_legal_agrees_with_validate():
    is_legal = jax.jit(jax.vmap(ONCE.is_legal))
    vectors = np.stack(np.meshgrid(*[np.arange(-1, 5)] * 4), axis=-1).reshape(-1, 4)
    legal = {tuple(v) for v in vectors[np.asarray(is_legal(vectors))].tolist()}
    assert legal == set(LEGAL[ONCE])


# ---- symmetry -----------------------------------------------------------------------


def test_canonical_form_is_the_same_for_both_orders_and_for_no_others():
    vectors = np.array(list(SIDES.enumerate()), np.int32)
    swapped = vectors[:, [1, 0, 3, 2]]
    canonical = np.asarray(jax.jit(SIDES.canonical)(vectors))
    assert canonical.dtype == np.int32
    np.testing.assert_array_equal(SIDES.canonical(swapped), canonical)
    same = np.all(canonical == vectors, axis=1) | np.all(canonical == swapped, axis=1)
    assert same.all() and len(np.unique(canonical, axis=0)) == 6 * 7 // 2
    assert SIDES.canonical(jnp.array([1, 0, 0, 2])).tolist() == [0, 1, 2, 0]
    assert SIDES.canonical(jnp.array([1, 1, 2, 1])).tolist() == [1, 1, 1, 2]


def test_without_symmetries_every_vector_is_canonical():
    assert FREE.canonical(jnp.array([2, 1, 0])).tolist() == [2, 1, 0]


def test_expansions_of_a_node_are_all_and_differ():
    expansions = SIDES.expansions(0)
    np.testing.assert_array_equal(SIDES.canonical(expansions), expansions)
    assert len(np.unique(expansions, axis=0)) == len(expansions) == 21
    assert FREE.expansions(1).tolist() == [[0], [1]]


# ---- random draws -------------------------------------------------------------------


def test_samples_are_legal_and_reach_everything(spec):
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = np.asarray(jax.jit(jax.vmap(spec.sample))(keys))
    assert drawn.dtype == np.int32
    assert {tuple(v) for v in drawn.tolist()} == set(LEGAL[spec])


def test_samples_are_uniform_where_choices_do_not_vary_in_number():
    keys = jax.random.split(jax.random.key(1), 4800)
    drawn = np.asarray(jax.jit(jax.vmap(ONCE.sample))(keys))
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    chi_squared = np.sum((counts - 100) ** 2 / 100)
    assert chi_squared < 47 + 4 * math.sqrt(2 * 47)  # 4 deviations, 47 degrees


def test_mutants_differ_in_one_decision_and_are_legal(spec):
    parents = jnp.asarray(LEGAL[spec], jnp.int32)
    mutate = jax.jit(jax.vmap(spec.mutate))
    moved = set()
    for seed in range(10):
        keys = jax.random.split(jax.random.key(seed), len(parents))
        children = np.asarray(mutate(keys, parents))
        assert {tuple(c) for c in children.tolist()} <= set(LEGAL[spec])
        differs = children != np.asarray(parents)
        assert differs.sum(axis=1).tolist() == [1] * len(parents)
        moved |= set(np.flatnonzero(differs.any(axis=0)).tolist())
    assert moved == set(range(spec.length))


def test_mutate_returns_what_cannot_change_alone():
    pair = DecisionSpec(
        (Decision("a", ("x", "y")), Decision("b", ("x", "y"))),
        rule=Distinct(((0, 1),)),
    )
    mutant = jax.jit(pair.mutate)(jax.random.key(0), jnp.array([1, 0]))
    assert mutant.tolist() == [1, 0]


# ---- relaxation ---------------------------------------------------------------------


def test_one_hot_by_hand():
    weights = FREE.one_hot(jnp.array([2, 0, 1]))
    assert weights["op"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert weights["input"].tolist() == [[1, 0]]
    assert {group: w.shape for group, w in weights.items()} == FREE.relaxed


def test_derive_inverts_one_hot(spec):
    vectors = jnp.asarray(LEGAL[spec], jnp.int32)
    back = jax.jit(jax.vmap(lambda d: spec.derive(spec.one_hot(d))))(vectors)
    np.testing.assert_array_equal(back, vectors)


def test_derive_takes_the_heaviest_legal_choice():
    weights = {
        "level": jnp.array([[1.0, 9, 0, 0], [2, 9, 3, 0], [4, 9, 5, 0]]),
        "skip": jnp.array([[0.0, 1.0]]),
    }
    assert ONCE.derive(weights).tolist() == [1, 2, 0, 1]


# ---- readable form ------------------------------------------------------------------


def test_text_round_trips(spec):
    for decisions in LEGAL[spec]:
        assert spec.decode(spec.encode(decisions)) == decisions


def test_text_names_decisions_and_choices():
    text = FREE.encode((2, 0, 1))
    assert json.loads(text) == {"a/op": "conv", "b/input": "0", "b/op": "skip"}


def test_encode_refuses_illegal_decisions():
    with pytest.raises(ValueError, match="'level1' is 0; legal: 1"):
        ONCE.encode((0, 0, 1, 0))


def _text(**changes):
    named = {"a/op": "conv", "b/input": "0", "b/op": "skip"} | changes
    return json.dumps({key: value for key, value in named.items() if value})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv,0,skip", "not a JSON object of decisions: 'conv,0,skip'"),
        ("[1, 2]", "expected a JSON object of decisions"),
        (_text(**{"b/op": None}), "decisions missing: b/op"),
        (_text(c="conv"), "unknown decisions: c"),
        (
            _text(**{"b/op": "pool"}),
            "decision 'b/op' is 'pool'; legal: none, skip, conv",
        ),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        FREE.decode(text)


def test_decoded_text_is_validated():
    text = json.dumps({"level0": "w", "level1": "w", "level2": "x", "last": "no"})
    with pytest.raises(ValueError, match="decision 1 'level1' is 0; legal: 1"):
        ONCE.decode(text)


def test_a_space_may_bring_its_own_text():
    codec = Codec(
        lambda spec, decisions: "".join(map(str, decisions)),
        lambda spec, text: [int(c) for c in text],
    )
    spec = DecisionSpec(FREE.decisions, codec=codec)
    assert spec.encode((2, 1, 0)) == "210" and spec.decode("210") == (2, 1, 0)
    with pytest.raises(ValueError, match="expected 3 decisions"):
        spec.decode("21")
