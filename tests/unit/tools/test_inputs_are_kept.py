"""A run never replaces what it reads, however the raster was given."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geodl
from geodl.base.errors import OutputError
from geodl.tools.classify_pixels import classify_pixels


def _vrt(path: Path) -> Path:
    vrt = path.with_suffix(".vrt")
    with rasterio.open(path) as file:
        size = f'rasterXSize="{file.width}" rasterYSize="{file.height}"'
        bands = "".join(
            f'<VRTRasterBand dataType="Byte" band="{n}"><SimpleSource><SourceFilename '
            f'relativeToVRT="1">{path.name}</SourceFilename><SourceBand>{n}</SourceBand>'
            f"</SimpleSource></VRTRasterBand>"
            for n in file.indexes
        )
        transform = ", ".join(map(str, file.transform.to_gdal()))
    vrt.write_text(
        f"<VRTDataset {size}><SRS>EPSG:32633</SRS><GeoTransform>{transform}</GeoTransform>{bands}"
        f"</VRTDataset>"
    )
    return vrt


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": str,
    "another name of it": lambda path: path.parent / ".." / path.parent.name / path.name,
    "array": lambda path: geodl.open_raster(path),
    "part of it": lambda path: geodl.open_raster(path, bounds=(500000, 4999984, 500016, 5000000)),
    "derived array": lambda path: geodl.open_raster(path) // 2,
    "mosaic": lambda path: [path, path],
    "vrt": _vrt,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_an_input_is_not_overwritten(
    form: Callable[[Path], Any], write_raster: Any, pixel_model: Path
) -> None:
    path = write_raster(np.full((3, 64, 64), 9, np.uint8))
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"scene\.tif is an input"):
        classify_pixels(form(path), pixel_model, None, path, overwrite=True, progress=False)
    assert path.read_bytes() == before
    assert not path.with_name("scene.tif.run").exists()
