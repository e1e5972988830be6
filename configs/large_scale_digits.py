"""Large-scale evolution of graphs on scikit-learn's digits.

    python -m launch.search  --config=configs/large_scale_digits.py --workdir=runs/large
    python -m launch.retrain --workdir=runs/large

Real et al. 2017, with P=10 in place of 1000, five epochs a child, and 8 channels in the
first convolution.  Set it beside ``large_scale_digits.py:random``, which trains random
graphs, or beside ``--config.strategy.selection=uniform``, evolution by chance.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(name="large_scale", first_channels=8)
    config.evaluator.update(name="inherited", max_macs=300_000)
    config.strategy = ConfigDict({"name": "large_scale_evolution", "population": 10})
    config.train.rounds = 20
    smoke = {"space": {"first_channels": 4}, "strategy": {"population": 3}}
    return common.vary(config, arg, smoke)
