"""The config of a program that was given none: sections to be overridden."""

from ml_collections import ConfigDict

from launch.build import SECTIONS


def get_config() -> ConfigDict:
    """Empty sections."""
    config = ConfigDict({section: {} for section in SECTIONS})
    config.retrain.space = ConfigDict()  # an override needs what it is nested in
    return config
