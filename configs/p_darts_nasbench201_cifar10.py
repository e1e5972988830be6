"""P-DARTS on the NAS-Bench-201 cell, for CPU; a found cell has a known accuracy.

    python -m launch.search --config=configs/p_darts_nasbench201_cifar10.py \
        --config.data.name=npz:cifar10_small.npz --workdir=runs/p_darts_nb201

It has the network of `darts_nasbench201_cifar10`, but images are augmented and its
rounds are fewer.  Ops are dropped in three stages, and no "none" and at most two skips
are derived.
Hours: 0.15 on a CPU core.
Expected: cells of 93.24, 87.67 and 92.92 % in the table for seeds 0 to 2.
"""

from ml_collections import ConfigDict

from configs import common, darts_nasbench201_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_nasbench201_cifar10.get_config()
    config.strategy = ConfigDict(
        {
            "name": "p_darts",
            "drops": (1, 1),
            "stage_rounds": 4,
            "rest_rounds": 1,
            "learning_rate": 3e-2,
            "weight_decay": 0.0,
        }
    )
    config.evaluator.update(restart_epochs=4, pad=4, flip=True)
    config.train.rounds = 12
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
