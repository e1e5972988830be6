"""Data sets by name, and the input pipeline that runs inside compiled code."""

from child_models.data.loading import load

__all__ = ["load"]
