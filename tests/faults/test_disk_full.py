"""A full disk stops the run with its name; what is done is kept and the same call goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geodl.base.errors import OutputError
from geodl.testing.tiny import tiny_model
from geodl.tools.classify_pixels import classify_pixels

SIZE = 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of three megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_what_is_done(small_disk: Path, tmp_path: Path) -> None:
    # Noise, so that the product does not compress away.
    data = np.random.default_rng(0).integers(1, 256, (3, SIZE, SIZE), dtype=np.uint8)
    with rasterio.open(
        tmp_path / "scene.tif", "w", driver="GTiff", count=3, height=SIZE, width=SIZE,
        dtype="uint8", crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 1, 1),
    ) as file:  # fmt: skip
        file.write(data)
    model = str(tiny_model(tmp_path / "model", "pixels"))

    def run(output: Path) -> None:
        arguments = {"predict_background": True, "output": "scores"}
        classify_pixels(
            tmp_path / "scene.tif", model, arguments, output, progress=False, block_size=256
        )

    with pytest.raises(OutputError, match=r"cannot be written.*of 16 blocks are kept; free space"):
        run(small_disk / "map.tif")
    assert not (small_disk / "map.tif").exists()
    subprocess.run(["mount", "-o", "remount,size=60m", str(small_disk)], check=True)
    run(small_disk / "map.tif")
    blocks = json.loads((small_disk / "map.tif.manifest.json").read_text())["blocks"]
    assert 0 < blocks["resumed"] < blocks["total"] == blocks["done"] == 16
    run(tmp_path / "whole.tif")
    with (
        rasterio.open(small_disk / "map.tif") as found,
        rasterio.open(tmp_path / "whole.tif") as whole,
    ):
        assert found.read().tobytes() == whole.read().tobytes()
