"""Costs of a small network, by hand."""

import flax.linen as nn

from child_models.cost import Cost, count
from child_models.ops.layers import Conv, Dense, ReLUConvBN


class Head(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return Dense(10)(ReLUConvBN(6, train)(x).mean((1, 2)))


class Network(nn.Module):
    @nn.compact
    def __call__(self, choices, x, train, drop_path=0.0):
        features = (4, 8)[choices[0]]
        x = ReLUConvBN(features, train, kernel=(3, 3), strides=2)(x)
        x = nn.remat(Conv)(features, (1, 1))(x)
        if train or self.is_initializing():
            self.sow("auxiliary", "logits", Head(name="auxiliary_head")(x, train))
        return Dense(10)(x.mean((1, 2)))


def test_count():
    for choice, c in ((0, 4), (1, 8)):
        params = 27 * c + 2 * c + c * c + 10 * c + 10
        auxiliary = 6 * c + 12 + 60 + 10
        macs = 16 * (27 * c + c * c) + 10 * c
        assert count(Network(), (choice,), (8, 8, 3)) == Cost(params, auxiliary, macs)


def test_auxiliary_head_is_not_counted_where_it_runs():
    class Trained(nn.Module):
        @nn.compact
        def __call__(self, choices, x, train, drop_path=0.0):
            logits = Dense(10)(x.mean((1, 2)))
            return logits + Head(name="auxiliary_head")(x, train)

    assert count(Trained(), (), (8, 8, 3)).macs == 30


def test_nothing_is_computed():
    huge = (1 << 15, 1 << 15, 3)
    assert count(Network(), (1,), huge).macs == (1 << 28) * (27 * 8 + 64) + 80
