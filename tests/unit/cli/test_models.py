"""Commands for models, catalogs and clusters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from geodl.cli import main

GOLDEN = Path(__file__).parents[2] / "golden"
PACKAGE = str(GOLDEN / "schema1_labels.dlpk")


def run(capsys: Any, *words: str) -> Any:
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_sound_package_is_verified_and_a_damaged_one_refused(capsys: Any, tmp_path: Path) -> None:
    found = run(capsys, "model", "verify", PACKAGE)
    assert found["parameters"] > 50_000
    assert main(["model", "verify", PACKAGE]) == 0
    assert "sound" in capsys.readouterr().out
    damaged = tmp_path / "x.dlpk"
    shutil.copy(PACKAGE, damaged)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255
    damaged.write_bytes(bytes(content))
    assert main(["model", "verify", str(damaged)]) == 1
    assert "x.dlpk" in capsys.readouterr().err


def test_features_are_labelled(capsys: Any, scene: Any, tmp_path: Path) -> None:
    out = str(tmp_path / "labels.gpkg")
    options = [
        "--input-features",
        str(scene.labels),
        "--output-name",
        out,
        "--class-label-field",
        "k",
    ]
    found = run(capsys, "label", str(scene.raster), PACKAGE, *options)
    assert found["path"] == out
    assert found["features"] > 5
    plan = run(capsys, "label", str(scene.raster), PACKAGE, *options[:2], "--dry-run")
    assert plan["features"] == found["features"]
    assert "chips of" in plan["plan"]


def test_a_catalog_is_filled_searched_checked_and_emptied(capsys: Any, tmp_path: Path) -> None:
    root = str(tmp_path / "catalog")
    added = run(capsys, "catalog", "add", root, PACKAGE, "--id", "kinds", "--title", "Kinds")
    assert Path(added["path"]).exists()
    assert [item["id"] for item in run(capsys, "catalog", "list", root, "--kind", "model")] == [
        "kinds"
    ]
    assert run(capsys, "catalog", "list", root, "--text", "nothing of it") == []
    assert run(capsys, "catalog", "get", root, "kinds")["title"] == "Kinds"
    assert run(capsys, "catalog", "check", root) == {"valid": 1}
    assert main(["catalog", "list", root]) == 0
    assert "kinds  model" in capsys.readouterr().out
    assert run(capsys, "catalog", "remove", root, "kinds") == {"removed": "kinds"}
    assert main(["catalog", "get", root, "kinds"]) == 1
    assert main(["catalog", "list", root, "--kind", "map"]) == 2


def test_a_cluster_is_started_and_described(capsys: Any) -> None:
    found = run(capsys, "cluster", "start", "local", "--workers", "1", "--for", "0")
    assert found["address"].startswith("tcp://")
    assert main(["cluster", "info", "no-such-file.json"]) == 1
    assert "faults" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["model"], ["catalog"], ["cluster"]])
def test_a_group_alone_is_wrong_use(capsys: Any, words: list[str]) -> None:
    assert main(words) == 2
