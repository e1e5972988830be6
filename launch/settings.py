"""Settings: checking them against signatures, and comparing those of two runs.

The sections of a config that have no factory elsewhere are the dataclasses here.
"""

import dataclasses
import difflib
import hashlib
import inspect
import json
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from child_models.recipe import GROWTHS
from launch.command import UserError

# Keys that may differ when a search goes on in its workdir.
CHANGEABLE = frozenset(
    {
        "train.rounds",
        "train.checkpoint_seconds",
        "train.keep",
        "train.steps_per_call",
        "train.log_every",
        "train.show_every",
        "train.compilation_cache",
    }
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """How a search runs.

    Attributes:
      seed: of everything random in the search.
      rounds: how many; may be raised to go on with a finished search.
      checkpoint_seconds: between checkpoints; one is always written at the end.
      keep: number of checkpoints kept.
      steps_per_call: ticks of one compiled call; 0 for as many as take two seconds.
        Results do not depend on it.
      log_every: rounds between printed lines where there is no terminal.
      show_every: rounds after which the best architecture so far is printed, and drawn
        for TensorBoard, if it is another than before; 0 for never.
      dtype: "float32" or "bfloat16", of the children's activations.
      devices: that a batch of the search is split over; 0 for all there are.  Another
        number changes results by rounding only.
      deterministic: bit-for-bit results on GPU too, at the price of slower kernels.
      compilation_cache: a folder, "auto" for one in the user's cache, or "off".
      stages: of a search in stages, the arguments of the space in which each differs,
        e.g. its cells; every one has so many rounds.
    """

    seed: int
    rounds: int
    checkpoint_seconds: float = 60.0
    keep: int = 2
    steps_per_call: int = 0
    log_every: int = 1
    show_every: int = 10
    dtype: str = "float32"
    devices: int = 0
    deterministic: bool = False
    compilation_cache: str = "auto"
    stages: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self):
        for name, least in (
            ("seed", 0),
            ("rounds", 1),
            ("checkpoint_seconds", 0),
            ("keep", 1),
            ("steps_per_call", 0),
            ("log_every", 1),
            ("show_every", 0),
            ("devices", 0),
        ):
            if getattr(self, name) < least:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be {least} or more"
                )
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype is {self.dtype!r}; known: float32, bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Derive:
    """The final choice.

    Attributes:
      n: candidates that are scored again on the whole validation split.
    """

    n: int = 10

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"n is {self.n}; it must be 1 or more")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain:
    """How the final form of an architecture is trained from scratch.

    Attributes:
      space: arguments of the space that differ from the search's, e.g. layers.
      epochs: over train and validation together.
      batch_size: images of a step.
      learning_rate: peak of a cosine.
      min_learning_rate: its floor.
      restart_epochs: first period of a cosine with restarts; 0 for one cosine.
      restart_factor: each period is this many times as long as the one before.
      momentum: of SGD.
      nesterov: whether SGD looks ahead.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      pad: pixels of pad-and-crop augmentation.
      flip: whether images are mirrored at random.
      cutout: side of the square that is cut out of training images; 0 for none.
      drop_path: probability of dropping a path, to which it grows linearly from 0.
      drop_path_by: "step", reached at the last step; "epoch", as in DARTS,
        ``drop_path * epoch / epochs``.
      auxiliary_weight: of the auxiliary head's loss, where the final form has one.
      label_smoothing: share of a label's mass that is spread over all classes.
    """

    space: Mapping[str, Any] | None = None
    epochs: int = 100
    batch_size: int = 96
    learning_rate: float = 0.025
    min_learning_rate: float = 0.0
    restart_epochs: int = 0
    restart_factor: int = 2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 3e-4
    clip_norm: float | None = 5.0
    pad: int = 0
    flip: bool = False
    cutout: int = 0
    drop_path: float = 0.0
    drop_path_by: str = "step"
    auxiliary_weight: float = 0.4
    label_smoothing: float = 0.0

    def __post_init__(self):
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be 1 or more"
                )
        if self.drop_path_by not in GROWTHS:
            raise ValueError(
                f"drop_path_by is {self.drop_path_by!r}; known: {', '.join(GROWTHS)}"
            )
        for name in ("drop_path", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must be in [0, 1)"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
    """Random architectures that are retrained beside the winner.

    Attributes:
      n: how many.
    """

    n: int = 3

    def __post_init__(self):
        if self.n < 0:
            raise ValueError(f"n is {self.n}; it must be 0 or more")


# ---- checking -----------------------------------------------------------------------


def fill(
    where: str,
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    given: set[str] | frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Checks keyword arguments against a signature and adds its defaults.

    Args:
      where: names the section in messages.
      factory: whose signature counts.
      options: the arguments.
      given: parameters that are not the user's.

    Returns:
      all arguments, plain Python.

    Raises:
      UserError: on an unknown or missing key, or a value of another type.
    """
    parameters = _parameters(factory, given)
    filled = check(where, factory, options, given)
    for name, parameter in parameters.items():
        if name not in options and parameter.default is parameter.empty:
            raise UserError(f"{where}.{name} is missing; it has no default")
        filled.setdefault(name, to_dict(parameter.default))
    return {name: filled[name] for name in parameters}


def check(
    where: str,
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    given: set[str] | frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Checks some of the keyword arguments of `fill`, and adds nothing.

    Returns:
      the same arguments; integers where the signature says float are floats.
    """
    check_section(where, options)
    parameters = _parameters(factory, given)
    check_known(where, options, parameters)
    return {
        name: _typed(f"{where}.{name}", value, parameters[name])
        for name, value in options.items()
    }


def _parameters(factory, given) -> dict[str, inspect.Parameter]:
    signature = inspect.signature(factory, eval_str=True)
    return {
        name: parameter
        for name, parameter in signature.parameters.items()
        if name not in given and parameter.kind is not parameter.VAR_KEYWORD
    }


def check_section(where: str, value: Any) -> None:
    """Raises `UserError` on what holds no keys."""
    if not isinstance(value, Mapping):
        raise UserError(f"{where} is {value!r}; it must hold keys")


def check_known(where: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raises `UserError` on a name that is not known, and lists those that are."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            names = ", ".join(known)
            raise UserError(f"{where} has no key {key!r}; {hint}known: {names}")


_SIMPLE = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}


def _typed(where: str, value: Any, parameter: inspect.Parameter) -> Any:
    """The value; `UserError` where the annotation is simple and it is not of it."""
    annotation = parameter.annotation
    if isinstance(annotation, types.UnionType):
        members = typing.get_args(annotation)
    else:
        members = (annotation,)
    allowed: tuple[type, ...] = ()
    for member in members:
        if member is types.NoneType:
            allowed += (types.NoneType,)
        elif member in _SIMPLE:
            allowed += _SIMPLE[member]
        else:
            return value
    if isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool)):
        whole = type(value) is int and float in members and int not in members
        return float(value) if whole else value
    names = " or ".join("none" if m is types.NoneType else m.__name__ for m in members)
    raise UserError(f"{where} is {value!r}; it must be {names}")


def to_dict(value: Any) -> Any:
    """Plain Python containers of what may be a ConfigDict or another mapping."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: to_dict(item) for key, item in value.items()}
    return value


# ---- comparing ----------------------------------------------------------------------


def as_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config as JSON would give it back: plain, tuples as lists."""
    return json.loads(json.dumps(to_dict(config)))


def config_sha256(config: Mapping[str, Any]) -> str:
    """Hex digest of a resolved config."""
    text = json.dumps(as_json(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def search_sha256(config: Mapping[str, Any]) -> str:
    """Hex digest of the settings that trials depend on, the seed apart."""
    sections = ["data", "space", "strategy", "evaluator", "task", "schedule"]
    if config["objective"]["cost"] is not None:
        sections.append("objective")
    return config_sha256(
        {section: config[section] for section in sections}
        | {"dtype": config["train"]["dtype"]}
    )


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple]:
    """Dotted keys whose values differ, with both; `None` where one has no such key."""
    flat_old, flat_new = _flatten(as_json(old)), _flatten(as_json(new))
    return {
        key: (flat_old.get(key), flat_new.get(key))
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key) != flat_new.get(key)
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
