"""What ``context`` asks of the ground is done, or refused before the first block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

import geodl
from geodl.base.errors import (
    DataError,
    DataWarning,
    GridMismatchError,
    ModelDataError,
    OptionError,
    PlanError,
)
from geodl.testing.tiny import tiny_model
from geodl.tools.classify_pixels import classify_pixels

HERE = shapely.box(500000, 4999990, 500010, 5000000)
FAR = shapely.box(600000, 4999990, 600010, 5000000)


@pytest.fixture
def raster(write_raster: Any) -> Path:
    return write_raster(np.full((3, 64, 64), 200, np.uint8))


def go(raster: Any, model: Path, path: Path, **context: Any) -> Any:
    return classify_pixels(raster, model, output_name=path, context=context, progress=False)


@pytest.mark.parametrize(
    ("shape", "crs", "error", "text"),
    [
        (FAR, 32633, PlanError, "does not overlap"),
        (shapely.LineString([(500000, 4999990), (500010, 5000000)]), 32633, DataError, "polygons"),
        (HERE, None, GridMismatchError, "states no CRS"),
    ],
)
def test_a_mask_that_covers_nothing_is_refused(
    shape: Any, crs: int | None, error: type[Exception], text: str, raster: Path, pixel_model: Path
) -> None:
    mask = gpd.GeoDataFrame(geometry=[shape], crs=crs)
    with pytest.raises(error, match=text):
        go(raster, pixel_model, raster.with_name("map.tif"), mask=mask)


def test_a_mask_outside_the_extent_is_refused(raster: Path, pixel_model: Path) -> None:
    extent = {"xmin": 500016, "ymin": 4999970, "xmax": 500030, "ymax": 4999980}
    mask = gpd.GeoDataFrame(geometry=[HERE], crs=32633)
    with pytest.raises(PlanError, match="does not overlap"):
        go(raster, pixel_model, raster.with_name("map.tif"), mask=mask, extent=extent)


def test_lines_beside_polygons_of_a_mask_count_for_nothing(raster: Path, pixel_model: Path) -> None:
    line = shapely.LineString([(500020, 4999990), (500030, 4999990)])
    mask = gpd.GeoDataFrame(geometry=[shapely.GeometryCollection([HERE, line])], crs=32633)
    found = go(raster, pixel_model, raster.with_name("map.tif"), mask=mask).values[0]
    assert (found[:20, :20] != 255).all()
    assert (found != 255).sum() == 400


@pytest.mark.filterwarnings("ignore:.*states no CRS")
def test_a_georeferenced_mask_over_plain_pixels_is_refused(
    write_raster: Any, pixel_model: Path
) -> None:
    path = write_raster(np.full((3, 64, 64), 200, np.uint8), crs=None)
    mask = gpd.GeoDataFrame(geometry=[HERE], crs=32633)
    with pytest.raises(GridMismatchError, match="pixel space"):
        go(path, pixel_model, path.with_name("map.tif"), mask=mask)


@pytest.mark.parametrize("name", ["map.tif", "map.zarr"])
def test_a_missing_crs_is_told_once(name: str, write_raster: Any, pixel_model: Path) -> None:
    path = write_raster(np.full((3, 64, 64), 200, np.uint8), crs=None)
    with pytest.warns(DataWarning, match="states no CRS") as told:
        found = go(path, pixel_model, path.with_name(name))
    assert len(told) == 1
    assert found.rio.crs is None


def test_cells_may_be_oblong(raster: Path, pixel_model: Path) -> None:
    size = {"x": 1, "y": 2, "spatialReference": {"wkid": 32633}}
    go(raster, pixel_model, raster.with_name("map.tif"), cellSize=size)
    with rasterio.open(raster.with_name("map.tif")) as file:
        assert file.res == (1, 2)
        assert file.shape == (16, 32)


@pytest.mark.parametrize(
    ("context", "text"),
    [
        ({"cellSize": {"x": 1, "spatialReference": 4326}}, "stated in EPSG:4326"),
        # Metres for degrees: one cell would cover a continent.
        ({"cellSize": 10, "outSR": 4326}, "in units of that CRS"),
        ({"cellSize": 1e9}, "in units of that CRS"),
        ({"cellSize": 1e-9}, "in units of that CRS"),
    ],
)
def test_cells_in_other_units_are_refused(
    context: dict[str, Any], text: str, raster: Path, pixel_model: Path
) -> None:
    with pytest.raises(OptionError, match=text):
        go(raster, pixel_model, raster.with_name("map.tif"), **context)


def test_complex_pixels_are_refused_and_their_size_is_not(
    write_raster: Any, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "float", "pixels", bands=1, dtype="float32")
    path = write_raster(np.full((1, 64, 64), 3 + 4j, np.complex64))
    with pytest.raises(ModelDataError, match="complex"):
        go(path, model, tmp_path / "map.tif")
    found = go(abs(geodl.open_raster(path)), model, tmp_path / "map.tif")
    assert (found.values == 1).all()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"context": [1]}, "context=\\[1\\] is no dictionary"),
        ({"model_arguments": "padding=4"}, "model_arguments='padding=4' is no dictionary"),
        ({"block_size": "large"}, "block_size='large'"),
        ({"block_size": 512.5}, "block_size=512.5"),
        ({"client": "tcp://head:8786"}, "no Dask client"),
        ({"future": "later"}, "future='later' is neither"),
        ({"dry_run": 2}, "dry_run=2 is neither"),
        ({"output_name": 3}, "output_name=3 is no path"),
    ],
)
def test_values_of_other_types_are_refused_by_name(
    given: dict[str, Any], text: str, raster: Path, pixel_model: Path
) -> None:
    with pytest.raises(OptionError, match=text):
        classify_pixels(raster, pixel_model, **{"progress": False, **given})


def test_a_folder_is_no_name_for_a_product(raster: Path, pixel_model: Path) -> None:
    with pytest.raises(OptionError, match="is a folder; name a file in it"):
        go(raster, pixel_model, raster.parent)
    assert not list(raster.parent.parent.glob("*.tif"))


@pytest.mark.parametrize(
    ("west", "box", "columns"),
    [
        (178, (-180, -10, -179, 10), slice(2, 3)),
        (-182, (179, -10, 180, 10), slice(1, 2)),
        (340, (-15, -10, -10, 10), slice(5, 10)),
        (178, (179, -10, 180, 10), slice(1, 2)),
    ],
)
def test_longitudes_of_a_mask_mean_the_same_place_a_turn_further(
    write_raster: Any,
    pixel_model: Path,
    tmp_path: Path,
    west: float,
    box: tuple[float, ...],
    columns: slice,
) -> None:
    data = np.full((3, 30, 20), 200, np.uint8)
    degrees = from_origin(west, 15, 1, 1)
    raster = write_raster(data, "degrees.tif", crs="EPSG:4326", transform=degrees)
    mask = gpd.GeoDataFrame(geometry=[shapely.box(*box)], crs=4326)
    found = go(raster, pixel_model, tmp_path / "map.tif", mask=mask).values[0] != 255
    expected = np.zeros((30, 20), bool)
    expected[5:25, columns] = True
    np.testing.assert_array_equal(found, expected)
