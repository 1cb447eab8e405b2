"""Commands on class rasters, and the options that reach into Python: catalogs, trust, lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

import geodl
from geodl.cli import main
from geodl.cli.main import COMMANDS
from geodl.learn import Embeddings
from geodl.testing.tiny import tiny_model

PACKAGE = str(Path(__file__).parents[2] / "golden" / "schema1_labels.dlpk")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """A square, an L and a line of classes 1 to 3 on 0."""
    data = np.zeros((1, 60, 60), np.uint8)
    data[0, 5:25, 5:25] = 1
    data[0, 30:50, 5:15] = 2
    data[0, 40:50, 5:40] = 2
    data[0, 10:12, 30:58] = 3
    return write(tmp_path / "classes.tif", data)


def write(path: Path, data: np.ndarray) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=len(data), height=60, width=60, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(1000, 2000, 1, 1),
    ) as file:  # fmt: skip
        file.write(data)
    return path


def run(capsys: Any, *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_polygons_lines_and_buildings_are_written(
    capsys: Any, classes: Path, tmp_path: Path
) -> None:
    out = str(tmp_path / "shapes.gpkg")
    assert run(capsys, "polygons", str(classes), out, "--min-area", "30") == {
        "path": out,
        "features": 4,
    }
    assert sorted(gpd.read_file(out).area) == [56, 400, 450, 3600 - 906]
    assert main(["polygons", str(classes), out]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["polygons", str(classes), out, "--overwrite"]) == 0
    assert "features: " in capsys.readouterr().out
    assert main(["polygons", str(classes), str(tmp_path / "shapes.xyz")]) == 1
    lines = str(tmp_path / "lines.parquet")
    assert run(capsys, "lines", str(classes), lines, "--values", "3")["features"] == 1
    assert gpd.read_parquet(lines).length.iloc[0] == pytest.approx(28, abs=2)
    houses = str(tmp_path / "houses.fgb")
    assert run(capsys, "regularize", str(classes), houses, "--values", "[1, 2]")["features"] == 2


def test_a_map_is_compared_with_the_truth(capsys: Any, classes: Path, tmp_path: Path) -> None:
    with rasterio.open(classes) as file:
        truth = file.read()
    truth[0, 5:25, 5:15] = 0
    where = write(tmp_path / "truth.tif", truth)
    found = run(capsys, "confusion", str(classes), str(where))
    at = found["values"].index(1)
    assert found["precision"][at] == 0.5
    assert found["recall"][at] == 1
    assert main(["confusion", str(classes), str(where)]) == 0
    assert "class 1      precision 0.500  recall 1.000" in capsys.readouterr().out


def test_models_of_a_catalog_are_installed_listed_and_taken_off(
    capsys: Any, tmp_path: Path
) -> None:
    root = str(tmp_path / "catalog")
    assert Path(run(capsys, "model", "install", PACKAGE, "--gis", root)["installed"]).exists()
    (info,) = run(capsys, "model", "list", "--gis", root)
    assert info["model_name"] == "FeatureClassifier"
    assert main(["model", "list", "--gis", root]) == 0
    assert "FeatureClassifier  tiles" in capsys.readouterr().out
    assert run(capsys, "model", "uninstall", PACKAGE, "--gis", root)["uninstalled"]
    assert run(capsys, "model", "list", "--gis", root) == []
    assert main(["model", "train", "nowhere", "NO_SUCH_TYPE"]) == 1
    assert "Choose one of" in capsys.readouterr().err


def test_a_catalog_several_rasters_and_silence_are_reached(
    capsys: Any, classes: Path, tmp_path: Path
) -> None:
    package = str(tiny_model(tmp_path / "m", "pixels", bands=1, tile_px=32))
    both = json.dumps([str(classes), str(classes)])
    out = str(tmp_path / "map.tif")
    words = ["classify", both, package, "--process-all-raster-items", "--output-name", out]
    plan = run(capsys, *words, "--dry-run")
    assert len(plan["plans"]) == 2
    found = run(capsys, *words, "--no-progress")
    assert [Path(path).exists() for path in found["path"]] == [True, True]
    assert main([*words, "--no-progress", "--overwrite"]) == 0
    captured = capsys.readouterr()
    assert captured.out.split() == found["path"]
    assert captured.err == ""
    root = str(tmp_path / "catalog")
    words = ["classify", str(classes), package, "--gis", root, "--output-name", "map"]
    assert run(capsys, *words, "--trust-code")["path"].startswith(root)
    assert [item.id for item in geodl.Catalog(root).search()] == ["map"]
    # No terminal: progress is lines.
    assert main([*words, "--overwrite"]) == 0
    assert "classify_pixels: " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")
def test_vectors_of_images(capsys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for shade in (10, 200):
        Image.fromarray(np.full((20, 20, 3), shade, np.uint8)).save(folder / f"{shade}.png")
    found = run(
        capsys, "embed", str(folder), "--backbone", "timm:test_efficientnet",
        "--working-dir", str(tmp_path), "--options", "chip_size=32",
    )  # fmt: skip
    vectors, items = Embeddings().load(found["path"])
    assert len(vectors) == len(items) == 2


def test_the_commands_that_are_promised_are_there() -> None:
    promised = {
        "info", "doctor", "weights", "chips", "train", "detect", "classify", "change", "points",
        "model", "catalog", "cluster",
    }  # fmt: skip
    assert promised <= {path[0] for path in COMMANDS}
    assert {("model", name) for name in ("info", "verify", "export")} <= set(COMMANDS)
    assert {("chips", name) for name in ("export", "validate", "info")} <= set(COMMANDS)
