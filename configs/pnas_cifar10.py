"""Progressive search of PNAS cells on CIFAR-10.

    python -m launch.search  --config=configs/pnas_cifar10.py --workdir=runs/pnas
    python -m launch.retrain --workdir=runs/pnas

Liu et al. 2018, https://arxiv.org/abs/1712.00559: cells of up to five blocks, a beam of
K=256, N=2, F=24, 20 epochs a child with a peak rate of 0.01; 136 + 4 x 256 children.
Of N=2 a network has 6 cells, and of N=3, as which the winner is trained, 9.
The surrogate is the LSTM.
Hours: not measured here; the paper took 225 GPU-days.
Expected: 3.41 +- 0.09 % test error for the paper's search; this one is not measured
here.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.trials_on_cifar10(children=1_160)
    config.space.update(name="pnas_cell", fewer=True, channels=24, cells=6)
    config.strategy = ConfigDict(
        {"name": "progressive", "beam": 256, "surrogate": "lstm"}
    )
    config.evaluator.update(epochs=20, batch_size=64, learning_rate=0.01)
    config.retrain.update(
        space={"cells": 9, "channels": 48, "aux_head": True}, drop_path=0.4
    )
    smoke = {
        "space": {"blocks": 2, "channels": 4, "cells": 2},
        "strategy": {"capacity": 16, "beam": 4, "surrogate": "linear"},
    }
    return common.vary(config, arg, smoke)
