"""ProxylessNAS on the NAS-Bench-201 cell and scikit-learn's digits.

    python -m launch.search  --config=configs/proxyless_digits.py --workdir=runs/proxy
    python -m launch.retrain --workdir=runs/proxy

One path of the supernet is trained at a time, and two are compared.
Hours: 0.01 of CPU time for the search, compilation included.
Expected: sampled paths name 90 % of the validation images at the end; the derived
networks 97.59 +- 1.03 % of the test images, random ones 98.55 +- 0.42.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.strategy = ConfigDict(
        {"name": "proxylessnas", "learning_rate": 3e-2, "idle": ()}
    )
    config.evaluator.unsampled = "frozen"
    config.schedule.warmup_rounds = 10
    config.train.rounds = 40
    config.evaluator.restart_epochs = 40
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
