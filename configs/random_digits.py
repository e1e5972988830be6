"""Random search on scikit-learn's digits; every child has weights of its own.

    python -m launch.search  --config=configs/random_digits.py --workdir=runs/random
    python -m launch.retrain --workdir=runs/random
    python -m launch.trials  --workdir=runs/random --best=5

What other searches by trials are set beside.  One program trains all 50 cells, in about
a second each.
Hours: 0.05 on 2 CPU cores that other work shared; half of it compiles.
Expected: rewards of 0.85 to 0.96; 0.961 for the best at seed 0.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(name="nasbench201", channels=8, cells=1)
    config.strategy = ConfigDict({"name": "random_search"})
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
