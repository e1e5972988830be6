"""Reports: what is read, said and drawn of workdirs, as one file that stands alone."""

import html.parser
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from launch.build import resolve
from launch.command import UserError
from launch.figures.animation import improvements, write_animation
from launch.report import read_runs
from launch.reporting.page import MAX_BYTES, page
from launch.reporting.run import curves, pareto, read_run, scatter, scored
from launch.reporting.words import diagnoses
from launch.settings import as_json
from launch.store import Row, Store
from launch.workdir import record_command, write_json

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def config(space=None, **train):
    return resolve(
        {
            "data": {"name": "digits", "validation": 64, "seed": 0},
            "space": space or {"name": "nasbench201", "channels": 2, "cells": 1},
            "strategy": {"name": "reinforce"},
            "evaluator": {"name": "shared_weights", "batch_size": 4},
            "task": {"name": "classification"},
            "schedule": {"child_steps": 2, "policy_steps": 1, "samples": 2},
            "train": {"seed": 0, "rounds": 30, **train},
            "retrain": {},
            "baseline": {"n": 2},
        }
    )


def record(round, entropy=5.0, distinct=1.0, skips=0.2):
    rest = (1 - skips) / 4
    shares = [skips if op == "skip_connect" else rest for op in OPS]
    return {
        "round": round,
        "warm_up": False,
        "scored": 20,
        "distinct": distinct,
        "reward_mean": 0.3 + 0.01 * round,
        "reward_max": 0.5 - 0.01 * (round % 3),
        "baseline": 0.3,
        "entropy": entropy,
        "op_histogram": dict(zip(OPS, shares, strict=True)),
        "skip_share": None,
        "child_loss": 2.0,
        "child_accuracy": 0.5,
        "seconds": 1.5,
        "steps_per_second": 2.0,
    }


def make(folder, rounds=5, trials=20, settings=None, **fields):
    """A workdir as a search leaves it, of random cells whose reward is known."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", as_json(settings or config()))
    rng = np.random.default_rng(0)
    with Store(folder, 0) as store:
        rows = []
        for i in range(rounds * trials):
            cell = rng.integers(0, 5, 6).tolist()
            reward = None if i == 3 else sum(cell) / 30 + i * 1e-6
            rows.append(
                Row(
                    i // trials,
                    i % trials,
                    ",".join(map(str, cell)),
                    reward,
                    reward is not None,
                    -5.0,
                    "|".join(map(str, cell)),
                    cost=float(sum(cell)),
                    reason=None if reward is not None else "diverged",
                )
            )
        store.add_trials(rows)
        for round in range(rounds):
            store.add_round(round, record(round, **fields))
    return folder


def finish(folder):
    best = {"decisions": [3] * 6, "genotype": "", "reward": 0.81}
    budget = {"scored": 100, "child_steps": 10, "seconds": 90.0}
    known = {"compile_seconds": 60.0, "device": "cpu", "jax": "0.10", "commit": None}
    result = {"best": best, "candidates": [best], "strategy": "reinforce"}
    result |= {"budget": budget, "diagnostics": known, "config_sha256": ""}
    write_json(folder / "result.json", result)
    accuracies = {"winner": 0.9, "a": 0.7, "b": 0.8}
    rows = {
        name: {
            "decisions": [3] * 6,
            "test_accuracy": accuracy,
            "standard_error": 0.01,
            "params": 1000,
            "macs": 5000,
            "seconds": 1.0,
            "compile_seconds": 2.0,
        }
        for name, accuracy in accuracies.items()
    }
    report = {"winner": rows["winner"], "random": [rows["a"], rows["b"]]}
    report |= {"others": [], "recipe": {}, "seed": 0}
    write_json(folder / "retrain.json", report)
    return folder


def sentences(workdir):
    run = read_run(workdir)
    return " ".join(sentence for _, sentence in diagnoses(run, scored(run.trials)))


# ---- numbers ------------------------------------------------------------------------


def test_the_best_reward_so_far_never_falls():
    found = curves([record(round) for round in range(4)])
    assert found["best"] == {"x": [1, 2, 3, 4], "y": [0.5] * 4}
    assert found["reward_mean"]["y"] == [0.3, 0.31, 0.32, 0.33]
    assert curves([]) == {}


def test_many_rounds_become_means_of_equal_numbers_of_them():
    found = curves([record(round) for round in range(2400)])["reward_mean"]
    assert len(found["x"]) == 240 and found["x"][:2] == [5.5, 15.5]
    assert found["y"][1] == pytest.approx(0.3 + 0.01 * 14.5)


def test_the_front_has_the_points_that_none_beats():
    x, y = np.array([3.0, 1, 2, 2, 4]), np.array([0.5, 0.2, 0.4, 0.3, 0.5])
    assert pareto(x, y) == [1, 2, 0]


def test_a_large_search_keeps_its_best_and_its_front_in_the_scatter(tmp_path):
    run = read_run(make(tmp_path / "run", rounds=40, trials=100))
    found = scored(run.trials)
    drawn = scatter(run, found, {}, 120)
    for name in ("trial", "cost"):
        points = drawn["axes"][name]["points"]
        assert len(points) <= 120 + len(drawn["axes"][name]["front"])
        assert sum(n for *_, n, _ in points) >= 3999  # one is not valid
        assert max(y for _, y, *_ in points) == pytest.approx(found.reward[0], rel=1e-4)
    rewards = [
        drawn["axes"]["cost"]["points"][i] for i in drawn["axes"]["cost"]["front"]
    ]
    assert [p[:2] for p in rewards] == sorted(p[:2] for p in rewards)
    best = max(drawn["architectures"], key=lambda a: a["reward"])
    assert best["encoding"].count("|") == 5 and "node 1" in best["text"]


# ---- words --------------------------------------------------------------------------


def test_a_collapse_is_told_with_its_round_and_reason(tmp_path):
    folder = make(tmp_path / "run")
    with Store(folder, 0) as store:
        store.add_round(3, record(3, distinct=0.05))
    text = sentences(folder)
    assert "collapsed in round 4: only 1 of 20 samples are different" in text
    assert "To avoid it: raise strategy.entropy_weight" in text


def test_relaxed_weights_are_told_of(tmp_path):
    folder = make(tmp_path / "run")
    assert "Hessian" not in sentences(folder)
    with Store(folder, 0) as store:
        for round, hessian in ((1, 0.5), (2, 2.0), (3, None)):
            relaxed = {"alpha_entropy": 1.6 - 0.1 * round, "hessian": hessian}
            skips = {"derived_skip_share": 0.25 * round, "entropy": None}
            store.add_round(round, record(round) | relaxed | skips)
    text = sentences(folder)
    assert "collapsed in round 4: 75% of the derived ops are skips" in text
    assert "strategy.name=p_darts, max_skips" in text and "stop early" in text
    assert "relaxed weights fell from 1.5 to 1.3 nats a decision" in text
    assert "eigenvalue of the validation loss rose from 0.5 to 2." in text


def test_what_a_finished_search_is_said_to_have_found(tmp_path):
    text = sentences(finish(make(tmp_path / "run")))
    assert "1 of 100 trials are not valid: diverged." in text
    assert "The winner of 1 candidates has 0.8100 on the whole" in text
    assert "+15.00 ± 1.22 points: the winner is better" in text
    assert "collapsed" not in text


def test_an_unfinished_search_is_told_how_to_go_on(tmp_path):
    folder = make(tmp_path / "run")
    record_command(folder, "python -m launch.search --config=x.py --workdir=w")
    text = sentences(folder)
    assert "at round 5 of 30" in text
    assert text.endswith(
        "To continue: python -m launch.search --config=x.py --workdir=w"
    )


# ---- the page -----------------------------------------------------------------------


class Reader(html.parser.HTMLParser):
    """Collects what a page refers to, its data, and whether tags are closed."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.text, self.data = [], [], "", None

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "link", "br", "input"):
            self.open.append(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"] and data.lstrip().startswith("{"):
            self.data = json.loads(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    assert not reader.open and len(text.encode()) < MAX_BYTES
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text and "{{" not in text
    return reader.data


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A finished and an unfinished search of one space, and their page."""
    folder = tmp_path_factory.mktemp("runs")
    finished = finish(make(folder / "first"))
    other = make(folder / "second", settings=config(seed=1))
    return page(read_runs([str(finished), str(other)]), count=3)


def test_a_page_stands_alone_and_holds_all_runs(both):
    data = read(both)
    first, second = data["runs"]
    assert (first["name"], second["name"]) == ("first", "second")
    assert first["facts"]["time of the search"] == "1m30s"
    assert first["drawn"][0]["title"] == "winner of the final choice"
    assert "nor_conv_3x3</text>" in first["drawn"][0]["svg"]
    assert len(first["scatter"]["axes"]["params"]["points"]) == 3
    assert [row["n"] for row in data["retrained"]["rows"]] == [1, 2]
    assert data["retrained"]["rows"][1]["spread"] == pytest.approx(0.0707, abs=1e-4)
    assert data["differences"] == [["train.seed", "0", "1"]]


def test_a_search_that_has_scored_nothing_has_a_page_that_says_so(tmp_path):
    write_json(tmp_path / "config.json", as_json(config()))
    data = read(page(read_runs([str(tmp_path)])))
    (run,) = data["runs"]
    assert run["diagnoses"][0] == ["bad", "This search has scored nothing yet."]
    assert run["scatter"]["axes"]["trial"]["points"] == [] and run["drawn"] == []
    with Store(tmp_path, 0) as store:
        store.add_round(0, record(0) | {"reward_mean": None, "reward_max": None})
    assert "1 rounds of training have passed" in sentences(tmp_path)


def test_text_of_the_user_s_cannot_end_the_script(tmp_path):
    folder = make(tmp_path / "run", rounds=1, trials=5)
    record_command(folder, "x </script><script>alert(1)</script>")
    data = read(page(read_runs([str(folder)]), count=0))
    assert data["runs"][0]["commands"] == ["x </script><script>alert(1)</script>"]


@pytest.mark.slow
def test_a_search_of_100_000_trials_is_aggregated(tmp_path):
    folder = make(tmp_path / "run", rounds=1000, trials=100)
    data = read(page(read_runs([str(folder)]), count=3))
    assert len(data["runs"][0]["curves"]["entropy"]["x"]) == 240


@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_draws_the_charts_without_an_error(both, tmp_path, width):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium")
    (tmp_path / "report.html").write_text(both)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    flags += ["--enable-logging=stderr", f"--window-size={width},900"]
    done = subprocess.run(
        [browser, *flags, f"file://{tmp_path}/report.html"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count('class="chart"') == 10  # 7 curves, 2 of ops, the scatter
    assert done.stdout.count('class="point"') == 6


def test_an_animation_has_a_frame_a_new_best(tmp_path):
    run = read_run(make(tmp_path / "run", rounds=3, trials=4))
    found = improvements(run)
    rewards = [reward for *_, reward in found]
    assert rewards == sorted(rewards) and rewards[-1] == np.nanmax(run.trials.reward)
    assert write_animation(tmp_path / "best.gif", run) == len(found)
    with Image.open(tmp_path / "best.gif") as animation:
        assert animation.format == "GIF" and animation.n_frames == len(found)
    write_json(tmp_path / "config.json", as_json(config()))
    with pytest.raises(ValueError, match="scored nothing yet"):
        write_animation(tmp_path / "no.gif", read_run(tmp_path))


# ---- what goes wrong ----------------------------------------------------------------


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no config.json: it is not the workdir"):
        read_runs([str(tmp_path)])
    (tmp_path / "config.json").write_text('{"name": "other"}')
    with pytest.raises(UserError, match="config.json is not as cellwright writes it"):
        read_runs([str(tmp_path)])


def test_workdirs_of_different_spaces_do_not_go_together(tmp_path):
    first = make(tmp_path / "a", rounds=1, trials=1)
    other = config({"name": "nasbench201", "channels": 2, "cells": 1, "nodes": 3})
    second = tmp_path / "b"
    second.mkdir()
    write_json(second / "config.json", as_json(other))
    message = "a searches nasbench201 of 6 decisions .*, b nasbench201 of 3 decisions"
    with pytest.raises(UserError, match=message):
        read_runs([str(first), str(second)])
    with pytest.raises(UserError, match="name each workdir once"):
        read_runs([str(first), f"{first}/"])
