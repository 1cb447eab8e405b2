"""Training chips in a catalog: published by their export, found, seen, and read from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

import geodl
from geodl.data import prepare_data
from geodl.formats.folder import open_export
from geodl.tools.export_training_data import export_training_data

SIZE_PX, CELL_M = 96, 10.0


@pytest.fixture
def catalog(tmp_path: Path) -> geodl.Catalog:
    return geodl.Catalog(tmp_path / "published")


def scene(path: Path, east: float = 500_000) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", width=SIZE_PX, height=SIZE_PX, count=3, dtype="uint8",
        crs="EPSG:32633", transform=from_origin(east, 5_000_000, CELL_M, CELL_M),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).integers(1, 255, (3, SIZE_PX, SIZE_PX), np.uint8))
    return path


def export(tmp_path: Path, **more: Any) -> str:
    boxes = [shapely.box(500_100 + x, 4_999_500, 500_200 + x, 4_999_600) for x in (0, 400)]
    labels = geopandas.GeoDataFrame({"classvalue": [1, 2]}, geometry=boxes, crs=32633)
    given: dict[str, Any] = {
        "tile_size": 32,
        "metadata_format": "Classified_Tiles",
        "progress": False,
    }
    given["input_class_data"] = labels
    return export_training_data(scene(tmp_path / "image.tif"), **{**given, **more})


def test_an_export_is_published_where_a_catalog_is_given(
    tmp_path: Path, catalog: geodl.Catalog
) -> None:
    folder = export(tmp_path, output_location="fields", gis=catalog)
    assert Path(folder) == catalog.root / "fields" / "fields"
    (item,) = catalog.search(kind="chips", bbox=(15, 45.14, 15.01, 45.16))
    assert item.assets["data"].href == folder
    assert item.properties["geodl:facts"] == {
        "format": "Classified_Tiles",
        "chips": len(open_export(folder).chips),
        "size": "32 x 32 px, 3 x uint8",
        "classes": "1, 2",
        "tool": "export_training_data",
        "started": item.properties["geodl:facts"]["started"],
    }
    assert item.bbox is not None
    west, south, east, north = item.bbox
    assert 14.9 < west < east < 15.1
    assert 45.1 < south < north < 45.2
    assert Path(item.assets["thumbnail"].href).is_file()
    assert catalog.validate() == 1
    assert prepare_data(item.assets["data"].href, batch_size=2, val_split_pct=0.5).classes == [
        "1",
        "2",
    ]
    assert "chips (1)" in catalog.page.read_text()


def test_a_folder_elsewhere_is_copied_and_stays(tmp_path: Path, catalog: geodl.Catalog) -> None:
    folder = export(tmp_path, output_location=tmp_path / "mine")
    href = Path(catalog.add(folder).assets["data"].href)
    assert href == catalog.root / "mine" / "mine"
    names = sorted(p.relative_to(folder) for p in Path(folder).rglob("*"))
    assert sorted(p.relative_to(href) for p in href.rglob("*")) == names


def test_a_path_beside_a_catalog_is_where_the_export_lies(
    tmp_path: Path, catalog: geodl.Catalog
) -> None:
    folder = export(tmp_path, output_location=tmp_path / "there", gis=catalog)
    assert Path(folder) == tmp_path / "there"
    assert [item.id for item in catalog.search(kind="chips")] == ["there"]


def test_both_sides_of_a_pair_are_one_item(tmp_path: Path, catalog: geodl.Catalog) -> None:
    folder = export(
        tmp_path, metadata_format="CycleGAN", output_location="pair", gis=catalog,
        input_class_data=None,
        additional_input_raster=scene(tmp_path / "other.tif", east=500_960),
    )  # fmt: skip
    (item,) = catalog.search(kind="chips")
    assert isinstance(item, pystac.Item)
    assert item.assets["data"].href == folder
    assert item.properties["geodl:facts"]["chips"] == 2 * (SIZE_PX // 32) ** 2
    assert item.bbox is not None
    west, _, east, _ = item.bbox
    assert east - west > 1.9 * SIZE_PX * CELL_M / 111_320 / np.cos(np.radians(45.15))


def test_chips_whose_manifest_somebody_changed_have_no_place(
    tmp_path: Path, catalog: geodl.Catalog
) -> None:
    folder = export(tmp_path, output_location=tmp_path / "mine")
    Path(f"{folder}.manifest.json").write_text(json.dumps({"inputs": [{"identity": 3}]}))
    assert catalog.add(folder).bbox is None
