"""Every experiment: its config resolves in all variants; its docstring says enough."""

import importlib
import pathlib

import pytest

from child_models.spaces.pnas_cell import PUBLISHED
from configs import common
from controller.loop import schedule
from launch.build import build, resolve

FOLDER = pathlib.Path(common.__file__).parent
NAMES = sorted(  # those of searches
    path.stem
    for path in FOLDER.glob("*.py")
    if path.stem not in ("__init__", "common")
    and not path.stem.startswith(("compare_", "table_", "tabular_"))
)
VARIANTS = ("", "smoke", "random", "smoke,random")


def load(name):
    """The module of a config."""
    return importlib.import_module(f"configs.{name}")


def test_the_promised_experiments_are_there():
    assert set(NAMES) >= {
        "enas_micro_digits",
        "enas_micro_cifar10",
        "enas_macro_cifar10",
        "enas_nasbench201_cifar10",
        "nasnet_ppo_cifar10",
        "random_digits",
    }


@pytest.mark.parametrize("arg", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_every_variant_resolves(name, arg):
    config = resolve(load(name).get_config(arg))
    assert config.train.rounds > config.schedule.warmup_rounds
    if "smoke" in arg:
        assert config.data.name == "digits"
    is_random = "random" in arg or name.startswith("random_")
    assert (config.strategy.name == "random_search") == is_random


@pytest.mark.parametrize("name", NAMES)
def test_random_differs_from_the_experiment_by_its_strategy_only(name):
    config = load(name).get_config().to_dict()
    random = load(name).get_config("random").to_dict()
    del config["strategy"], random["strategy"]
    assert random == config


def test_the_winner_of_pnas_is_trained_at_the_published_size():
    sizes = load("pnas_cifar10").get_config().retrain.space
    published = PUBLISHED["PNASNet-5-CIFAR"].arguments
    assert {name: sizes[name] for name in ("cells", "channels")} == {
        name: published[name] for name in ("cells", "channels")
    }


def test_pc_darts_learns_no_architecture_before_epoch_15():
    config = resolve(load("pc_darts_cifar10").get_config())
    plan = schedule(rounds=config.train.rounds, **config.schedule.to_dict())
    steps = [plan.phase(epoch).policy_steps for epoch in range(plan.rounds)]
    assert steps == [0] * 15 + [97] * 35
    # A round is an epoch of the half on which weights are trained.
    assert plan.phase(0).child_steps == 25_000 // config.evaluator.batch_size == 97


@pytest.mark.parametrize("name", NAMES)
def test_smoke_builds(name):
    built = build(load(name).get_config("smoke"))
    assert built.schedule.rounds == built.config.train.rounds == 3
    assert built.space.spec.length > 0


@pytest.mark.parametrize("name", ["amoeba_digits", "genetic_digits", "pnas_digits"])
def test_smoke_leaves_the_first_generation(name):
    built = build(load(name).get_config("smoke"))
    schedule, options = built.config.schedule, built.config.strategy
    scored = built.config.train.rounds * schedule.policy_steps * schedule.samples
    first = options.get("population") or len(built.space.spec.expansions(0))
    assert first < scored


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_gives_command_hours_and_expectation(name):
    text = load(name).__doc__
    assert f"--config=configs/{name}.py" in text
    assert "Hours:" in text and "Expected:" in text


def test_an_unknown_argument_lists_the_known_ones():
    with pytest.raises(ValueError, match="'fast'; known: smoke, random"):
        common.parse_arg("smoke,fast")
