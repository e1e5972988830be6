"""What must be set in JAX before its first computation: the cache, determinism."""

import os

import jax
from ml_collections import ConfigDict

from child_models.data.prepared import cache_folder


def prepare_jax(config: ConfigDict) -> None:
    """Sets what a config asks for."""
    prepare_cache(config.train.compilation_cache)
    flag = "--xla_gpu_deterministic_ops=true"
    if config.train.deterministic and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


def prepare_cache(cache: str = "auto") -> None:
    """Sets the compilation cache: a folder, "auto", or "off"."""
    if cache == "auto":  # where the user's environment names a folder, that one
        cache = jax.config.jax_compilation_cache_dir or str(cache_folder() / "jax")
    if cache != "off":
        jax.config.update("jax_compilation_cache_dir", cache)
