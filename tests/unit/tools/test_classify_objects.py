"""classify_objects: every feature once, labelled as its chip is by itself, however it is run."""

from __future__ import annotations

import warnings

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from shapely.geometry import LineString, Point, box

from geodl.base.errors import (
    DataWarning,
    ModelDataError,
    OptionError,
    OutputExistsError,
    UnknownOptionError,
)
from geodl.base.models import MODELS
from geodl.bundle import load_model, resolve_model
from geodl.core.contract import ChipCut, Normalization
from geodl.core.grid import GeoGrid, Window
from geodl.formats import open_export
from geodl.infer.chips import ChipPlan, reduction
from geodl.infer.labels import read_reduced
from geodl.infer.memory import chip_bytes
from geodl.io.handles import GDAL_CACHE_BYTES
from geodl.io.source import open_source
from geodl.learn import classify_objects, export_training_data
from geodl.nets.resize import resized_chip
from geodl.testing.tiny import random_model
from geodl.tools.label_job import LabelJob, LabelPlan
from geodl.tools.preview import _Process

SIDE = 300
CRS = "EPSG:32633"
TRANSFORM = Affine(0.5, 0, 1000, 0, -0.5, 2000)


def model(folder, *, several=False, **cut):
    cut = {"size_yx": (24, 24), **cut}
    return random_model(
        folder,
        "FeatureClassifier",
        "tiles",
        {"backbone": "resnet18", "multilabel": several},
        classes={1: "brick", 4: "leaf", 9: "water"},
        tile_px=32,
        variable_tile=False,
        chip=ChipCut(**cut),
    )


@pytest.fixture(scope="module")
def raster(tmp_path_factory):
    """Noise of many scales with a corner of no data, so that each chip looks different."""
    rng = np.random.default_rng(5)
    data = np.repeat(np.repeat(rng.integers(1, 250, (3, 30, 30)), 10, 1), 10, 2)
    data = (data + rng.integers(0, 6, data.shape)).astype(np.uint8)
    data[:, :40, :40] = 0
    path = tmp_path_factory.mktemp("raster") / "ground.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", nodata=0,
        crs=CRS, transform=TRANSFORM, tiled=True, blockxsize=64, blockysize=64,
    ) as file:  # fmt: skip
        file.write(data)
    return path


@pytest.fixture(scope="module")
def features():
    """Polygons and some points and lines, a few over the edge, one far away, one without place."""
    rng = np.random.default_rng(6)
    x, y = rng.uniform(1000, 1150, (2, 60))
    size = rng.uniform(2, 15, (60, 2))
    shapes = [box(a, 850 + b, a + w, 850 + b + h) for a, b, (w, h) in zip(x, y, size, strict=True)]
    shapes[3] = Point(1040, 1950)
    shapes[4] = LineString([(1050, 1930), (1062, 1941)])
    shapes[5] = box(5000, 5000, 5010, 5010)
    shapes[6] = None
    frame = geopandas.GeoDataFrame({"name": [f"f{i}" for i in range(60)]}, geometry=shapes, crs=CRS)
    return frame.set_index(np.arange(60) * 3)


def by_itself(package, raster, shape, *, several=False):
    """Label and scores of one feature, by rasterio and the network alone."""
    ref = resolve_model(package, package)
    loaded = load_model(ref)
    cut = loaded.contract.chip
    if cut.buffer_radius and shape.geom_type != "Polygon":
        shape = shapely.buffer(shape, cut.buffer_radius, quad_segs=16)
    pixels = shapely.transform(
        shape, lambda xy: np.column_stack([(xy[:, 0] - 1000) * 2, (2000 - xy[:, 1]) * 2])
    )
    x0, y0, x1, y1 = pixels.bounds
    height, width = cut.size_yx
    row, col = int(np.floor((y0 + y1 - height + 1) / 2)), int(np.floor((x0 + x1 - width + 1) / 2))
    if not cut.fixed and x1 > x0 and y1 > y0:
        row, col = int(np.floor(y0)), int(np.floor(x0))
        height, width = int(np.ceil(y1)) - row, int(np.ceil(x1)) - col
    with rasterio.open(raster) as file:
        window = rasterio.windows.Window(col, row, width, height)
        data = file.read(window=window, boundless=True, fill_value=0)
    valid = (data != 0).any(0)
    if cut.blacken:
        place = Affine.translation(col, row)
        outside = rasterio.features.geometry_mask([pixels], (height, width), place)
        data = np.where(outside, 0, data)
        valid = (data != 0).any(0)
    data, valid = resized_chip(data, valid, (32, 32))
    x = loaded.contract.normalization.apply(data, valid)
    with torch.inference_mode():
        scores = loaded.task.scores(loaded.net, torch.from_numpy(x)[None])[0].numpy()
    names = loaded.contract.classes.names
    if several:
        places = [k for k in np.argsort(-scores) if scores[k] >= 0.5]
        return ",".join(names[k] for k in places), [100 * scores[k] for k in places]
    return names[scores.argmax()], 100 * scores.max()


def run(raster, package, features, out, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ features have no label", DataWarning)
        return classify_objects(
            str(raster), package, input_features=features, output_name=out, progress=False,
            **options,
        )  # fmt: skip


CUTS = {
    "fixed": {},
    "cropped": {"fixed": False},
    "blackened": {"blacken": True, "buffer_radius": 3.0},
    "cropped_blackened": {"fixed": False, "blacken": True, "buffer_radius": 3.0},
}


@pytest.mark.parametrize("kind", CUTS)
def test_each_feature_has_the_label_that_its_chip_has_by_itself(kind, raster, features, tmp_path):
    package = model(tmp_path / "m", **CUTS[kind])
    found = run(raster, package, features, tmp_path / "out.parquet")
    assert found.index.tolist() == features.index.tolist()
    assert found["name"].tolist() == features["name"].tolist()
    assert (
        found.geometry[found.geometry.notna()] == features.geometry[features.geometry.notna()]
    ).all()
    missing = found["ClassLabel"].isna()
    assert set(np.flatnonzero(missing)) >= {5, 6}
    assert missing.sum() < 30
    for position in np.flatnonzero(~missing)[:12]:
        label, score = by_itself(package, raster, features.geometry.iloc[position])
        assert found["ClassLabel"].iloc[position] == label
        assert found["Confidence"].iloc[position] == pytest.approx(score, abs=0.01)


def test_no_block_size_changes_the_result(raster, features, tmp_path):
    package = model(tmp_path / "m", blacken=True, fixed=False, buffer_radius=3.0)
    whole = run(raster, package, features, tmp_path / "whole.parquet", block_size=10_000)
    for size in (7, 50, 64, 129):
        out = tmp_path / f"{size}.parquet"
        found = run(raster, package, features, out, block_size=size, model_arguments=BATCHES[size])
        assert found["ClassLabel"].tolist() == whole["ClassLabel"].tolist()
        np.testing.assert_allclose(found["Confidence"], whole["Confidence"], atol=1e-3)


BATCHES = {
    7: {"batch_size": 2},
    50: {"batch_size": 3},
    64: {"batch_size": "16"},
    129: {"batch_size": 1},
}


def test_chips_are_those_of_the_export(raster, features, tmp_path):
    """What the model was trained on and what it is shown here are the same pixels."""
    polygons = features.iloc[10:40]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        export_training_data(
            str(raster), polygons, output_location=tmp_path / "chips", classvalue_field="name",
            metadata_format="Labeled_Tiles", tile_size={"x": 24, "y": 24}, progress=False,
            blacken_around_feature=True, fix_chip_size=False,
        )  # fmt: skip
    package = model(tmp_path / "m", blacken=True, fixed=False)
    loaded = load_model(resolve_model(package, tmp_path))
    found = run(raster, package, polygons, tmp_path / "out.parquet").set_index("name")
    export = open_export(tmp_path / "chips")
    names = {entry.value: entry.name for entry in export.classes}
    assert len(export.chips) > 15
    inside = box(1000, 1850, 1150, 2000)
    for ref in export.chips:
        (value,) = export.chip_format.read_label(ref, export).values.tolist()
        if not polygons.set_index("name").geometry[names[value]].within(inside):
            continue  # the export clips these to the raster
        image = export.chip_format.read_chip(ref, export)
        data, valid = resized_chip(image.data, image.mask, (32, 32))
        x = loaded.contract.normalization.apply(data, valid)
        with torch.inference_mode():
            scores = loaded.task.scores(loaded.net, torch.from_numpy(x)[None])[0]
        assert found["Confidence"][names[value]] == pytest.approx(
            100 * float(scores.max()), abs=0.01
        )


def test_several_classes_are_texts_with_commas(raster, features, tmp_path):
    package = model(tmp_path / "m", several=True)
    found = run(raster, package, features.iloc[:20], tmp_path / "out.gpkg", class_label_field="k")
    for position in (0, 1, 2, 7):
        label, scores = by_itself(package, raster, features.geometry.iloc[position], several=True)
        assert found["k"].iloc[position] == label
        said = [float(part) for part in found["Confidence"].iloc[position].split(",") if part]
        assert said == pytest.approx(scores, abs=0.01)
    strict = run(
        raster, package, features.iloc[:20], tmp_path / "b.gpkg",
        model_arguments={"threshold": 1}, class_label_field="k",
    )  # fmt: skip
    assert strict["k"].iloc[0] == ""
    read = geopandas.read_file(found.attrs["path"])
    assert read["k"].fillna("").tolist() == found["k"].fillna("").tolist()


class Captions:
    """A model that says something of a chip in words of its own: what its brightest band is."""

    @classmethod
    def build(cls, *, bands, **_):
        return torch.nn.Conv2d(bands, 1, 1), CaptionTask(), False


class CaptionTask:
    def describe(self, net, x):
        means = x.mean(dim=(2, 3))
        return [(f"mostly band {int(row.argmax()) + 1}", 0.25) for row in means]


def test_models_that_describe_chips_take_the_same_path(raster, features, tmp_path):
    MODELS.register("Captions", f"{__name__}:Captions")
    plain = {"minimum": (0.0,) * 3, "maximum": (1.0,) * 3}
    package = random_model(
        tmp_path / "m", "Captions", "tiles", {}, tile_px=24, variable_tile=False,
        chip=ChipCut(size_yx=(24, 24)),
        normalization=Normalization(scaled_mean=(0.0,) * 3, scaled_std=(1.0,) * 3, **plain),
    )  # fmt: skip
    found = run(
        raster, package, features.iloc[10:30], tmp_path / "a.parquet", class_label_field="c"
    )
    with rasterio.open(raster) as file:
        data = file.read()
    source = open_source(str(raster))
    plan = ChipPlan.make(
        features.geometry.to_numpy()[10:30], source.grid, ChipCut(size_yx=(24, 24))
    )
    checked = 0
    for (row, col, height, width), text in zip(plan.windows.tolist(), found["c"], strict=True):
        chip = data[:, max(0, row) : row + height, max(0, col) : col + width]
        if text is not None and chip.size == 3 * 24 * 24:
            assert text == f"mostly band {chip.sum((1, 2)).argmax() + 1}"
            checked += 1
    assert checked > 8
    assert set(found["Confidence"].dropna()) == {25.0}


def test_a_cluster_gives_the_same(raster, features, tmp_path, workers):
    package = model(tmp_path / "m")
    here = run(raster, package, features, tmp_path / "a.parquet")
    there = run(raster, package, features, tmp_path / "b.parquet", client=workers, block_size=64)
    assert there["ClassLabel"].tolist() == here["ClassLabel"].tolist()
    np.testing.assert_allclose(there["Confidence"], here["Confidence"], atol=1e-3)


def test_turned_chips_are_averaged(raster, features, tmp_path):
    package = model(tmp_path / "m")
    options = {"model_arguments": {"test_time_augmentation": "true"}}
    found = run(raster, package, features.iloc[10:12], tmp_path / "a.parquet", **options)
    loaded = load_model(resolve_model(package, tmp_path))
    plain = run(raster, package, features.iloc[10:12], tmp_path / "b.parquet")
    assert not np.allclose(found["Confidence"], plain["Confidence"])
    source = open_source(str(raster))
    x0, y0, x1, y1 = features.geometry.iloc[10].bounds
    row, col = int(np.floor((2000 * 2 - y0 - y1) - 11.5)), int(np.floor(x0 + x1 - 2000 - 11.5))
    block = source.read(Window(row=row, col=col, height=24, width=24))
    data, _ = resized_chip(block.data, None, (32, 32))
    x = torch.from_numpy(loaded.contract.normalization.apply(data))
    turned = [torch.rot90(side, k, (1, 2)) for side in (x, x.flip(2)) for k in range(4)]
    with torch.inference_mode():
        mean = loaded.task.scores(loaded.net, torch.stack(turned)).mean(0)
    assert found["Confidence"].iloc[0] == pytest.approx(100 * float(mean.max()), abs=0.01)


def test_an_image_as_a_whole_has_one_label(raster, tmp_path):
    package = model(tmp_path / "m")
    found = classify_objects(
        str(raster), package, output_name=tmp_path / "a.geojson", progress=False
    )
    assert len(found) == 1
    assert found.geometry.iloc[0].bounds == (1000, 1850, 1150, 2000)
    plain = tmp_path / "plain.tif"
    with rasterio.open(raster) as file:
        data, profile = file.read(), file.profile
    profile.update(crs=None, transform=Affine.identity())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(plain, "w", **profile) as file:
            file.write(data)
    with pytest.warns(DataWarning, match="no CRS"):
        table = classify_objects(
            [str(plain), str(plain)], package, process_all_raster_items=True,
            output_name=tmp_path / "t.csv", progress=False,
        )  # fmt: skip
    assert table["ClassLabel"].tolist() == found["ClassLabel"].tolist() * 2
    assert table["Confidence"].tolist() == pytest.approx(found["Confidence"].tolist() * 2, abs=1e-3)
    assert len(pd.read_csv(table.attrs["path"][1])) == 1
    with pytest.warns(DataWarning, match="no CRS"), pytest.raises(OptionError, match=r"\.csv"):
        classify_objects(str(plain), package, output_name=tmp_path / "t.gpkg", progress=False)


def test_of_several_rasters_the_first_with_the_feature_counts(raster, features, tmp_path):
    package = model(tmp_path / "m")
    half = tmp_path / "half.tif"
    with rasterio.open(raster) as file:
        window = rasterio.windows.Window(0, 0, 150, 300)
        data, profile = file.read(window=window), {**file.profile, "width": 150}
    with rasterio.open(half, "w", **profile) as file:
        file.write(data)
    whole = run(raster, package, features, tmp_path / "whole.parquet")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of", DataWarning)
        found = classify_objects(
            [str(half), str(raster)], package, input_features=features, progress=False,
            process_all_raster_items=True, output_name=tmp_path / "both.parquet",
        )  # fmt: skip
    west = features.geometry.centroid.x < 1065
    assert found["ClassLabel"].notna().tolist() == whole["ClassLabel"].notna().tolist()
    assert found["Confidence"][west].dropna().tolist() == pytest.approx(
        whole["Confidence"][west].dropna().tolist(), abs=0.01
    )


def test_other_coordinates_and_an_extent(raster, features, tmp_path):
    package = model(tmp_path / "m")
    here = run(raster, package, features.iloc[10:40], tmp_path / "a.parquet")
    moved = features.iloc[10:40].to_crs("EPSG:4326")
    there = run(raster, package, moved, tmp_path / "b.parquet")
    assert there.crs == "EPSG:4326"
    assert there["ClassLabel"].tolist() == here["ClassLabel"].tolist()
    part = {"extent": {"xmin": 1000, "ymin": 1850, "xmax": 1075, "ymax": 2000}}
    found = run(raster, package, features.iloc[10:40], tmp_path / "c.parquet", context=part)
    west = features.geometry.iloc[10:40].centroid.x < 1074
    assert found["ClassLabel"].notna().sum() <= west.sum() + 1
    assert found["ClassLabel"][west].tolist() == here["ClassLabel"][west].tolist()


def test_columns_stay_and_ours_find_a_name(raster, features, tmp_path):
    package = model(tmp_path / "m")
    detections = features.iloc[10:13].assign(Confidence=[1.0, 2.0, 3.0])
    found = run(raster, package, detections, tmp_path / "a.parquet")
    assert found["Confidence"].tolist() == [1.0, 2.0, 3.0]
    assert found["ClassLabel_Confidence"].between(0, 100).all()
    with pytest.raises(OptionError, match="'name'"):
        run(raster, package, detections, tmp_path / "b.parquet", class_label_field="name")
    with pytest.raises(OutputExistsError):
        run(raster, package, detections, tmp_path / "a.parquet")


def test_what_does_not_fit_is_refused(raster, features, tmp_path, detector_package):
    package = model(tmp_path / "m")
    with pytest.raises(ModelDataError, match="FeatureClassifier"):
        run(raster, detector_package, features, tmp_path / "a.parquet")
    with pytest.raises(UnknownOptionError, match="threshold"):
        run(raster, package, features, tmp_path / "a.parquet", model_arguments={"threshold": 0.3})
    with pytest.raises(OptionError, match="mask"):
        run(raster, package, features, tmp_path / "a.parquet", context={"mask": features})


def test_estimates_and_futures(raster, features, tmp_path):
    package = model(tmp_path / "m")
    hours = run(raster, package, features, tmp_path / "a.parquet", estimate=True)
    assert 0 < hours < 1
    job = run(raster, package, features.iloc[10:20], tmp_path / "a.parquet", future=True)
    assert job.result(60)["ClassLabel"].notna().all()


def test_blocks_of_chips_fit_the_memory_and_the_plan_tells(raster, features, tmp_path, monkeypatch):
    package = model(tmp_path / "m", fixed=False)
    plan = run(raster, package, features, tmp_path / "a.parquet", dry_run=True)
    assert isinstance(plan, LabelPlan)
    assert plan.block_px == 2048
    assert plan.to_json()["memory"]["total"] == plan.memory.total
    assert "of memory for each process of " in str(plan)
    assert "of one worker" in str(plan)
    # Of all pixels that the chips need there are four copies.
    source = open_source(str(raster))
    whole = ChipPlan.make(
        features.geometry.dropna().to_numpy(), source.grid, ChipCut(size_yx=(24, 24))
    )
    reach = whole.windows[whole.inside]
    span = (reach[:, :2] + reach[:, 2:]).max(0) - reach[:, :2].min(0)
    assert whole.most_pixels(32) == span.prod()
    assert chip_bytes(whole, source, 32) == 4 * 4 * span.prod() + GDAL_CACHE_BYTES
    parts = whole.with_layout(64)
    assert parts.block_count > 4
    assert parts.most_pixels(32) < whole.most_pixels(32) / 2
    # A machine that has room for a quarter of that.
    most = GDAL_CACHE_BYTES + (plan.memory.blocks - GDAL_CACHE_BYTES) // 4
    monkeypatch.setattr(_Process, "fits", lambda self, job: job.blocks_bytes() <= most)
    plan = run(raster, package, features, tmp_path / "a.parquet", dry_run=True)
    assert 64 <= plan.block_px < 2048
    assert plan.blocks > 1
    plan = run(raster, package, features, tmp_path / "a.parquet", dry_run=True, block_size=999)
    assert plan.block_px == 999


def test_batches_are_no_larger_than_what_lies_together(raster, features, tmp_path, monkeypatch):
    """And the same for every block size, on which results then cannot depend."""
    package = model(tmp_path / "m")
    sizes, task = [], LabelJob.task

    def seen(job, **more):
        sizes.append(task(job, **more).batch)
        return task(job, **more)

    monkeypatch.setattr(LabelJob, "task", seen)
    for block in (10_000, 100):
        run(raster, package, features, tmp_path / f"{block}.parquet", block_size=block)
    assert sizes == [64, 64]
    grid = GeoGrid(width=50_000, height=50_000, transform=(1, 0, 0, 0, 1, 0))
    cut = ChipCut(size_yx=(24, 24))
    x = np.repeat(np.arange(500, 40_000, 4096), 3) + np.tile([0, 30, 60], 10)
    plan = ChipPlan.make(shapely.points(x, x), grid, cut)
    assert plan.chips_together == plan.with_layout(7).chips_together == 3
    assert ChipPlan.make(shapely.points([], []), grid, cut).chips_together == 0


def test_large_chips_are_counted_as_they_are_reduced(raster):
    source = open_source(str(raster))
    shapes = shapely.box([1000, 1010], 1850, [1150, 1012], [2000, 1852])
    plan = ChipPlan.make(shapes, source.grid, ChipCut(size_yx=(24, 24), fixed=False))
    assert plan.windows[:, 2:].tolist() == [[300, 300], [4, 4]]
    assert plan.most_pixels(32) == 300 * 300
    assert plan.most_pixels(8) == 300 * 300 // (300 // 32) ** 2 + 16


def test_very_large_chips_are_averaged_while_they_are_read(raster):
    source = open_source(str(raster))
    window = Window(row=-20, col=10, height=200, width=210)
    assert reduction(window, 32) == 1
    assert reduction(window, 8) == 6
    block = read_reduced(source, window, 8)
    assert block.data.shape == (3, 33, 35)
    with rasterio.open(raster) as file:
        data = file.read().astype(float)
    valid = (data != 0).any(0)
    for row, col in ((10, 3), (20, 30), (4, 9)):
        rows = slice(row * 6 - 20, row * 6 - 14)
        cols = slice(col * 6 + 10, col * 6 + 16)
        mean = data[:, rows, cols].sum((1, 2)) / valid[rows, cols].sum()
        assert block.data[:, row, col].tolist() == np.rint(mean).tolist()
    assert not block.mask[:3].any()
