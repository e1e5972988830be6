"""ENAS's macro search on CIFAR-10 with the paper's settings.

    python -m launch.search  --config=configs/enas_macro_cifar10.py --workdir=runs/macro
    python -m launch.retrain --workdir=runs/macro

Pham et al. 2018, https://arxiv.org/abs/1802.03268: 310 epochs of shared weights, 50
policy steps of 20 samples after each, skips drawn towards a share of 0.4; the winner
for 310 epochs at 96 channels.  The authors' final script has 24 layers, which no search
of 12 finds; here the winner keeps its depth.
Hours: 8 for the search on the authors' GTX 1080Ti; not measured here.
Expected: 4.23 % test error, 3.87 % with more channels (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.base()
    config.data.update(name="cifar10", validation=5000)
    config.space.update(name="enas_macro", layers=12, channels=36)
    config.strategy.update(
        name="reinforce",
        learning_rate=1e-3,
        baseline_decay=0.99**20,  # 0.99 for each of 20 samples
        baseline_init=0.0,
        adam_b1=0.0,
        adam_epsilon=1e-3,
        baseline_first=True,
        entropy_weight=1e-4,
        skip_weight=0.8,
        policy={"hidden": 64, "tanh_constant": 1.5, "skip_target": 0.4},
    )
    config.evaluator.update(
        batch_size=128,
        reward_batch_size=128,
        learning_rate=0.05,
        min_learning_rate=0.0005,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=2 * 2.5e-4,  # of l2 w^2 the gradient is 2 l2 w
        unsampled="decay",
        reward_batch="fresh",
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    config.schedule.update(child_steps=351, policy_steps=50, samples=20)
    config.derive.n = 10
    config.train.rounds = 310
    config.retrain.update(
        space={"channels": 96, "dropout": 0.5},
        epochs=310,
        batch_size=100,
        learning_rate=0.05,
        min_learning_rate=0.001,
        restart_epochs=10,
        restart_factor=2,
        weight_decay=2 * 2e-4,
        clip_norm=5.0,
        pad=4,
        flip=True,
    )
    smoke = {"space": {"layers": 3, "channels": 4}}
    return common.vary(config, arg, smoke)
