"""Parameters stacked over choices, and their rows in a fixed child."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.shared_params import extract, indexed_param, stacked_param

WIDTH, INPUTS = 4, 2
IMAGE = (2, 2, WIDTH)


def test_indexed_and_stacked_parameters_are_cut_out_of_shared_ones():
    class Own(nn.Module):
        @nn.compact
        def __call__(self, choices, x, train=True):
            init = nn.initializers.normal(1.0)
            w = indexed_param(self, "indexed", init, (WIDTH,), choices[0], INPUTS)
            rows = [2, 0] if isinstance(choices[0], int) else None
            s = stacked_param(self, "stacked", init, (WIDTH,), 3, rows)
            return x + (w + s.sum(0)).reshape(1, 1, 1, -1)

    x = jnp.zeros((2, *IMAGE))
    shared = Own().init(jax.random.key(0), (jnp.int32(0),), x)
    child = extract(Own(), (1,), shared, IMAGE)["params"]
    np.testing.assert_array_equal(child["indexed"], shared["params"]["indexed"][1])
    np.testing.assert_array_equal(
        child["stacked"], shared["params"]["stacked"][jnp.array([2, 0])]
    )
