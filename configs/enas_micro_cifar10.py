"""ENAS's micro search on CIFAR-10 with the paper's settings.

    python -m launch.search  --config=configs/enas_micro_cifar10.py --workdir=runs/micro
    python -m launch.retrain --workdir=runs/micro

Pham et al. 2018, https://arxiv.org/abs/1802.03268: 150 epochs of shared weights, 30
policy steps of 10 samples after each; the winner for 630 epochs at 15 layers and 36
channels, with cutout.  What the authors' script has besides and this search has not: an
auxiliary head and drop-path while shared weights are trained, and a fixed bias of 0.25
towards separable convolutions in the normal cell.
Hours: 11 for the search on the authors' GTX 1080Ti; not measured here.
Expected: 3.54 % test error, 2.89 % with cutout (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=5000)
    config.space.update(name="enas_micro", nodes=5, channels=20, layers=6)
    config.strategy.update(
        name="reinforce",
        learning_rate=3.5e-3,
        baseline_decay=0.99**10,  # 0.99 for each of 10 samples
        baseline_init=0.0,
        adam_b1=0.0,
        adam_epsilon=1e-3,
        baseline_first=True,
        entropy_weight=1e-4,
        policy={
            "hidden": 64,
            "tanh_constant": 1.1,
            "op_tanh_reduce": 2.5,
            "op_bias": {"sep_conv_3x3": 10.0, "sep_conv_5x5": 10.0},
        },
    )
    config.evaluator.update(
        batch_size=160,
        reward_batch_size=160,
        learning_rate=0.05,
        min_learning_rate=0.0005,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=2 * 1e-4,  # of l2 w^2 the gradient is 2 l2 w
        unsampled="decay",
        reward_batch="fresh",
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    config.schedule.update(child_steps=281, policy_steps=30, samples=10)
    config.derive.n = 10
    config.train.rounds = 150
    config.retrain.update(
        space={"layers": 15, "channels": 36, "dropout": 0.2, "aux_head": True},
        epochs=630,
        batch_size=144,
        learning_rate=0.05,
        min_learning_rate=0.0001,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=2 * 2e-4,
        clip_norm=5.0,
        drop_path=0.4,
        auxiliary_weight=0.4,
        pad=4,
        flip=True,
        cutout=16,
    )
    smoke = {"space": {"nodes": 2, "channels": 4, "layers": 1}}
    return common.vary(config, arg, smoke)
