"""NATS-Bench's files, read through a stand-in for its package."""

import types

import numpy as np
import pytest

from child_models.nats_bench import from_nats_bench
from child_models.spaces.nasbench201 import SPEC

ARCHITECTURES = [SPEC.encode(d) for d in [(0, 1, 2, 3, 4, 0), (4, 3, 2, 1, 0, 4)]]


def archive(missing=None):
    """Two architectures; one result may be missing."""

    def get_more_info(index, dataset, hp, is_random):
        assert is_random is False
        if (index, dataset, hp) == missing:
            raise KeyError(dataset)
        info = {
            "valid-accuracy": 10.0 + index,
            "test-accuracy": 20.0 + index,
            "train-all-time": 100.0,
            "valid-per-time": 3.0,
        }
        if (index, dataset, f"{hp} without validation") == missing:
            del info["valid-accuracy"]
        return info

    return types.SimpleNamespace(meta_archs=ARCHITECTURES, get_more_info=get_more_info)


def test_columns_are_those_of_the_archive():
    table = from_nats_bench(archive(), SPEC)
    np.testing.assert_array_equal(
        table.decisions, [SPEC.decode(text) for text in ARCHITECTURES]
    )
    for name in ("cifar10", "cifar100", "imagenet16"):
        np.testing.assert_array_equal(table.reward[name], [10, 11])
        np.testing.assert_array_equal(table.value[name], [20, 21])
        np.testing.assert_array_equal(table.cost[name], [103, 103])


@pytest.mark.parametrize(
    "missing, message",
    [
        (
            (1, "cifar100", "200"),
            "lacks test-accuracy of architecture 1 on cifar100 af",
        ),
        ((0, "cifar10-valid", "12 without validation"), "lacks valid-accuracy of arch"),
    ],
)
def test_what_an_archive_lacks_is_named(missing, message):
    with pytest.raises(ValueError, match=message):
        from_nats_bench(archive(missing), SPEC)
