"""The raster functions in packages, called by a host in the order that ArcGIS Pro documents."""

from __future__ import annotations

import ast
import base64
import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from PIL import Image
from shapely import affinity

from geodl.base.errors import BundleError, DataError, ModelDataError, OptionError
from geodl.bundle.raster_functions import raster_function
from geodl.core.contract import ChipCut
from geodl.infer.chips import ChipPlan
from geodl.io.source import open_source
from geodl.learn import classify_objects, classify_pixels, detect_objects
from geodl.ops.nms import suppress
from geodl.testing.tiny import random_model, tiny_change_model, tiny_model
from geodl.tools.raster_function import device_name

TILE = 32


def load_function(package: Path, kind: Any) -> Any:
    """An object of the package's function, imported from its file as Pro does."""
    name, source = raster_function(kind)
    path = package / name
    path.write_bytes(source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, path.stem)()


class Host:
    """Cuts a raster into blocks as the documents of Pro's functions say; no data beyond it."""

    def __init__(self, function: Any, raster: Path, **scalars: Any) -> None:
        with rasterio.open(raster) as file:
            self.data = file.read()
            self.valid = file.read_masks().any(axis=0)
        self.function = function
        self.scalars = scalars

    def start(self, emd: Path) -> dict[str, Any]:
        self.function.initialize(model=str(emd), device=-1)
        told = {p["name"]: p["value"] for p in self.function.getParameterInfo()}
        assert list(told)[:2] == ["raster", "model"]
        # Values come as texts.
        given = {k: str(v) for k, v in {**told, "model": emd, **self.scalars}.items()}
        self.asked = self.function.getConfiguration(**given)
        return self.asked

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        pad, side = self.asked["padding"], self.asked["tx"]
        assert self.asked["ty"] == side
        height, width = self.valid.shape
        bands = list(self.asked["extractBands"])
        for row in range(0, height, side):
            for col in range(0, width, side):
                pixels = np.zeros((len(bands), side + 2 * pad, side + 2 * pad), self.data.dtype)
                mask = np.zeros(pixels.shape, np.uint8)
                top, left = max(0, row - pad), max(0, col - pad)
                bottom, right = min(height, row + side + pad), min(width, col + side + pad)
                place = np.s_[
                    :, top - row + pad : bottom - row + pad, left - col + pad : right - col + pad
                ]
                # What hosts deliver where there is no data is anything.
                pixels[:] = 77
                pixels[place] = self.data[bands, top:bottom, left:right]
                mask[place] = self.valid[top:bottom, left:right]
                yield row, col, pixels, mask

    def pixels(self) -> np.ndarray:
        info = {"raster_info": {"bandCount": 3}, "output_info": {"bandCount": 3}}
        info = self.function.updateRasterInfo(**info)["output_info"]
        self.info = info
        height, width = self.valid.shape
        out = np.zeros((info["bandCount"], height, width), info["pixelType"])
        seen = np.zeros((height, width), np.uint8)
        for row, col, pixels, mask in self.blocks():
            side = self.asked["tx"]
            # Rasters of one band are asked for in two dimensions.
            shape = (side, side) if len(out) == 1 else (len(out), side, side)
            found = self.function.updatePixels(
                (col, row), shape, {"pixelType": info["pixelType"]},
                raster_pixels=pixels, raster_mask=mask,
            )  # fmt: skip
            assert found["output_pixels"].shape == shape
            size = min(side, height - row), min(side, width - col)
            place = np.s_[..., row : row + size[0], col : col + size[1]]
            out[place] = found["output_pixels"][..., : size[0], : size[1]]
            seen[place[1:]] = found["output_mask"][: size[0], : size[1]]
        self.seen = seen
        return out

    def features(self) -> geopandas.GeoDataFrame:
        fields = [f["name"] for f in json.loads(self.function.getFields())["fields"]]
        assert fields == ["OID", "Class", "Confidence", "Shape"]
        assert self.function.getGeometryType() == 4
        rows, shapes = [], []
        for row, col, pixels, mask in self.blocks():
            answer = self.function.vectorize(raster_pixels=pixels, raster_mask=mask)
            for feature in json.loads(answer["output_vectors"])["features"]:
                rows.append(feature["attributes"])
                outer, *holes = feature["geometry"]["rings"]
                assert outer[0] == outer[-1]
                shape = shapely.Polygon(outer, holes)
                shapes.append(affinity.translate(shape, col, row))
        return geopandas.GeoDataFrame(rows, geometry=shapes)


def noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    data = np.kron(rng.integers(1, 255, (3, *(side // 8 + 1 for side in size))), np.ones((8, 8)))
    return data[:, : size[0], : size[1]].astype(np.uint8)


def patches(size: tuple[int, int]) -> np.ndarray:
    """Bright boxes on the dark, also at the edges, and away from the seams of no block."""
    rng = np.random.default_rng(3)
    data = np.full((3, *size), 9, np.uint8)
    for row in range(0, size[0] - 8, 13):
        for col in range(0, size[1] - 8, 13):
            height, width = rng.integers(2, 7, 2)
            data[:, row : row + height, col : col + width] = rng.integers(140, 255)
    return data


@pytest.mark.parametrize(
    ("arguments", "side"),
    [
        ({}, 2),
        ({"padding": "5", "batch_size": "10", "predict_background": "true"}, 3),
        ({"tile_size": "48", "predict_background": "False"}, 2),
        ({"padding": "0", "test_time_augmentation": "true", "batch_size": "1"}, 1),
    ],
)
def test_pixels_are_those_of_classify_pixels(write_raster, tmp_path, arguments, side):
    data = noise(1, (150, 131))
    data[:, 40:90, 70:90] = 0
    data[:, :9, 100:125] = 0
    raster = write_raster(data, nodata=0)
    package = tiny_model(tmp_path / "m", "pixels", tile_px=TILE, classes={3: "a", 7: "b", 9: "c"})
    host = Host(load_function(package, "pixels"), raster, **arguments)
    asked = host.start(package / "m.emd")
    tile, pad = int(arguments.get("tile_size", TILE)), int(arguments.get("padding", TILE // 4))
    assert asked["padding"] == pad
    assert asked["tx"] == side * (tile - 2 * pad)
    assert asked["extractBands"] == (0, 1, 2)
    found = host.pixels()
    numbers = {**arguments, "padding": pad, "batch_size": 4}
    wanted = classify_pixels(
        str(raster), package, numbers, output_name=tmp_path / "out.tif", progress=False
    )
    np.testing.assert_array_equal(found[0], wanted.to_numpy().squeeze())
    np.testing.assert_array_equal(host.seen == 1, (data != 0).any(0))
    assert host.info["noData"] == 255
    assert len(np.unique(found)) > 3
    table = json.loads(host.info["rasterAttributeTable"])
    rows = {f["attributes"]["Value"]: f["attributes"]["Class"] for f in table["features"]}
    classes = {3: "a", 7: "b", 9: "c"}
    background = arguments.get("predict_background") == "true"
    assert rows == ({0: "Background", **classes} if background else classes)
    assert host.function.updateKeyMetadata((), -1, datatype="x") == {"datatype": "Thematic"}
    assert host.function.updateKeyMetadata((), 0) == {}


def test_scores_are_those_of_classify_pixels(write_raster, tmp_path):
    raster = write_raster(noise(2, (40, 50)))
    package = random_model(
        tmp_path / "m", "HEDEdgeDetector", "pixels", {"backbone": "resnet18"},
        classes={1: "edge"}, tile_px=TILE,
    )  # fmt: skip
    function = load_function(package, "pixels")
    host = Host(function, raster, return_probability_raster="True")
    host.start(package / "m.emd")
    told = {p["name"]: p for p in function.getParameterInfo()}
    assert told["thinning"]["value"] is True
    assert told["thinning"]["dataType"] == "boolean"
    assert "predict_background" not in told
    assert told["merge_policy"]["domain"] == ("mean", "max", "min")
    found = host.pixels()
    wanted = classify_pixels(
        str(raster), package, {"return_probability_raster": True}, progress=False,
        output_name=tmp_path / "out.tif",
    )  # fmt: skip
    np.testing.assert_allclose(found, wanted.to_numpy(), atol=1e-4)
    assert host.info["pixelType"] == "f4"
    assert function.updateKeyMetadata((), -1) == {"datatype": "Processed"}


def test_change_is_found_in_the_stack_of_both_images(tmp_path):
    package = tiny_change_model(tmp_path / "m", bands=2, tile_px=TILE)
    function = load_function(package, "pixels")
    function.initialize(model=str(package / "m.emd"))
    asked = function.getConfiguration(padding="4", batch_size="1")
    assert asked["extractBands"] == (0, 1, 2, 3)
    pixels = np.full((4, TILE, TILE), 20, np.uint8)
    pixels[2:, 10:20, 10:20] = 220
    mask = np.ones(pixels.shape, np.uint8)
    mask[3:, 18:, :] = 0
    mask[2, 18:, :] = 0
    found = function.updatePixels(
        (0, 0), (24, 24), {"pixelType": "i4"}, raster_pixels=pixels, raster_mask=mask
    )
    assert (found["output_pixels"][7:13, 7:15] == 1).all()
    # Where only one of the images has data there is no answer.
    assert (found["output_mask"][14:] == 0).all()
    assert found["output_mask"][:14].all()


@pytest.mark.parametrize("batch", ["4", "16"])
def test_objects_are_those_of_detect_objects(write_raster, tmp_path, batch):
    data = patches((141, 120))
    data[:, 60:80, 30:70] = 0
    raster = write_raster(data, nodata=0)
    package = tiny_model(tmp_path / "m", "objects", tile_px=TILE)
    host = Host(load_function(package, "objects"), raster, batch_size=batch)
    host.start(package / "m.emd")
    found = host.features()
    bounds = shapely.bounds(found.geometry.to_numpy())
    kept = suppress(bounds, found.Confidence.to_numpy(), found.Class.factorize()[0], 0.1)
    wanted = detect_objects(
        str(raster), package, output_name=tmp_path / "o.parquet", progress=False
    )
    here = {
        (*np.round(shapely.bounds(shape), 6), name, round(score, 4))
        for shape, name, score in found.iloc[kept][["geometry", "Class", "Confidence"]].to_numpy()
    }
    moved = shapely.transform(
        wanted.geometry.to_numpy(),
        lambda xy: np.column_stack([(xy[:, 0] - 500000) * 2, (5000000 - xy[:, 1]) * 2]),
    )
    there = {
        (*np.round(shapely.bounds(shape), 6), name, round(score, 4))
        for shape, name, score in zip(moved, wanted.Class, wanted.Confidence, strict=True)
    }
    assert len(there) > 60
    assert here == there


def test_outlines_are_those_of_detect_objects(write_raster, tmp_path):
    data = np.full((3, 60, 60), 9, np.uint8)
    data[:, 5:15, 5:15] = 200
    data[:, 8:11, 8:11] = 9
    data[:, 22:40, 20:23] = 230
    raster = write_raster(data)
    package = tiny_model(tmp_path / "m", "instances", tile_px=TILE)
    host = Host(load_function(package, "instances"), raster, batch_size="16")
    assert host.start(package / "m.emd")["tx"] == 64
    found = host.features()
    wanted = detect_objects(
        str(raster), package, {"threshold": 0.5}, output_name=tmp_path / "o.parquet",
        progress=False,
    )  # fmt: skip
    host = Host(host.function, raster, batch_size="16", threshold="0.5")
    host.start(package / "m.emd")
    found = host.features()
    assert sorted(found.area) == sorted(wanted.area * 4) == [3 * 18, 10 * 10 - 9]
    assert sorted(found.Class) == sorted(wanted.Class)


@pytest.mark.parametrize("several", [False, True])
def test_labels_are_those_of_classify_objects(write_raster, tmp_path, several):
    raster = write_raster(noise(4, (200, 200)))
    package = random_model(
        tmp_path / "m", "FeatureClassifier", "tiles",
        {"backbone": "resnet18", "multilabel": several}, classes={1: "x", 2: "y", 5: "z"},
        tile_px=TILE, variable_tile=False, chip=ChipCut(size_yx=(24, 24), fixed=False),
    )  # fmt: skip
    rng = np.random.default_rng(8)
    corner = rng.uniform(2, 60, (9, 2))
    size = rng.uniform(4, 30, (9, 2))
    boxes = shapely.box(*np.column_stack([corner, corner + size]).T)
    ground = shapely.transform(boxes, lambda xy: xy * (1, -1) + (500000, 5000000))
    features = geopandas.GeoDataFrame(geometry=ground, crs="EPSG:32633")
    function = load_function(package, "tiles")
    assert [p["name"] for p in function.getParameterInfo()] == ["rasters", "model"]
    function.initialize(model=str(package / "m.emd"), device=-1)
    assert function.getParameterInfo()[0]["dataType"] == "rasters"
    asked = function.getConfiguration(batch_size="4", explainability_map="true")
    assert (asked["CropSizeFixed"], asked["BlackenAroundFeature"], asked["batch_size"]) == (0, 0, 4)
    assert (asked["tx"], asked["ty"]) == (24, 24)
    source = open_source(str(raster))
    plan = ChipPlan.make(ground, source.grid, ChipCut(size_yx=(24, 24), fixed=False))
    with rasterio.open(raster) as file:
        whole = file.read()
    chips = [whole[:, r : r + h, c : c + w] for r, c, h, w in plan.windows.tolist()]
    masks = [np.ones(chip.shape, np.uint8) for chip in chips]
    answer = json.loads(
        function.vectorize(rasters_pixels=chips, rasters_mask=masks)["output_vectors"]
    )
    wanted = classify_objects(
        str(raster), package, {"explainability_map": "yes"}, features, progress=False,
        output_name=tmp_path / "labels.parquet",
    )  # fmt: skip
    rows = [feature["attributes"] for feature in answer["features"]]
    assert [row["OID"] for row in rows] == list(range(1, 10))
    assert [row["Label"] for row in rows] == wanted["ClassLabel"].tolist()
    if several:
        assert [row["Confidence"] for row in rows] == wanted["Confidence"].tolist()
    else:
        scores = [row["Confidence"] for row in rows]
        np.testing.assert_allclose(scores, wanted["Confidence"], atol=1e-3)
    fields = {f["name"]: f["type"] for f in json.loads(function.getFields())["fields"]}
    assert fields["Confidence"] == f"esriFieldType{'String' if several else 'Double'}"
    assert fields["ExpMap"] == "esriFieldTypeBlob"
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(r["ExpMap"])))) for r in rows]
    there = geopandas.read_parquet(tmp_path / "labels.parquet")["ExpMap"]
    for own, stored in zip(pictures, there, strict=True):
        other = np.asarray(Image.open(io.BytesIO(stored)))
        assert own.shape == other.shape == (TILE, TILE)
        assert np.abs(own.astype(int) - other).max() <= 2
    assert max(own.max() for own in pictures) == 255
    for taken, name, text in (
        (features, "x.gpkg", "choose .parquet"),
        (features.assign(ExpMap=1), "x.parquet", "'ExpMap'"),
    ):
        with pytest.raises(OptionError, match=text):
            classify_objects(
                str(raster), package, {"explainability_map": True}, taken, progress=False,
                output_name=tmp_path / name,
            )  # fmt: skip


def test_a_definition_as_text_is_that_of_the_package(tmp_path):
    package = tiny_model(tmp_path / "m", "pixels", tile_px=TILE)
    function = load_function(package, "pixels")
    text = (package / "m.emd").read_text()
    function.initialize(model=text)
    assert function.getConfiguration()["tx"] == 2 * 16
    absolute = {**json.loads(text), "ModelFile": str(package / "m.safetensors")}
    elsewhere = load_function(tiny_model(tmp_path / "other", "pixels", bands=4), "pixels")
    elsewhere.initialize(model=json.dumps(absolute))
    assert elsewhere.getConfiguration()["extractBands"] == (0, 1, 2)
    with pytest.raises(BundleError, match="not that of the package"):
        elsewhere.initialize(model=text)


def test_a_function_without_a_model_still_tells_its_inputs(tmp_path):
    package = tiny_model(tmp_path / "m", "objects")
    function = load_function(package, "objects")
    function.initialize()
    assert [p["name"] for p in function.getParameterInfo()] == ["raster", "model"]
    assert function.name
    assert function.description


def test_what_does_not_fit_is_told(tmp_path):
    package = tiny_model(tmp_path / "m", "pixels", tile_px=TILE)
    function = load_function(package, "pixels")
    function.initialize(model=str(package / "m.emd"), device=-1)
    with pytest.raises(OptionError, match="padding"):
        function.getConfiguration(padding="16")
    function.getConfiguration()
    props = {"pixelType": "i4"}
    for pixels, error, text in (
        (np.zeros((2, 48, 48), np.uint8), ModelDataError, "2 bands"),
        (np.zeros((3, 48, 48), np.uint16), ModelDataError, "8-bit"),
        (np.zeros((3, 16, 48), np.uint8), DataError, "padding of 8"),
    ):
        with pytest.raises(error, match=text):
            function.updatePixels((0, 0), (32, 32), props, raster_pixels=pixels)
    with pytest.raises(OptionError, match="device=99"):
        device_name("99")
    assert device_name(-1) == "cpu"


def test_bands_of_the_whole_raster_are_chosen(tmp_path):
    package = tiny_model(
        tmp_path / "m", "pixels", tile_px=TILE, bands=1, extract_bands=(2,), source_bands=4
    )
    function = load_function(package, "pixels")
    function.initialize(model=str(package / "m.emd"), device=-1)
    function.getConfiguration(padding="0", batch_size="1")
    pixels = np.zeros((4, TILE, TILE), np.uint8)
    pixels[2] = 250
    found = function.updatePixels((0, 0), (TILE, TILE), {"pixelType": "i4"}, raster_pixels=pixels)
    assert (found["output_pixels"] == 2).all()


@pytest.mark.parametrize("kind", ["pixels", "objects", "instances", "tiles"])
def test_the_file_is_plain_python_that_imports_geodl_when_it_is_needed(kind):
    name, source = raster_function(kind)
    tree = ast.parse(source, feature_version=(3, 9))
    modules = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([ast.alias(node.module)] if isinstance(node, ast.ImportFrom) else node.names)
    }
    assert modules == {"__future__", "importlib", "os", "typing"}
    # Of os only what Windows has too.
    used = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {text for text in used if text.startswith("os.")} <= {
        "os.path", "os.path.dirname", "os.path.abspath"
    }  # fmt: skip
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert classes == [name.removesuffix(".py")]


def test_without_geodl_the_remedy_is_told(tmp_path, monkeypatch):
    package = tiny_model(tmp_path / "m", "objects")
    function = load_function(package, "objects")

    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match="pip install geodl"):
        function.initialize(model=str(package / "m.emd"))


def test_kinds_without_a_function():
    assert raster_function("points") is None
    assert raster_function("boxes3d") is None
