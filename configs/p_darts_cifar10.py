"""P-DARTS on CIFAR-10, in one network.

    python -m launch.search  --config=configs/p_darts_cifar10.py --workdir=runs/p_darts
    python -m launch.retrain --workdir=runs/p_darts

Chen et al. 2019, https://arxiv.org/abs/1904.12760: three stages of 25 epochs with 8, 5
and 3 ops an edge, at most 2 skips in the derived normal cell.  In the paper the network
grows from 5 over 11 to 17 cells and begins anew in each stage, and the rate of dropout
after skips grows from 0 over 0.4 to 0.7 and decays in each; here it has 8 cells, keeps
its weights, and has a rate of 0.4.
Hours: 0.3 GPU-days for the search (published); not measured here.
Expected: 2.50 % test error, 3.4 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.space.skip_dropout = 0.4
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
    )
    config.schedule.update(child_steps=260, policy_steps=260)
    config.train.rounds = 75
    config.retrain.update(batch_size=128, drop_path=0.3)
    return common.vary(config, arg, darts_cifar10.SMOKE)
