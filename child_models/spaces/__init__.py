"""Search spaces, by name, and the published architectures that lie in them.

>>> sorted(SPACES)[:3]
['amoeba_cell', 'darts', 'enas_macro']
>>> spec = SPACES["genetic_cnn"](classes=10, nodes=(3, 5), channels=(8, 16)).spec
>>> spec.length, spec.size()
(13, 8192)
>>> PUBLISHED["DARTS_V2"].space
'darts'
"""

from collections.abc import Callable

from child_models.spaces import amoeba_cell as _amoeba_cell
from child_models.spaces import darts as _darts
from child_models.spaces import darts_published as _darts_published
from child_models.spaces import enas_macro as _enas_macro
from child_models.spaces import enas_micro as _enas_micro
from child_models.spaces import genetic_cnn as _genetic_cnn
from child_models.spaces import large_scale as _large_scale
from child_models.spaces import mobile as _mobile
from child_models.spaces import nas_rl_cnn as _nas_rl_cnn
from child_models.spaces import nasbench101 as _nasbench101
from child_models.spaces import nasbench201 as _nasbench201
from child_models.spaces import nasnet as _nasnet
from child_models.spaces import pnas_cell as _pnas_cell
from child_models.types import Published, Space

SPACES: dict[str, Callable[..., Space]] = {
    "amoeba_cell": _amoeba_cell.amoeba_cell,
    "darts": _darts.darts,
    "enas_macro": _enas_macro.enas_macro,
    "enas_micro": _enas_micro.enas_micro,
    "genetic_cnn": _genetic_cnn.genetic_cnn,
    "large_scale": _large_scale.large_scale,
    "mobile": _mobile.mobile,
    "nas_rl_cnn": _nas_rl_cnn.nas_rl_cnn,
    "nasbench101": _nasbench101.nasbench101,
    "nasbench201": _nasbench201.nasbench201,
    "nasnet": _nasnet.nasnet,
    "pnas_cell": _pnas_cell.pnas_cell,
}
PUBLISHED: dict[str, Published] = {
    **_amoeba_cell.PUBLISHED,
    **_darts_published.PUBLISHED,
    **_enas_macro.PUBLISHED,
    **_enas_micro.PUBLISHED,
    **_mobile.PUBLISHED,
    **_nasbench201.PUBLISHED,
    **_nasnet.PUBLISHED,
    **_pnas_cell.PUBLISHED,
}
