"""The catalog: everything published is there, valid, found, and gone when it is removed."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio
from pystac.extensions.mlm import MLMExtension
from pystac.extensions.raster import RasterExtension
from pystac.extensions.table import TableExtension
from rasterio.transform import from_origin
from shapely.geometry import box

import geodl
from geodl.base.errors import (
    BundleError,
    FormatError,
    OptionError,
    OutputExistsError,
    SourceNotFoundError,
)
from geodl.io.manifest import write_manifest

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def raster(tmp_path):
    path = tmp_path / "height.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=40, height=30, count=2, dtype="float32", nodata=-9.0,
        crs="EPSG:32633", transform=from_origin(500000, 5000000, 10, 10),
    ) as file:  # fmt: skip
        file.write(np.random.default_rng(0).normal(size=(2, 30, 40)).astype("float32"))
    return path


@pytest.fixture
def features(tmp_path):
    path = tmp_path / "Found trees.parquet"
    frame = geopandas.GeoDataFrame(
        {"Class": ["a", "b"]}, geometry=[box(10, 50, 11, 51), box(12, 52, 12.5, 52.5)],
        crs="EPSG:4326",
    )  # fmt: skip
    frame.to_parquet(path)
    return path


@pytest.fixture
def catalog(tmp_path):
    return geodl.Catalog(tmp_path / "catalog")


def test_products_and_models_become_valid_items(catalog, raster, features):
    write_manifest(raster, {"tool": "classify_pixels", "model": {"model_name": "UnetClassifier"}})
    found = catalog.add(raster, title="Height", description="of the ground")
    assert isinstance(found, pystac.Item)
    assert found.id == "height"
    data = found.assets["data"]
    assert Path(data.href).read_bytes() == raster.read_bytes()
    bands = RasterExtension.ext(data).bands
    assert [band.nodata for band in bands] == [-9.0, -9.0]
    assert found.properties["proj:code"] == "EPSG:32633"
    assert found.bbox == pytest.approx([15.0, 45.1508, 15.0051, 45.1535], abs=1e-3)
    assert found.assets["height.tif.manifest.json"].roles == ["metadata"]
    assert found.properties["geodl:facts"]["tool"] == "classify_pixels"

    trees = catalog.add(features)
    assert trees.id == "Found_trees"
    assert Path(trees.assets["data"].href).name == "Found trees.parquet"
    table = TableExtension.ext(trees)
    assert table.row_count == 2
    assert [column.name for column in table.columns] == ["Class", "geometry"]
    assert trees.bbox == pytest.approx([10, 50, 12.5, 52.5])

    model = catalog.add(GOLDEN / "schema1_labels.dlpk", id="labels")
    described = MLMExtension.ext(model)
    assert described.architecture == "FeatureClassifier"
    assert list(described.tasks) == ["classification"]
    assert model.bbox is None
    assert catalog.validate() == len(catalog) == 3
    for item in catalog.search():
        assert item.assets.get("thumbnail") or item.id == "labels"


def test_the_tree_is_plain_stac_that_others_read(catalog, raster, features):
    catalog.add(raster)
    catalog.add(features)
    read = pystac.Catalog.from_file(str(catalog.root / "catalog.json"))
    items = sorted(read.get_items(recursive=True), key=lambda item: item.id)
    assert [item.id for item in items] == ["Found_trees", "height"]
    assert Path(items[1].assets["data"].get_absolute_href()).exists()
    assert items[0].get_root().id == read.id
    for item in items:
        text = Path(item.get_self_href()).read_text()
        assert str(catalog.root) not in text


def test_everything_is_found_by_text_place_and_kind(catalog, raster, features):
    catalog.add(raster, title="Height of the ground")
    catalog.add(features)
    catalog.add(GOLDEN / "schema1_labels.dlpk")

    def ids(**query):
        return [item.id for item in catalog.search(**query)]

    assert ids() == ["Found_trees", "height", "schema1_labels"]
    assert ids(text="GROUND") == ["height"]
    assert ids(text="featureclassifier") == ["schema1_labels"]
    assert ids(kind="features") == ["Found_trees"]
    assert ids(bbox=(14, 45, 16, 46)) == ["height"]
    assert ids(bbox=(9, 49, 16, 60)) == ["Found_trees"]
    assert ids(bbox=(170, 40, 16, 60)) == ["Found_trees", "height"]
    assert ids(bbox=(0, 0, 1, 1)) == []
    assert ids(text="trees", kind="raster") == []
    for wrong in ({"kind": "map"}, {"bbox": (1, 2, 3)}, {"bbox": (0, 5, 1, 4)}):
        with pytest.raises(OptionError):
            catalog.search(**wrong)


def test_an_id_is_taken_once_unless_overwritten(catalog, raster, features):
    catalog.add(raster, id="one")
    with pytest.raises(OutputExistsError, match="'one'"):
        catalog.add(features, id="one")
    assert catalog.get("one").properties["geodl:kind"] == "raster"
    catalog.add(features, id="one", overwrite=True)
    assert catalog.get("one").properties["geodl:kind"] == "features"
    assert [item.properties["geodl:kind"] for item in catalog.search()] == ["features"]
    assert sorted(p.name for p in (catalog.root / "one").iterdir()) == [
        "Found trees.parquet", "one.json", "thumbnail.png",
    ]  # fmt: skip


def test_what_is_removed_is_gone(catalog, raster, features):
    catalog.add(raster)
    catalog.add(features)
    catalog.remove("height")
    assert [item.id for item in catalog.search()] == ["Found_trees"]
    assert not (catalog.root / "height").exists()
    assert raster.exists()
    with pytest.raises(SourceNotFoundError, match="Found_trees"):
        catalog.get("Found_tree")
    with pytest.raises(SourceNotFoundError):
        catalog.remove("height")
    assert catalog.validate() == 1


def test_results_tables_and_models_in_memory_are_added(catalog, raster, tmp_path):
    table = tmp_path / "labels.csv"
    pd.DataFrame({"Image": ["a"], "ClassLabel": ["b"]}).to_csv(table, index=False)
    result = pd.DataFrame()
    result.attrs["path"] = str(table)
    item = catalog.add(result)
    assert item.properties["geodl:kind"] == "table"
    assert TableExtension.ext(item).row_count == 1
    with pytest.raises(OptionError, match="DataFrame"):
        catalog.add(pd.DataFrame())
    with pytest.raises(SourceNotFoundError, match=r"nothing\.tif"):
        catalog.add(tmp_path / "nothing.tif")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(OptionError, match=r"a\.docx"):
        catalog.add(tmp_path / "a.docx")


@pytest.mark.parametrize("wrong", ["", "..", "a/b", "../x", ".hidden", "a b", "x.", "ä"])
def test_ids_are_plain_names(catalog, raster, wrong):
    with pytest.raises(OptionError, match="id="):
        catalog.add(raster, id=wrong)
    with pytest.raises(OptionError, match="id="):
        catalog.get(wrong)


def test_a_refused_package_is_not_published(catalog, tmp_path):
    path = tmp_path / "bad.dlpk"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../x.emd", "{}")
    with pytest.raises(BundleError):
        catalog.add(path)
    assert len(catalog) == 0


def test_a_damaged_root_is_made_anew_from_the_items(catalog, raster, features):
    catalog.add(raster)
    (catalog.root / "catalog.json").write_text("{")
    with pytest.raises(FormatError, match=r"catalog\.json"):
        catalog.search()
    catalog.add(features)
    assert [item.id for item in catalog.search()] == ["Found_trees", "height"]


def test_an_item_that_the_root_lost_is_found_all_the_same(catalog, raster, features):
    catalog.add(raster)
    root = json.loads((catalog.root / "catalog.json").read_text())
    root["links"] = [link for link in root["links"] if link["rel"] != "item"]
    (catalog.root / "catalog.json").write_text(json.dumps(root))
    assert [item.id for item in catalog.search(text="height")] == ["height"]
    catalog.add(features)
    links = json.loads((catalog.root / "catalog.json").read_text())["links"]
    assert sum(link["rel"] == "item" for link in links) == 2


def test_a_product_written_into_the_catalog_is_published_in_place(catalog, features):
    path = catalog.product_path("trees.parquet")
    path.write_bytes(features.read_bytes())
    item = catalog.add(path)
    assert item.id == "trees"
    assert item.assets["data"].href == str(path)
    assert catalog.validate() == 1


def test_a_catalog_travels_and_is_pickled(catalog, raster, tmp_path):
    catalog.add(raster)
    catalog.root.rename(tmp_path / "elsewhere")
    moved = pickle.loads(pickle.dumps(geodl.Catalog(tmp_path / "elsewhere")))
    assert Path(moved.get("height").assets["data"].href).parent == tmp_path / "elsewhere/height"
    assert repr(moved) == f"Catalog({str(tmp_path / 'elsewhere')!r})"


def test_the_page_shows_every_item_and_escapes(catalog, raster, features):
    catalog.add(raster, title="<script>alert(1)</script>")
    catalog.add(features)
    page = catalog.page.read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "./height/thumbnail.png" in page
    assert "Found%20trees.parquet" in page
    assert page.count("<article>") == 2


PUBLISH = """
import sys
import geodl
catalog = geodl.Catalog(sys.argv[1])
for number in range(int(sys.argv[4])):
    catalog.add(sys.argv[2], id=f"{sys.argv[3]}{number:03d}")
"""


def publish(root, path, count):
    commands = [
        [sys.executable, "-c", PUBLISH, str(root), str(path), name, str(count)] for name in "ab"
    ]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return [f"{name}{number:03d}" for name in "ab" for number in range(count)]


@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_two_processes_publish_at_the_same_time_and_nothing_is_lost(catalog, tmp_path, count):
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,2\n")
    expected = publish(catalog.root, table, count)
    assert [item.id for item in catalog.search()] == expected
    assert catalog.validate() == 2 * count
    links = json.loads((catalog.root / "catalog.json").read_text())["links"]
    assert sum(link["rel"] == "item" for link in links) == 2 * count
    assert catalog.page.read_text().count("<article>") == 2 * count
    assert not list(catalog.root.glob(".*.part"))


def test_two_writers_in_an_object_store_lose_nothing(object_store, raster, features, monkeypatch):
    """No lock there: the second writes its item between the first one's look and its root."""
    from geodl.catalog.index import Index

    first, second = (geodl.Catalog(f"{object_store}/shared") for _ in range(2))
    write, done = Index._write, []

    def meanwhile(self, entries):
        if not done:
            done.append(True)
            second.add(features)
        write(self, entries)

    monkeypatch.setattr(Index, "_write", meanwhile)
    first.add(raster)
    assert [item.id for item in first.search()] == ["Found_trees", "height"]
    assert set(first._index.entries()) == {"Found_trees", "height"}
    assert first.validate() == 2
    href = second.get("height").assets["data"].href
    assert href.startswith(object_store)
    assert geodl.open_raster(href).shape == (2, 30, 40)
    first.remove("height")
    assert [item.id for item in second.search()] == ["Found_trees"]
    assert "height/height.tif" not in first.page.read_text()
