"""PC-DARTS on CIFAR-10 with the paper's settings.

    python -m launch.search  --config=configs/pc_darts_cifar10.py --workdir=runs/pc
    python -m launch.retrain --workdir=runs/pc

Xu et al. 2020, https://arxiv.org/abs/1907.05737: a quarter of the channels pass through
the ops; the architecture is learnt from epoch 15 of 50.
Hours: 0.1 GPU-days for the search (published); not measured here.
Expected: 2.57 % test error, 3.6 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.space.partial_channels = 4
    config.strategy = ConfigDict(
        {"name": "pc_darts", "learning_rate": 6e-4, "weight_decay": 1e-3}
    )
    config.evaluator.update(
        batch_size=256,
        reward_batch_size=256,
        learning_rate=0.1,
        min_learning_rate=0.0,
    )
    config.schedule.update(child_steps=97, policy_steps=97, warmup_rounds=15)
    config.retrain.drop_path = 0.3
    return common.vary(config, arg, darts_cifar10.SMOKE)
