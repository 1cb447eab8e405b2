"""A tiny export whose classes differ by colour, and the data object of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {0: (40, 40, 40), 3: (200, 60, 60), 7: (60, 200, 60)}


def write_export(folder: Path, *, chips: int = 6, side: int = 64, seed: int = 0) -> None:
    """Classified tiles: vertical stripes of class 0, 3 and 7 with noise, written by hand."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    counts = dict.fromkeys((3, 7), 0)
    for i in range(chips):
        order = rng.permutation([0, 3, 7])
        label = np.repeat(order, -(-side // 3))[:side]
        label = np.broadcast_to(label, (side, side)).astype(np.uint8)
        table = np.zeros((8, 3), np.int64)
        for value, colour in COLOURS.items():
            table[value] = colour
        image = table[label] + rng.normal(0, 10, (side, side, 3))
        Image.fromarray(image.clip(1, 255).astype(np.uint8)).save(folder / f"images/{i:03d}.png")
        Image.fromarray(label).save(folder / f"labels/{i:03d}.png")
        for value in counts:
            counts[value] += int((label == value).sum())
    lines = [f"images\\{i:03d}.png  labels\\{i:03d}.png" for i in range(chips)]
    (folder / "map.txt").write_text("\n".join(lines) + "\n")
    emd = {
        "MetaDataMode": "Classified_Tiles",
        "ImageSpaceUsed": "MAP_SPACE",
        "Classes": [
            {"Value": 3, "Name": "roof", "Color": [200, 60, 60]},
            {"Value": 7, "Name": "tree", "Color": [60, 200, 60]},
        ],
        "MinCellSize": {"x": 0.5, "y": 0.5},
        "MaxCellSize": {"x": 0.5, "y": 0.5},
    }
    stats = {
        "Version": 1, "NumBands": 3, "TileSizeX": side, "TileSizeY": side, "NumClasses": 2,
        "NumTiles": chips, "MetaDataMode": "Classified_Tiles",
        "Classes": [{"ClassValue": 3, "ClassName": "roof"}, {"ClassValue": 7, "ClassName": "tree"}],
        "ClassPixelStats": {"NumPixelsPerClass": list(counts.values())},
    }  # fmt: skip
    (folder / "esri_model_definition.emd").write_text(json.dumps(emd))
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(stats))


@pytest.fixture(scope="session")
def export(make_once) -> Path:
    return make_once("pixel-export", lambda folder: write_export(folder / "export")) / "export"


@pytest.fixture
def data(export, tmp_path):
    from geodl.data.prepare import prepare_data

    return prepare_data(
        export, chip_size=64, batch_size=4, val_split_pct=0.34, working_dir=tmp_path / "work"
    )


@pytest.fixture
def pixel_export(tmp_path):
    """``pixel_export(**options)``: an export of this test's own, see :func:`write_export`."""

    def make(**options) -> Path:
        write_export(tmp_path / "own", **options)
        return tmp_path / "own"

    return make
