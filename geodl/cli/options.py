"""Command-line options made from a function's signature, so that names and defaults never drift."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

# What only makes sense inside Python; for the client there is an option of its own.
NOT_HERE = frozenset({"future", "client", "collate_fn"})
_SEVERAL = (
    """; several as a folder, a pattern in quotes ('tiles/*.tif') """
    """or a JSON list ('["a.tif", "b.tif"]')"""
)
_Kinds = inspect.Parameter


class Pairs(argparse.Action):
    """``name=value ...`` into a dictionary; may be repeated. With ``scalar``, also one value."""

    def __init__(self, *args: Any, scalar: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scalar = scalar

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.scalar and len(values) == 1 and isinstance(read_value(values[0]), int | float):
            setattr(namespace, self.dest, read_value(values[0]))
            return
        before = getattr(namespace, self.dest, None)
        pairs = dict(before) if isinstance(before, dict) else {}
        for text in values:
            whole = read_value(text)
            if isinstance(whole, dict):
                pairs |= whole
                continue
            name, equals, value = text.partition("=")
            if not equals or not name:
                parser.error(f"{option_string}: {text!r} is neither NAME=VALUE nor a JSON object")
            pairs[name] = read_value(value)
        setattr(namespace, self.dest, pairs)


def read_value(text: str) -> Any:
    """A JSON value where the text is one (``0.3``, ``true``, ``[1, 2]``), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_source(text: str) -> Any:
    """A path as it stands, or a list of them from JSON (``["a.tif", "b.tif"]``)."""
    value = read_value(text) if text.lstrip().startswith("[") else text
    return value if isinstance(value, list) else text


def add_options(
    parser: argparse.ArgumentParser,
    function: Callable[..., Any],
    *,
    positional: Collection[str] = (),
    without: Collection[str] = (),
) -> list[str]:
    """Add one option for each parameter of ``function``.

    Parameters
    ----------
    parser
        Gets the options; those not given on the command line are absent from the namespace, so
        that the function's own defaults hold.
    positional
        Parameters that are arguments without a dash. They are taken as text, or as a JSON list of
        several.
    without
        Parameters that get no option, besides those that only make sense inside Python.

    Returns
    -------
    Names of the parameters that :func:`given` may find.
    """
    names = []
    helps = parameter_help(function)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (_Kinds.VAR_KEYWORD, _Kinds.VAR_POSITIONAL):
            continue
        if name in NOT_HERE or name in without or name == "self":
            continue
        names.append(name)
        text = helps.get(name, "").replace("%", "%%")
        if name in positional:
            text += _SEVERAL if name == "input_raster" else ""
            optional = parameter.default is not _Kinds.empty
            more: dict[str, Any] = {"nargs": "?", "default": argparse.SUPPRESS} if optional else {}
            parser.add_argument(name, help=text, type=read_source, **more)
        else:
            _add_option(parser, name, parameter, text)
    return names


def _add_option(
    parser: argparse.ArgumentParser, name: str, parameter: inspect.Parameter, text: str
) -> None:
    flag = "--" + name.replace("_", "-")
    default = parameter.default
    required = default is _Kinds.empty
    if not required and default is not None:
        text = f"{text} (default {default})"
    settings: dict[str, Any] = {"dest": name, "help": text, "default": argparse.SUPPRESS}
    if name == "gis":
        parser.add_argument(flag, type=_catalog, metavar="CATALOG", **settings)
    elif isinstance(default, bool) and "str" not in str(parameter.annotation):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
    elif "Mapping" in str(parameter.annotation):
        settings |= {"nargs": "+", "metavar": "NAME=VALUE", "required": required}
        scalar = "int" in str(parameter.annotation).replace("Mapping[str, int]", "")
        parser.add_argument(flag, action=Pairs, scalar=scalar, **settings)
    else:
        kind = _kind(parameter)
        parser.add_argument(flag, type=kind, metavar="VALUE", required=required, **settings)


def _kind(parameter: inspect.Parameter) -> Callable[[str], Any]:
    default = parameter.default
    if isinstance(default, int) and not isinstance(default, bool):
        return int if "float" not in str(parameter.annotation) else float
    if isinstance(default, float):
        return float
    if "PathLike" in str(parameter.annotation) or str(parameter.annotation).startswith("str"):
        return str
    return read_value


def _catalog(root: str) -> Any:
    from geodl.catalog.catalog import Catalog

    return Catalog(root)


def given(namespace: argparse.Namespace, names: Collection[str]) -> dict[str, Any]:
    """The parameters that stand on the command line."""
    return {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}


def parameter_help(function: Callable[..., Any]) -> dict[str, str]:
    """The first sentence about each parameter in a NumPy docstring."""
    return dict(_parameter_texts(inspect.getdoc(function) or ""))


def _parameter_texts(doc: str) -> Mapping[str, str]:
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\w[^\n]*\n-+\n|\Z)", doc, re.DOTALL)
    found: dict[str, str] = {}
    if section is None:
        return found
    for block in re.split(r"\n(?=\S)", section.group(1)):
        head, _, body = block.partition("\n")
        words = re.sub(r":\w+:`", "`", " ".join(body.split())).replace("`", "")
        sentence = re.split(r"(?<=[^.]{2}[.])\s", words, maxsplit=1)[0].rstrip(".")
        for name in head.split(","):
            found[name.strip().lstrip("*")] = sentence
    return found
