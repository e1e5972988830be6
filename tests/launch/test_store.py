"""The trial store: keyed rows, replaced when a round is run again."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

import launch.store
from launch.command import UserError
from launch.store import (
    COLUMNS,
    Condition,
    Row,
    Store,
    find_trials,
    read_rounds,
    read_trials,
)

ROOT = Path(__file__).parents[2]
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


FULL = Row(2, 1, "1", 0.5, True, -1.0, "conv", 0.9, 12.5, 3, None, "node-7")
FAILED = Row(2, 0, "0", None, False, 0.0, "none", reason="its loss is not finite")


def test_every_column_of_a_trial_is_kept(tmp_path):
    with Store(tmp_path, 4) as store:
        store.add_trials([FULL, FAILED])
    failed, full = find_trials(tmp_path)
    assert tuple(full) == COLUMNS
    expected = FULL._asdict() | {"seed": 4, "status": "valid"}
    assert full == {name: expected[name] for name in COLUMNS}
    assert failed["status"] == "invalid" and failed["reward"] is None
    assert failed["reason"] == "its loss is not finite" and failed["parent"] is None


def test_trials_are_found_by_conditions_and_by_rank(tmp_path):
    rewards = (0.5, 0.75, 0.25, 0.75)
    rows = [Row(0, i, str(i), r, True, 0.0, f"op{i}") for i, r in enumerate(rewards)]
    with Store(tmp_path, 0) as store:
        store.add_trials([*rows, FAILED])

    def found(*conditions, best=None):
        return [row["decisions"] for row in find_trials(tmp_path, conditions, best)]

    assert found(Condition("reward", ">=", 0.5)) == ["0", "1", "3"]
    assert found(Condition("encoding", "~", "p2")) == ["2"]
    assert found(Condition("index", "!=", 1), Condition("reward", ">", 0.5)) == ["3"]
    assert found(Condition("status", "=", "invalid")) == ["0"]
    assert found(best=3) == ["1", "3", "0"] and len(found(best=9)) == 4


def test_a_store_of_another_schema_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "trials.sqlite") as db:
        db.execute("create table trials (seed integer)")
    db.close()
    for use in (lambda: Store(tmp_path, 0), lambda: read_trials(tmp_path)):
        with pytest.raises(UserError, match="of schema 0, this program's is 1; take"):
            use()


def test_a_store_of_another_search_is_refused_and_left_alone(tmp_path):
    with Store(tmp_path, 0, "one") as store:
        store.add_trials([ROW])
    with pytest.raises(UserError, match="trials of another search") as refusal:
        Store(tmp_path, 0, "two")
    assert "\n" not in str(refusal.value)
    for same in ("one", None):
        with Store(tmp_path, 1, same) as store:
            store.add_trials([ROW])
    assert len(read_trials(tmp_path)) == 2


def test_a_workdir_without_a_store_is_told_of_and_stays_without(tmp_path):
    with pytest.raises(UserError, match="holds no trials.sqlite"):
        find_trials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_processes_may_write(tmp_path):
    script = (
        "import sys; from launch.store import Store\n"
        "with Store(sys.argv[1], int(sys.argv[2])) as store:\n"
        "    for i in range(100): store.add_trials([(i, 0, '1', 0.5, True, 0.0)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    writers = [subprocess.Popen([*command, str(seed)], cwd=ROOT) for seed in (0, 1)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len(read_trials(tmp_path)) == 200


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    with Store(tmp_path, 0) as store:
        store.add_trials([ROW])
        (pages,) = store._db.execute("pragma page_count").fetchone()
        store._db.execute(f"pragma max_page_count = {pages}")
        rows = [(1, i, "1" * 500, 0.5, True, 0.0) for i in range(100)]
        with pytest.raises(UserError, match="full; make room .* nothing is lost"):
            store.add_trials(rows)
        assert len(read_trials(tmp_path)) == 1  # all of a call, or none
        store._db.execute("pragma max_page_count = 100000")
        store.add_trials(rows)
    assert len(read_trials(tmp_path)) == 101


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


def test_a_remote_workdir_loses_no_trial_of_a_process_that_has_not_copied_yet(
    tmp_path, monkeypatch
):
    remote, cache = tmp_path / "remote", tmp_path / "cache"
    remote.mkdir()
    cache.mkdir()
    monkeypatch.setattr(launch.store, "local_folder", lambda workdir: cache)

    def row(round):
        return [(round, 0, "4", 0.5, True, 0.0)]

    with Store(epath.Path(remote), 0, "one") as store:
        store.add_trials(row(0))
    with Store(epath.Path(remote), 0, "one") as first:
        first.add_trials(row(1))
        with Store(epath.Path(remote), 1, "one") as second:
            second.add_trials(row(0))
            first.add_trials(row(2))
    assert [row[:2] for row in read_trials(remote)] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    # What is left in the cache of a workdir that is gone is no part of another search.
    (remote / "trials.sqlite").unlink()
    monkeypatch.setattr(launch.store, "local_folder", lambda workdir: tmp_path)
    with Store(epath.Path(remote), 0, "two") as store:
        store.add_trials(row(5))
    monkeypatch.setattr(launch.store, "local_folder", lambda workdir: cache)
    with Store(epath.Path(remote), 0, "two"):
        pass
    assert [row[:2] for row in read_trials(remote)] == [(0, 5)]
