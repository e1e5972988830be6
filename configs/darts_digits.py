"""First-order DARTS on the NAS-Bench-201 cell and scikit-learn's digits.

    python -m launch.search  --config=configs/darts_digits.py --workdir=runs/darts
    python -m launch.retrain --workdir=runs/darts

Half of the training images train shared weights, the other half the architecture's.
Hours: 0.02 of CPU time for the search, compilation included.
Expected: at the end the relaxed supernet names 97 % of the validation images; the
derived networks 98.33 +- 0.70 % of the test images, random ones 98.70 +- 0.28.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.strategy = ConfigDict({"name": "darts", "learning_rate": 1e-2})
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
