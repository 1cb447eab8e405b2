"""The main job from a shell: chips, training, maps, and what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
import rasterio

from geodl.cli import main
from geodl.formats import open_export
from geodl.testing import Scene

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")


def _call(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    """The JSON value of a command that succeeds."""
    capsys.readouterr()
    status = main([*map(str, words), "--json"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    value: dict[str, Any] = json.loads(captured.out)
    return value


def test_chips_are_exported_and_described(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = _call(
        capsys, "chips", "export", scene.raster, scene.labels, "--tile-size", 64,
        "--metadata-format", "PASCAL_VOC_rectangles", "--classvalue-field", "class_name",
        "--output-location", tmp_path / "chips", "--context", "exportAllTiles=true",
    )  # fmt: skip
    facts = _call(capsys, "chips", "info", done["path"])
    assert facts == _call(capsys, "info", done["path"])
    assert facts["chips"] == 16
    assert facts["tile_size"] == [64, 64]
    assert [row["name"] for row in facts["classes"]] == ["building", "tree"]
    assert all(row["objects"] > 0 for row in facts["classes"])
    assert main(["chips", "info", done["path"]]) == 0
    assert "PASCAL_VOC_rectangles" in capsys.readouterr().out


def test_several_rasters_without_labels_and_an_estimate_from_a_shell(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, scene: Scene
) -> None:
    several = json.dumps([str(scene.raster), str(scene.raster)])
    words = ["chips", "export", several, "--metadata-format", "Export_Tiles", "--tile-size", 64,
             "--process-all-raster-items", "--output-location", tmp_path / "chips"]  # fmt: skip
    expected = _call(capsys, *words, "--estimate")
    assert expected["worker_hours"] > 0
    assert not (tmp_path / "chips").exists()
    folder = open_export(_call(capsys, *words)["path"])
    one = _call(capsys, "chips", "export", scene.raster, "--metadata-format", "Export_Tiles",
              "--tile-size", 64, "--output-location", tmp_path / "one")  # fmt: skip
    assert len(folder) == 2 * len(open_export(one["path"]))


def test_a_model_is_trained_and_described(
    tile_chips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = _call(
        capsys, "train", tile_chips, "UnetClassifier", "--output", tmp_path / "model",
        "--batch-size", 4, "--epochs", 1, "--lr", "1e-4:1e-3", "--unfreeze",
        "--working-dir", tmp_path / "work", "--model-options", "backbone=resnet18",
        "--data-options", "split=block",
    )  # fmt: skip
    assert len(done["epochs"]) == 1
    facts = _call(capsys, "model", "info", done["path"])
    assert facts["model_name"] == "UnetClassifier"
    assert facts["task"] == "pixels"
    assert facts["parameters"]["backbone"] == "resnet18"
    assert len(facts["sha256"]) == 64
    assert facts["made_by_geodl"]
    package = next(Path(done["path"]).glob("*.dlpk"))
    assert _call(capsys, "info", package)["sha256"] == facts["sha256"]
    assert main(["info", done["path"]]) == 0
    assert "UnetClassifier" in capsys.readouterr().out


def test_detections_from_a_shell(
    scene: Scene, detector_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "found.gpkg"
    words = ["detect", scene.raster, detector_package, "--output-name", path]
    done = _call(capsys, *words, "--model-arguments", "threshold=0.05", "batch_size=4")
    found = gpd.read_file(path)
    assert len(found) == done["detections"] == sum(done["classes"].values())
    assert Path(done["path"]) == path
    assert main([str(word) for word in words]) == 1
    err = capsys.readouterr().err
    assert "found.gpkg" in err
    assert len(err.splitlines()) <= 2
    again = _call(capsys, *words, "--overwrite")
    assert again["detections"] <= done["detections"]


def test_classes_from_a_shell(
    scene: Scene, classifier_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "map.tif"
    words = ["classify", str(scene.raster), str(classifier_package), "--output-name", str(path)]
    hours = _call(capsys, *words, "--estimate")
    assert hours["worker_hours"] > 0
    assert not path.exists()
    assert main([*words, "--model-arguments", "predict_background=true", "padding=8"]) == 0
    assert f"256 x 256 pixels: {path}" in capsys.readouterr().out
    with rasterio.open(path) as file:
        assert file.shape == (256, 256)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--model-arguments", "treshold=0.3"], 2, "threshold"),
        (["--context", "cellsize=1"], 2, "cellSize"),
        (["--output-name", "map.docx"], 2, ".docx"),
    ],
)
def test_wrong_options_are_named(
    scene: Scene,
    detector_package: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    said: str,
) -> None:
    assert main(["detect", str(scene.raster), str(detector_package), *words]) == status
    assert said in capsys.readouterr().err
