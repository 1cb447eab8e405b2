"""detect_change_using_deep_learning: two rasters on any grids, one answer."""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform_bounds

from geodl.base.errors import (
    GridMismatchError,
    ModelDataError,
    NotSupportedError,
    OptionError,
    OutputExistsError,
    UnknownOptionError,
)
from geodl.bundle.read import read_bundle
from geodl.cli import main as run_main
from geodl.core.contract import Normalization
from geodl.infer.options import tile_options
from geodl.infer.pixels import PixelBlocks
from geodl.learn import detect_change_using_deep_learning
from geodl.testing.tiny import random_model, tiny_change_model
from geodl.tools.classify_pixels import classify_pixels

CELL = 0.5
ORIGIN = (500000.0, 5000000.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_change_model(tmp_path_factory.mktemp("change") / "tiny_change")


def images(height=150, width=210):
    """Smooth before, and an after that is brighter by far in three blocks."""
    rng = np.random.default_rng(4)
    coarse = rng.integers(20, 90, (3, height // 8 + 2, width // 8 + 2))
    before = np.kron(coarse, np.ones((8, 8), int))[:, :height, :width].astype(np.uint8)
    changed = np.zeros((height, width), bool)
    changed[20:50, 30:70] = changed[60:110, 100:130] = changed[130:, 190:] = True
    after = before.copy()
    after[:, changed] += 120
    return before, after, changed


def go(before: Any, after: Any, model: Path, path: Path, **more: Any) -> Any:
    return detect_change_using_deep_learning(
        before, after, str(model), path, more.pop("model_arguments", None), progress=False, **more
    )


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def inner(mask: np.ndarray) -> np.ndarray:
    """Pixels whose 3 x 3 neighbours agree with them."""
    padded = np.pad(mask, 1, "edge")
    h, w = mask.shape
    same = [padded[r : r + h, c : c + w] == mask for r in range(3) for c in range(3)]
    return np.all(same, axis=0)


def test_change_is_found_and_is_the_same_for_any_blocks(write_raster, model, tmp_path):
    before, after, changed = images()
    pair = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    found = go(*pair, model, tmp_path / "change.tif")
    answer = read(tmp_path / "change.tif")
    sure = inner(changed)
    assert np.array_equal(answer[sure], changed[sure])
    assert found.attrs["path"] == str(tmp_path / "change.tif")
    assert found.rio.nodata == 255
    for side in (32, 64, 96, 128):
        go(*pair, model, tmp_path / f"{side}.tif", block_size=side)
        assert np.array_equal(read(tmp_path / f"{side}.tif"), answer)
    manifest = json.loads((tmp_path / "change.tif.manifest.json").read_text())
    assert [Path(part["name"]).name for part in manifest["inputs"]] == ["a.tif", "b.tif"]


def test_nodata_in_either_is_nodata(write_raster, model, tmp_path):
    before, after, _ = images()
    before[:, :12], after[:, :, 200:] = 0, 0
    pair = write_raster(before, "a.tif", nodata=0), write_raster(after, "b.tif", nodata=0)
    go(*pair, model, tmp_path / "c.tif", block_size=64)
    expected = np.zeros(before.shape[1:], bool)
    expected[:12] = expected[:, 200:] = True
    assert np.array_equal(read(tmp_path / "c.tif") == 255, expected)


def test_a_shifted_raster_is_snapped_and_counts_where_both_are(write_raster, model, tmp_path):
    before, after, changed = images()
    moved = from_origin(ORIGIN[0] + 40 * CELL, ORIGIN[1] - 16 * CELL, CELL, CELL)
    pair = write_raster(before, "a.tif"), write_raster(after[:, 16:, 40:], "b.tif", transform=moved)
    go(*pair, model, tmp_path / "c.tif", block_size=64)
    answer = read(tmp_path / "c.tif")
    assert answer.shape == changed.shape
    outside = np.ones_like(changed)
    outside[16:, 40:] = False
    assert np.array_equal(answer == 255, outside)
    sure = inner(changed) & inner(outside) & ~outside
    assert np.array_equal(answer[sure], changed[sure])


@pytest.mark.filterwarnings("ignore::geodl.base.errors.DataWarning")
def test_another_crs_and_cell_size_are_brought_onto_the_grid(write_raster, model, tmp_path):
    before, after, changed = images()
    first, second = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    with rasterio.open(second) as file:
        west, south, east, north = transform_bounds(file.crs, "EPSG:32632", *file.bounds)
        shape = (3, int((north - south) / 0.4), int((east - west) / 0.4))
        there = from_origin(west, north, 0.4, 0.4)
        turned = np.zeros(shape, np.uint8)
        rasterio.warp.reproject(
            file.read(), turned, src_transform=file.transform, src_crs=file.crs,
            dst_transform=there, dst_crs="EPSG:32632", resampling=rasterio.warp.Resampling.bilinear,
        )  # fmt: skip
    other = write_raster(turned, "c.tif", crs="EPSG:32632", transform=there, nodata=0)
    go(first, other, model, tmp_path / "c_change.tif")
    answer = read(tmp_path / "c_change.tif")
    assert answer.shape == changed.shape
    sure = inner(changed) & inner(inner(changed)) & (answer != 255)
    assert sure.mean() > 0.85
    assert (answer[sure] == changed[sure]).mean() > 0.995
    go(first, other, model, tmp_path / "d.tif", block_size=64)
    assert np.array_equal(read(tmp_path / "d.tif"), answer)
    moved = {"outSR": {"wkid": 32632}, "cellSize": 0.5}
    found = go(first, other, model, tmp_path / "e.tif", context=moved)
    assert found.rio.crs.to_epsg() == 32632
    assert (found == 1).sum() * 0.25 == pytest.approx((answer == 1).sum() * 0.25, rel=0.05)


def test_changed_areas_as_features(write_raster, model, tmp_path):
    before, after, _ = images()
    pair = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    path = tmp_path / "areas.gpkg"
    found = go(*pair, model, tmp_path / "c.tif", output_polygons=path, block_size=64)
    assert found.attrs["polygons"] == str(path)
    areas = gpd.read_file(path)
    assert areas["Class"].tolist() == ["change"] * 3
    assert areas["ClassValue"].tolist() == [1] * 3
    assert areas.crs.to_epsg() == 32633
    assert areas.area.sum() == (read(tmp_path / "c.tif") == 1).sum() * CELL**2
    with pytest.raises(OutputExistsError, match=r"areas\.gpkg"):
        go(*pair, model, tmp_path / "d.tif", output_polygons=path)
    least = {"min_area": float(areas.area.min()) + 0.1, "simplify": 1.0}
    go(*pair, model, tmp_path / "l.tif", output_polygons=tmp_path / "l.gpkg", **least)
    large = gpd.read_file(tmp_path / "l.gpkg")
    assert len(large) == 2
    assert large.count_coordinates().sum() <= areas.count_coordinates().sum()
    assert np.array_equal(read(tmp_path / "l.tif"), read(tmp_path / "c.tif"))
    with pytest.raises(OptionError, match="give output_polygons a path"):
        go(*pair, model, tmp_path / "e.tif", min_area=1)
    with pytest.raises(OptionError, match="leave out the scores"):
        go(*pair, model, tmp_path / "s.tif", output_polygons=tmp_path / "s.gpkg",
           model_arguments={"output": "scores"})  # fmt: skip


def test_an_extent_is_the_crop_of_the_whole_and_a_run_goes_on(
    write_raster, model, tmp_path, monkeypatch
):
    before, after, _ = images()
    pair = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    go(*pair, model, tmp_path / "whole.tif")
    x, y = ORIGIN
    extent = {"xmin": x + 20, "xmax": x + 60, "ymin": y - 50, "ymax": y - 10}
    go(*pair, model, tmp_path / "part.tif", context={"extent": extent})
    assert np.array_equal(read(tmp_path / "part.tif"), read(tmp_path / "whole.tif")[20:100, 40:120])

    compute, calls = PixelBlocks.compute, []

    def broken(self, spec, block):
        calls.append(spec.key)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(self, spec, block)

    monkeypatch.setattr(PixelBlocks, "compute", broken)
    with pytest.raises(KeyboardInterrupt):
        go(*pair, model, tmp_path / "again.tif", block_size=64)
    monkeypatch.setattr(PixelBlocks, "compute", compute)
    go(*pair, model, tmp_path / "again.tif", block_size=64)
    assert np.array_equal(read(tmp_path / "again.tif"), read(tmp_path / "whole.tif"))
    blocks = json.loads((tmp_path / "again.tif.manifest.json").read_text())["blocks"]
    assert blocks["resumed"] >= 2
    assert blocks["done"] == blocks["total"] == 12


def test_later_or_only_an_estimate(write_raster, model, tmp_path):
    before, after, _ = images()
    pair = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    hours = go(*pair, model, tmp_path / "x.tif", estimate=True)
    assert isinstance(hours, float)
    assert 0 < hours < 1
    assert not (tmp_path / "x.tif").exists()
    handle = go(*pair, model, tmp_path / "x.tif", future=True)
    assert handle.result(60).attrs["path"] == str(tmp_path / "x.tif")


def test_what_does_not_fit_is_refused(write_raster, model, pixel_model, tmp_path):
    before, after, _ = images()
    first, second = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    out = tmp_path / "c.tif"
    with pytest.raises(ModelDataError, match="TinyPixels takes one raster"):
        go(first, second, pixel_model, out)
    with pytest.raises(ModelDataError, match=r"one\.tif has 1 bands .* was trained on 3"):
        go(first, write_raster(after[:1], "one.tif"), model, out)
    with pytest.raises(ModelDataError, match=r"wide\.tif holds uint16"):
        go(first, write_raster(after.astype(np.uint16), "wide.tif"), model, out)
    far = write_raster(after, "far.tif", transform=from_origin(600000, 5000000, CELL, CELL))
    with pytest.raises(GridMismatchError, match="nowhere overlaps"):
        go(first, far, model, out)
    with pytest.warns(match="states no CRS"), pytest.raises(GridMismatchError, match="no CRS"):
        go(first, write_raster(after, "plain.tif", crs=None), model, out)
    with pytest.raises(OptionError, match="suffix"):
        go(first, second, model, tmp_path / "c.gpkg")
    with pytest.raises(NotSupportedError, match="folder="):
        go(first, second, model, out, folder="maps")
    with pytest.raises(UnknownOptionError, match="colour"):
        go(first, second, model, out, colour="red")
    assert not out.exists()


def test_the_threshold_is_an_argument_of_the_model_and_background_is_not(tmp_path):
    package = random_model(
        tmp_path / "m", "ChangeDetector", "pixels", {}, bands=6, classes={1: "change"},
        normalization=Normalization(
            minimum=(0.0,) * 6, maximum=(255.0,) * 6, scaled_mean=(0.5,) * 6, scaled_std=(0.2,) * 6
        ),
    )  # fmt: skip
    contract = read_bundle(package).contract
    assert tile_options(contract, {"threshold": "0.8"}).run.threshold == 0.8
    with pytest.raises(UnknownOptionError, match="predict_background"):
        tile_options(contract, {"predict_background": True})


def test_a_stack_of_both_images_gives_the_same(write_raster, model, tmp_path):
    before, after, _ = images()
    pair = write_raster(before, "a.tif"), write_raster(after, "b.tif")
    go(*pair, model, tmp_path / "c.tif")
    stack = write_raster(np.concatenate([before, after]), "stack.tif")
    classify_pixels(stack, str(model), None, tmp_path / "s.tif", progress=False)
    assert np.array_equal(read(tmp_path / "s.tif"), read(tmp_path / "c.tif"))


def test_the_command_says_where_the_products_are(write_raster, model, tmp_path, capsys):
    before, after, _ = images()
    pair = [str(write_raster(data, name)) for data, name in ((before, "a.tif"), (after, "b.tif"))]
    out, areas = tmp_path / "c.tif", tmp_path / "c.parquet"
    words = ["change", *pair, str(model), "--output-classified-raster", str(out)]
    assert run_main([*words, "--output-polygons", str(areas), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == {"path": str(out), "polygons": str(areas), "width": 210, "height": 150}
    assert run_main([*words, "--estimate"]) == 0
    assert "worker-hours" in capsys.readouterr().out
