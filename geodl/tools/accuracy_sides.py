"""The two sides of a judgement of detections: read, brought together, cut to the ground judged."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodl.base.errors import DataWarning, GridMismatchError
from geodl.io.extent import read_extent, split_extent
from geodl.io.vector import read_features
from geodl.ops.polygon_overlap import Polygons
from geodl.tools.feature_fields import (
    CLASS_FIELDS,
    SCORE_FIELD,
    class_texts,
    find_field,
    natural_order,
    scores_of,
)
from geodl.tools.non_max_suppression import as_polygons

if TYPE_CHECKING:
    import geopandas as gpd


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


def judged_ground(mask_features: Any, context: Mapping[str, Any] | None) -> list[Any]:
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


def compared(
    detected: Any, truth: Any, found_field: str | None, truth_field: str | None, areas: list[Any]
) -> Sides:
    """Detections and truth inside the areas, with classes and scores.

    Parameters
    ----------
    detected, truth
        Whatever :func:`geodl.io.vector.read_features` takes; the truth is brought into the CRS of
        the detections.
    found_field, truth_field
        Columns of their classes; None looks for the usual ones.
    areas
        Of :func:`judged_ground`; features count that lie wholly inside all of them.

    Raises
    ------
    GridMismatchError
        Only some of all this states a CRS.
    OptionError
        A column that is not there.
    """
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
