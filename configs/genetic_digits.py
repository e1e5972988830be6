"""Genetic CNN on scikit-learn's digits.

    python -m launch.search  --config=configs/genetic_digits.py --workdir=runs/genetic
    python -m launch.retrain --workdir=runs/genetic

Xie and Yuille 2017, with N=10 individuals in place of 20, five generations, and two
stages of three and four nodes, 512 networks.  Set it beside
``genetic_digits.py:random``.
Hours: 0.03 on 2 CPU cores that other work shared; half of it compiles.
Expected: a reward of 0.908 for the winner of seed 0 in the final choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(
        name="genetic_cnn",
        nodes=(3, 4),
        channels=(8, 16),
        kernel=3,
        hidden=32,
        dropout=0.0,
    )
    config.strategy = ConfigDict({"name": "genetic", "population": 10, "memory": 64})
    smoke = {"space": {"channels": (4, 4)}, "strategy": {"population": 4}}
    return common.vary(config, arg, smoke)
