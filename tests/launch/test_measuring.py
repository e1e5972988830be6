"""Tables that are measured: what is in them, and that nothing is trained twice."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.choice import bind_all, choose
from child_models.spaces import SPACES
from child_models.tables import read_table
from child_models.types import Space
from configs import compare_digits, table_digits
from controller.spec import Decision, DecisionSpec
from controller.types import Proposal
from launch import compare, measuring
from launch.build import build, resolve
from launch.command import UserError
from launch.kept import Kept
from launch.measuring import column_name, measure
from launch.tabular import summary

SPEC = DecisionSpec(
    (
        Decision("act", ("linear", "tanh", "explode")),
        Decision("width", ("4", "8")),
    )
)
SEEDS = (3, 1)
ACTS = {"linear": lambda x: x, "tanh": nn.tanh, "explode": lambda x: x * 1e30 * 1e30}


class Layer(nn.Module):
    """A dense layer, an activation, a classifier."""

    width: int
    act: str
    classes: int

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.classes)(ACTS[self.act](nn.Dense(self.width)(x)))


class Toy(nn.Module):
    """The sum of two chosen layers; compiles in a moment."""

    classes: int

    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        x = x.reshape(x.shape[0], -1)

        def layers(*sizes):
            return [
                lambda size=size, **kwargs: Layer(*size, self.classes, **kwargs)
                for size in sizes
            ]

        acts = layers(*((8, act) for act in ACTS))
        act = choose(choices[0], acts, x, name="act")
        wide = layers((4, "tanh"), (8, "tanh"))
        return act + choose(choices[1], wide, x, name="width")


def toy(*, classes: int, dtype: str = "float32") -> Space:
    """A space of six networks, of which two diverge."""
    return Space(
        SPEC,
        lambda form: Toy(classes),
        lambda decisions: bind_all(SPEC, decisions),
        lambda variables, decisions: variables,
        running_statistics=False,
    )


@pytest.fixture(scope="module", autouse=True)
def registered():
    """The toy as a space by name; its trainings are compiled once for all tests."""
    original, programs = measuring._compile, []

    def compiled(training, decisions):
        if not programs:
            programs.append(original(training, decisions))
        return programs[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SPACES, "toy", toy)
        patch.setattr(measuring, "_compile", compiled)
        yield


def config(**changes):
    given = table_digits.get_config("smoke").to_dict()
    given["space"] = {"name": "toy"}
    given["evaluator"]["pad"] = 0
    given["train"]["compilation_cache"] = "off"
    for key, value in changes.items():
        section, _, name = key.partition("__")
        given[section][name] = value
    return given


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(folder, table) of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, measure(config(), folder / "run", folder / "t.npz", SEEDS)


def test_the_table_has_all_architectures_and_is_written(done):
    folder, table = done
    again = read_table(folder / "t.npz", SPEC)
    assert [tuple(row) for row in again.decisions] == list(SPEC.enumerate())
    for kind in ("reward", "value", "cost"):
        written, given = getattr(again, kind)["digits"], getattr(table, kind)["digits"]
        np.testing.assert_array_equal(written, given)
    assert (table.cost["digits"] > 0).all()
    diverged = again.decisions[:, 0] == 2
    for column in (table.reward["digits"], table.value["digits"]):
        np.testing.assert_array_equal(np.isnan(column), diverged)
        assert (column[~diverged] > 10).all() and (column[~diverged] <= 100).all()
    assert "not finite" in summary(table) and summary(table).count("  2") >= 2


def test_the_columns_are_means_over_the_seeds_that_are_beside_them(done):
    folder, table = done
    with np.load(folder / "t.npz") as file:
        np.testing.assert_array_equal(file["seeds"], SEEDS)
        for kind in ("reward", "value"):
            each = file[f"seeds_{kind}_digits"]
            assert each.shape == (6, 2)
            column = getattr(table, kind)["digits"]
            np.testing.assert_allclose(each.mean(axis=1), column)
        assert (file["seeds_reward_digits"][:, 0] != each[:, 0]).any()


def test_rewards_are_those_of_trials_and_values_are_of_the_test_split(done):
    folder, _ = done
    built = build(config())
    evaluator, test = built.evaluator, built.dataset.test
    decisions = jnp.array(list(SPEC.enumerate()), jnp.int32)
    state = evaluator.init(jax.random.key(0), evaluator.data)
    evaluate = jax.jit(evaluator.evaluate)
    assert set(evaluator.data) == {"train", "validation"}  # all that a search sees
    on_test = evaluator.data | {"validation": type(test)(*map(jnp.array, test))}
    with np.load(folder / "t.npz") as file:
        for kind, data in (("reward", evaluator.data), ("value", on_test)):
            for column, seed in enumerate(SEEDS):
                proposal = Proposal(decisions, jnp.zeros(6))
                trial = evaluate(jax.random.key(seed), state, data, proposal)[1]
                expected = np.where(trial.valid, 100 * trial.reward, np.nan)
                given = file[f"seeds_{kind}_digits"][:, column]
                np.testing.assert_allclose(given, expected, rtol=1e-6)


class Killed(BaseException):
    """Stands for the end of the process."""


def test_after_a_kill_nothing_is_trained_again(done, tmp_path, monkeypatch):
    trained, original = [], Kept.write
    limit = 5

    def write(kept, **measured):
        if len(trained) == limit:
            raise Killed  # while the sixth was running
        original(kept, **measured)
        trained.append(np.count_nonzero(np.isfinite(measured["seconds"])))

    monkeypatch.setattr(Kept, "write", write)
    with pytest.raises(Killed):
        measure(config(), tmp_path / "run", tmp_path / "t.npz", SEEDS)
    assert not (tmp_path / "t.npz").exists()
    limit = None
    measure(config(), tmp_path / "run", tmp_path / "t.npz", SEEDS)
    assert trained == list(range(1, 13))
    with np.load(done[0] / "t.npz") as whole, np.load(tmp_path / "t.npz") as stopped:
        for key in whole:
            if not key.startswith("cost_"):
                np.testing.assert_array_equal(whole[key], stopped[key])


def test_what_is_finished_compiles_nothing(done, tmp_path, monkeypatch):
    folder, table = done
    monkeypatch.setattr(measuring, "_compile", None)
    again = measure(config(), folder / "run", tmp_path / "t.npz", SEEDS)
    np.testing.assert_array_equal(again.cost["digits"], table.cost["digits"])


@pytest.mark.parametrize(
    ("changes", "seeds", "message"),
    [
        ({"evaluator__epochs": 2}, SEEDS, "of another config; .*evaluator.epochs"),
        ({}, (3, 1, 2), "build.npz is of other seeds or settings; take another"),
        ({}, (1, 1), r"seeds are \[1, 1\]; they must be distinct"),
        ({"evaluator__name": "shared_weights"}, SEEDS, "config.evaluator has no key"),
        ({"evaluator__batch_size": 9999}, SEEDS, "a batch of 9999 cannot be taken"),
    ],
)
def test_mistakes_are_told_before_anything_compiles(
    done, tmp_path, monkeypatch, changes, seeds, message
):
    monkeypatch.setattr(measuring, "_compile", None)
    with pytest.raises(UserError, match=message):
        measure(config(**changes), done[0] / "run", tmp_path / "t.npz", seeds)


def test_a_table_is_of_trials_in_a_small_space_and_has_a_place(tmp_path):
    given = config()
    given["evaluator"] = {"name": "shared_weights"}
    given["evaluator"] |= {"batch_size": 16, "reward_batch_size": 16}
    with pytest.raises(UserError, match="'shared_weights'; a table is measured by"):
        measure(given, tmp_path / "run", tmp_path / "t.npz", SEEDS)
    with pytest.raises(UserError, match="cannot write the table .*no/t.npz"):
        measure(config(), tmp_path / "run", tmp_path / "no" / "t.npz", SEEDS)
    large = config(space__name="amoeba_cell")
    with pytest.raises(UserError, match="config.space: the space has .* vectors"):
        measure(large, tmp_path / "run", tmp_path / "t.npz", SEEDS)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_told_of(done, tmp_path):
    whole = (done[0] / "run" / "build.npz").read_bytes()
    measure(config(), done[0] / "run", tmp_path / "t.npz", SEEDS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "build.npz").write_bytes(whole[:200])
    with pytest.raises(UserError, match="build.npz is damaged; remove it to begin"):
        measure(config(), tmp_path / "run", tmp_path / "t.npz", SEEDS)


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("digits", "digits"), ("npz:/a/cifar.npz", "cifar"), ("folder:b/c/", "c")],
)
def test_columns_are_named_after_the_data_set(dataset, name):
    assert column_name(dataset) == name


@pytest.mark.parametrize("arg", ["", "smoke"])
def test_the_configs_are_complete_and_of_one_space(arg):
    table = resolve(table_digits.get_config(arg))
    given = compare_digits.get_config()
    given.table = "t.npz"
    compared = compare.resolve(given)
    assert table.evaluator.name == "from_scratch"
    spaces = [
        SPACES["nasbench201"](nodes=s.nodes, ops=s.ops, classes=10).spec
        for s in (table.space, compared.space)
    ]
    assert spaces[0] == spaces[1] and spaces[0].size() == 27
    assert compared.reward == column_name(table.data.name)
    with pytest.raises(ValueError, match="unknown config argument 'x'"):
        compare_digits.get_config("x")
