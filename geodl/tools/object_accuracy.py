"""Detections against the truth: an accuracy table and a report."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import shapely

from geodl.base.errors import DataWarning, GridMismatchError, OptionError
from geodl.base.files import sha256_json
from geodl.base.options import as_float, check_known
from geodl.io.extent import read_extent, split_extent
from geodl.io.manifest import write_manifest
from geodl.io.staging import staged
from geodl.io.vector import features_identity, read_features
from geodl.ops.detection_accuracy import (
    Candidates,
    ClassAccuracy,
    all_classes,
    candidates,
    class_accuracy,
    match,
)
from geodl.ops.nms import order
from geodl.ops.polygon_overlap import Polygons
from geodl.runtime.future import RunFuture, start
from geodl.tools.feature_fields import (
    CLASS_FIELDS,
    SCORE_FIELD,
    class_texts,
    find_field,
    natural_order,
    scores_of,
)
from geodl.tools.non_max_suppression import as_polygons
from geodl.tools.product import Product

if TYPE_CHECKING:
    import geopandas as gpd

DEFAULT_MIN_IOU = 0.5
ALL_CLASSES = "All"
_CONTEXT = ("cellSize", "extent", "parallelProcessingFactor", "processorType")
_TOOL = "compute_accuracy_for_object_detection"
# Detections that are timed for an estimate.
_TIMED = 2000


def compute_accuracy_for_object_detection(
    detected_features: Any,
    ground_truth_features: Any,
    detected_class_value_field: str | None = None,
    ground_truth_class_value_field: str | None = None,
    min_iou: float | Sequence[float] | None = None,
    mask_features: Any = None,
    out_accuracy_table_name: str | os.PathLike[str] | None = None,
    out_accuracy_report_name: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | None = None,
    *,
    gis: Any = None,
    future: bool = False,
    estimate: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    block_size: int | None = None,
    raster: Any = None,
    **kwargs: Any,
) -> pd.DataFrame:
    """Compare detections with the truth.

    A detection is right where its IoU with a true object of its class reaches ``min_iou``. The
    standard rule decides between several: detections are taken by their score, best first; each
    takes the free object that it overlaps most; a second one on the same object is a false alarm.

    Parameters
    ----------
    detected_features
        Polygons as ``detect_objects`` makes them, with scores in ``Confidence``.
    ground_truth_features
        Polygons with the truth, in any CRS; they are brought to that of the detections, in which
        areas are measured.
    detected_class_value_field, ground_truth_class_value_field
        Columns of classes, whose texts must be equal. None is ``Classvalue`` or ``Value`` in any
        spelling of upper and lower case; where a side has neither, all are one class.
    min_iou
        Least IoU of a match, 0..1; 0.5 where None. Several values give a set of rows each.
    mask_features
        Polygons: only features wholly inside them are judged, of both sides.
    out_accuracy_table_name
        ``.parquet`` or ``.csv``; None names it after the detections and the settings.
    out_accuracy_report_name
        ``.pdf`` with the table and precision-recall curves; None writes none.
    context
        ``extent``: only features wholly inside are judged. ``cellSize``,
        ``parallelProcessingFactor`` and ``processorType`` play no part here.
    gis
        A :class:`geodl.Catalog` in which the product is published; bare names lie there.
    future
        Return a future at once: its ``progress`` and ``result()``.
    estimate
        Only return the hours expected.
    client, progress, block_size
        As other tools take them; the work of some seconds is done in this process.
    overwrite
        Replace products that are there.
    raster
        Image for the report's pictures of hits, misses and false alarms: what
        :func:`geodl.open_raster` takes.

    Returns
    -------
    DataFrame with one row per class of either side and one, ``All``, for all: ``Class``,
    ``Min_IoU``, ``Precision``, ``Recall``, ``F1_Score``, ``AP`` (101 recalls as COCO has it;
    missing for a class without truth; the mean over classes for all), ``True_Positive``,
    ``False_Positive``, ``False_Negative``. ``.attrs["path"]`` and ``.attrs["report"]`` say where
    they were written.

    Raises
    ------
    DataError
        No truth, features that are no polygons, or scores that are no numbers.
    GridMismatchError
        One side states its CRS and the other does not.
    OptionError
        A column that is not there, or a value outside its domain.
    OutputExistsError
        A product is there.
    """
    check_known(kwargs, (), _TOOL)
    check_known(context or {}, _CONTEXT, "context")
    if raster is not None and out_accuracy_report_name is None:
        raise OptionError("raster is for the report's pictures; give out_accuracy_report_name too.")
    shares = _shares(min_iou)
    sides = _sides(
        detected_features,
        ground_truth_features,
        detected_class_value_field,
        ground_truth_class_value_field,
        _area(mask_features, context),
    )
    if estimate:
        return _estimated_hours(sides)
    settings = {
        "tool": _TOOL,
        "found": features_identity(sides.found),
        "truth": features_identity(sides.truth),
        "class_fields": list(sides.class_fields),
        "min_iou": list(shares),
    }
    stem = _stem(detected_features, settings)
    product = partial(Product.at, gis=gis, overwrite=overwrite, default_stem=stem)
    table = product(out_accuracy_table_name, suffixes=(".parquet", ".csv")).path
    report = None
    if out_accuracy_report_name is not None:
        report = product(out_accuracy_report_name, suffixes=(".pdf",)).path

    def make(_: RunFuture | None) -> pd.DataFrame:
        return _make(sides, shares, settings, table, report, raster)

    return start(make) if future else make(None)  # type: ignore[return-value]  # a future of one


@dataclass(frozen=True, eq=False)
class Sides:
    """Detections and truth, in one CRS, as far as they are judged.

    Parameters
    ----------
    found, truth
        Features of both sides.
    scores
        float64 (N,) of the detections.
    classes
        Class texts in natural order.
    found_labels, truth_labels
        int (N,) and (M,): positions in ``classes``.
    class_fields
        Columns the classes came from.
    """

    found: gpd.GeoDataFrame
    truth: gpd.GeoDataFrame
    scores: np.ndarray
    classes: list[str]
    found_labels: np.ndarray
    truth_labels: np.ndarray
    class_fields: tuple[str | None, str | None]

    def polygons(self) -> tuple[Polygons, Polygons]:
        """Of detections and truth."""
        return as_polygons(self.found, "The detections"), as_polygons(self.truth, "The truth")


@dataclass(frozen=True, eq=False)
class Judged:
    """Which detection is right at one least IoU.

    Parameters
    ----------
    min_iou
        The least IoU.
    matched
        int64 (N,): position of the true object of each detection, or -1.
    parts
        Accuracy of each class.
    whole
        Of all.
    """

    min_iou: float
    matched: np.ndarray
    parts: list[ClassAccuracy]
    whole: ClassAccuracy


def judge(sides: Sides, pairs: Candidates, min_iou: float) -> Judged:
    """Match, and count by class."""
    matched = match(pairs, len(sides.found), len(sides.truth), min_iou)
    ranked = order(sides.found.bounds.to_numpy(), sides.scores, sides.found_labels)
    right, labels = matched[ranked] >= 0, sides.found_labels[ranked]
    counts = np.bincount(sides.truth_labels, minlength=len(sides.classes))
    parts = [class_accuracy(right[labels == k], int(n)) for k, n in enumerate(counts)]
    return Judged(min_iou, matched, parts, all_classes(parts))


def accuracy_table(sides: Sides, judged: Sequence[Judged]) -> pd.DataFrame:
    """One row per class and one for all, for each least IoU."""
    rows = [
        {
            "Class": name,
            "Min_IoU": one.min_iou,
            "Precision": part.precision,
            "Recall": part.recall,
            "F1_Score": part.f1,
            "AP": part.average_precision,
            "True_Positive": part.true_positive,
            "False_Positive": part.false_positive,
            "False_Negative": part.false_negative,
        }
        for one in judged
        for name, part in zip([*sides.classes, ALL_CLASSES], [*one.parts, one.whole], strict=True)
    ]
    return pd.DataFrame(rows)


def _make(
    sides: Sides,
    shares: Sequence[float],
    settings: dict[str, Any],
    table: Path,
    report: Path | None,
    raster: Any,
) -> pd.DataFrame:
    started = time.monotonic()
    found, truth = sides.polygons()
    pairs = candidates(found, sides.found_labels, sides.scores, truth, sides.truth_labels)
    judged = [judge(sides, pairs, share) for share in shares]
    frame = accuracy_table(sides, judged)
    if report is not None:
        from geodl.tools.accuracy_report import write_report

        write_report(report, sides, judged, frame, raster)
    _write_table(frame, table)
    write_manifest(
        table,
        {
            "tool": _TOOL,
            "settings": settings,
            "fingerprint": sha256_json(settings),
            "report": None if report is None else report.name,
            "wall_s": round(time.monotonic() - started, 3),
        },
    )
    frame.attrs = {"path": str(table), "report": None if report is None else str(report)}
    return frame


def _write_table(frame: pd.DataFrame, path: Path) -> None:
    with staged(path) as place:
        if path.suffix.lower() == ".csv":
            frame.to_csv(place, index=False)
        else:
            frame.to_parquet(place, index=False)


def _shares(min_iou: float | Sequence[float] | None) -> list[float]:
    if min_iou is None:
        return [DEFAULT_MIN_IOU]
    several = isinstance(min_iou, Sequence | np.ndarray) and not isinstance(min_iou, str)
    given = list(min_iou) if several else [min_iou]  # type: ignore[arg-type]
    shares = [as_float(value, "min_iou", minimum=0.0, maximum=1.0) for value in given]
    if not shares or len(set(shares)) < len(shares):
        raise OptionError(
            f"min_iou={min_iou!r} must be one number of 0..1, or several that differ."
        )
    return shares


def _area(mask_features: Any, context: Mapping[str, Any] | None) -> list[Any]:
    """What bounds the judged ground: each a GeoDataFrame."""
    import geopandas

    areas: list[Any] = []
    if mask_features is not None:
        mask = read_features(mask_features)
        as_polygons(mask, "The mask_features")
        areas.append(mask)
    bounds, crs = read_extent((context or {}).get("extent"))
    if bounds is not None:
        # Its sides bend in another CRS.
        boxes = [
            shapely.segmentize(shapely.box(*part), max(np.ptp(part[::2]), 1e-9) / 50)
            for part in split_extent(bounds, crs)
        ]
        areas.append(geopandas.GeoDataFrame(geometry=boxes, crs=crs))
    return areas


def _sides(
    detected: Any, truth: Any, found_field: str | None, truth_field: str | None, areas: list[Any]
) -> Sides:
    found = read_features(detected, may_be_empty=True)
    true = _brought(read_features(truth), found.crs, "the truth")
    fields = (
        find_field(found, found_field, CLASS_FIELDS, "detected_class_value_field"),
        find_field(true, truth_field, CLASS_FIELDS, "ground_truth_class_value_field"),
    )
    if (fields[0] is None) != (fields[1] is None):
        bare, named = ("truth", "detections") if fields[0] else ("detections", "truth")
        warnings.warn(
            f"The {bare} have no column of classes, the {named} have "
            f"{fields[0] or fields[1]!r}: all count as one class. Name the columns to compare "
            "classes.",
            DataWarning,
            stacklevel=3,
        )
        fields = (None, None)
    for area in areas:
        found, true = _inside(found, area), _inside(true, area)
    if areas and not len(found) and not len(true):
        warnings.warn(
            "Neither detections nor truth lie wholly inside the mask and extent: nothing is "
            "judged. See that they cover the ground, and that their CRS is stated rightly.",
            DataWarning,
            stacklevel=3,
        )
    texts = class_texts(found, fields[0]), class_texts(true, fields[1])
    classes = natural_order({*texts[0].tolist(), *texts[1].tolist()})
    place = {name: k for k, name in enumerate(classes)}
    labels = [np.array([place[t] for t in side.tolist()], np.int64) for side in texts]
    return Sides(found, true, _scores(found), classes, labels[0], labels[1], fields)


def _scores(found: gpd.GeoDataFrame) -> np.ndarray:
    field = find_field(found, None, (SCORE_FIELD,), SCORE_FIELD)
    if field is not None:
        return scores_of(found, field)
    warnings.warn(
        f"The detections have no column {SCORE_FIELD!r}: all count as equally sure, and AP says "
        "little.",
        DataWarning,
        stacklevel=4,
    )
    return np.ones(len(found))


def _brought(frame: gpd.GeoDataFrame, crs: Any, label: str) -> gpd.GeoDataFrame:
    """Features in the CRS of the detections."""
    if (frame.crs is None) != (crs is None):
        bare, stated = (label, "the detections") if frame.crs is None else ("the detections", label)
        raise GridMismatchError(
            f"{bare} state no CRS, {stated} do; state it with GeoDataFrame.set_crs('EPSG:...')."
        )
    return frame if crs is None else read_features(frame, crs=crs)


def _inside(frame: gpd.GeoDataFrame, area: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Features wholly inside the polygons of an area."""
    if area.crs is None:
        area = area.set_crs(frame.crs)
    ground = shapely.union_all(shapely.make_valid(_brought(area, frame.crs, "mask").geometry))
    shapely.prepare(ground)
    return frame[shapely.covers(ground, frame.geometry.to_numpy())].reset_index(drop=True)


def _stem(detected: Any, settings: dict[str, Any]) -> str:
    named = isinstance(detected, str | os.PathLike)
    stem = Path(detected).stem if named else "features"
    return f"{_TOOL}_{stem}_{sha256_json(settings)[:8]}"


def _estimated_hours(sides: Sides) -> float:
    """Hours, from the first detections against all of the truth."""
    found, truth = sides.polygons()
    some = slice(0, _TIMED)
    few = Polygons(found.shapes[some])
    started = time.perf_counter()
    candidates(few, sides.found_labels[some], sides.scores[some], truth, sides.truth_labels)
    seconds = time.perf_counter() - started
    return seconds * max(1.0, len(found) / max(len(few), 1)) / 3600
