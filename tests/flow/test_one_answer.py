"""Real networks give one answer: for all block sizes, here and on workers, with a script too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from distributed import Client

from geodl.core.contract import Normalization
from geodl.testing import make_dates, make_scene
from geodl.testing.tiny import random_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_change import detect_change_using_deep_learning
from geodl.tools.detect_objects import detect_objects

SIZE, DATES = 300, 112
SIX_BANDS = Normalization(
    minimum=(0.0,) * 6, maximum=(255.0,) * 6, scaled_mean=(0.5,) * 6, scaled_std=(0.2,) * 6
)
PARAMETERS: dict[str, dict[str, Any]] = {
    "UnetClassifier": {"backbone": "resnet18"},
    "SingleShotDetector": {
        "backbone": "resnet18",
        "grids": [8, 4],
        "zooms": [1.0],
        "ratios": [[1.0, 1.0]],
        "drop": 0.0,
        "bias": 0.0,
        "focal_loss": False,
        "location_loss_factor": None,
        "ssd_version": 2,
    },
}


@pytest.fixture(scope="module")
def inputs(make_once: Any) -> Path:
    def make(folder: Path) -> None:
        make_scene(folder, seed=3, size=(SIZE, SIZE))
        make_dates(folder, seed=3, size=(DATES, DATES))
        random_model(
            folder / "change", "ChangeDetector", "pixels", {}, tile_px=64, bands=6,
            classes={1: "new"}, normalization=SIX_BANDS,
        )  # fmt: skip
        random_model(
            folder / "unet", "UnetClassifier", "pixels", PARAMETERS["UnetClassifier"], tile_px=64
        )
        random_model(
            folder / "ssd",
            "SingleShotDetector",
            "objects",
            PARAMETERS["SingleShotDetector"],
            tile_px=128,
            variable_tile=False,
        )

    return make_once("one-answer", make)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def client(workers: Client) -> Client:
    return workers


def classify(
    raster: Path, model: Path, output: Path, block: int, client: Client | None
) -> np.ndarray:
    arguments = {"padding": 8, "predict_background": True}
    found = classify_pixels(
        raster,
        str(model),
        arguments,
        output,
        progress=False,
        block_size=block,
        client=client,
    )
    return found.values  # type: ignore[no-any-return]


def detect(inputs: Path, output: Path, block: int, client: Client | None) -> gpd.GeoDataFrame:
    return detect_objects(
        inputs / "scene.tif",
        str(inputs / "ssd"),
        {"threshold": 0.55},
        output,
        progress=False,
        block_size=block,
        client=client,
    )


def test_class_rasters_are_identical(inputs: Path, tmp_path: Path, client: Client) -> None:
    raster, model = inputs / "scene.tif", inputs / "unet"
    first = classify(raster, model, tmp_path / "a.tif", 192, None)
    assert len(np.unique(first)) > 2
    for name, block, there in (("b.tif", 2048, None), ("c.tif", 256, client)):
        np.testing.assert_array_equal(classify(raster, model, tmp_path / name, block, there), first)


def test_detections_are_identical(inputs: Path, tmp_path: Path, client: Client) -> None:
    first = detect(inputs, tmp_path / "a.parquet", 192, None)
    assert len(first) > 5
    for name, block, there in (("b.parquet", 2048, None), ("c.parquet", 256, client)):
        again = detect(inputs, tmp_path / name, block, there)
        assert again.to_wkb().equals(first.to_wkb())


def test_changes_are_identical(inputs: Path, tmp_path: Path, client: Client) -> None:
    def change(name: str, block: int, there: Client | None) -> np.ndarray:
        found = detect_change_using_deep_learning(
            inputs / "before.tif",
            inputs / "after.tif",
            str(inputs / "change"),
            tmp_path / name,
            {"padding": 8, "output": "scores"},
            progress=False,
            block_size=block,
            client=there,
        )
        return found.values  # type: ignore[no-any-return]

    first = change("a.tif", 48, None)
    assert np.nanstd(first) > 0.001
    for name, block, there in (("b.tif", 2048, None), ("c.tif", 96, client)):
        np.testing.assert_array_equal(change(name, block, there), first)


SCRIPT = """
import sys
import geodl
from geodl.tools.classify_pixels import classify_pixels

client = geodl.connect("local", workers=1)
found = classify_pixels(
    sys.argv[1],
    sys.argv[2],
    {"padding": 8, "predict_background": True},
    sys.argv[3],
    block_size=64,
)
print(found.attrs["path"])
"""


def test_a_script_without_a_main_guard_runs_on_local_workers(inputs: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    output = tmp_path / "script.tif"
    done = subprocess.run(
        [
            sys.executable,
            str(script),
            str(inputs / "before.tif"),
            str(inputs / "unet"),
            str(output),
        ],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.stdout.split() == [str(output)]
    with rasterio.open(output) as file:
        np.testing.assert_array_equal(
            file.read(),
            classify(inputs / "before.tif", inputs / "unet", tmp_path / "here.tif", 2048, None),
        )
