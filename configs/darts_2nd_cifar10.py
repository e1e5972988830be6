"""Second-order DARTS on CIFAR-10 with the paper's settings.

    python -m launch.search  --config=configs/darts_2nd_cifar10.py --workdir=runs/darts2
    python -m launch.retrain --workdir=runs/darts2

Liu et al. 2019, https://arxiv.org/abs/1806.09055; as `darts_cifar10`, but the gradient
of the architecture looks one step of the shared weights ahead, by finite differences.
Hours: 4 GPU-days for the search (published); not measured here.
Expected: 2.76 +- 0.09 % test error, 3.3 M parameters (published); not measured here.
"""

from ml_collections import ConfigDict

from configs import common, darts_cifar10


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = darts_cifar10.get_config()
    config.evaluator.hypergradient = "finite_difference"
    return common.vary(config, arg, darts_cifar10.SMOKE)
