"""Every error of ours can be caught as ours and as the builtin that fits."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

import geodl
from geodl.base import errors

_ERRORS = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, Exception) and not issubclass(cls, Warning)
]


@pytest.mark.parametrize("cls", [c for c in _ERRORS if c is not errors.GeodlError])
def test_each_error_is_ours_and_a_builtin(cls: type[Exception]) -> None:
    assert issubclass(cls, errors.GeodlError)
    builtin = [
        base
        for base in cls.__mro__
        if base.__module__ == "builtins" and base not in (Exception, BaseException, object)
    ]
    assert builtin, f"{cls.__name__} is no builtin"
    assert str(cls("said")) == "said"


def test_an_output_that_exists_is_what_the_documented_api_promises() -> None:
    assert issubclass(errors.OutputExistsError, RuntimeError)
    assert issubclass(errors.OutputExistsError, FileExistsError)


def test_warnings_are_user_warnings() -> None:
    for cls in (errors.OfflineWarning, errors.DataWarning):
        assert issubclass(cls, errors.GeodlWarning)
    assert issubclass(errors.GeodlWarning, UserWarning)


def test_the_lowest_floor_imports_only_the_standard_library() -> None:
    folder = Path(geodl.__file__).parent / "base"
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0]
                inside = name.startswith("geodl.base")
                assert inside or top in sys.stdlib_module_names, f"{path.name} imports {name}"
