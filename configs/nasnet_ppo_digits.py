"""PPO over NASNet cells on scikit-learn's digits.

    python -m launch.search  --config=configs/nasnet_ppo_digits.py --workdir=runs/ppo
    python -m launch.retrain --workdir=runs/ppo

Zoph et al. 2018, with cells of two blocks and three of the thirteen ops, and a rate of
learning for 50 children in place of 20,000.  Set it beside
``nasnet_ppo_digits.py:random``.
Hours: 0.05 on 2 CPU cores that other work shared; half of it compiles.
Expected: a reward of 0.8 to 0.9 for the winner in the final choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(
        name="nasnet",
        blocks=2,
        ops=("identity", "sep_conv_3x3", "max_pool_3x3"),
        cells=2,
        channels=8,
    )
    config.strategy.update(
        name="ppo",
        learning_rate=0.01,
        baseline_decay=0.9,
        policy={"hidden": 32},
    )
    smoke = {"space": {"channels": 4}}
    return common.vary(config, arg, smoke)
