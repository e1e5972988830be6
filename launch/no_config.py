"""The config of a program that was given none: sections to be overridden."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Empty sections."""
    return ConfigDict({"space": {}, "data": {}})
