"""The network that a winner becomes: mistakes are told before the search."""

import pytest

from configs import enas_micro_digits
from launch.build import build_dataset, resolve
from launch.command import UserError
from launch.final import check_retraining, final_space


def config_with(**retrain):
    config = enas_micro_digits.get_config("smoke")
    config.retrain.update(retrain)
    return resolve(config)


@pytest.fixture(scope="module")
def dataset():
    return build_dataset(config_with())


def test_what_a_config_says_passes(dataset):
    check_retraining(config_with(), dataset)


def test_the_final_space_has_the_sizes_that_are_retrained():
    space = final_space(config_with(space={"channels": 6}), 10)
    assert space.module("final").channels == 6
    assert space.module("final").layers == config_with().space.layers


@pytest.mark.parametrize(
    "retrain, text",
    [
        (
            {"space": {"channels": 0}},
            "retrain.space: enas_micro: channels is 0",
        ),
        ({"space": {"nodes": 4}}, "retrain.space changes what the decisions are"),
        ({"momentum": 1.0}, r"retrain: momentum is 1.0; it must be in \[0, 1\)"),
        ({"learning_rate": 0.0}, "retrain: learning_rate is 0.0; it must be positive"),
        ({"pad": -1}, "retrain: pad"),
        ({"batch_size": 10**6}, "retrain: a batch of 1000000 cannot be taken"),
    ],
)
def test_mistakes_are_told_of_their_key(dataset, retrain, text):
    with pytest.raises(UserError, match="config." + text):
        check_retraining(config_with(**retrain), dataset)
