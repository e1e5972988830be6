"""Settings of JAX for all tests, and fixtures that more than one of them uses."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

# Read by JAX and matplotlib when they are imported, and by programs that tests start.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(tempfile.gettempdir(), f"cellwright-tests-{os.getuid()}"),
)

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of larger data files: CELLWRIGHT_DATA, or one beside the checkout."""
    default = ROOT.parent / "shared" / "data"
    return Path(os.environ.get("CELLWRIGHT_DATA", default))


@pytest.fixture(scope="session")
def data_file(data_dir):
    """``(name) -> Path`` of a file in `data_dir`; skips the test where it is absent."""

    def find(name: str) -> Path:
        path = data_dir / name
        if not path.is_file():
            pytest.skip(f"needs {name}, absent in {data_dir} (CELLWRIGHT_DATA)")
        return path

    return find


@pytest.fixture(scope="session")
def start_programs():
    """``(module, {name: arguments}) -> {name: process}``.

    All are started at once: importing is what takes long.
    """

    def start(module, commands):
        return {
            name: subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for name, arguments in commands.items()
        }

    return start


@pytest.fixture(scope="session")
def quick_jit():
    """`jax.jit` for programs that take longer to compile than to run."""
    options = {
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    }
    return functools.partial(jax.jit, compiler_options=options)


@pytest.fixture(scope="session")
def comparable():
    """``(workdir) -> (result, trials, round records)``, wall times aside."""
    from launch.store import find_trials, read_rounds

    def read(workdir):
        result = json.loads((workdir / "result.json").read_text())
        del result["budget"]["seconds"], result["diagnostics"], result["config_sha256"]
        records = read_rounds(workdir)
        for record in records:
            del record["seconds"], record["steps_per_second"]
        return result, find_trials(workdir), records

    return read


@pytest.fixture(scope="session")
def toy_search():
    """``(config, spec, strategy, evaluator) -> Search``, as `build` returns it.

    The config's schedule holds; space and evaluator may be toys.
    """
    from controller.loop import make_loop, schedule
    from launch.build import Search

    def built(config, spec, strategy, evaluator):
        phases = schedule(rounds=config.train.rounds, **config.schedule.to_dict())
        parts = (spec, strategy, evaluator, phases)
        loop = make_loop(*parts, max_ticks=8, history=4)
        space = types.SimpleNamespace(spec=spec)
        return Search(config, None, space, None, strategy, evaluator, phases, loop)

    return built
