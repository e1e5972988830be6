"""The closing table of a retraining, and its verdict."""

import pytest

from launch.tables import closing_table, verdict


def row(accuracy, error=0.01):
    return {
        "test_accuracy": accuracy,
        "standard_error": error,
        "params": 12345,
        "macs": 6789000,
        "seconds": 12.3,
        "compile_seconds": 4.4,
    }


def test_the_table_is_aligned_and_says_no_difference():
    report = {"winner": row(0.98), "random": [row(0.97), row(0.975)], "others": []}
    assert closing_table(report).splitlines() == [
        "network   test accuracy, %  params       macs  seconds  compile",
        "winner        98.00 ± 1.00  12,345  6,789,000       12        4",
        "random 1      97.00 ± 1.00  12,345  6,789,000       12        4",
        "random 2      97.50 ± 1.00  12,345  6,789,000       12        4",
        "winner - mean of 2 random = +0.75 ± 1.22 points: no difference",
    ]


@pytest.mark.parametrize(
    "accuracies, text",
    [
        ([0.98, 0.9, 0.9], "+8.00 ± 1.22 points: the winner is better"),
        ([0.9, 0.98], "-8.00 ± 1.41 points: the winner is worse"),
        ([0.9], "no random architecture"),
    ],
)
def test_two_standard_errors_are_a_difference(accuracies, text):
    winner, *random = map(row, accuracies)
    assert text in verdict(winner, random)


def test_equal_accuracies_without_error_are_no_difference():
    assert "no difference" in verdict(row(1.0, 0.0), [row(1.0, 0.0)])
