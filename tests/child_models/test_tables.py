"""Tables: what is read, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.evaluators.tabular import lookup
from child_models.spaces.nasbench201 import SPEC as NASBENCH201
from child_models.tables import Table, read_table, row_index, rows_of, write_table
from controller.graph import Graph
from controller.graph_spec import GraphSpec
from controller.spec import Decision, DecisionSpec, Distinct
from controller.types import Proposal

SPEC = DecisionSpec((Decision("op", ("x", "y")), Decision("in", ("p", "q", "r"))))
ROWS = np.array([[1, 2], [0, 0], [0, 1], [1, 0], [0, 2], [1, 1]])
REWARD = np.array([6.0, 1, 2, 4, 3, 5])


def columns(**changes):
    given = {
        "decisions": ROWS,
        "reward_a": REWARD,
        "value_a": 10 * REWARD,
        "cost_a": np.full(6, 2.0),
    }
    return {k: v for k, v in (given | changes).items() if v is not None}


def read(tmp_path, **changes):
    np.savez(tmp_path / "t.npz", **columns(**changes))
    return read_table(tmp_path / "t.npz", SPEC)


def test_rows_in_any_order_are_found(tmp_path):
    table = read(tmp_path)
    rows = rows_of(
        row_index(table.decisions, SPEC),
        SPEC,
        np.array([[[1, 0], [0, 1]], [[1, 2], [0, 0]]]),
    )
    np.testing.assert_array_equal(REWARD[rows], [[4, 2], [6, 1]])


def test_arrays_indexed_by_the_decisions_are_the_same_table(tmp_path):
    dense = np.zeros((2, 3))
    dense[tuple(ROWS.T)] = REWARD
    changes = {"reward_a": dense, "value_a": 10 * dense, "cost_a": dense + 1}
    table = read(tmp_path, decisions=None, **changes)
    rows = rows_of(row_index(table.decisions, SPEC), SPEC, ROWS)
    np.testing.assert_array_equal(table.reward["a"][rows], REWARD)
    np.testing.assert_array_equal(table.cost["a"][rows], REWARD + 1)


def test_a_table_that_is_written_is_read_again(tmp_path):
    table = Table(ROWS, {"a": REWARD}, {"a": REWARD, "b": -REWARD}, {})
    write_table(tmp_path / "t.npz", table)
    again = read_table(tmp_path / "t.npz", SPEC)
    np.testing.assert_array_equal(again.decisions, ROWS)
    np.testing.assert_array_equal(again.value["b"], -REWARD)
    assert again.cost == {}
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"decisions": ROWS[:, :1]}, r"decisions have shape \(6, 1\); the space has 2"),
        ({"decisions": ROWS + 1}, "row 0 of the table: decision 0 'op' is 2; legal: 0"),
        ({"decisions": ROWS * 1.0}, "are float64, not integers"),
        (
            {"decisions": ROWS[[0, 1, 2, 3, 4, 2]]},
            "architecture twice, in rows 2 and 5: .*x.*q",
        ),
        (
            {"reward_a": REWARD[:5]},
            r"reward_a has shape \(5,\); the space wants \(6,\)",
        ),
        (
            {"reward_a": None},
            "no column reward_NAME; it has decisions, value_a, cost_a",
        ),
        ({"decisions": None}, r"reward_a has shape \(6,\); the space wants \(2, 3\)"),
    ],
)
def test_what_does_not_fit_the_space_is_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **changes)


def test_missing_architectures_are_named(tmp_path):
    short = {k: v[:5] for k, v in columns().items()}
    with pytest.raises(ValueError, match="has 5 architectures, the space 6; .*y.*q"):
        read(tmp_path, **short)


def test_rows_that_the_rule_of_a_space_forbids_are_named(tmp_path):
    pair = tuple(Decision(name, ("p", "q", "r")) for name in "ab")
    spec = DecisionSpec(pair, rule=Distinct(((0, 1),)))
    rows = np.array(list(spec.enumerate()))
    rows[4] = [1, 1]
    np.savez(tmp_path / "t.npz", **columns(decisions=rows))
    with pytest.raises(ValueError, match="row 4 of the table: decision 1 'b' is 1; "):
        read_table(tmp_path / "t.npz", spec)


def test_a_space_is_too_large_for_a_table(tmp_path):
    spec = DecisionSpec(tuple(Decision(f"d{i}", tuple("abcd")) for i in range(50)))
    rows = columns(decisions=np.zeros((6, 50), int))
    for given, message in (
        (rows, "has 1,267,.* vectors; tables are for 16,777,216 at most"),
        (columns(decisions=None), r"reward_a has shape \(6,\); the space wants \(4, "),
    ):
        np.savez(tmp_path / "t.npz", **given)
        with pytest.raises(ValueError, match=message):
            read_table(tmp_path / "t.npz", spec)


def test_a_space_of_graphs_has_no_table(tmp_path):
    with pytest.raises(ValueError, match="the space has no bound; a table has a row"):
        read_table(tmp_path / "t.npz", GraphSpec(Graph(0.1)))


def test_columns_of_nasbench201_have_a_row_each(tmp_path):
    names = [f"hp200_{n}" for n in ("cifar10_test", "cifar100_xtest")]
    names += ["hp200_imagenet16_xtest", "hp12_cifar10_valid_xvalid"]
    names += [f"hp12_{n}_xvalid" for n in ("cifar100", "imagenet16")]
    sets = ("cifar10_valid", "cifar100", "imagenet16")
    names += [f"hp200_train_seconds_{n}" for n in sets]
    given = {name: np.ones(15_625) for name in names}
    given["ops"] = np.array(list(NASBENCH201.enumerate()))
    given["hp12_cifar100_xvalid"] = np.ones(100)
    np.savez(tmp_path / "t.npz", **given)
    with pytest.raises(ValueError, match=r"hp12_cifar100_xvalid has shape \(100,\)"):
        read_table(tmp_path / "t.npz", NASBENCH201)


def test_a_column_that_is_missing_is_named_with_those_alike(tmp_path):
    names = [*"abcdefghijkl", "hp12_cifar100_xvalid"]
    given = {name: np.ones(15_625) for name in names}
    rows = np.array(list(NASBENCH201.enumerate()))
    for ops, message in (
        ({}, "no column 'ops'; it has a, .*, l and 1 more"),
        ({"ops": rows}, "'hp12_cifar10_valid_xvalid'; it has hp12_cifar100_xvalid, a,"),
    ):
        np.savez(tmp_path / "t.npz", **given, **ops)
        with pytest.raises(ValueError, match=message):
            read_table(tmp_path / "t.npz", NASBENCH201)


def test_arrays_of_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="array 'value_a' of table .*Object arrays"):
        read(tmp_path, value_a=np.array([None] * 6))


def test_a_damaged_file_is_told(tmp_path):
    np.savez(tmp_path / "t.npz", **columns())
    content = bytearray((tmp_path / "t.npz").read_bytes())
    content[60:200] = b"\xff" * 140
    (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(ValueError, match="t.npz is damaged"):
        read_table(tmp_path / "t.npz", SPEC)


@pytest.mark.parametrize("content", [None, b"# Text\n", b""])
def test_another_file_is_no_table(tmp_path, content):
    if content is not None:
        (tmp_path / "t.npz").write_bytes(content)
    with pytest.raises(ValueError, match="no table|no npz file"):
        read_table(tmp_path / "t.npz", SPEC)


# ---- the evaluator ------------------------------------------------------------------


def evaluate(evaluator, decisions):
    n = len(decisions)
    proposal = Proposal(jnp.asarray(decisions, jnp.int32), jnp.zeros(n))
    state = evaluator.init(jax.random.key(0), evaluator.data)
    return evaluator.evaluate(jax.random.key(1), state, evaluator.data, proposal)[1]


def test_rewards_and_costs_of_proposals(tmp_path):
    evaluator = lookup(SPEC, read(tmp_path), "a", scale=0.1)
    trial = evaluate(evaluator, [[1, 2], [0, 1], [1, 2]])
    np.testing.assert_allclose(trial.reward, [0.6, 0.2, 0.6], rtol=1e-6)
    np.testing.assert_array_equal(trial.cost, [[2], [2], [2]])
    np.testing.assert_allclose(trial.value, [6, 2, 6], rtol=1e-6)
    assert trial.valid.all()
    score = evaluator.score((), evaluator.data, jnp.array([1, 1]))
    np.testing.assert_allclose(score, 0.5, rtol=1e-6)


def test_rewards_that_are_not_finite_are_refused_or_masked(tmp_path):
    table = read(tmp_path, reward_a=np.where(np.arange(6) == 3, np.nan, REWARD))
    with pytest.raises(ValueError, match="not finite in 1 rows.*'mask' makes"):
        lookup(SPEC, table, "a")
    trial = evaluate(lookup(SPEC, table, "a", nan="mask"), ROWS)
    np.testing.assert_array_equal(trial.valid, np.arange(6) != 3)
    assert np.isfinite(trial.reward).all()


def test_what_is_no_architecture_is_not_valid(tmp_path):
    pair = tuple(Decision(name, ("p", "q", "r")) for name in "ab")
    spec = DecisionSpec(pair, rule=Distinct(((0, 1),)))
    table = Table(np.array(list(spec.enumerate())), {"a": REWARD}, {}, {})
    evaluator = lookup(spec, table, "a", scale=1.0)
    trial = evaluate(evaluator, [[0, 1], [1, 1], [3, 0], [0, -1], [2, 1]])
    np.testing.assert_array_equal(trial.valid, [True, False, False, False, True])
    np.testing.assert_array_equal(trial.reward, [6, 0, 0, 0, 5])
    assert np.isnan(trial.value).all()  # the table has none
    assert np.isnan(evaluator.score((), evaluator.data, jnp.array([1, 1])))


def test_unknown_columns_are_answered_with_the_known(tmp_path):
    with pytest.raises(ValueError, match="no reward 'b'; it has a"):
        lookup(SPEC, read(tmp_path), "b")


def test_costs_are_positive(tmp_path):
    table = read(tmp_path, cost_a=np.array([1.0, 1, 0, 1, 1, 1]))
    with pytest.raises(
        ValueError, match="cost_a is 0.0 in row 2, of .*x.*q.*; it must be > 0"
    ):
        lookup(SPEC, table, "a")


@pytest.mark.data
def test_nasbench201_as_exported_from_nats_bench(data_file):
    table = read_table(data_file("nasbench201_table.npz"), NASBENCH201)
    assert len(table.decisions) == 15_625
    best = {k: round(float(v.max()), 2) for k, v in table.value.items()}
    assert best == {"cifar10": 94.37, "cifar100": 73.51, "imagenet16": 47.31}
    ceilings = {k: table.value[k][np.argmax(v)] for k, v in table.reward.items()}
    found = [round(float(v), 2) for v in ceilings.values()]
    assert found == [94.37, 72.28, 46.48]
    mean = {k: float(v.mean()) for k, v in table.cost.items()}
    assert 100 < mean["cifar10"] < 120  # about 109 evaluations in 12,000 seconds
