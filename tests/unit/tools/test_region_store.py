"""The regions of a run: found again whole, never begun anew beside finished blocks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geodl.base.errors import OutputError
from geodl.io.regions import RegionStore
from geodl.tools import classify_pixels as module
from geodl.tools.classify_pixels import classify_pixels


def test_finished_blocks_without_their_regions_are_no_product(
    write_raster: Any, pixel_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raster = write_raster(np.full((3, 90, 90), 200, np.uint8))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def go() -> Any:
        return classify_pixels(
            raster, str(pixel_model), {"predict_background": True}, tmp_path / "a.tif",
            progress=False,
        )  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_raster", stop)
        with pytest.raises(KeyboardInterrupt):
            go()
    regions = tmp_path / "a.tif.run" / "regions.zarr"
    assert RegionStore.exists(regions)
    kept = shutil.move(regions, tmp_path / "kept.zarr")
    with pytest.raises(OutputError, match="holds no regions"):
        go()
    shutil.move(kept, regions)
    assert (go().to_numpy() == 2).all()
