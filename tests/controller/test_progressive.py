"""Surrogates, and progressive search on spaces without blocks."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, spearmanr

from child_models.spaces.nasnet_spec import cell_spec
from child_models.spaces.pnas_cell import pnas_cell
from controller.spec import Decision, DecisionSpec, Distinct
from controller.strategies import expansion
from controller.strategies.progressive import progressive
from controller.surrogates import SURROGATES, linear, pairwise_features
from controller.types import Trial

SPEC = DecisionSpec(tuple(Decision(f"d{i}", tuple("abc"), "op") for i in range(4)))
ALL = jnp.array(list(SPEC.enumerate()), jnp.int32)
OPTIONS = {
    "linear": {"ridge": 1e-4},
    "mlp": {"width": 8, "hidden": 8, "steps": 150},
    "lstm": {"width": 8, "hidden": 8, "steps": 150},
}


def pairwise(decisions):
    """A reward with an interaction; its one optimum is (2, 2, 0, 1)."""
    d = decisions
    both = (d[..., 0] == 2) & (d[..., 1] == 2)
    return 0.3 * both + 0.2 * (d[..., 2] == 0) + 0.1 * (d[..., 3] == 1)


def test_features_of_equal_rows_have_the_product_one():
    x = np.asarray(pairwise_features(SPEC, ALL))
    assert x.shape == (81, 4 * 3 + 6 * 9)
    gram = x @ x.T
    np.testing.assert_allclose(np.diag(gram), 1, rtol=1e-6)
    same = np.sum(np.asarray(ALL)[:, None] == np.asarray(ALL)[None], axis=2)
    np.testing.assert_allclose(gram, same / 8 + same * (same - 1) / 24, atol=1e-6)


def test_linear_is_ridge_regression_on_normal_quantiles():
    """The dual solution equals the primal one."""
    rows = ALL[::3]
    reward = jax.random.normal(jax.random.key(0), (27,))
    mask = jnp.arange(27) < 20
    model = linear(SPEC, ridge=0.1)
    theta = jax.jit(model.fit)(jax.random.key(0), rows, reward, mask)
    x = np.asarray(pairwise_features(SPEC, rows))[:20]
    y = norm.ppf((np.argsort(np.argsort(np.asarray(reward)[:20])) + 0.5) / 20)
    primal = np.linalg.solve(x.T @ x + 0.1 * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(theta, primal, atol=1e-4)


def test_equal_rewards_are_equal_targets():
    """So that the order of the trials does not matter."""
    rows, mask = ALL[:8], jnp.arange(8) < 6
    reward = jnp.array([0.1, 0.9, 0.1, 0.1, 0.5, 0.5, 0.0, 2.0])
    fit = jax.jit(linear(SPEC).fit)
    theta = fit(jax.random.key(0), rows, reward, mask)
    swapped = jnp.array([3, 5, 2, 0, 4, 1, 6, 7])
    again = fit(jax.random.key(0), rows[swapped], reward[swapped], mask)
    np.testing.assert_allclose(again, theta, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_networks_predict_in_parts(name, monkeypatch, quick_jit):
    module = importlib.import_module("controller.surrogates")
    model = SURROGATES[name](SPEC, width=4, hidden=4, steps=1)
    params = quick_jit(model.fit)(
        jax.random.key(0), ALL[:6], pairwise(ALL[:6]), jnp.ones(6, bool)
    )
    whole = quick_jit(model.predict)(params, ALL)
    monkeypatch.setattr(module, "_PART", 20)  # 81 = 4 * 20 + 1
    parts = quick_jit(lambda *args: model.predict(*args))(params, ALL)
    assert whole.shape == (81,) and np.std(whole) > 0
    np.testing.assert_allclose(parts, whole, atol=1e-5)


@pytest.mark.parametrize("name", SURROGATES)
def test_surrogates_rank_what_they_have_not_seen(name):
    model = SURROGATES[name](SPEC, **OPTIONS[name])
    order = jax.random.permutation(jax.random.key(0), 81)
    seen, unseen = ALL[order[:50]], ALL[order[50:]]
    mask = jnp.arange(50) < 45

    @jax.jit
    def predicted(reward):
        params = model.fit(jax.random.key(1), seen, reward, mask)
        return model.predict(params, unseen)

    reward = jnp.where(mask, pairwise(seen), jnp.nan)  # what is masked is never read
    found = np.corrcoef(predicted(reward), pairwise(unseen))[0, 1]
    assert found > 0.8


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_networks_rank_a_further_block_by_those_of_one_block(name):
    """As progressive search asks: when it adds a second block, no trial has one."""
    spec = cell_spec(("cell",), 2, tuple("pqrst"), add_only=True, fewer=True)
    worth = np.array([0.0, 0.1, 0.3, 0.6, 1.0])

    def reward(rows):
        """The mean worth of the ops of the blocks that there are."""
        ops = rows[:, [3, 4, 7, 8]]
        there = (np.arange(2) <= rows[:, :1]).repeat(2, axis=1)
        return np.sum(worth[ops] * there, axis=1) / there.sum(axis=1)

    first, second = spec.expansions(0), spec.expansions(1)
    seen = np.zeros((len(first), spec.length), np.int32)
    seen[:, 1:5] = first
    parents = seen[np.argsort(-reward(seen))[:3]]
    rows = np.repeat(parents, len(second), axis=0)
    rows[:, 0], rows[:, 5:] = 1, np.tile(second, (3, 1))
    model = SURROGATES[name](spec, width=8, hidden=16, steps=100, members=3)

    @jax.jit
    def predicted(reward):
        mask = jnp.ones(len(seen), bool)
        params = model.fit(jax.random.key(0), jnp.asarray(seen), reward, mask)
        return model.predict(params, jnp.asarray(rows))

    found = np.asarray(predicted(jnp.asarray(reward(seen), jnp.float32)))
    for pair in zip(np.split(found, 3), np.split(reward(rows), 3), strict=True):
        assert spearmanr(*pair).statistic > 0.8


def run(strategy, steps, n, key=0, reward_of=pairwise):
    def step(state, key):
        propose_key, update_key = jax.random.split(key)
        proposal, state = strategy.propose(propose_key, state, n)
        reward = reward_of(proposal.decisions)
        trial = Trial(proposal, reward, jnp.isfinite(reward))
        return strategy.update(update_key, state, trial)[0], proposal.decisions

    key = jax.random.key(key)
    return jax.jit(
        lambda: jax.lax.scan(step, strategy.init(key), jax.random.split(key, steps))
    )()


def test_it_finds_the_optimum_in_a_fraction_of_the_space():
    strategy = progressive(
        SPEC,
        beam=2,
        first=12,
        surrogate="linear",
        surrogate_options={"ridge": 1e-3},
        capacity=64,
    )
    state, rows = run(strategy, 12, 2)
    assert (2, 2, 0, 1) in {tuple(r) for r in np.asarray(rows).reshape(-1, 4).tolist()}
    best = strategy.best(jax.random.key(0), state, 3)
    np.testing.assert_array_equal(best[0], [2, 2, 0, 1])


def test_what_is_under_way_is_not_proposed_again():
    strategy = progressive(SPEC, beam=3, first=6, surrogate="linear", capacity=128)
    state = strategy.init(jax.random.key(0))
    pending, seen = [], []
    propose, update = (
        jax.jit(strategy.propose, static_argnums=2),
        jax.jit(strategy.update),
    )
    for step in range(24):
        proposal, state = propose(jax.random.key(step), state, 1)
        pending.append(proposal)
        seen.append(tuple(proposal.decisions[0].tolist()))
        if len(pending) == 3:
            done = pending.pop(0)
            reward = pairwise(done.decisions)
            trial = Trial(done, reward, jnp.ones(1, bool))
            state, _ = update(jax.random.key(step), state, trial)
    drawn = seen[:6]  # may repeat
    assert len(set(seen[6:])) == 18 and not set(seen[6:]) & set(drawn)


def test_cells_of_invalid_trials_are_not_extended():
    ops = ("identity", "sep_conv_3x3")
    spec = pnas_cell(blocks=2, fewer=True, ops=ops, classes=10).spec
    strategy = progressive(
        spec,
        beam=999,
        capacity=16,
        surrogate="linear",
        surrogate_options={"ridge": 1.0},
    )
    start = strategy.init(jax.random.key(0))
    total = int(start.length)
    proposal, state = strategy.propose(jax.random.key(0), start, total)
    bad = np.arange(total) % 2 == 0
    trial = Trial(proposal, jnp.arange(1.0 * total), jnp.asarray(~bad))
    state, _ = jax.jit(strategy.update)(jax.random.key(1), state, trial)
    assert int(state.level) == 1
    extended = np.asarray(state.queue[: int(state.length)])
    first = [t for t, d in enumerate(spec.decisions) if d.node == 0]
    parents = {tuple(row) for row in extended[:, first].tolist()}
    cells = np.asarray(proposal.decisions)[:, first]
    assert parents and parents <= {tuple(row) for row in cells[~bad].tolist()}


def test_a_network_that_contradicts_the_surrogate_is_refused():
    message = "surrogate_options.network is 'lstm' and surrogate 'mlp'; leave the"
    with pytest.raises(ValueError, match=message):
        progressive(SPEC, surrogate="mlp", surrogate_options={"network": "lstm"})
    progressive(SPEC, surrogate="mlp", surrogate_options={"network": "mlp"})


def test_nothing_is_tried_twice_until_all_is():
    strategy = progressive(SPEC, beam=3, first=6, surrogate="linear", capacity=128)
    _, rows = run(strategy, 27, 3)
    rows = np.asarray(rows).reshape(-1, 4)
    assert len(np.unique(rows[6:], axis=0)) == len(rows) - 6


@pytest.mark.parametrize("bound", ["ENUMERABLE", "INDEXED"])
def test_large_spaces_are_ranked_by_a_pool(monkeypatch, bound):
    module = importlib.import_module("controller.strategies.progressive")
    monkeypatch.setattr(module, bound, 10)
    strategy = progressive(
        SPEC, beam=4, first=8, surrogate="linear", pool=64, capacity=64
    )
    _, rows = run(strategy, 12, 4)
    rows = np.asarray(rows).reshape(-1, 4)
    assert len(np.unique(rows[8:], axis=0)) == len(rows) - 8
    assert (2, 2, 0, 1) in {tuple(r) for r in rows.tolist()}


def test_mutations_of_the_pool_have_parents_that_were_tried(quick_jit):
    spec = DecisionSpec(
        tuple(Decision(f"d{i}", tuple("abcd"), "op") for i in range(3)),
        rule=Distinct(((0, 1, 2),)),
    )
    source = expansion.pool(spec, 2, 20)
    candidates = quick_jit(source.candidates)
    legal = quick_jit(jax.vmap(spec.is_legal))
    state = progressive(spec, surrogate="linear", capacity=8).init(jax.random.key(0))
    decisions = jnp.zeros((8, 3), jnp.int32).at[0].set(jnp.array([3, 1, 2]))
    for count in (0, 1):
        state = state.replace(decisions=decisions, count=jnp.int32(count))
        rows, _ = candidates(jax.random.key(1), state)
        assert legal(rows).all()
    assert np.all(np.sum(np.asarray(rows[:10]) != [3, 1, 2], axis=1) == 1)


def test_invalid_trials_are_not_learnt_from():
    def some(decisions):
        return jnp.where(decisions[:, 0] == 0, jnp.nan, pairwise(decisions))

    strategy = progressive(SPEC, beam=4, first=8, surrogate="linear", capacity=64)
    state, rows = run(strategy, 8, 4, reward_of=some)
    valid = np.sum(np.asarray(rows)[..., 0] != 0)
    assert int(state.count) == valid
    assert np.isfinite(state.reward).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"beam": 0}, "beam is 0"),
        ({"surrogate": "gp"}, "surrogate is 'gp'; known: linear, lstm, mlp"),
        (
            {"surrogate": "linear", "surrogate_options": {"steps": 3}},
            "surrogate_options has no key 'steps'; known: ridge",
        ),
    ],
)
def test_mistakes_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        progressive(SPEC, **options)


# ---- levels of blocks ---------------------------------------------------------------

CELLS = cell_spec(("cell",), 2, ("x", "y"), add_only=True, fewer=True)
UNIQUE = {  # without the mirror images of blocks
    tuple(np.asarray(CELLS.canonical(np.array(d))).tolist()) for d in CELLS.enumerate()
}


def worth(decisions):
    """More blocks are better, and each has a best choice of its own."""
    d = decisions
    first = 0.1 * d[..., 1] + 0.2 * d[..., 4]
    second = 0.2 * (d[..., 5] == 1) + 0.1 * (d[..., 8] == 1)
    return 0.3 * d[..., 0] + first + jnp.where(d[..., 0] > 0, second, 0)


def test_the_first_level_is_every_cell_of_one_block_once():
    spec = pnas_cell(classes=10, fewer=True).spec
    strategy = progressive(spec, beam=4, surrogate="linear", capacity=16)
    state = strategy.init(jax.random.key(0))
    assert int(state.length) == 136  # as in the paper
    rows = np.asarray(state.queue[:136])
    assert not rows[:, 0].any()
    assert len({spec.encode(row) for row in rows}) == 136


def test_an_unbounded_beam_trains_every_cell_and_finds_the_best_of_each_level():
    strategy = progressive(CELLS, beam=1000, surrogate="linear", capacity=1024)
    singles = sum(row[0] == 0 for row in UNIQUE)
    state, rows = run(strategy, len(UNIQUE), 1, reward_of=worth)
    rows = [tuple(row) for row in np.asarray(rows)[:, 0].tolist()]
    assert {row[0] for row in rows[:singles]} == {0}
    assert {row[0] for row in rows[singles:]} == {1}
    assert set(rows) == UNIQUE
    for blocks in (0, 1):
        level = [row for row in UNIQUE if row[0] == blocks]
        trained = [row for row in rows if row[0] == blocks]
        best = max(worth(np.array(row)) for row in level)
        assert max(worth(np.array(row)) for row in trained) == best
    found = strategy.best(jax.random.key(0), state, 1)[0]
    everything = np.array(list(CELLS.enumerate()))
    assert worth(found) == worth(everything).max()


@pytest.mark.parametrize("name", SURROGATES)
def test_exchanged_sides_of_blocks_are_predicted_alike(name, quick_jit):
    """In canonical form, which all cells have that progressive search asks about."""
    cells = np.array(list(CELLS.enumerate()), np.int32)
    exchanged = cells.copy()  # the number of blocks, and then left, right, left, ...
    exchanged[:, 1:] = (
        cells[:, 1:].reshape(len(cells), -1, 2)[..., ::-1].reshape(len(cells), -1)
    )
    options = {} if name == "linear" else {"width": 4, "hidden": 4, "steps": 5}
    model = SURROGATES[name](CELLS, **options)

    @quick_jit
    def predicted(*tables):
        seen = CELLS.canonical(cells)[::5]
        params = model.fit(
            jax.random.key(0), seen, worth(seen), jnp.ones(len(seen), bool)
        )
        return [model.predict(params, table) for table in tables]

    one, other = predicted(CELLS.canonical(cells), CELLS.canonical(exchanged))
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) > 5
    raw, mirrored = predicted(cells, exchanged)
    assert np.abs(raw - mirrored).max() > 1e-3  # so that the form is needed


def test_a_narrow_beam_trains_what_is_predicted_to_be_best():
    strategy = progressive(CELLS, beam=5, surrogate="linear", capacity=64)
    singles = sum(row[0] == 0 for row in UNIQUE)
    state, rows = run(strategy, singles + 5, 1, reward_of=worth)
    last = np.asarray(rows)[singles:, 0]
    assert len(np.unique(last, axis=0)) == 5
    double = np.array([row for row in UNIQUE if row[0] == 1])
    assert worth(last).mean() > worth(double).mean()
    assert int(state.level) == 1
