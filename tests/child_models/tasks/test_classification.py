import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.tasks.classification import classification

LOGITS = jnp.array([[0.0, np.log(2.0), 0.0, 0.0], [3.0, 1.0, 0.0, 0.0]])
LABELS = jnp.array([1, 1], jnp.int32)


def test_loss_by_hand():
    loss = jax.jit(classification(classes=4).loss)(LOGITS, LABELS)
    total = np.exp(3) + np.exp(1) + 2
    np.testing.assert_allclose(loss, [np.log(5 / 2), np.log(total) - 1], rtol=1e-6)


def test_smoothed_loss_by_hand():
    # 0.9 of the mass stays, and each class gets 0.1 / 4.
    loss = classification(classes=4, label_smoothing=0.1).loss(LOGITS[:1], LABELS[:1])
    expected = -(0.925 * np.log(2 / 5) + 3 * 0.025 * np.log(1 / 5))
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_smoothing_moves_the_minimum():
    task = classification(classes=4, label_smoothing=0.1)
    best = jnp.log(jnp.array([[0.025, 0.925, 0.025, 0.025]]))
    gradient = jax.grad(lambda x: task.loss(x, LABELS[:1]).sum())(best)
    np.testing.assert_allclose(gradient, np.zeros((1, 4)), atol=1e-6)


def test_metric_is_one_where_the_label_has_the_largest_logit():
    metric = jax.jit(classification(classes=4).metric)(LOGITS, LABELS)
    assert metric.dtype == jnp.float32
    assert metric.tolist() == [1.0, 0.0]


def test_loss_is_float32_for_bfloat16_logits():
    task = classification(classes=4)
    loss = task.loss(LOGITS.astype(jnp.bfloat16), LABELS)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, task.loss(LOGITS, LABELS), rtol=1e-2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "classes is 1; classification needs 2 or more"),
        (
            {"classes": 4, "label_smoothing": 1.0},
            r"label_smoothing is 1.0; .* \[0, 1\)",
        ),
        ({"classes": 4, "label_smoothing": -0.1}, "label_smoothing is -0.1"),
    ],
)
def test_arguments_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        classification(**arguments)


def test_logits_of_another_width_are_refused():
    task = classification(classes=5)
    for function in task:
        with pytest.raises(ValueError, match=r"logits are \(2, 4\); the task has 5"):
            function(LOGITS, LABELS)
