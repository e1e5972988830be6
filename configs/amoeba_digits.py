"""Regularized evolution of AmoebaNet cells on scikit-learn's digits.

    python -m launch.search  --config=configs/amoeba_digits.py --workdir=runs/amoeba
    python -m launch.retrain --workdir=runs/amoeba

Real et al. 2019, with P=10 and S=4 in place of 100 and 25, cells of two blocks, and
four of the eight ops.  Set it beside ``amoeba_digits.py:random``.
Hours: 0.05 on 2 CPU cores that other work shared; half of it compiles.
Expected: a reward of 0.819 for the winner of seed 0 in the final choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(
        name="amoeba_cell",
        blocks=2,
        ops=("identity", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"),
        cells=2,
        channels=8,
    )
    config.strategy = ConfigDict(
        {"name": "regularized_evolution", "population": 10, "sample": 4}
    )
    smoke = {
        "space": {"channels": 4},
        "strategy": {"population": 4, "sample": 2},
    }
    return common.vary(config, arg, smoke)
