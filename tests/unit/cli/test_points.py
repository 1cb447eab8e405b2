"""``geodl points`` and what ``geodl info`` says of clouds."""

from __future__ import annotations

import json
from pathlib import Path

import laspy
import numpy as np
import pytest

from geodl.cli import main
from geodl.testing.cloud import make_cloud
from geodl.testing.tiny_points import tiny_points


def test_a_cloud_is_described_and_classified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = make_cloud(tmp_path / "a.laz", points=500, side=50)
    model = tiny_points(tmp_path / "model")
    assert main(["info", str(cloud), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["points"], facts["crs"]) == ("points", 500, "EPSG:32633")
    assert facts["density"] == pytest.approx(0.2, rel=0.05)
    output = tmp_path / "b.laz"
    words = ["points", str(cloud), str(model), "--output", str(output), "--confidence"]
    assert main([*words, "--estimate"]) == 0
    assert "worker-hours" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    read = laspy.read(output)
    codes, counts = np.unique(read.classification, return_counts=True)
    assert value["classes"] == {str(c): int(n) for c, n in zip(codes, counts, strict=True)}
    assert "confidence" in read.point_format.dimension_names
    assert main(words) == 1
    assert "exists already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert "500 points" in capsys.readouterr().out
