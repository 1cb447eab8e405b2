"""Lists of rasters of which each has a product of its own, and runs that end at their end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest

import geodl
from geodl.base.errors import BlockError, OptionError, OutputError, OutputExistsError
from geodl.runtime.future import RunFuture
from geodl.tools import inference
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects


@pytest.fixture
def rasters(write_raster: Any) -> list[Path]:
    data = np.full((3, 64, 64), 10, np.uint8)
    data[:, 20:30, 30:40] = 200
    return [write_raster(np.roll(data, k, axis=1), f"in{k}.tif") for k in range(3)]


def go(tool: Any, rasters: Any, model: Path, output: Any, **more: Any) -> Any:
    settings = {"process_all_raster_items": True, "progress": False, **more}
    return tool(rasters, model, output_name=output, **settings)


@pytest.mark.parametrize("name", ["map.tif", "map.geojson"])
def test_finished_products_are_kept_by_the_same_call_only(
    name: str, rasters: list[Path], pixel_model: Path, tmp_path: Path
) -> None:
    first = go(classify_pixels, rasters, pixel_model, tmp_path / name)
    lost, kept = Path(first[0].attrs["path"]), Path(first[1].attrs["path"])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    again = go(classify_pixels, rasters, pixel_model, tmp_path / name)
    assert kept.stat().st_mtime_ns == before
    for one, other in zip(first, again, strict=True):
        assert one.attrs["path"] == other.attrs["path"]
        if isinstance(one, gpd.GeoDataFrame):
            assert one.crs == other.crs
            assert one.geometry.geom_equals_exact(other.geometry, 1e-3).all()
        else:
            assert one.identical(other)
    with pytest.raises(OutputExistsError, match="all other rasters"):
        go(classify_pixels, rasters, pixel_model, tmp_path / name)
    lost.unlink()
    with pytest.raises(OutputExistsError, match="map_1"):
        go(classify_pixels, rasters, pixel_model, tmp_path / name, context={"cellSize": 1})


def test_detections_that_are_kept_had_the_same_pass_over_them(
    rasters: list[Path], object_model: Path, tmp_path: Path
) -> None:
    first = go(detect_objects, rasters, object_model, tmp_path / "all.gpkg")
    (tmp_path / "all_2.gpkg").unlink()
    again = go(detect_objects, rasters, object_model, tmp_path / "all.gpkg")
    assert len(first) == 3
    assert first.geometry.geom_equals(again.geometry).all()
    assert first.attrs == again.attrs
    (tmp_path / "all_2.gpkg").unlink()
    with pytest.raises(OutputExistsError, match="all_0"):
        go(detect_objects, rasters, object_model, tmp_path / "all.gpkg", run_nms=True)


def test_the_others_are_finished_where_one_is_broken(
    rasters: list[Path], pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geodl.runtime.run.RETRY_WAITS_S", (0.0, 0.0))
    # The directory of a GeoTIFF stands before its tiles: it opens, and its pixels are gone.
    rasters[0].write_bytes(rasters[0].read_bytes()[:1000])
    with pytest.raises(BlockError, match=r"1 of 3 rasters have no product.*in0\.tif"):
        go(classify_pixels, rasters, pixel_model, tmp_path / "map.tif")
    assert (tmp_path / "map_2.tif").exists()


def test_names_in_an_object_store_stay_urls(
    object_store: str, rasters: list[Path], object_model: Path
) -> None:
    found = go(detect_objects, rasters[:2], object_model, f"{object_store}/all.parquet")
    assert found.attrs["path"] == [f"{object_store}/all_{k}.parquet" for k in range(2)]


def test_a_run_that_ended_before_its_manifest_goes_on(
    rasters: list[Path], pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "map.tif"

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(inference, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            classify_pixels(rasters[0], pixel_model, output_name=path, progress=False)
    assert path.exists()
    with pytest.raises(OutputExistsError):
        classify_pixels(rasters[1], pixel_model, output_name=path, progress=False)
    classify_pixels(rasters[0], pixel_model, output_name=path, progress=False)
    assert not path.with_name("map.tif.run").exists()
    with pytest.raises(OutputExistsError):
        classify_pixels(rasters[0], pixel_model, output_name=path, progress=False)


def test_a_dry_run_refuses_what_the_run_would(
    rasters: list[Path], pixel_model: Path, tmp_path: Path
) -> None:
    for name, error in ((tmp_path / "no" / "map.tif", OutputError), ("map.jpg", OptionError)):
        with pytest.raises(error):
            classify_pixels(rasters[0], pixel_model, output_name=name, dry_run=True)
    catalog = geodl.Catalog(tmp_path / "catalog")
    before = sorted(catalog.root.rglob("*"))
    classify_pixels(rasters[0], pixel_model, output_name="map", gis=catalog, dry_run=True)
    assert sorted(catalog.root.rglob("*")) == before


def test_an_empty_list_is_refused(pixel_model: Path) -> None:
    with pytest.raises(OptionError, match="empty list"):
        go(classify_pixels, [], pixel_model, None)


def test_the_progress_of_several_rasters_never_falls() -> None:
    future = RunFuture()
    seen = []
    for number in range(2):
        future.begin(number, 2)
        for done in range(3):
            future.watch(done, 2)
            seen.append(future.progress)
    assert seen == [0, 0.25, 0.5, 0.5, 0.75, 1]
    future = RunFuture()
    future.watch(1, 4)
    future.set_exception(BlockError("broken"))
    assert future.progress == 0.25


def test_each_raster_of_a_folder_has_its_product(
    rasters: list[Path], pixel_model: Path, tmp_path: Path
) -> None:
    expected = go(classify_pixels, rasters, pixel_model, tmp_path / "listed.zarr")
    found = go(classify_pixels, tmp_path, pixel_model, tmp_path / "map.tif")
    assert len(found) == len(rasters)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    # The products lie among the rasters, and are not taken for such when the call is made again.
    Path(found[1].attrs["path"]).unlink()
    again = go(classify_pixels, tmp_path / "*.tif", pixel_model, tmp_path / "map.tif")
    assert [one.attrs["path"] for one in again] == [one.attrs["path"] for one in found]
