"""Lazy tables of names: ``"name": "module:attribute"``, extended by entry points."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from geodl.base.errors import NotSupportedError
from geodl.base.options import nearest


class Registry(Mapping[str, Any]):
    """A mapping whose values are imported on first use.

    Parameters
    ----------
    kind
        What the entries are, for messages: ``"model"``, ``"chip format"``.
    table
        Name to ``"module:attribute"``.
    group
        Entry-point group by which other packages add rows; our own rows win.
    """

    def __init__(self, kind: str, table: Mapping[str, str], group: str | None = None) -> None:
        self.kind = kind
        self._own = dict(table)
        self._group = group
        self._foreign: dict[str, str] | None = None
        self._loaded: dict[str, Any] = {}

    def _table(self) -> dict[str, str]:
        if self._foreign is None:
            points = entry_points(group=self._group) if self._group else ()
            self._foreign = {p.name: p.value for p in points}
        return {**self._foreign, **self._own}

    def register(self, name: str, target: str) -> None:
        """Add a row for this process; installed packages use the entry-point group instead."""
        self._own[name] = target
        self._loaded.pop(name, None)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            table = self._table()
            if name not in table:
                raise NotSupportedError(
                    f"There is no {self.kind} {name!r}.{nearest(name, table)} "
                    f"Known: {', '.join(sorted(table))}."
                )
            module, _, attribute = table[name].partition(":")
            self._loaded[name] = getattr(importlib.import_module(module), attribute)
        return self._loaded[name]

    def get(self, name: str, default: Any = None) -> Any:
        # Mapping.get waits for a KeyError, which an unknown name does not raise here.
        if name not in self:
            return default
        return self[name]

    def __contains__(self, name: object) -> bool:
        return name in self._table()

    def __iter__(self) -> Iterator[str]:
        return iter(self._table())

    def __len__(self) -> int:
        return len(self._table())


def lazy_attributes(module: str, table: Mapping[str, str]) -> Any:
    """A module-level ``__getattr__`` (PEP 562) that imports the names in ``table`` on first use."""

    def __getattr__(name: str) -> Any:
        if name not in table:
            raise AttributeError(
                f"module {module!r} has no attribute {name!r}.{nearest(name, table)}"
            )
        target, _, attribute = table[name].partition(":")
        return getattr(importlib.import_module(target), attribute)

    return __getattr__
