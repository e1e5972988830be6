"""A table of 27 cells on scikit-learn's digits: each trained with three seeds.

    python -m launch.tabular build --config=configs/table_digits.py \
        --workdir=runs/table --out=table_digits.npz
    python -m launch.compare --config=configs/compare_digits.py \
        --config.table=table_digits.npz --workdir=runs/compare

The cells of NAS-Bench-201 with three nodes and three of the ops.
Hours: 0.03 on 2 CPU cores that other work shared, compilation included.
Expected: rewards of 7.8, where the output is zero, to 94.7; the best value is 96.85.
"""

from ml_collections import ConfigDict

from configs import common

SPACE = {
    "name": "nasbench201",
    "nodes": 3,
    "ops": ("none", "skip_connect", "nor_conv_3x3"),
}


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument.  Its strategy is for a search."""
    config = common.trials_on_digits()
    config.space.update(**SPACE, channels=8, cells=1)
    config.strategy = ConfigDict({"name": "random_search"})
    return common.vary(config, arg, {"space": {"channels": 4}})
