"""Checkpoints: typed keys, bfloat16 and empty trees come back; damage is noticed."""

import errno
import os
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.checkpoints import Checkpoints
from launch.command import UserError


class DiskUsage(NamedTuple):
    """As `shutil.disk_usage` returns it."""

    total: int
    used: int
    free: int


class State(NamedTuple):
    """A state with all kinds of leaves that a search has."""

    key: jax.Array
    weights: dict[str, Any]
    nothing: None
    step: jax.Array


def make(step):
    """The state of a step."""
    weights = {"a": jnp.full((2, 3), 0.1 * step), "b": jnp.ones(3, "bfloat16")}
    weights["empty"] = {}
    return State(jax.random.key(step), weights, None, jnp.int32(step))


def check(found, step):
    """Asserts that what was restored is the state of this step."""
    state, progress = found
    assert progress == {"step": step, "none": None}
    expected = make(step)
    assert jax.tree.structure(state) == jax.tree.structure(expected)
    assert (jax.random.key_data(state.key) == jax.random.key_data(expected.key)).all()
    for new, old in zip(*map(jax.tree.leaves, (state[1:], expected[1:])), strict=True):
        assert new.dtype == old.dtype
        np.testing.assert_array_equal(np.asarray(new), np.asarray(old))


@pytest.fixture
def folder(tmp_path):
    """Holds checkpoints of steps 1, 2 and 3, of which two were kept."""
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make(step), {"step": step, "none": None})
    return tmp_path / "checkpoints"


def test_a_disk_without_room_is_told_and_what_was_saved_stays(folder, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(9, 9, 300_000))
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(4, make(4), {"step": 4, "none": None})  # a small one fits
        large = make(5)._replace(step=jnp.zeros(10_000))
        with pytest.raises(OSError, match="No space left on device") as caught:
            checkpoints.save(5, large, {})
        assert caught.value.errno == errno.ENOSPC
    check(restore(folder), 4)


def restore(folder, keep=2):
    """The newest intact checkpoint."""
    with Checkpoints(folder, keep=keep) as checkpoints:
        return checkpoints.restore(jax.eval_shape(make, 1))


def files(folder, step):
    """All files of a checkpoint that hold something."""
    found = [path for path in (folder / str(step)).rglob("*") if path.is_file()]
    return [path for path in found if path.stat().st_size]


def test_the_newest_comes_back_as_it_was(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    check(restore(folder), 3)


def test_nothing_is_restored_where_nothing_was_saved(tmp_path):
    assert restore(tmp_path / "new") is None


def test_a_truncated_one_is_replaced_by_the_one_before(folder, capsys):
    for path in files(folder, 3):
        os.truncate(path, path.stat().st_size // 2)
    check(restore(folder), 2)
    assert f"checkpoint {folder / '3'} is damaged" in capsys.readouterr().err
    check(restore(folder), 2)
    assert not capsys.readouterr().err


def test_a_damaged_one_is_renamed_and_never_in_the_place_of_another(folder):
    (folder / "damaged-3").mkdir()
    for path in files(folder, 3):
        os.truncate(path, path.stat().st_size - 1)
    sizes = [path.stat().st_size for path in files(folder, 3)]
    check(restore(folder), 2)
    assert not (folder / "3").exists() and not list((folder / "damaged-3").iterdir())
    assert [path.stat().st_size for path in files(folder, "damaged-3-2")] == sizes
    with Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(3, make(3), {"step": 3, "none": None})
    check(restore(folder), 3)


def test_reading_only_changes_nothing(folder, tmp_path, capsys):
    for path in files(folder, 3):
        os.truncate(path, path.stat().st_size // 2)
    before = sorted(tmp_path.rglob("*"))
    check(restore(folder, keep=None), 2)
    assert "is damaged" in capsys.readouterr().err
    assert restore(tmp_path / "absent", keep=None) is None
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name, value", [("a", jnp.ones((2, 2))), ("c", jnp.ones(2))])
def test_one_of_another_version_is_an_error_and_no_damage(folder, name, value):
    state = make(1)
    like = jax.eval_shape(lambda: state._replace(weights=state.weights | {name: value}))
    with (
        Checkpoints(folder, keep=2) as checkpoints,
        pytest.raises(UserError, match="3 was written by another version"),
    ):
        checkpoints.restore(like)
    check(restore(folder), 3)


def test_shapes_may_be_free_and_empty_dictionaries_hold_anything(tmp_path):
    """As of a search whose population grows, and whose children keep weights."""
    state = make(1)._replace(
        weights={
            "a": jnp.arange(5.0),
            "b": jnp.ones(3, "bfloat16"),
            "empty": {"7": {"kernel": np.ones((2, 2)), "stats": {}}},
        }
    )
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {})
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        found, _ = checkpoints.restore(make(1), free=True)
        with pytest.raises(UserError, match="written by another version"):
            checkpoints.restore(make(1))
        for like in (make(1)._replace(step={"deeper": jnp.int32(0)}), make(1).weights):
            with pytest.raises(UserError, match="written by another version"):
                checkpoints.restore(like, free=True)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for new, old in zip(*map(jax.tree.leaves, (found[1:], state[1:])), strict=True):
        np.testing.assert_array_equal(new, old)


def test_values_that_changed_on_disk_are_noticed(folder, capsys):
    with Checkpoints(folder, keep=2) as checkpoints:
        like = jax.eval_shape(make, 1)
        host = checkpoints._manager.restore(3)["host"]
        (path,) = (folder / "3" / "host").glob("metadata")
        text = path.read_text()
        path.write_text(text.replace(str(host["checksum"]), str(host["checksum"] + 1)))
        check(checkpoints.restore(like), 2)
    assert "its checksum is wrong" in capsys.readouterr().err


def test_none_is_intact(folder, capsys):
    for step in (2, 3):
        for path in files(folder, step):
            path.unlink()
    assert restore(folder) is None
    assert capsys.readouterr().err.count("is damaged") == 2


def test_a_checkpoint_is_a_copy(tmp_path):
    """The state's buffers are donated to the next call while Orbax still writes."""
    donate = jax.jit(
        lambda s: s._replace(weights=jax.tree.map(lambda w: w + 1, s.weights)),
        donate_argnums=0,
    )
    state = make(1)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, {"step": 1, "none": None})
        for _ in range(3):
            state = donate(state)
    check(restore(tmp_path), 1)


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints("runs/checkpoints", keep=2) as checkpoints:
        checkpoints.save(1, make(1), {"step": 1, "none": None})
    check(restore("runs/checkpoints"), 1)
