"""Every registered chip format holds the rules of all formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.formats import FORMATS
from geodl.testing.product_conformance import check_format


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_format_conforms(name: str, tmp_path: Path) -> None:
    check_format(name, tmp_path)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_format_keeps_the_values_of_any_raster(name: str, tmp_path: Path) -> None:
    check_format(name, tmp_path, bands=5, dtype="float32")
