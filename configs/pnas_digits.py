"""Progressive search of PNAS cells on scikit-learn's digits.

    python -m launch.search  --config=configs/pnas_digits.py --workdir=runs/pnas
    python -m launch.retrain --workdir=runs/pnas

Liu et al. 2018, with a beam of K=14 in place of 256, two blocks, four of the eight
ops, and the surrogate on means of embeddings.  The 36 cells of one block come first.
Set it beside ``pnas_digits.py:random``.
Hours: 0.03 on 2 CPU cores that other work shared; half of it compiles.
Expected: a reward of 0.836 for the winner of seed 0 in the final choice.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_digits()
    config.space.update(
        name="pnas_cell",
        blocks=2,
        fewer=True,
        ops=("identity", "sep_conv_3x3", "avg_pool_3x3", "max_pool_3x3"),
        cells=2,
        channels=8,
    )
    config.strategy = ConfigDict(
        {
            "name": "progressive",
            "beam": 14,
            "surrogate": "mlp",
            "surrogate_options": {"width": 16, "hidden": 32},
            "capacity": 64,
        }
    )
    smoke = {
        "space": {"channels": 4, "ops": ("identity", "sep_conv_3x3")},
        "strategy": {"capacity": 16},
    }
    return common.vary(config, arg, smoke)
