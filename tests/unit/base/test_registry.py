"""Tables of names: nothing is imported before it is asked for, and strangers are named."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint

import pytest

from geodl.base import registry as registry_module
from geodl.base.errors import MissingPackageError, NotSupportedError
from geodl.base.packages import require
from geodl.base.registry import Registry, lazy_attributes


def test_a_row_is_imported_on_first_use_only() -> None:
    sys.modules.pop("this", None)
    table = Registry("thing", {"dumps": "json:dumps", "bad": "no_such_module_at_all:x"})
    assert "bad" in table
    assert len(table) == 2
    assert list(table) == ["dumps", "bad"]
    assert table["dumps"] is json.dumps


def test_unknown_name_gets_the_nearest_known_one() -> None:
    table = Registry("model", {"UnetClassifier": "json:dumps", "DeepLab": "json:loads"})
    with pytest.raises(NotSupportedError, match=r"no model 'UnetClasifier'.*'UnetClassifier'\?"):
        table["UnetClasifier"]
    with pytest.raises(NotSupportedError, match="Known: DeepLab, UnetClassifier"):
        table["qqq"]


def test_get_gives_the_default_as_any_mapping_does() -> None:
    table = Registry("model", {"a": "json:dumps"})
    assert table.get("b") is None
    assert table.get("b", 3) == 3
    assert table.get("a") is json.dumps


def test_entry_points_extend_but_never_replace(monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(*, group: str) -> list[EntryPoint]:
        assert group == "geodl.things"
        return [
            EntryPoint("loads", "json:loads", group),
            EntryPoint("dumps", "json:loads", group),
        ]

    monkeypatch.setattr(registry_module, "entry_points", foreign)
    table = Registry("thing", {"dumps": "json:dumps"}, group="geodl.things")
    assert set(table) == {"dumps", "loads"}
    assert table["loads"] is json.loads
    assert table["dumps"] is json.dumps


def test_lazy_attributes_import_and_refuse() -> None:
    getter = lazy_attributes("some.module", {"dumps": "json:dumps"})
    assert getter("dumps") is json.dumps
    with pytest.raises(AttributeError, match=r"'some.module' has no attribute 'dumsp'.*'dumps'"):
        getter("dumsp")


def test_require_returns_the_module() -> None:
    assert require("json", "test") is json


def test_require_names_the_extra() -> None:
    with pytest.raises(MissingPackageError, match=r"'no_such_pkg'.*geodl\[points\]") as caught:
        require("no_such_pkg.part", "points")
    assert isinstance(caught.value, ImportError)
