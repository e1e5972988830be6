"""The trial store: keyed rows, replaced when a round is run again."""

import sqlite3

import numpy as np
import pytest
from etils import epath

import launch.store
from launch.command import UserError
from launch.store import Store, read_rounds, read_trials

ROW = (0, 0, "1,2,3", 0.5, True, -1.25)


def test_trials_are_replaced_by_round_and_index(tmp_path):
    with Store(tmp_path, 3) as store:
        store.add_trials([ROW, (0, 1, "0,0,0", 0.25, False, -2.0)])
        store.add_trials([(0, 1, "2,2,2", 0.75, True, -3.0)])
    assert read_trials(tmp_path) == [
        (3, 0, 0, "1,2,3", 0.5, 1, -1.25),
        (3, 0, 1, "2,2,2", 0.75, 1, -3.0),
    ]


def test_seeds_do_not_touch_each_other(tmp_path):
    for seed in (0, 1):
        with Store(tmp_path, seed) as store:
            store.add_trials([ROW])
    assert [row[0] for row in read_trials(tmp_path)] == [0, 1]


def test_float32_rewards_come_back_exactly(tmp_path):
    reward = float(np.float32(0.1))
    with Store(tmp_path, 0) as store:
        store.add_trials([(0, 0, "1", reward, True, 0.0)])
    assert read_trials(tmp_path)[0][4] == reward


def test_round_records_are_json_and_replaced(tmp_path):
    with Store(tmp_path, 0) as store:
        store.add_round(0, {"round": 0, "entropy": 1.5})
        store.add_round(1, {"round": 1, "entropy": None})
        store.add_round(0, {"round": 0, "entropy": 1.25})
    assert read_rounds(tmp_path) == [
        {"round": 0, "entropy": 1.25},
        {"round": 1, "entropy": None},
    ]


def test_what_was_added_survives_without_an_orderly_end(tmp_path):
    store = Store(tmp_path, 0)
    store.add_trials([ROW])
    with sqlite3.connect(tmp_path / "trials.sqlite") as db:
        assert db.execute("select count(*) from trials").fetchone() == (1,)
    store.__exit__()


def test_a_file_that_is_no_database_is_told_in_one_line(tmp_path):
    (tmp_path / "trials.sqlite").write_bytes(b"garbage" * 999)
    for use in (lambda: Store(tmp_path, 0), lambda: read_trials(tmp_path)):
        with pytest.raises(UserError, match="trials.sqlite: file is not a database"):
            use()


def test_a_remote_workdir_gets_a_copy_and_goes_on_from_it(tmp_path, monkeypatch):
    remote, cache = tmp_path / "remote", tmp_path / "cache"
    remote.mkdir()
    cache.mkdir()
    monkeypatch.setattr(launch.store, "local_folder", lambda workdir: cache)
    with Store(epath.Path(remote), 0) as store:
        store.add_trials([ROW])
        assert not (remote / "trials.sqlite").exists()
        store.sync()
        assert (remote / "trials.sqlite").exists()
    (cache / "trials.sqlite").unlink()
    with Store(epath.Path(remote), 0) as store:
        store.add_trials([(1, 0, "4", 0.5, True, 0.0)])
    assert [row[1] for row in read_trials(remote)] == [0, 1]
