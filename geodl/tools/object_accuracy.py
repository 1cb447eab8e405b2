"""Detections against the truth: an accuracy table and a report."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from geodl.base.errors import OptionError
from geodl.base.files import sha256_json
from geodl.base.options import as_float, check_known
from geodl.io.manifest import write_manifest
from geodl.io.staging import staged
from geodl.io.vector import features_identity
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
from geodl.tools.accuracy_sides import Sides, compared, judged_ground
from geodl.tools.product import Product

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
    sides = compared(
        detected_features,
        ground_truth_features,
        detected_class_value_field,
        ground_truth_class_value_field,
        judged_ground(mask_features, context),
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
