"""Reports: what is read, said and drawn of workdirs, as one file that stands alone."""

import html.parser
import json

import numpy as np
import pytest
from PIL import Image

from launch.command import UserError
from launch.figures.animation import improvements, write_animation
from launch.report import read_runs
from launch.reporting.page import MAX_BYTES, page
from launch.reporting.run import curves, read_run, scored
from launch.reporting.scatter import cost_names, pareto, scatter
from launch.reporting.words import diagnoses
from launch.settings import as_json
from launch.store import Row, Store
from launch.workdir import record_command, write_json


def sentences(workdir):
    run = read_run(workdir)
    return " ".join(sentence for _, sentence in diagnoses(run, scored(run.trials)))


# ---- numbers ------------------------------------------------------------------------


def test_the_best_reward_so_far_never_falls(runs):
    found = curves([runs.record(round) for round in range(4)])
    assert found["best"] == {"x": [1, 2, 3, 4], "y": [0.5] * 4}
    assert found["reward_mean"]["y"] == [0.3, 0.31, 0.32, 0.33]
    assert curves([]) == {}


def test_many_rounds_become_means_of_equal_numbers_of_them(runs):
    found = curves([runs.record(round) for round in range(2400)])["reward_mean"]
    assert len(found["x"]) == 240 and found["x"][:2] == [5.5, 15.5]
    assert found["y"][1] == pytest.approx(0.3 + 0.01 * 14.5)


def test_the_front_has_the_points_that_none_beats():
    x, y = np.array([3.0, 1, 2, 2, 4]), np.array([0.5, 0.2, 0.4, 0.3, 0.5])
    assert pareto(x, y) == [1, 2, 0]


def test_a_large_search_keeps_its_best_and_its_front_in_the_scatter(runs, tmp_path):
    run = read_run(runs.make(tmp_path / "run", rounds=40, trials=100))
    found = scored(run.trials)
    drawn = scatter(run, found, {}, 120)
    for name in ("trial", "cost0"):
        points = drawn["axes"][name]["points"]
        assert len(points) <= 120 + len(drawn["axes"][name]["front"])
        assert sum(n for *_, n, _ in points) >= 3999  # one is not valid
        assert max(y for _, y, *_ in points) == pytest.approx(found.reward[0], rel=1e-4)
    rewards = [
        drawn["axes"]["cost0"]["points"][i] for i in drawn["axes"]["cost0"]["front"]
    ]
    assert [p[:2] for p in rewards] == sorted(p[:2] for p in rewards)
    best = max(drawn["architectures"], key=lambda a: a["reward"])
    assert best["encoding"].count("|") == 5 and "node 1" in best["text"]


def test_values_that_are_not_finite_are_no_points_of_a_curve(runs):
    losses = [2.0, float("nan"), 1.0, float("inf")]
    records = [runs.record(i) | {"child_loss": x} for i, x in enumerate(losses)]
    assert curves(records)["child_loss"] == {"x": [1, 3], "y": [2, 1]}


def test_every_objective_of_a_trial_is_an_axis(runs, tmp_path):
    folder = runs.make(tmp_path / "run", rounds=1, trials=5)
    cell = "0,0,0,0,0,0"
    with Store(folder, 0) as store:
        rows = [
            Row(0, i, cell, 0.5, True, None, cell, cost=json.dumps([1.0, 20.0 + i]))
            for i in range(2)
        ]
        store.add_trials(rows)  # in place of two that have one
    run = read_run(folder)
    axes = scatter(run, scored(run.trials), {}, 100)["axes"]
    assert [of["label"] for of in axes.values()] == ["trial", "cost 1", "cost 2"]
    assert sorted(x for x, *_ in axes["cost1"]["points"]) == [20.0, 21.0]
    run = run._replace(config={"evaluator": {"name": "tabular"}})
    assert cost_names(run.config, 1) == ["seconds of training"]


# ---- words --------------------------------------------------------------------------


def test_a_collapse_is_told_with_its_round_and_reason(runs, tmp_path):
    folder = runs.make(tmp_path / "run")
    with Store(folder, 0) as store:
        store.add_round(3, runs.record(3, distinct=0.05))
    text = sentences(folder)
    assert "collapsed in round 4: only 1 of 20 samples are different" in text
    assert "To avoid it: raise strategy.entropy_weight" in text


def test_relaxed_weights_are_told_of(runs, tmp_path):
    folder = runs.make(tmp_path / "run")
    assert "Hessian" not in sentences(folder)
    with Store(folder, 0) as store:
        for round, hessian in ((1, 0.5), (2, 2.0), (3, None)):
            relaxed = {"alpha_entropy": 1.6 - 0.1 * round, "hessian": hessian}
            skips = {"derived_skip_share": 0.25 * round, "entropy": None}
            store.add_round(round, runs.record(round) | relaxed | skips)
    text = sentences(folder)
    assert "collapsed in round 4: 75% of the derived ops are skips" in text
    assert "strategy.name=p_darts, max_skips" in text and "stop early" in text
    assert "relaxed weights fell from 1.5 to 1.3 nats a decision" in text
    assert "eigenvalue of the validation loss rose from 0.5 to 2." in text


def test_what_a_finished_search_is_said_to_have_found(runs, tmp_path):
    text = sentences(runs.finish(runs.make(tmp_path / "run")))
    assert "1 of 100 trials are not valid: diverged." in text
    assert "The winner of 1 candidate has 0.8100 on the whole" in text
    assert "+15.00 ± 1.22 points: the winner is better" in text
    assert "collapsed" not in text


def test_an_unfinished_search_is_told_how_to_go_on(runs, tmp_path):
    folder = runs.make(tmp_path / "run")
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


def test_a_page_stands_alone_and_holds_all_runs(two_runs):
    data = read(two_runs)
    first, second = data["runs"]
    assert (first["name"], second["name"]) == ("first", "second")
    assert first["facts"]["time of the search"] == "1m30s"
    assert first["drawn"][0]["title"] == "winner of the final choice"
    assert "nor_conv_3x3</text>" in first["drawn"][0]["svg"]
    assert len(first["scatter"]["axes"]["params"]["points"]) == 3
    assert [row["n"] for row in data["retrained"]["rows"]] == [1, 2]
    assert data["retrained"]["rows"][1]["spread"] == pytest.approx(0.0707, abs=1e-4)
    assert data["differences"] == [["train.seed", "0", "1"]]


def test_a_search_that_has_scored_nothing_has_a_page_that_says_so(runs, tmp_path):
    write_json(tmp_path / "config.json", as_json(runs.config()))
    data = read(page(read_runs([str(tmp_path)])))
    (run,) = data["runs"]
    assert run["diagnoses"][0] == ["bad", "This search has scored nothing yet."]
    assert run["scatter"]["axes"]["trial"]["points"] == [] and run["drawn"] == []
    with Store(tmp_path, 0) as store:
        store.add_round(0, runs.record(0) | {"reward_mean": None, "reward_max": None})
    assert "1 round of training has passed" in sentences(tmp_path)


def test_text_of_the_user_s_cannot_end_the_script(runs, tmp_path):
    folder = runs.make(tmp_path / "run", rounds=1, trials=5)
    command = "x </script><!--<script>alert(1)</script>"
    record_command(folder, command)
    text = page(read_runs([str(folder)]), count=0)
    assert read(text)["runs"][0]["commands"] == [command] and "<!--" not in text


def test_a_workdir_without_its_data_has_a_report(runs, tmp_path):
    settings = runs.config()
    folder = runs.make(tmp_path / "run", rounds=1, trials=5, settings=settings)
    gone = as_json(settings)
    gone["data"]["name"] = f"npz:{tmp_path}/gone.npz"
    write_json(folder / "config.json", gone)
    (run,) = read(page(read_runs([str(folder)])))["runs"]
    assert "not counted without the data set: config.data" in run["diagnoses"][-1][1]
    assert run["counted"][0] == 0 and "nor_" in run["drawn"][0]["svg"]


def test_a_search_in_stages_is_shown_by_the_stage_that_it_is_in(runs, tmp_path):
    (tmp_path / "run").mkdir()
    for stage, rounds in ((1, 2), (2, 1)):
        runs.make(tmp_path / f"run/stage_{stage}", rounds=rounds, trials=5)
    (found,) = read_runs([str(tmp_path / "run")]).items()
    assert found[0] == "run" and len(found[1].rounds) == 1
    runs.make(tmp_path / "run", rounds=3, trials=5)  # the last stage
    (last,) = read_runs([str(tmp_path / "run")]).values()
    assert len(last.rounds) == 3


def test_a_winner_that_was_no_trial_has_its_text(runs, tmp_path):
    folder = runs.finish(runs.make(tmp_path / "run", rounds=1, trials=5))
    (run,) = read(page(read_runs([str(folder)]), count=0))["runs"]
    text = run["drawn"][0]["encoding"]
    assert text.startswith("|nor_conv_3x3~0|+|nor_conv_3x3~0|")


@pytest.mark.slow
def test_a_search_of_100_000_trials_is_aggregated(runs, tmp_path):
    folder = runs.make(tmp_path / "run", rounds=1000, trials=100)
    data = read(page(read_runs([str(folder)]), count=3))
    assert len(data["runs"][0]["curves"]["entropy"]["x"]) == 240


def test_an_animation_has_a_frame_a_new_best(runs, tmp_path):
    run = read_run(runs.make(tmp_path / "run", rounds=3, trials=4))
    found = improvements(run)
    rewards = [reward for *_, reward in found]
    assert rewards == sorted(rewards) and rewards[-1] == np.nanmax(run.trials.reward)
    assert write_animation(tmp_path / "best.gif", run) == len(found)
    with Image.open(tmp_path / "best.gif") as animation:
        assert animation.format == "GIF" and animation.n_frames == len(found)
    write_json(tmp_path / "config.json", as_json(runs.config()))
    with pytest.raises(ValueError, match="scored nothing yet"):
        write_animation(tmp_path / "no.gif", read_run(tmp_path))


# ---- what goes wrong ----------------------------------------------------------------


def test_a_foreign_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no config.json: it is not the workdir"):
        read_runs([str(tmp_path)])
    (tmp_path / "config.json").write_text('{"name": "other"}')
    with pytest.raises(UserError, match="config.json is not as cellwright writes it"):
        read_runs([str(tmp_path)])


def test_workdirs_of_different_spaces_do_not_go_together(runs, tmp_path):
    first = runs.make(tmp_path / "a", rounds=1, trials=1)
    other = runs.config({"name": "nasbench201", "channels": 2, "cells": 1, "nodes": 3})
    second = tmp_path / "b"
    second.mkdir()
    write_json(second / "config.json", as_json(other))
    message = "a searches nasbench201 of 6 decisions .*, b nasbench201 of 3 decisions"
    with pytest.raises(UserError, match=message):
        read_runs([str(first), str(second)])
    with pytest.raises(UserError, match="name each workdir once"):
        read_runs([str(first), f"{first}/"])
