"""P-DARTS on CIFAR-10.

    python -m launch.search  --config=configs/p_darts_cifar10.py --workdir=runs/p_darts
    python -m launch.retrain --workdir=runs/p_darts

Chen et al. 2019, https://arxiv.org/abs/1904.12760: three stages of 25 epochs, of 5, 11
and 17 cells with 8, 5 and 3 ops an edge, and more dropout after skips in each; at most
2 skips in the derived normal cell.
Hours: 0.3 GPU-days for the search (published); not measured here.
Expected: 2.50 % test error, 3.4 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.strategy = ConfigDict(
        {
            "name": "p_darts",
            "drops": (3, 2),
            "stage_rounds": 25,
            "rest_rounds": 10,
            "max_skips": 2,
            "capped": "normal",
            "learning_rate": 6e-4,
            "weight_decay": 1e-3,
        }
    )
    config.evaluator.update(
        batch_size=96,
        reward_batch_size=96,
        min_learning_rate=0.0,
        restart_epochs=25,
        skip_dropout_rest=10,
    )
    config.schedule.update(child_steps=260, policy_steps=260)
    config.train.rounds = 25
    config.train.stages = tuple(
        {"cells": cells, "skip_dropout": rate}
        for cells, rate in ((5, 0.0), (11, 0.4), (17, 0.7))
    )
    config.retrain.update(batch_size=128, drop_path=0.3)
    smoke = darts_cifar10.SMOKE | {
        "strategy": {"stage_rounds": 2, "rest_rounds": 0},
        "train": {"stages": ({"cells": 2}, {"cells": 3})},
    }
    return common.vary(config, arg, smoke)
