"""The halves of the project meet only where they may."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("controller", "child_models", "launch", "configs")


def imported(source: str, package: str) -> set[str]:
    """Dotted names of all modules and members that a module of `package` imports."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            parents = parents[: len(parents) + 1 - node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def modules(folder: str) -> dict[str, set[str]]:
    """What each module below a folder imports, by path."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        package = ".".join(path.parent.relative_to(ROOT).parts)
        found[str(path.relative_to(ROOT))] = imported(path.read_text("utf-8"), package)
    assert found, f"{folder} has no modules"
    return found


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("forbidden", ["child_models", "launch", "configs"])
def test_controller_knows_nothing_of_the_others(forbidden):
    for path, names in modules("controller").items():
        assert not [n for n in names if below(n, forbidden)], path


def test_child_models_imports_only_the_seam_of_controller():
    for path, names in modules("child_models").items():
        of_controller = {n for n in names if below(n, "controller")}
        allowed = ("controller.spec", "controller.types")
        assert all(any(below(n, a) for a in allowed) for n in of_controller), path


@pytest.mark.parametrize("forbidden", ["launch", "configs"])
def test_child_models_never_imports_launch(forbidden):
    for path, names in modules("child_models").items():
        assert not [n for n in names if below(n, forbidden)], path


def test_programs_do_not_shadow_the_standard_library():
    # `python launch/search.py` puts launch/ in front of the standard library.
    names = {Path(path).stem for path in modules("launch")}
    assert not names & set(sys.stdlib_module_names)


def test_packages_are_complete():
    # A folder without __init__.py would be left out of the installed distribution.
    folders = {path.parent for top in OURS for path in (ROOT / top).rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import a.b as c", {"a.b"}),
        ("from a import b, c", {"a.b", "a.c"}),
        ("def f():\n    from a.b import c", {"a.b.c"}),
        ("from . import x", {"p.q.x"}),
        ("from ..r import x", {"p.r.x"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source, expected):
    assert imported(source, "p.q") == expected


def test_importing_computes_nothing():
    """Processes of several hosts find one another before the first computation."""
    program = (
        "import sys, jax, launch.search\n"
        "jax.config.update('jax_platforms', 'none')  # too late where one was begun\n"
        "try:\n    jax.devices()\n"
        "except RuntimeError:\n    print('nothing was begun')\n"
        "print([m for m in ('matplotlib', 'networkx') if m in sys.modules])\n"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "nothing was begun\n[]\n"  # nor what only drawings need
