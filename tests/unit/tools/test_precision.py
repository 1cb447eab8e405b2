"""A network runs in bfloat16 where that leaves its answer alone, and is refused where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import geodl
from geodl.base.errors import OptionError
from geodl.core.contract import Normalization
from geodl.testing.tiny import random_model, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

HALF = {"precision": "bfloat16"}


def halves(write_raster: Any) -> Path:
    """Two kinds of ground far from where the tiny model's classes meet."""
    data = np.full((3, 96, 128), 40, np.uint8)
    data[:, :, 50:] = 220
    return write_raster(data)  # type: ignore[no-any-return]


def classify(raster: Path, model: Path, output: Path, arguments: Any, **more: Any) -> np.ndarray:
    found = classify_pixels(raster, str(model), arguments, output, progress=False, **more)
    return found.values  # type: ignore[no-any-return]


def test_a_network_that_bears_it_gives_the_same_map(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = halves(write_raster)
    full = classify(raster, pixel_model, tmp_path / "full.tif", {})
    np.testing.assert_array_equal(
        classify(raster, pixel_model, tmp_path / "half.tif", HALF, block_size=32), full
    )
    manifest = json.loads((tmp_path / "half.tif.manifest.json").read_text())
    assert manifest["settings"]["options"]["precision"] == "bfloat16"
    lazy = geodl.apply_model(raster, str(pixel_model), **HALF)
    np.testing.assert_array_equal(lazy.values, full)


def test_scores_are_nearly_the_same_and_do_not_depend_on_blocks(
    write_raster: Any, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    raster = write_raster(rng.integers(0, 255, (3, 96, 80), dtype=np.uint8))
    model = random_model(
        tmp_path / "unet", "UnetClassifier", "pixels", {"backbone": "resnet18"}, tile_px=64
    )
    scores = {"output": "scores", "padding": 16}
    full = classify(raster, model, tmp_path / "full.tif", scores)
    half = classify(raster, model, tmp_path / "half.tif", {**scores, **HALF})
    again = classify(raster, model, tmp_path / "again.tif", {**scores, **HALF}, block_size=32)
    np.testing.assert_array_equal(half, again)
    assert 0 < np.abs(full - half).max() < 0.05


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_network_that_does_not_is_refused(
    write_raster: Any, pixel_model: Path, tmp_path: Path, dry_run: bool
) -> None:
    # All values near 85, where the first class of the tiny model ends and the second begins.
    rng = np.random.default_rng(0)
    raster = write_raster(np.repeat(rng.integers(83, 88, (1, 96, 96), dtype=np.uint8), 3, axis=0))
    with pytest.raises(OptionError, match=r"precision='bfloat16'.*% of the pixels.*float32"):
        classify_pixels(
            raster, str(pixel_model), {**HALF, "predict_background": True}, tmp_path / "map.tif",
            progress=False, dry_run=dry_run,
        )  # fmt: skip
    assert not list(tmp_path.glob("map.tif*"))


def test_a_detector_finds_the_same_objects(
    write_raster: Any, object_model: Path, tmp_path: Path
) -> None:
    data = np.full((3, 100, 120), 20, np.uint8)
    for k in range(6):
        data[:, 10 + 14 * k : 18 + 14 * k, 12 * k : 12 * k + 9] = 180 + 10 * k
    raster = write_raster(data)
    found = [
        detect_objects(raster, str(object_model), given, tmp_path / name, progress=False)
        for name, given in (("full.parquet", {}), ("half.parquet", HALF))
    ]
    assert len(found[0]) == 6
    assert found[1].geometry.to_wkb().equals(found[0].geometry.to_wkb())
    # Scores are what brings it to light that the layers had fewer digits.
    off = np.abs(found[1]["Confidence"] - found[0]["Confidence"])
    assert 0 < off.max() < 1


def test_a_detector_that_finds_others_is_refused(write_raster: Any, tmp_path: Path) -> None:
    ones = (1.0,) * 3
    model = tiny_model(
        tmp_path / "tiny", "objects", dtype="float32",
        normalization=Normalization(
            minimum=(0.0,) * 3, maximum=ones, scaled_mean=(0.0,) * 3, scaled_std=ones
        ),
    )  # fmt: skip
    # Just below what the tiny model boxes; rounded up in bfloat16.
    data = np.zeros((3, 64, 64), np.float32)
    data[:, 10:20, 10:20] = 0.501957
    with pytest.raises(OptionError, match=r"only 0\.0% of the objects"):
        detect_objects(write_raster(data), str(model), {**HALF, "threshold": 0.1}, progress=False)


def test_a_misspelt_precision_names_those_offered(write_raster: Any, pixel_model: Path) -> None:
    with pytest.raises(OptionError, match=r"'float16' is not offered.*'float32', 'bfloat16'"):
        classify_pixels(
            halves(write_raster), str(pixel_model), {"precision": "float16"}, progress=False
        )


def test_ground_without_data_says_nothing_against_it(
    write_raster: Any, pixel_model: Path, tmp_path: Path
) -> None:
    raster = write_raster(np.zeros((3, 64, 64), np.uint8), nodata=0)
    classify(raster, pixel_model, tmp_path / "map.tif", HALF)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1) == file.nodata).all()
