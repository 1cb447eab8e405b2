"""Every registered writer holds the rules of its kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from geodl.io.writers import FEATURE_SUFFIXES, RASTER_SUFFIXES, WRITERS
from geodl.testing.product_conformance import check_raster_writer, check_vector_writer

_CHECKS = {"vector": check_vector_writer, "raster": check_raster_writer}


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_writer_conforms(suffix: str, tmp_path: Path) -> None:
    _CHECKS[WRITERS[suffix].kind](suffix, tmp_path)


def test_tools_offer_every_writer() -> None:
    assert set(WRITERS) == {*FEATURE_SUFFIXES, *RASTER_SUFFIXES}
