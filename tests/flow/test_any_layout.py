"""One answer: sizes, tiles, paddings, blocks, nodata and workers are drawn, the product is not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from distributed import Client
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import from_origin

from geodl.runtime.connect import connect
from geodl.testing.tiny import register_tiny_models, tiny_model
from geodl.tools.classify_pixels import classify_pixels
from geodl.tools.detect_objects import detect_objects

# Some objects are larger than a tile of so few pixels shows.
pytestmark = pytest.mark.filterwarnings("ignore:.*detections were cut by the edges")

TILE = 32
TOOLS = {"pixels": (classify_pixels, ".tif"), "objects": (detect_objects, ".parquet")}


@dataclass(frozen=True)
class Case:
    height: int
    width: int
    padding: int
    block: int
    chunk: int | None
    nodata: str
    blend: bool
    workers: int
    seed: int


@st.composite
def cases(draw: st.DrawFn, workers: Sequence[int]) -> Case:
    padding = draw(st.integers(0, 11))
    return Case(
        # Smaller than a tile, one tile, odd ones, several blocks.
        height=draw(st.integers(1, 150)),
        width=draw(st.integers(1, 150)),
        padding=padding,
        block=draw(st.integers(1, 200)),
        chunk=draw(st.sampled_from([None, 16, 48])),
        nodata=draw(st.sampled_from(["none", "all", "noise", "corner", "stripes"])),
        # A tile without overlap has nothing to blend.
        blend=draw(st.booleans()) and padding > 0,
        workers=draw(st.sampled_from(workers)),
        seed=draw(st.integers(0, 2**16)),
    )


@pytest.fixture(scope="module")
def clients(workers: Client) -> dict[int, Client | None]:
    workers.run(register_tiny_models)
    return {0: None, 2: workers}


@pytest.fixture(scope="module")
def one_more(clients: dict[int, Client | None]) -> Iterator[dict[int, Client | None]]:
    with connect("local", workers=1, threads_per_worker=2, dashboard_address=None) as one:
        one.run(register_tiny_models)
        yield {**clients, 1: one}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: str(tiny_model(folder / kind, kind, tile_px=TILE)) for kind in TOOLS}


def write_scene(case: Case, path: Path) -> Path:
    """uint8, three bands, 0 is nodata; patches of bright pixels on noise."""
    rng = np.random.default_rng(case.seed)
    shape = case.height, case.width
    data = rng.integers(1, 100, (3, *shape), dtype=np.uint8)
    for _ in range(case.height * case.width // 150):
        row, col = rng.integers(0, case.height), rng.integers(0, case.width)
        height, width = rng.integers(1, 9, 2)
        data[:, row : row + height, col : col + width] = rng.integers(130, 255)
    if case.nodata == "all":
        data[:] = 0
    elif case.nodata == "noise":
        data[:, rng.random(shape) < 0.2] = 0
    elif case.nodata == "corner":
        data[:, : case.height // 2, : case.width // 2] = 0
    elif case.nodata == "stripes":
        data[:, (np.arange(case.height) // 7) % 2 == 0] = 0
    tiled = {} if case.chunk is None else {"tiled": True, "blockxsize": case.chunk}
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=case.height, width=case.width, dtype="uint8",
        nodata=0, crs="EPSG:32633", transform=from_origin(500_000, 5_000_000, 0.5, 0.5),
        blockysize=case.chunk or 1, **tiled,
    ) as file:  # fmt: skip
        file.write(data)
    return path


def product(kind: str, case: Case, models: dict[str, str], folder: Path, **how: Any) -> Any:
    tool, suffix = TOOLS[kind]
    arguments: dict[str, Any] = {"padding": case.padding}
    if kind == "pixels":
        arguments["predict_background"] = True
        arguments["overlap"] = "blend" if case.blend else "crop"
    path = folder / f"{how['block_size']}-{how['client'] is None}{suffix}"
    tool(  # type: ignore[operator]
        str(folder / "scene.tif"), models[kind], arguments, path, progress=False, overwrite=True,
        **how,
    )  # fmt: skip
    if kind == "objects":
        return gpd.read_parquet(path).to_wkb().to_csv()
    with rasterio.open(path) as file:
        return file.read().tobytes()


def check(case: Case, clients: dict[int, Client | None], models: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_scene(case, folder / "scene.tif")
        for kind in TOOLS:
            whole = product(kind, case, models, folder, block_size=1024, client=None)
            parts = product(
                kind, case, models, folder, block_size=case.block, client=clients[case.workers]
            )
            assert parts == whole, kind


@settings(max_examples=6)
@given(case=cases(workers=(0, 2)))
def test_one_answer(case: Case, clients: dict[int, Client | None], models: dict[str, str]) -> None:
    check(case, clients, models)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@settings(max_examples=300, derandomize=False)
@given(case=cases(workers=(0, 0, 1, 2)))
def test_one_answer_for_hundreds_of_layouts(
    case: Case, one_more: dict[int, Client | None], models: dict[str, str]
) -> None:
    check(case, one_more, models)
