"""classify_pixels gives one answer, keeps nodata, and resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate

import geodl
from geodl.base.errors import (
    BlockError,
    DataWarning,
    ModelDataError,
    OptionError,
    OutputError,
    OutputExistsError,
    PlanError,
    RunMismatchError,
)
from geodl.testing.tiny import tiny_model
from geodl.tools.classify_pixels import classify_pixels

EVERY = {"predict_background": True}


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (3, H, W), 1..255, smooth enough for large areas of a class."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 256, (3, height // 8 + 2, width // 8 + 2))
    return np.kron(coarse, np.ones((8, 8), int))[:, :height, :width].astype(np.uint8)


def level(data: np.ndarray) -> np.ndarray:
    """float64 (H, W): three times the mean over bands and 3 x 3 pixels, as a share of 255."""
    padded = np.pad(data.astype(np.float64) / 255, ((0, 0), (1, 1), (1, 1)), "edge")
    height, width = data.shape[1:]
    near = [padded[:, r : r + height, c : c + width] for r in range(3) for c in range(3)]
    return np.mean(near, axis=(0, 1)) * 3


def truth(data: np.ndarray) -> np.ndarray:
    """What ``TinyPixels`` with two classes says: the level's whole part, at most 2."""
    return np.minimum(level(data).astype(int), 2).astype(np.uint8)


def sure(data: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels that rounding, or the rim that a tile mirrors, leaves no doubt about."""
    far = np.abs(level(data) - np.round(level(data))) > 1e-4
    far[[0, -1]] = far[:, [0, -1]] = False
    return far


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def go(raster: Any, model: Path, path: Path, arguments: Any = None, **more: Any) -> Any:
    merged = {**EVERY, **(arguments or {})}
    return classify_pixels(raster, str(model), merged, path, progress=False, **more)


def test_every_pixel_gets_its_class(write_raster: Any, pixel_model: Path, tmp_path: Path) -> None:
    data = picture(150, 210)
    found = go(write_raster(data), pixel_model, tmp_path / "map.tif", block_size=64)
    clear = sure(data)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(read(tmp_path / "map.tif")[clear], truth(data)[clear])
    assert found.attrs["path"] == str(tmp_path / "map.tif")
    assert found.shape == (1, 150, 210)
    assert found.dtype == np.uint8
    assert found.rio.nodata == 255
    assert found.rio.crs.to_epsg() == 32633


def test_the_product_is_a_cog_with_names_colours_and_a_manifest(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "map.tif"
    go(write_raster(picture(700, 600)), pixel_model, path)
    assert cog_validate(str(path), strict=True)[0]
    with rasterio.open(path) as file:
        assert file.nodata == 255
        assert file.transform == from_origin(500000, 5000000, 0.5, 0.5)
        assert file.colormap(1)[1][:3] == (230, 75, 53)
        assert file.overviews(1)
    manifest = json.loads((tmp_path / "map.tif.manifest.json").read_text())
    assert manifest["blocks"] == {
        "total": 1,
        "done": 1,
        "failed": 0,
        "skipped": 0,
        "resumed": 0,
    }
    assert {"read", "model", "merge", "write"} <= set(manifest["seconds"])
    assert len(manifest["model"]["sha256"]) == 64
    assert not (tmp_path / "map.tif.run").exists()


@settings(max_examples=12)
@given(draw=st.data())
def test_the_answer_does_not_depend_on_blocks_tiles_aside(
    draw: st.DataObject, write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    height, width = draw.draw(st.integers(1, 90)), draw.draw(st.integers(1, 90))
    data = picture(height, width, draw.draw(st.integers(0, 9)))
    if draw.draw(st.booleans()):
        data[:, : height // 2, : width // 3] = 0
    raster = write_raster(data, nodata=0)
    arguments = {
        "tile_size": draw.draw(st.integers(4, 70)),
        "padding": draw.draw(st.integers(0, 1)),
        "overlap": draw.draw(st.sampled_from(["crop", "blend"])),
        "batch_size": draw.draw(st.integers(1, 5)),
    }
    # Smaller first blocks are more of the same, by the thousand.
    first, second = draw.draw(st.integers(12, 40)), draw.draw(st.integers(41, 300))
    for name, size in (("a.tif", first), ("b.tif", second)):
        go(raster, pixel_model, tmp_path / name, arguments, block_size=size, overwrite=True)
    a, b = read(tmp_path / "a.tif"), read(tmp_path / "b.tif")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a == 255, (data == 0).all(0))


@pytest.mark.parametrize("overlap", ["crop", "blend"])
def test_a_run_on_an_extent_is_the_crop_of_the_full_run(
    write_raster: Any, pixel_model: Path, tmp_path: Path, overlap: str
) -> None:
    raster = write_raster(picture(200, 200))
    arguments = {"overlap": overlap, "tile_size": 40, "padding": 8}
    go(raster, pixel_model, tmp_path / "full.tif", arguments, block_size=50)
    extent = {"xmin": 500023.5, "ymin": 4999930, "xmax": 500081, "ymax": 4999988}
    for name in ("part.tif", "part.zarr"):
        part = go(
            raster,
            pixel_model,
            tmp_path / name,
            arguments,
            block_size=50,
            context={"extent": extent},
        )
        assert part.rio.bounds() == (500023.5, 4999930, 500081, 4999988)
        full = read(tmp_path / "full.tif")[24:140, 47:162]
        np.testing.assert_array_equal(part.values[0], full)


def test_nodata_and_masked_ground_stay_nodata(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    data = picture(120, 120)
    data[:, 40:90, 30:80] = 0
    mask = gpd.GeoDataFrame(
        geometry=[shapely.box(500000, 4999950, 500030, 5000000)], crs="EPSG:32633"
    ).to_crs(4326)
    go(
        write_raster(data, nodata=0),
        pixel_model,
        tmp_path / "map.tif",
        block_size=32,
        context={"mask": mask},
    )
    found = read(tmp_path / "map.tif")
    inside = np.zeros((120, 120), bool)
    inside[:100, :60] = True
    np.testing.assert_array_equal(found == 255, ~inside | (data == 0).all(0))


def test_without_background_the_best_other_class_wins(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    data = picture(64, 64)
    go(write_raster(data), pixel_model, tmp_path / "map.tif", {"predict_background": False})
    clear = sure(data)
    np.testing.assert_array_equal(
        read(tmp_path / "map.tif")[clear], np.maximum(truth(data), 1)[clear]
    )


def test_augmentation_leaves_a_symmetric_network_alone(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(picture(90, 90))
    go(raster, pixel_model, tmp_path / "plain.tif")
    go(raster, pixel_model, tmp_path / "turned.tif", {"test_time_augmentation": "true"})
    np.testing.assert_array_equal(read(tmp_path / "plain.tif"), read(tmp_path / "turned.tif"))


def test_scores_are_probabilities_whose_best_is_the_class(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    data = picture(90, 70)
    data[:, :20, :20] = 0
    raster = write_raster(data, nodata=0)
    go(raster, pixel_model, tmp_path / "map.tif")
    scores = go(raster, pixel_model, tmp_path / "scores.tif", {"output": "scores"}).values
    alive = (data > 0).any(0)
    assert np.isnan(scores[:, ~alive]).all()
    np.testing.assert_allclose(scores[:, alive].sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(scores[:, alive].argmax(0), read(tmp_path / "map.tif")[alive])


def test_large_class_values_widen_the_product(write_raster: Any, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "wide", "pixels", classes={7: "low", 300: "high"})
    data = picture(64, 64)
    found = go(write_raster(data), model, tmp_path / "map.tif")
    assert found.dtype == np.uint16
    assert found.rio.nodata == 65535
    assert set(np.unique(found)) <= {0, 7, 300}


def test_a_broken_tile_is_named_and_the_rest_is_kept(
    write_raster: Any, pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.random.default_rng(0).integers(1, 256, (3, 256, 256), dtype=np.uint8)
    path = write_raster(data, compress="deflate", interleave="pixel")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * 0.8)])
    monkeypatch.setattr("geodl.runtime.run.RETRY_WAITS_S", (0.0, 0.0))
    with pytest.raises(BlockError, match=r"of 16 blocks failed, .*block 2,0.*scene\.tif"):
        go(path, pixel_model, tmp_path / "map.tif", block_size=64)
    assert not (tmp_path / "map.tif").exists()
    assert (tmp_path / "map.tif.run").exists()


def test_a_finished_product_is_not_overwritten_unless_asked(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(picture(64, 64))
    path = tmp_path / "map.tif"
    go(raster, pixel_model, path)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        go(raster, pixel_model, path)
    with pytest.raises(RuntimeError, match=r"map\.tif"):
        go(raster, pixel_model, path)
    go(raster, pixel_model, path, overwrite=True)


def test_another_setting_does_not_join_an_unfinished_run(
    write_raster: Any, pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster = write_raster(picture(200, 200))
    path = tmp_path / "map.tif"
    future = go(raster, pixel_model, path, {"tile_size": 32}, block_size=16, future=True)
    future.cancel()
    assert future.exception(timeout=120) is not None
    with pytest.raises(RunMismatchError, match="plan"):
        go(raster, pixel_model, path, {"tile_size": 48})
    kept = raster.rename(tmp_path / "kept.tif")
    write_raster(picture(200, 200, seed=1))
    with pytest.raises(RunMismatchError, match=r"source\)\. .* written anew since"):
        go(raster, pixel_model, path, {"tile_size": 32})
    kept.replace(raster)
    done = go(raster, pixel_model, path, {"tile_size": 32}, block_size=100)
    manifest = json.loads((tmp_path / "map.tif.manifest.json").read_text())
    assert manifest["layout"]["block_px"] == 16
    np.testing.assert_array_equal(
        done.values,
        go(raster, pixel_model, tmp_path / "again.tif", {"tile_size": 32}).values,
    )


def test_the_default_name_is_of_the_run_so_the_same_call_finds_it(
    write_raster: Any, pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster = write_raster(picture(64, 64))
    monkeypatch.chdir(tmp_path)
    found = classify_pixels(raster, str(pixel_model), EVERY, progress=False)
    name = Path(found.attrs["path"]).name
    assert name.startswith("classify_pixels_scene_")
    assert name.endswith(".tif")
    with pytest.raises(OutputExistsError):
        classify_pixels(raster, str(pixel_model), EVERY, progress=False)


def test_each_item_by_itself_or_all_as_a_mosaic(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    left, right = picture(64, 64, 1), picture(64, 64, 2)
    paths = [
        write_raster(left, "left.tif"),
        write_raster(right, "right.tif", transform=from_origin(500032, 5000000, 0.5, 0.5)),
    ]
    both = go(paths, pixel_model, tmp_path / "both.tif")
    assert both.shape == (1, 64, 128)
    each = go(paths, pixel_model, tmp_path / "each.tif", process_all_raster_items=True)
    assert [Path(a.attrs["path"]).name for a in each] == ["each_0.tif", "each_1.tif"]
    np.testing.assert_array_equal(each[1].values[0, 1:-1, 2:-1], both.values[0, 1:-1, 66:-1])


def test_cell_size_and_reference_system_make_the_grid(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(picture(200, 160))
    coarse = go(raster, pixel_model, tmp_path / "coarse.tif", context={"cellSize": 1.0})
    assert coarse.shape == (1, 100, 80)
    assert coarse.rio.resolution() == (1.0, -1.0)
    moved = go(raster, pixel_model, tmp_path / "moved.tif", context={"outSR": {"wkid": 3857}})
    assert moved.rio.crs.to_epsg() == 3857
    snapped = go(
        raster, pixel_model, tmp_path / "snapped.tif", context={"snapRaster": coarse.attrs["path"]}
    )
    assert snapped.rio.transform() == coarse.rio.transform()


def test_an_estimate_is_hours_and_writes_nothing(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    hours = go(write_raster(picture(300, 300)), pixel_model, tmp_path / "map.tif", estimate=True)
    assert isinstance(hours, float)
    assert 0 < hours < 0.1
    assert math.isfinite(hours)
    assert not list(tmp_path.glob("map*"))


def test_a_future_gives_the_same_product(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(picture(100, 100))
    future = go(raster, pixel_model, tmp_path / "later.tif", future=True)
    later = future.result(timeout=120)
    assert future.progress == 1.0
    now = go(raster, pixel_model, tmp_path / "now.tif")
    np.testing.assert_array_equal(later.values, now.values)


def test_the_lazy_array_computes_to_the_product(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    data = picture(150, 130)
    data[:, 100:, :30] = 0
    raster = write_raster(data, nodata=0)
    go(raster, pixel_model, tmp_path / "map.tif")
    lazy = geodl.apply_model(raster, str(pixel_model), predict_background=True, block_size=48)
    assert lazy.chunks is not None
    assert lazy.rio.crs.to_epsg() == 32633
    np.testing.assert_array_equal(lazy.values[0], read(tmp_path / "map.tif"))
    derived = geodl.apply_model(
        geodl.open_raster(raster, chunks=64), str(pixel_model), predict_background=True
    )
    np.testing.assert_array_equal(derived.values[0], read(tmp_path / "map.tif"))


def test_a_trained_grid_of_other_cells_is_warned_of(write_raster: Any, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "coarse", "pixels", cell_size=(10.0, 10.0))
    with pytest.warns(DataWarning, match="cells measure 0.5 m"):
        go(write_raster(picture(64, 64)), model, tmp_path / "map.tif")


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"bands": 4}, ModelDataError, "has 4 bands"),
        ({"dtype": "uint16"}, ModelDataError, "uint16"),
        ({"suffix": ".jpg"}, OptionError, r"\.jpg"),
        ({"folder": "missing"}, OutputError, "does not exist"),
        (
            {"context": {"extent": {"xmin": 0, "ymin": 0, "xmax": 1, "ymax": 1}}},
            PlanError,
            "does not overlap",
        ),
        ({"block_size": -5}, OptionError, "block_size=-5"),
        ({"model": "objects"}, ModelDataError, "gives objects"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_block(
    write_raster: Any,
    pixel_model: Path,
    object_model: Path,
    tmp_path: Path,
    change: dict[str, Any],
    error: type[Exception],
    word: str,
) -> None:
    data = picture(64, 64)
    data = np.concatenate([data, data[:1]]) if change.get("bands") == 4 else data
    raster = write_raster(data.astype(change.get("dtype", "uint8")), photometric="minisblack")
    path = tmp_path / change.get("folder", "") / f"map{change.get('suffix', '.tif')}"
    more = {key: change[key] for key in ("context", "block_size") if key in change}
    with pytest.raises(error, match=word):
        go(raster, object_model if "model" in change else pixel_model, path, **more)
    assert not list(tmp_path.glob("map*"))


def test_a_raster_is_resampled_as_the_training_chips_were(
    write_raster: Any, tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "half", "pixels", pixel_scale=0.5, cell_size=(0.5, 0.5))
    raster = write_raster(picture(128, 96))
    found = go(raster, model, tmp_path / "map.tif")
    assert found.shape == (1, 64, 48)
    assert found.rio.resolution() == (1.0, -1.0)
    chosen = go(raster, model, tmp_path / "own.tif", context={"cellSize": 1.25})
    assert chosen.rio.resolution() == (1.25, -1.25)


def test_infrared_that_gdal_marks_as_alpha_is_data_where_it_is_chosen(
    write_raster: Any, tmp_path: Path
) -> None:
    data = np.concatenate([picture(64, 64), picture(64, 64, 1)[:1]])
    path, model = write_raster(data), tiny_model(tmp_path / "four", "pixels", bands=4)
    with pytest.raises(ModelDataError, match=r"marked as alpha.*bands=\[1, 2, 3, \"alpha\"\]"):
        go(path, model, tmp_path / "map.tif")
    chosen = geodl.open_raster(path, bands=[1, 2, 3, "alpha"])
    go(chosen, model, tmp_path / "map.tif")
    plain = write_raster(data, "plain.tif", alpha="NO", photometric="MINISBLACK")
    go(plain, model, tmp_path / "same.tif")
    np.testing.assert_array_equal(read(tmp_path / "map.tif"), read(tmp_path / "same.tif"))
