"""The main job on real imagery: products lie where the ground is, boxes where the trees are."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from rasterio.features import rasterize
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from geodl.learn import (
    SingleShotDetector,
    UnetClassifier,
    classify_pixels,
    detect_objects,
    export_training_data,
    prepare_data,
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::geodl.base.errors.OfflineWarning"),
]
SIDE = {"x": 128, "y": 128}
STEP = {"x": 64, "y": 64}


def part(raster: Path, row: int, col: int, size: tuple[int, int], path: Path) -> Path:
    """Part of a scene, where it lies: a training on all of it takes some 40 s."""
    with rasterio.open(raster) as file:
        window = Window(col, row, size[1], size[0])
        profile = file.profile | {
            "height": size[0], "width": size[1], "transform": file.window_transform(window),
            "tiled": False,
        }  # fmt: skip
        for name in ("blockxsize", "blockysize"):
            profile.pop(name, None)
        with rasterio.open(path, "w", **profile) as out:
            out.write(file.read(window=window))
    return path


def crowns(folder: Path) -> gpd.GeoDataFrame:
    """The labelled boxes of the forest scene as features in its CRS."""
    rows = pd.read_csv(folder / "OSBS_029.csv")
    with rasterio.open(folder / "OSBS_029.tif") as file:
        a, _, c, _, e, f = file.transform[:6]
        crs = file.crs
    boxes = shapely.box(c + a * rows.xmin, f + e * rows.ymax, c + a * rows.xmax, f + e * rows.ymin)
    return gpd.GeoDataFrame({"classvalue": 1, "classname": rows.label}, geometry=boxes, crs=crs)


def test_overfitted_crowns_are_found_where_they_are(sample_data: Path, tmp_path: Path) -> None:
    folder = sample_data / "trees_rgb"
    truth = crowns(folder)
    chips = export_training_data(
        folder / "OSBS_029.tif",
        truth,
        "TIFF",
        SIDE,
        STEP,
        "PASCAL_VOC_rectangles",
        output_location=str(tmp_path / "chips"),
    )
    data = prepare_data(chips, chip_size=128, val_split_pct=0.1, batch_size=8, seed=1)
    assert data.classes == ["Tree"]
    model = SingleShotDetector(data, backbone="resnet18", focal_loss=True)
    model.fit(30, lr=2e-3, checkpoint=False)
    found = detect_objects(
        folder / "OSBS_029.tif",
        model,
        {"threshold": 0.3, "nms_overlap": 0.3},
        tmp_path / "crowns.parquet",
        progress=False,
    )
    assert found.crs.to_epsg() == 32617
    with rasterio.open(folder / "OSBS_029.tif") as file:
        assert shapely.box(*file.bounds).buffer(1e-6).contains(found.union_all())
    pairs = truth.sindex.query(found.geometry, predicate="intersects")
    one, other = found.geometry.to_numpy()[pairs[0]], truth.geometry.to_numpy()[pairs[1]]
    shared = shapely.area(shapely.intersection(one, other))
    iou = shared / shapely.area(shapely.union(one, other))
    met = np.zeros(len(truth))
    np.maximum.at(met, pairs[1], iou)
    assert (met > 0.5).mean() > 0.5, "most labelled crowns have a box that lies on them"


@pytest.mark.parametrize("bands", [3, 8])
def test_overfitted_land_cover_is_mapped_where_it_is(
    sample_data: Path, tmp_path: Path, bands: int
) -> None:
    folder = sample_data / "vegas_landcover"
    scene = folder / f"tiff_{bands}channel_uint8.tif"
    raster = part(scene, 100, 150, (256, 320), tmp_path / "scene.tif")
    labels = gpd.read_file(folder / "tiff_3channel_uint8.geojson")
    with rasterio.open(raster) as file:
        labels = labels[labels.intersects(shapely.box(*file.bounds))]
    chips = export_training_data(
        raster,
        labels,
        "TIFF",
        SIDE,
        {"x": 96, "y": 96},
        "Classified_Tiles",
        classvalue_field="label",
        output_location=str(tmp_path / "chips"),
    )
    data = prepare_data(
        chips,
        {1: "building", 2: "road", 3: "tree"},
        chip_size=128,
        val_split_pct=0.1,
        batch_size=4,
        seed=1,
    )
    model = UnetClassifier(data, backbone="resnet18")
    model.fit(18, lr=2e-3, checkpoint=False)
    path = tmp_path / "cover.tif"
    classify_pixels(raster, model, {"predict_background": True}, path, progress=False)
    assert cog_validate(str(path), strict=True)[0]
    with rasterio.open(raster) as scene, rasterio.open(path) as file:
        assert file.crs == scene.crs
        assert file.transform.almost_equals(scene.transform, 1e-15)
        assert file.nodata == 255
        wanted = rasterize(
            zip(labels.geometry, labels.label, strict=True), scene.shape, transform=scene.transform
        )
        found = file.read(1)
    assert (found == 255).sum() == 0
    for value in (1, 2):
        union = ((found == value) | (wanted == value)).sum()
        assert ((found == value) & (wanted == value)).sum() / union > 0.4, f"class {value}"
