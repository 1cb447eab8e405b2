"""Small chip folders, written by rasterio and by hand: independent of geodl's own writers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning


def write_raster(path: Path, data: np.ndarray, transform: Affine | None, nodata=None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        place = {"transform": transform, "crs": "EPSG:32633"} if transform is not None else {}
        with rasterio.open(
            path, "w", driver="GTiff", width=data.shape[2], height=data.shape[1],
            count=data.shape[0], dtype=data.dtype, nodata=nodata, **place,
        ) as file:  # fmt: skip
            file.write(data)


def xml_of(boxes, values) -> str:
    objects = "".join(
        f"<object><name>{v}</name><bndbox><xmin>{x0:.2f}</xmin><ymin>{y0:.2f}</ymin>"
        f"<xmax>{x1:.2f}</xmax><ymax>{y1:.2f}</ymax></bndbox></object>"
        for (x0, y0, x1, y1), v in zip(boxes, values, strict=True)
    )
    return f"<annotation><filename>x.tif</filename>{objects}</annotation>"


class ExportWriter:
    """Writes an export of known content; every part of it can be chosen."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(
        self,
        name="export",
        *,
        mode="PASCAL_VOC_rectangles",
        chips=8,
        size=(32, 32),
        bands=3,
        dtype="uint8",
        classes=((1, "building"), (2, "tree")),
        band_names=(),
        stats=None,
        stride=32,
        georeferenced=True,
        space="MAP_SPACE",
        cell_size=0.5,
        nodata=None,
        seed=0,
        counts=True,
    ) -> Path:
        folder = self.root / name
        (folder / "images").mkdir(parents=True)
        (folder / "labels").mkdir()
        rng = np.random.default_rng(seed)
        values = [value for value, _ in classes]
        totals = dict.fromkeys(values, 0)
        for i in range(chips):
            transform = None
            if georeferenced:
                transform = Affine(
                    0.5, 0, 1000 + (i % 4) * stride * 0.5, 0, -0.5, 2000 - (i // 4) * stride * 0.5
                )
            data = rng.integers(0, 200, (bands, *size)).astype(dtype)
            write_raster(folder / "images" / f"{i:09d}.tif", data, transform, nodata)
            if mode == "Classified_Tiles":
                mask = rng.choice([0, *values], size).astype(np.uint8)
                write_raster(folder / "labels" / f"{i:09d}.tif", mask[None], transform)
                for value in values:
                    totals[value] += int((mask == value).sum())
            else:
                value = values[i % len(values)]
                totals[value] += 1
                text = xml_of([(4 + i % 3, 6, 14, 20)], [value])
                (folder / "labels" / f"{i:09d}.xml").write_text(text)
        suffix = "tif" if mode == "Classified_Tiles" else "xml"
        lines = (f"images\\{i:09d}.tif  labels\\{i:09d}.{suffix} " for i in range(chips))
        (folder / "map.txt").write_text("\n".join(lines) + "\n")
        emd = {
            "MetaDataMode": mode,
            "ImageSpaceUsed": space,
            "Classes": [{"Value": v, "Name": n, "Color": [10 * v, 20, 30]} for v, n in classes],
            "MinCellSize": {"x": cell_size, "y": cell_size},
            "MaxCellSize": {"x": cell_size, "y": cell_size},
        }
        if band_names:
            emd["InputRastersProps"] = {"RasterCount": 1, "BandNames": list(band_names)}
        if stats:
            emd["AllTilesStats"] = [
                dict(zip(("Min", "Max", "Mean", "StdDev"), s, strict=True)) for s in stats
            ]
        block, key = (
            ("ClassPixelStats", "NumPixelsPerClass")
            if suffix == "tif"
            else ("FeatureStats", "NumFeaturesPerClass")
        )
        accumulated = {
            "Version": 1, "NumBands": bands, "TileSizeX": size[1], "TileSizeY": size[0],
            "NumClasses": len(values), "NumTiles": chips, "MetaDataMode": mode,
            "Classes": [{"ClassValue": v, "ClassName": n} for v, n in classes],
        }  # fmt: skip
        if counts:
            accumulated[block] = {key: [totals[v] for v in values]}
        (folder / "esri_model_definition.emd").write_text(json.dumps(emd))
        (folder / "esri_accumulated_stats.json").write_text(json.dumps(accumulated))
        return folder


@pytest.fixture
def make_export(tmp_path) -> ExportWriter:
    return ExportWriter(tmp_path)
