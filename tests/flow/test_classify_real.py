"""Real footprints: labels by tool, for any block size, are those of each chip by itself."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch

from geodl.base.errors import DataWarning, OfflineWarning
from geodl.bundle import load_model, resolve_model
from geodl.core.contract import ChipCut, Normalization
from geodl.learn import FeatureClassifier, classify_objects, export_training_data, prepare_data
from geodl.nets.resize import resized_chip
from geodl.testing.tiny import random_model

BLOCKS = (1, 37, 64, 200, 5000)


def by_itself(loaded, raster: Path, shape, cut: ChipCut) -> tuple[str, float]:
    """Label and score of one chip, read by rasterio alone."""
    with rasterio.open(raster) as file:
        back = ~file.transform
        bounds = np.array([back * point for point in _corners(shape.bounds)])
        (x0, y0), (x1, y1) = bounds.min(0), bounds.max(0)
        height, width = cut.size_yx
        row = int(np.floor((y0 + y1) / 2 - height / 2 + 0.5))
        col = int(np.floor((x0 + x1) / 2 - width / 2 + 0.5))
        if not cut.fixed:
            row, col = int(np.floor(y0)), int(np.floor(x0))
            height, width = int(np.ceil(y1)) - row, int(np.ceil(x1)) - col
        window = rasterio.windows.Window(col, row, width, height)
        data = file.read(window=window, boundless=True, masked=True)
    valid = ~np.ma.getmaskarray(data).all(0)
    side = loaded.contract.tile_px
    pixels, valid = resized_chip(data.filled(0), None if valid.all() else valid, (side, side))
    x = torch.from_numpy(loaded.contract.normalization.apply(pixels, valid))
    with torch.inference_mode():
        scores = loaded.task.scores(loaded.net, x[None])[0].numpy()
    return loaded.contract.classes.names[scores.argmax()], float(100 * scores.max())


def _corners(bounds):
    x0, y0, x1, y1 = bounds
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def compare(raster, package, features, moved, tmp_path) -> int:
    loaded = load_model(resolve_model(package, tmp_path))
    expected = [by_itself(loaded, raster, shape, loaded.contract.chip) for shape in moved.geometry]
    for block in BLOCKS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            found = classify_objects(
                str(raster), package, {"batch_size": 4}, features, block_size=block, progress=False,
                output_name=tmp_path / f"b{block}.parquet",
            )  # fmt: skip
        inside = found["ClassLabel"].notna().to_numpy()
        for row in np.flatnonzero(inside):
            assert found["ClassLabel"].iloc[row] == expected[row][0]
            assert found["Confidence"].iloc[row] == pytest.approx(expected[row][1], abs=0.02)
    return int(inside.sum())


@pytest.mark.parametrize("fixed", [True, False])
def test_building_footprints_over_heights(sample_data, tmp_path, fixed):
    folder = sample_data / "elevation_buildings"
    buildings = geopandas.read_file(folder / "buildings.geojson")
    package = random_model(
        tmp_path / "heights", "FeatureClassifier", "tiles",
        {"backbone": "timm:test_efficientnet"}, classes={1: "low", 2: "high"}, bands=1,
        tile_px=32, dtype="float32", variable_tile=False,
        normalization=Normalization(
            minimum=(0.0,), maximum=(60.0,), scaled_mean=(0.2,), scaled_std=(0.2,)
        ),
        chip=ChipCut(size_yx=(24, 24), fixed=fixed),
    )  # fmt: skip
    with rasterio.open(folder / "hag.tif") as file:
        moved = buildings.to_crs(file.crs)
    assert compare(folder / "hag.tif", package, buildings, moved, tmp_path) > 60


@pytest.mark.slow
def test_a_trained_classifier_of_land_cover(sample_data, tmp_path):
    folder = sample_data / "vegas_landcover"
    raster = folder / "tiff_3channel_uint8.tif"
    cover = geopandas.read_file(folder / "tiff_3channel_uint8.geojson")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", (DataWarning))
        warnings.simplefilter("ignore", OfflineWarning)
        export_training_data(
            str(raster), cover, output_location=tmp_path / "chips", progress=False,
            metadata_format="Labeled_Tiles", classvalue_field="label",
            tile_size={"x": 48, "y": 48},
        )  # fmt: skip
        data = prepare_data(
            tmp_path / "chips", chip_size=32, batch_size=8, working_dir=tmp_path, transforms=False,
            val_split_pct=0.2,
        )  # fmt: skip
        model = FeatureClassifier(data, backbone="resnet18")
    model.unfreeze()
    model.fit(3, 2e-3)
    package = model.save(tmp_path / "cover")
    assert model.contract.chip == ChipCut(size_yx=(48, 48))
    assert compare(raster, package, cover, cover, tmp_path) >= 50
    found = geopandas.read_parquet(tmp_path / "b64.parquet")
    right = found["ClassLabel"] == found["label"].astype(int).astype(str)
    assert right.mean() > 0.5
