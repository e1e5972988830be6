"""Arguments that a config hands on to a factory inside another one."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any


def build(
    where: str,
    factory: Callable[..., Any],
    given: Any,
    options: Mapping[str, Any] | None,
) -> Any:
    """``factory(given, **options)``.

    Args:
      where: names the options in messages.
      factory: its first parameter is not the user's.
      given: the first argument.
      options: keyword arguments, None for none.

    Raises:
      ValueError: on an unknown argument, with the known ones; and as the factory.
    """
    options = dict(options or {})
    _, *known = inspect.signature(factory).parameters
    for name in options:
        if name not in known:
            raise ValueError(f"{where} has no key {name!r}; known: {', '.join(known)}")
    return factory(given, **options)
