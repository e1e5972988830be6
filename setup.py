"""Packaging of Cellwright; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRED = [
    "absl-py>=2.1",
    "array-record>=0.6; platform_system != 'Windows'",  # TFDS asks for it on Linux only
    "dm-pix>=0.4.3",
    "etils[epath]>=1.9",
    "flax>=0.12.0",
    "importlib-resources>=6.0",  # TFDS imports it, and does not say so
    "jax>=0.8.2",
    "matplotlib>=3.8",
    "ml-collections>=1.0",
    "networkx>=3.2",
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.24",
    "pillow>=10.0",
    "scikit-learn>=1.4",
    "scipy>=1.11",
    "tensorboardX>=2.6",
    "tensorflow-datasets>=4.9.9",
    "tqdm>=4.66",
]

EXTRAS = {
    "test": [
        "flatbuffers>=24.3",
        "pytest>=8.0",
        "pytest-xdist>=3.5",
        "safetensors>=0.4",
    ],
    "dev": ["pre-commit>=3.7", "ruff>=0.9"],
    "tensorflow": ["tensorflow>=2.18"],  # to prepare some TFDS data sets, once
    "nats_bench": ["nats_bench>=1.8"],  # to convert its files
    "ray": ["ray>=2.30"],  # children on a cluster
    # jax.export asks for the first.
    "export": ["flatbuffers>=24.3", "safetensors>=0.4"],
    "onnx": ["onnx>=1.16"],  # for launch.export --onnx
    "browser": ["playwright>=1.45"],  # tests of the report, where Chromium is found
    "cuda": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
}

setup(
    name="cellwright",
    version="0.1.0",
    description="Neural architecture search with reinforcement learning in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(
        include=["controller*", "child_models*", "launch*", "configs*"]
    ),
    package_data={"launch": ["report_assets/*"]},
    python_requires=">=3.11",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
