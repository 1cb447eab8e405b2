"""The commands around detected objects."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely

from geodl.cli import main as run_main
from geodl.io.video import open_writer


@pytest.fixture
def features(tmp_path: Path) -> Path:
    left = np.array([0.0, 1.0, 30.0, 60.0])
    frame = gpd.GeoDataFrame(
        {"ClassValue": [1, 1, 1, 2], "Confidence": [90.0, 80.0, 70.0, 60.0]},
        geometry=shapely.box(left, 0, left + 10, 10),
        crs=32633,
    )
    frame.to_parquet(tmp_path / "found.parquet")
    frame.iloc[[0, 2]].drop(columns="Confidence").to_file(tmp_path / "truth.gpkg")
    return tmp_path


def test_accuracy_as_json_and_for_people(
    features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["accuracy", str(features / "found.parquet"), str(features / "truth.gpkg")]
    table = ["--out-accuracy-table-name", str(features / "table.csv")]
    report = ["--out-accuracy-report-name", str(features / "report.pdf")]
    assert run_main([*words, *table, *report, "--min-iou", "[0.5, 0.9]", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert [row["True_Positive"] for row in value["rows"]] == [2, 0, 2] * 2
    assert value["rows"][1]["AP"] is None
    assert Path(value["report"]).is_file()
    assert run_main([*words, *table]) == 1
    assert "overwrite" in capsys.readouterr().err
    assert run_main([*words, *table, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert "TP 2  FP 1  FN 0" in out
    assert "AP -" in out


def test_suppress_writes_what_is_kept(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["suppress", str(features / "found.parquet"), str(features / "kept.gpkg")]
    assert run_main([*words, "--max-overlap-ratio", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["features"] == 3
    assert gpd.read_file(features / "kept.gpkg").Confidence.tolist() == [90.0, 70.0, 60.0]


def test_video_runs_a_detector_and_refuses_other_models(
    detector_package: Path,
    classifier_package: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_writer(tmp_path / "film.mp4", 64, 64, 5.0) as writer:
        for _ in range(3):
            writer.write(np.full((64, 64, 3), 90, np.uint8))
    words = [str(tmp_path / "film.mp4"), str(tmp_path / "film.csv")]
    options = ["--threshold", "0.1", "--track", "--tracker-options", "detect_frames=1"]
    assert run_main(["video", str(detector_package), *words, *options]) == 0
    assert "film.csv" in capsys.readouterr().out
    assert (tmp_path / "film.csv").read_text().startswith("vmtilocaldataset\n")
    assert run_main(["video", str(classifier_package), *words]) == 1
    assert "UnetClassifier" in capsys.readouterr().err
