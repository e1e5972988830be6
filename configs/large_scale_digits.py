"""Large-scale evolution of graphs on scikit-learn's digits.

python -m launch.search  --config=configs/large_scale_digits.py --workdir=runs/large
python -m launch.retrain --workdir=runs/large
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(name="large_scale", first_channels=8)
    config.strategy = ConfigDict({"name": "large_scale_evolution", "population": 10})
    config.evaluator.update(name="inherited", max_macs=1_000_000)
    config.train.rounds = 12
    return common.vary(config, arg, {})
