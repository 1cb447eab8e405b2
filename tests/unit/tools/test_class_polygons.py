"""Polygons straight from classify_pixels: whole over all seams, named, coarser on request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.transform import from_origin

from geodl.base.errors import OptionError
from geodl.functions import polygonize
from geodl.testing.tiny import tiny_model
from geodl.tools.classify_pixels import classify_pixels

EVERY = {"predict_background": True, "padding": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", "pixels", tile_px=32)


def blotches(height: int, width: int) -> np.ndarray:
    """uint8 (3, H, W) of small and large patches."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(1, 256, (3, height // 5 + 1, width // 5 + 1))
    return np.kron(coarse, np.ones((5, 5), int))[:, :height, :width].astype(np.uint8)


def go(raster: Path, model: Path, path: Path, **more: Any) -> Any:
    return classify_pixels(raster, str(model), EVERY, path, progress=False, **more)


def test_polygons_do_not_depend_on_blocks_and_equal_those_of_the_whole_map(
    write_raster: Any, model: Path, tmp_path: Path
) -> None:
    data = blotches(100, 91)
    data[:, 40:60, 50:70] = 0
    raster = write_raster(data, nodata=0)
    go(raster, model, tmp_path / "map.tif")
    whole = polygonize(tmp_path / "map.tif", block_size=4096)
    whole = whole[whole["ClassValue"] != 0].reset_index(drop=True)
    assert len(whole) > 20
    for block in (24, 48, 72, 120, 4096):
        found = go(raster, model, tmp_path / f"p{block}.parquet", block_size=block)
        assert found["ClassValue"].tolist() == whole["ClassValue"].tolist()
        assert shapely.equals_exact(found.geometry.values, whole.geometry.values, 0).all()


@pytest.mark.parametrize("suffix", [".parquet", ".gpkg"])
def test_features_are_written_with_names(
    suffix: str, write_raster: Any, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"areas{suffix}"
    found = go(write_raster(blotches(80, 90)), model, path)
    read = gpd.read_parquet(path) if suffix == ".parquet" else gpd.read_file(path)
    assert list(read.columns) == ["Class", "ClassValue", "geometry"]
    assert found.attrs["path"] == str(path)
    assert read.crs.to_epsg() == 32633
    assert set(zip(read["Class"], read["ClassValue"], strict=True)) == {("one", 1), ("two", 2)}
    assert read.geometry.geom_equals(found.geometry).all()
    assert json.loads((tmp_path / f"areas{suffix}.manifest.json").read_text())["tool"]
    assert not path.with_name(path.name + ".run").exists()


def test_an_extent_gives_the_polygons_of_that_part(
    write_raster: Any, model: Path, tmp_path: Path
) -> None:
    raster = write_raster(blotches(120, 120))
    x, y = 500000, 5000000
    context = {"extent": {"xmin": x + 10, "ymin": y - 45, "xmax": x + 50, "ymax": y - 5}}
    go(raster, model, tmp_path / "map.tif", context=context)
    expected = polygonize(tmp_path / "map.tif")
    expected = expected[expected["ClassValue"] != 0]
    found = go(raster, model, tmp_path / "a.parquet", context=context)
    assert shapely.equals_exact(found.geometry.values, expected.geometry.values, 0).all()


def test_small_areas_go_and_borders_are_simplified_together(
    write_raster: Any, model: Path, tmp_path: Path
) -> None:
    raster = write_raster(blotches(120, 120))
    plain = go(raster, model, tmp_path / "a.parquet")
    found = go(raster, model, tmp_path / "b.parquet", min_area=20.0, simplify=2.0)
    manifest = json.loads((tmp_path / "b.parquet.manifest.json").read_text())
    assert manifest["product"] == {"min_area": 20.0, "simplify": 2.0, "zarr_format": 3}
    assert 0 < len(found) == int((plain.area >= 20).sum()) < len(plain)
    assert found.count_coordinates().sum() < plain.count_coordinates().sum()
    assert found.is_valid.all()
    assert shapely.coverage_is_valid(found.geometry.values)


def test_what_gives_no_polygons_is_refused_before_the_first_block(
    write_raster: Any, model: Path, tmp_path: Path
) -> None:
    raster = write_raster(blotches(40, 40))
    with pytest.raises(OptionError, match="scores"):
        classify_pixels(
            raster, str(model), {"output": "scores"}, tmp_path / "a.gpkg", progress=False
        )
    with pytest.raises(OptionError, match="min_area"):
        go(raster, model, tmp_path / "a.tif", min_area=3)
    with pytest.raises(OptionError, match="simplify"):
        go(raster, model, tmp_path / "a.gpkg", simplify=-1)
    degrees = write_raster(
        blotches(40, 40), "degrees.tif", crs="EPSG:4326", transform=from_origin(15, 45, 5e-6, 5e-6)
    )
    with pytest.raises(OptionError, match=r"min_area=20 .* square units of EPSG:4326"):
        go(degrees, model, tmp_path / "a.gpkg", min_area=20)
    assert not list(tmp_path.glob("a.*"))
