"""Small training folders of every layout, of known content, written without geodl's writers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine

from geodl.base.packages import require

CELL_SIZE = 0.5
ORIGIN = (1000.0, 2000.0)
_PER_ROW = 4


def write_chip(path: Path, data: np.ndarray, position: int = 0, **profile: Any) -> None:
    """A GeoTIFF of (C, H, W) at a place of its own on a grid of chips."""
    bands, height, width = data.shape
    x = ORIGIN[0] + (position % _PER_ROW) * width * CELL_SIZE
    y = ORIGIN[1] - (position // _PER_ROW) * height * CELL_SIZE
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=data.dtype,
        transform=Affine(CELL_SIZE, 0, x, 0, -CELL_SIZE, y), crs="EPSG:32633", **profile,
    ) as file:  # fmt: skip
        file.write(data)


def write_chips(
    folder: Path,
    count: int,
    *,
    bands: int = 3,
    dtype: str = "uint8",
    size: tuple[int, int] = (16, 16),
    seed: int = 0,
    suffix: str = ".tif",
) -> list[np.ndarray]:
    """Chips ``000000000.tif`` ... of random values in 0..199.

    Parameters
    ----------
    size
        Height and width.

    Returns
    -------
    What is in them.
    """
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        data = rng.integers(0, 200, (bands, *size)).astype(dtype)
        write_chip(folder / f"{i:09d}{suffix}", data, i)
        found.append(data)
    return found


def write_masks(
    folder: Path, count: int, *, values: Sequence[int] = (0, 1), size: tuple[int, int] = (16, 16)
) -> list[np.ndarray]:
    """Label rasters of uint8 ``values`` by chance; returned as (H, W)."""
    rng = np.random.default_rng(count)
    found = []
    for i in range(count):
        mask = rng.choice(np.array(values, np.uint8), size)
        write_chip(folder / f"{i:09d}.tif", mask[None], i)
        found.append(mask)
    return found


def write_root_files(
    folder: Path,
    mode: str,
    *,
    bands: int = 3,
    size: tuple[int, int] = (16, 16),
    chips: int = 0,
    **emd: Any,
) -> None:
    """The three files that mark an export; ``emd`` are further keys of the model definition."""
    folder.mkdir(parents=True, exist_ok=True)
    images = sorted((folder / "images").glob("*")) if (folder / "images").is_dir() else []
    lines = "".join(f"images\\{image.name} \n" for image in images)
    (folder / "map.txt").write_text(lines or "images\\none.tif \n")
    definition = {"MetaDataMode": mode, "ImageSpaceUsed": "MAP_SPACE", **emd}
    (folder / "esri_model_definition.emd").write_text(json.dumps(definition))
    accumulated = {
        "Version": 1, "NumBands": bands, "TileSizeX": size[1], "TileSizeY": size[0],
        "NumTiles": chips or len(images), "MetaDataMode": mode,
    }  # fmt: skip
    (folder / "esri_accumulated_stats.json").write_text(json.dumps(accumulated))


def band_statistics(chips: Sequence[np.ndarray]) -> list[dict[str, Any]]:
    """``AllTilesStats`` of chips (C, H, W), by NumPy."""
    values = np.stack([chip.astype(np.float64) for chip in chips])
    axes = (0, 2, 3)
    columns = (values.min(axes), values.max(axes), values.mean(axes), values.std(axes))
    return [
        {"BandName": f"b{i}", "Min": low, "Max": high, "Mean": mean, "StdDev": std}
        for i, (low, high, mean, std) in enumerate(
            zip(*map(np.ndarray.tolist, columns), strict=True)
        )
    ]


_TILE_COLOURS = ((190, 70, 60), (70, 180, 60), (60, 70, 190))


def label_folder(
    root: Path,
    *,
    chips: int = 12,
    size: tuple[int, int] = (64, 64),
    several: bool = False,
    **emd: Any,
) -> Path:
    """Chips of one class each, told by their colour, or of several: ``Labeled_Tiles``.

    Parameters
    ----------
    several
        ``MultiLabeled_Tiles``: each third of a chip shows one of its one to three classes.
    **emd
        Further keys of the model definition.

    Returns
    -------
    The folder; its classes are 2 (brick), 5 (leaf) and 9 (water).
    """
    rng = np.random.default_rng(3)
    names = ("brick", "leaf", "water")
    mode = "MultiLabeled_Tiles" if several else "Labeled_Tiles"
    (root / "labels").mkdir(parents=True)
    for i in range(chips):
        shown = [i % 3] if not several else [[0], [1], [0, 1], [2], [1, 2], [0, 1, 2]][i % 6]
        thirds = np.array([shown[k % len(shown)] for k in range(3)])
        columns = thirds[np.arange(size[1]) * 3 // size[1]]
        clean = np.array(_TILE_COLOURS)[columns].T[:, None, :]
        data = (clean + rng.normal(0, 12, (3, *size))).clip(0, 255).astype(np.uint8)
        write_chip(root / "images" / f"{i:09d}.tif", data, i)
        text = ",".join(names[k] for k in sorted(set(thirds.tolist())))
        box = f"<xmin>0</xmin><ymin>0</ymin><xmax>{size[1]}</xmax><ymax>{size[0]}</ymax>"
        (root / "labels" / f"{i:09d}.xml").write_text(
            f"<annotation><object><name>{text}</name><bndbox>{box}</bndbox></object></annotation>"
        )
    classes = [{"Value": v, "Name": n} for v, n in zip((2, 5, 9), names, strict=True)]
    write_root_files(root, mode, size=size, Classes=classes, **emd)
    return root


def change_folder(root: Path, chips: int = 6, **options: Any) -> Path:
    """``images``, ``images2`` and ``labels`` with their root files."""
    write_chips(root / "images", chips, seed=1, **options)
    write_chips(root / "images2", chips, seed=2, **options)
    write_masks(root / "labels", chips, size=options.get("size", (16, 16)))
    write_root_files(root, "Classified_Tiles", Classes=[{"Value": 1, "Name": "mine"}])
    return root


def point_cloud_folder(
    root: Path,
    *,
    parts: Sequence[str] = ("train", "val"),
    blocks: int = 4,
    points: int = 40,
    codes: Sequence[int] = (2, 5, 6),
    seed: int = 0,
) -> Path:
    """A ``.pctd`` export of two files per part, with ``intensity`` in 0..1000.

    Parameters
    ----------
    blocks
        In each file; block i has ``points + i`` points.
    """
    h5py = require("h5py", "points")

    rng = np.random.default_rng(seed)
    for part in parts:
        folder = root / part
        folder.mkdir(parents=True)
        tiles, masks = [], []
        for number, name in enumerate(("a.h5", "b.h5")):
            counts = [points + i for i in range(blocks)]
            total = sum(counts)
            classes = rng.choice(np.array(codes), total)
            with h5py.File(folder / name, "w") as file:
                file["xyz"] = rng.uniform(-1, 1, (total, 3))
                file["classification"] = classes.astype(np.uint8)
                file["intensity"] = rng.integers(0, 1001, total)
            start = 0
            for count in counts:
                tiles.append((number, start, count))
                bits = np.zeros(256, bool)
                bits[classes[start : start + count]] = True
                masks.append(np.packbits(bits, bitorder="little"))
                start += count
        with h5py.File(folder / "ListTable.h5", "w") as file:
            file["Files"] = np.array([b"a.h5", b"b.h5"])
            file["Tiles"] = np.array(tiles)
            file["Masks"] = np.array(masks)
            file["Centers"] = np.zeros((len(tiles), 3))
        statistics = {
            "parameters": {"maxPoints": points + blocks, "tileSize": 50.0},
            "attributes": {
                "xyz": {"min": [-1, -1, -1], "max": [1, 1, 1]},
                "intensity": {"min": 0, "max": 1000},
                "rgbType": "uint8",
            },
            "classification": {
                "min": min(codes), "max": max(codes), "table": [{"classCode": c} for c in codes],
            },
        }  # fmt: skip
        (folder / "Statistics.json").write_text(json.dumps(statistics))
    return root


def object_cloud_folder(
    root: Path, *, scale: float = 10.0, codes: Sequence[int] | None = (3, 8)
) -> Path:
    """A ``.pcotd`` export: three blocks of two boxes in each of ``train`` and ``val``.

    Box 0 of each block holds all its points, box 1 a quarter. ``codes`` None writes no
    ``objectCode``.
    """
    h5py = require("h5py", "points")

    rng = np.random.default_rng(7)
    listed = list(codes or (0, 0))
    for part in ("train", "val"):
        folder = root / part
        folder.mkdir(parents=True)
        boxes = np.tile(
            [[0.1, 0.2, 1.0, 0.0, 0.3, 0.1, 0.0, 0.5], [-0.4, 0.1, 0.0, 1.0, 0.2, 0.2, -0.1, 0.2]],
            (3, 1),
        )
        with h5py.File(folder / "a.h5", "w") as file:
            file["xyz"] = rng.uniform(-1, 1, (60, 3))
            file["intensity"] = rng.integers(0, 1001, 60)
            file["orientedBoundingBox"] = boxes
            file["orientedBoundingBoxCount"] = np.array([[8, 8], [2, 8]] * 3)
            if codes is not None:
                file["objectCode"] = np.array(listed * 3)
        bits = np.zeros(256, bool)
        bits[listed] = True
        with h5py.File(folder / "ListTable.h5", "w") as file:
            file["Files"] = np.array([b"a.h5"])
            file["Tiles"] = np.array([[0, 20 * i, 20, 2 * i, 2] for i in range(3)])
            file["ObjectMasks"] = np.tile(np.packbits(bits, bitorder="little"), (3, 1))
        table = [
            {
                "classCode": code,
                "orientedBoundingBoxAverageLength": [0.6, 0.2, 0.5],
                "orientedBoundingBoxZ": {"min": [-0.1], "max": [0.5]},
            }
            for code in dict.fromkeys(listed)
        ]
        statistics = {
            "parameters": {"maxPoints": 20, "tileSize": 20.0, "scaleFactor": scale},
            "attributes": {"intensity": {"min": 0, "max": 1000}},
            "tileStatistics": {"classification": {"table": table}},
            "numberOfStoredOrientedBoundingBoxes": 6,
        }
        (folder / "Statistics.json").write_text(json.dumps(statistics))
    return root
