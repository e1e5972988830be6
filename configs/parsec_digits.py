"""PARSEC on the NAS-Bench-201 cell and scikit-learn's digits.

    python -m launch.search  --config=configs/parsec_digits.py --workdir=runs/parsec
    python -m launch.retrain --workdir=runs/parsec

Four sampled architectures share each training step, and eight each policy step, by
their likelihoods.
Hours: 0.02 of CPU time for the search, compilation included.
Expected: the distribution leaves the uniform one, of 9.7 nats, after warm-up; test
accuracies of 98.80 +- 0.09 %, of random networks 98.70 +- 0.28.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    """The config; see `common` for the argument."""
    config = common.relaxed_on_digits()
    config.strategy = ConfigDict(
        {"name": "parsec", "learning_rate": 3e-2, "temperature": 0.1}
    )
    config.evaluator = ConfigDict(
        {
            "name": "shared_weights",
            "batch_size": 32,
            "reward_batch_size": 120,
            "reward": "negative_loss",
            "learning_rate": 0.1,
            "restart_epochs": 20,
            "restart_factor": 1,
            "architectures_per_step": 4,
            "likelihood_temperature": 0.1,
            "pad": 1,
        }
    )
    config.schedule.update(policy_steps=11, samples=8, warmup_rounds=5)
    return common.vary(config, arg, common.NASBENCH201_SMOKE)
