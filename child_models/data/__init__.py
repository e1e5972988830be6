"""Data sets by name, and the input pipeline that runs inside compiled code."""

from child_models.data.loading import image_shape, load

__all__ = ["image_shape", "load"]
