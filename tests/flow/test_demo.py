"""The demo: from imagery to maps, with its figures, on generated scenes and on one's own."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import geopandas as gpd
import pytest
import rasterio

import geodl
from geodl.testing import make_scene

_DEMO = Path(geodl.__file__).resolve().parent.parent / "examples" / "demo.py"

pytestmark = pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning")


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    if not _DEMO.is_file():
        pytest.skip("geodl is installed without its examples")
    spec = importlib.util.spec_from_file_location("geodl_demo", _DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _check_products(folder: Path, out: str) -> None:
    """Each product is there, opens, and is named in the last lines."""
    with rasterio.open(folder / "classes.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert file.nodata == 255
    detections = gpd.read_parquet(folder / "detections.parquet")
    assert detections.crs.to_epsg() == 32633
    last = "\n".join(out.splitlines()[-10:])
    products = ["detections.parquet", "classes.tif", "detector.dlpk", "classifier.dlpk"]
    for name in [*products, "figures.json", "map.png"]:
        assert name in last
        assert list(folder.rglob(name)), name
    assert out.splitlines()[-2].startswith("AP50 0.") or out.splitlines()[-2].startswith("AP50 1.")
    assert out.splitlines()[-1].startswith("mIoU 0.")


def test_demo_runs_on_a_raster_and_features_of_your_own(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scene = make_scene(tmp_path / "own", size=(160, 160), seed=3)
    monkeypatch.setattr(demo, "DETECTOR_CHIPS", 20)
    monkeypatch.setattr(demo, "CLASSIFIER_CHIPS", 20)
    folder = tmp_path / "demo"
    figures = demo.run(folder, scene.raster, scene.labels, "class_name", 1)
    _check_products(folder, capsys.readouterr().out)
    assert figures == json.loads((folder / "figures.json").read_text())
    assert figures["held_out"] == "validation chips"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_demo_reaches_its_accuracy_on_another_scene(
    demo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = demo.run(tmp_path, None, None, None, 1)
    _check_products(tmp_path, capsys.readouterr().out)
    assert figures["held_out"] == "another scene"
    assert figures["AP50"] >= 0.6
    assert figures["mIoU"] >= 0.7
