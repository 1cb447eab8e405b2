"""The main job, end to end: imagery and labels, chips, training, wall-to-wall maps, accuracy.

    make demo                                        # generated scenes
    make demo SCENE=ortho.tif LABELS=objects.gpkg    # your own raster and features

Without a scene it generates one to train on and a second one, of another seed, to score on. With
your own, the figures come from chips that were kept out of training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import rasterio
import shapely
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from geodl.core.classes import ClassTable
from geodl.core.detections import Detections
from geodl.learn import (
    SingleShotDetector,
    UnetClassifier,
    classify_pixels,
    detect_objects,
    export_training_data,
    prepare_data,
)
from geodl.ops.average_precision import average_precision
from geodl.testing import make_scene

STAGES = 7
# Chips that pass through each network in training, repeated ones included: it sets the time.
DETECTOR_CHIPS = 2200
CLASSIFIER_CHIPS = 1500


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where training data comes from and what is mapped; ``truth`` is None for your own scene."""

    raster: Path
    labels: Path
    field: str | None
    chip: int
    mapped: Path
    mapped_labels: Path
    truth: Path | None


@contextmanager
def stage(number: int, text: str) -> Iterator[None]:
    """Say what begins, and afterwards what it took."""
    print(f"[{number}/{STAGES}] {text}", flush=True)
    started = time.monotonic()
    yield
    print(f"[{number}/{STAGES}] done in {time.monotonic() - started:.0f} s\n", flush=True)


def own_inputs(scene: Path, labels: Path, field: str | None) -> Inputs:
    with rasterio.open(scene) as file:
        smallest = min(file.width, file.height)
    chip = max(32, min(256, smallest // 4 // 32 * 32))
    return Inputs(
        raster=scene, labels=labels, field=field, chip=chip, mapped=scene, mapped_labels=labels,
        truth=None,
    )  # fmt: skip


def generated_inputs(folder: Path, seed: int) -> Inputs:
    training = make_scene(folder / "scene_to_train", seed=seed, size=(2048, 2048))
    other = make_scene(folder / "scene_to_map", seed=seed + 1, size=(1536, 1536))
    return Inputs(
        raster=training.raster, labels=training.labels, field="class_name", chip=128,
        mapped=other.raster, mapped_labels=other.labels, truth=other.class_raster,
    )  # fmt: skip


def export(inputs: Inputs, folder: Path, metadata_format: str) -> Path:
    return Path(
        export_training_data(
            str(inputs.raster),
            str(inputs.labels),
            chip_format="TIFF",
            tile_size={"x": inputs.chip, "y": inputs.chip},
            stride_size={"x": inputs.chip, "y": inputs.chip},
            metadata_format=metadata_format,
            classvalue_field=inputs.field,
            output_location=folder / metadata_format,
            overwrite=True,
        )
    )


def train(model_class: Any, chips: Path, inputs: Inputs, passes: int, rate: float) -> Any:
    """Prepare the chips and train from the first epoch on all layers."""
    data = prepare_data(chips, chip_size=inputs.chip, batch_size=16, seed=1)
    model = model_class(data, backbone="resnet18")
    model.unfreeze()
    model.fit(max(4, round(passes / len(data.train_ds))), rate)
    return model


def score_detections(found: Any, inputs: Inputs, classes: ClassTable) -> dict[str, float]:
    """AP50 by class over the whole mapped scene, by COCO's matching of boxes."""
    truth = geopandas.read_file(inputs.mapped_labels)
    with rasterio.open(inputs.mapped) as file:
        inverse = ~file.transform
    values = {entry.name: number for number, entry in enumerate(classes, start=1)}
    labels = np.array([values[name] for name in truth[inputs.field]])
    boxes = Detections(
        _pixel_boxes(found.geometry, inverse),
        (found["Confidence"].to_numpy() / 100).astype(np.float32),
        np.array([values[name] for name in found["Class"]], np.int64),
    )
    scores = average_precision(
        [(_pixel_boxes(truth.geometry, inverse), labels)], [boxes], len(classes)
    )
    return dict(zip(classes.names, scores[:, 0].tolist(), strict=True))


def _pixel_boxes(shapes: Any, inverse: Any) -> np.ndarray:
    """float64 (N, 4) x0, y0, x1, y1 in pixels of a north-up raster."""
    bounds = shapely.bounds(np.asarray(shapes)).reshape(-1, 4)
    left, top = inverse @ (bounds[:, 0], bounds[:, 3])
    right, bottom = inverse @ (bounds[:, 2], bounds[:, 1])
    return np.stack([left, top, right, bottom], axis=1)


def score_classes(predicted: Path, truth: Path, classes: ClassTable) -> dict[str, float]:
    """Intersection over union by class, background included, over all pixels with data."""
    with rasterio.open(predicted) as one, rasterio.open(truth) as other:
        ours, theirs = one.read(1), other.read(1)
        valid = (ours != one.nodata) & (theirs != other.nodata)
    scores = {}
    for value, name in [(0, "background"), *zip(classes.values, classes.names, strict=True)]:
        a, b = (ours == value) & valid, (theirs == value) & valid
        scores[name] = float((a & b).sum() / max(1, (a | b).sum()))
    return scores


def draw_map(inputs: Inputs, found: Any, classified: Path, classes: ClassTable, path: Path) -> None:
    """Labels on the left, predictions on the right, over a part that can be read by eye."""
    figure = Figure(figsize=(13, 13), layout="constrained")
    axes = figure.subplots(2, 2)
    colours = {entry.name: np.array(entry.color) / 255 for entry in classes}
    with rasterio.open(inputs.mapped) as file:
        window = _middle(file)
        picture = _stretched(file.read(window=window), file.nodata)
        left, bottom, right, top = rasterio.windows.bounds(window, file.transform)
    extent = (left, right, bottom, top)
    labels = geopandas.read_file(inputs.mapped_labels)
    names = labels[inputs.field] if inputs.field else [classes.names[0]] * len(labels)
    layers = [("labels", labels.geometry, names), ("detections", found.geometry, found["Class"])]
    for axis, (title, shapes, kinds) in zip(axes[0], layers, strict=True):
        axis.imshow(picture, extent=extent, cmap="gray")
        for name, shape in zip(kinds, shapes, strict=True):
            x, y = shapely.get_coordinates(shapely.boundary(shape)).T
            axis.plot(x, y, color=colours.get(str(name), "white"), linewidth=1.2)
        axis.set_title(title)
    palette = ListedColormap([(0.93, 0.93, 0.9), *colours.values()])
    index = classes.index_by_value
    for axis, (title, raster) in zip(
        axes[1], [("true classes", inputs.truth), ("classified pixels", classified)], strict=True
    ):
        axis.set_title(title)
        if raster is None:
            axis.imshow(picture, extent=extent, cmap="gray")
            continue
        with rasterio.open(raster) as file:
            values = file.read(1, window=window)
        shown = np.vectorize(lambda value: index.get(int(value), 0))(values)
        axis.imshow(
            shown, extent=extent, cmap=palette, vmin=0, vmax=len(classes), interpolation="none"
        )
    for axis in axes.flat:
        axis.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    figure.savefig(path, dpi=80)


def _middle(file: Any, side: int = 512) -> Any:
    height, width = min(side, file.height), min(side, file.width)
    return rasterio.windows.Window(
        (file.width - width) // 2, (file.height - height) // 2, width, height
    )


def _stretched(pixels: np.ndarray, nodata: float | None) -> np.ndarray:
    """float (H, W, 3) or (H, W) in 0..1; all but 8-bit from the 2nd to the 98th percentile."""
    shown = pixels[:3] if len(pixels) >= 3 else pixels[:1]
    data = shown.astype(float)
    if nodata is not None:
        data[shown == nodata] = np.nan
    low, high = (0, 255) if pixels.dtype == np.uint8 else np.nanpercentile(data, (2, 98))
    scaled = np.nan_to_num(((data - low) / max(high - low, 1e-9)).clip(0, 1))
    return np.moveaxis(scaled, 0, -1) if len(scaled) == 3 else scaled[0]


def mean(scores: dict[str, float]) -> float:
    return float(np.nanmean(list(scores.values())))


def plain(scores: dict[str, float]) -> dict[str, float | None]:
    """For JSON, which has no NaN: the score of a class that the truth does not hold is null."""
    return {name: None if np.isnan(value) else value for name, value in scores.items()}


def words(scores: dict[str, float | None]) -> str:
    return ", ".join(
        f"{name} {'-' if value is None else format(value, '.3f')}" for name, value in scores.items()
    )


def run(
    folder: Path, scene: Path | None, labels: Path | None, field: str | None, seed: int
) -> dict[str, Any]:
    """All stages; returns the figures."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with stage(1, "scenes"):
        if scene is None or labels is None:
            inputs = generated_inputs(folder, seed)
        else:
            inputs = own_inputs(scene, labels, field)
        print(f"training on {inputs.raster}, mapping {inputs.mapped}")
    with stage(2, "training chips"):
        boxes = export(inputs, folder / "chips", "PASCAL_VOC_rectangles")
        tiles = export(inputs, folder / "chips", "Classified_Tiles")
    with stage(3, "training the detector (SingleShotDetector)"):
        detector = train(SingleShotDetector, boxes, inputs, DETECTOR_CHIPS, 1e-3)
        detector_folder = Path(detector.save(folder / "models" / "detector"))
    with stage(4, "training the pixel classifier (UnetClassifier)"):
        classifier = train(UnetClassifier, tiles, inputs, CLASSIFIER_CHIPS, 1e-3)
        classifier_folder = Path(classifier.save(folder / "models" / "classifier"))
    classes = detector.contract.classes
    detections, classified = folder / "detections.parquet", folder / "classes.tif"
    with stage(5, "detect_objects over the whole scene"):
        found = detect_objects(
            str(inputs.mapped),
            str(detector_folder),
            # A low threshold, as COCO's figure looks at the whole curve; filter by Confidence.
            {"threshold": 0.05, "batch_size": 16},
            detections,
            overwrite=True,
        )
    with stage(6, "classify_pixels over the whole scene"):
        classify_pixels(
            str(inputs.mapped),
            str(classifier_folder),
            {"predict_background": True, "batch_size": 16},
            classified,
            overwrite=True,
        )
    with stage(7, "accuracy and map"):
        if inputs.truth is None:
            precision = detector.average_precision_score(detect_thresh=0.05)
            overlap = classifier.mIOU()
        else:
            precision = score_detections(found, inputs, classes)
            overlap = score_classes(classified, inputs.truth, classes)
        shown = found[found["Confidence"] >= 50]
        draw_map(inputs, shown, classified, classes, folder / "map.png")
        figures = {
            "AP50": mean(precision), "AP50_by_class": plain(precision),
            "mIoU": mean(overlap), "IoU_by_class": plain(overlap),
            "detections": len(found), "scored_on": str(inputs.mapped),
            "held_out": "another scene" if inputs.truth else "validation chips",
            "seconds": round(time.monotonic() - started, 1),
        }  # fmt: skip
        (folder / "figures.json").write_text(
            json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
    report(folder, figures, detector_folder, classifier_folder)
    return figures


def report(folder: Path, figures: dict[str, Any], detector: Path, classifier: Path) -> None:
    """Where everything lies and how to look at it."""
    packages = [os.path.relpath(next(model.glob("*.dlpk"))) for model in (detector, classifier)]
    # The command of this environment, which need not be the one on the path.
    command = os.path.relpath(Path(sys.executable).with_name("geodl"))
    print(f"finished in {figures['seconds']:.0f} s; everything lies in {folder}")
    print(f"detections   {folder / 'detections.parquet'}   (GeoParquet: drag into QGIS)")
    print(f"classes      {folder / 'classes.tif'}   (COG: drag into QGIS)")
    for package in packages:
        print(f"model        {package}   ({command} model info {package})")
    print(f"accuracy     {folder / 'figures.json'}   (JSON)")
    print(f"map          {folder / 'map.png'}   (picture: labels left, predictions right)")
    print(f"AP50 {figures['AP50']:.3f}   ({words(figures['AP50_by_class'])})")
    print(f"mIoU {figures['mIoU']:.3f}   ({words(figures['IoU_by_class'])})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder of all products")
    parser.add_argument("--scene", type=Path, help="your own raster")
    parser.add_argument("--labels", type=Path, help="your own labelled features")
    parser.add_argument("--field", help="field with the classes of your features")
    parser.add_argument("--seed", type=int, default=1, help="of the generated scenes")
    given = parser.parse_args()
    if (given.scene is None) != (given.labels is None):
        parser.error("give both --scene and --labels, or neither")
    run(given.output, given.scene, given.labels, given.field, given.seed)


if __name__ == "__main__":
    main()
