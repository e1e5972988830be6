"""REINFORCE over plain convolutions on scikit-learn's digits.

    python -m launch.search  --config=configs/nas_rl_digits.py --workdir=runs/nas_rl
    python -m launch.retrain --workdir=runs/nas_rl

Zoph and Le 2017, with three layers of two heights, two widths and two numbers of
filters, and skips; 4,096 networks.  The policy is the paper's: two layers of 35 units.
Set it beside ``nas_rl_digits.py:random``.
Hours: 0.03 on 2 CPU cores that other work shared; half of it compiles.
Expected: a reward of 0.906 for the winner of seed 0 in the final choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(
        name="nas_rl_cnn",
        layers=3,
        heights=(1, 3),
        widths=(1, 3),
        filters=(8, 16),
    )
    config.evaluator.epochs = 10
    config.strategy.update(
        name="reinforce",
        learning_rate=0.02,
        baseline_decay=0.9,
        policy={"hidden": 35, "layers": 2, "init_scale": 0.08},
    )
    smoke = {"space": {"layers": 2, "filters": (2, 4)}, "evaluator": {"epochs": 1}}
    return common.vary(config, arg, smoke)
