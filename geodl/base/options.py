"""Checks of names and values that callers pass in dictionaries and keywords."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from geodl.base.errors import OptionError, UnknownOptionError

_TRUE = frozenset({"true", "1", "t", "y", "yes"})
_FALSE = frozenset({"false", "0", "f", "n", "no"})


def nearest(name: str, known: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" Did you mean {match[0]!r}?" if match else ""


def check_known(
    given: Mapping[str, Any] | Iterable[str],
    known: Iterable[str],
    where: str,
    *,
    of: Callable[..., Any] | None = None,
) -> None:
    """Refuse names that nothing reads.

    Parameters
    ----------
    of
        The function whose ``**kwargs`` these are, so that a misspelt argument of its own is
        answered with the right name.

    Raises
    ------
    UnknownOptionError
        Names the first unknown one, the nearest known name, and all known names.
    """
    names = sorted({*known, *(_arguments(of) if of else ())})
    for name in given:
        if name not in names:
            raise UnknownOptionError(
                f"{where} has no option {name!r}.{nearest(name, names)} "
                f"Known: {', '.join(names) or 'none'}."
            )


def _arguments(function: Callable[..., Any]) -> list[str]:
    stars = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind not in stars]


def as_path(value: Any, name: str) -> Path:
    """A path of this machine, ``~`` expanded.

    Raises
    ------
    OptionError
        Neither text nor a path.
    """
    if not isinstance(value, (str, os.PathLike)):
        raise OptionError(f"{name}={value!r} is no path; give text or a pathlib.Path.")
    return Path(value).expanduser()


def as_mapping(value: Any, name: str) -> dict[str, Any]:
    """A dictionary of what was given by name; an empty one for None.

    Raises
    ------
    OptionError
        Something else.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{name}={value!r} is no dictionary of names and values.")
    return dict(value)


def check_choice(value: Any, choices: Iterable[Any], name: str) -> Any:
    """Return ``value`` if it is one of ``choices``.

    Raises
    ------
    OptionError
        Lists the choices and the nearest one.
    """
    allowed = list(choices)
    if value in allowed:
        return value
    raise OptionError(
        f"{name}={value!r} is not offered.{nearest(str(value), map(str, allowed))} "
        f"Choose one of: {', '.join(map(repr, allowed))}."
    )


def as_bool(value: Any, name: str) -> bool:
    """A bool from a bool, 0/1 or the texts true/1/t/y/yes and their opposites.

    Raises
    ------
    OptionError
        Anything else.
    """
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise OptionError(f"{name}={value!r} is neither true nor false; give True or False.")


def as_int(value: Any, name: str, *, minimum: int | None = None) -> int:
    """A whole number from a number or text, at least ``minimum``.

    Raises
    ------
    OptionError
        Not a whole number, or too small.
    """
    try:
        number = float(value)
        whole = int(number)
    except (TypeError, ValueError, OverflowError):
        raise OptionError(f"{name}={value!r} is not a whole number.") from None
    if whole != number or isinstance(value, bool):
        raise OptionError(f"{name}={value!r} is not a whole number.")
    if minimum is not None and whole < minimum:
        raise OptionError(f"{name}={whole} is too small; the least is {minimum}.")
    return whole


def as_float(
    value: Any, name: str, *, minimum: float | None = None, maximum: float | None = None
) -> float:
    """A finite number from a number or text, within ``[minimum, maximum]``.

    Raises
    ------
    OptionError
        Not a finite number, or outside the range.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name}={value!r} is not a number.") from None
    if number != number or number in (float("inf"), float("-inf")) or isinstance(value, bool):
        raise OptionError(f"{name}={value!r} is not a finite number.")
    low = minimum is not None and number < minimum
    high = maximum is not None and number > maximum
    if low or high:
        if maximum is None:
            raise OptionError(f"{name}={number:g} is too small; the least is {minimum:g}.")
        if minimum is None:
            raise OptionError(f"{name}={number:g} is too large; the most is {maximum:g}.")
        raise OptionError(f"{name}={number:g} lies outside {minimum}..{maximum}.")
    return number
