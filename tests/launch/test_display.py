"""The line of a round: what it tells, and its width."""

from launch.display import describe

RECORD = {
    "warm_up": False,
    "reward_mean": 0.8434,
    "reward_max": 0.8911,
    "baseline": 0.84,
    "entropy": 31.24,
    "distinct": 0.98,
    "child_loss": 1.234,
    "op_histogram": {
        "nor_conv_3x3": 0.1,
        "sep_conv_3x3": 0.41,
        "skip_connect": 0.22,
        "conv_1x3_3x1": 0.14,
        "avg_pool_3x3": 0.13,
        "none": 0.0,
    },
}


def test_a_round_tells_rewards_baseline_and_frequent_ops_in_its_width():
    assert describe(RECORD, 0.9012, 190) == (
        "reward 0.843 max 0.891 best 0.901 baseline 0.840  entropy 31.2  distinct 98%  "
        "loss 1.23  3m10s left  sep3 41% skip 22%"
    )


def test_ops_fill_the_line_up():
    record = RECORD | {"baseline": None, "distinct": None, "entropy": 2.0}
    line = describe(record, 0.9, 5)
    assert line.endswith("  sep3 41% skip 22% conv1x3+3x1 14% avg3 13%")
    assert len(line) == 110
    line = describe(record | {"entropy": None}, 0.9, 5)
    assert line.endswith(" avg3 13% conv3 10%")  # and nothing of "none"


def test_a_warm_up_has_no_rewards():
    names = ("reward_mean", "reward_max", "baseline", "entropy", "distinct")
    record = RECORD | dict.fromkeys(names) | {"warm_up": True, "op_histogram": {}}
    line = describe(record, None, 5)
    assert line == "warm-up: the policy does not learn yet  loss 1.23  5s left"
