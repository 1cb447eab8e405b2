"""Non-maximum suppression as a tool over features."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_bool, as_float, check_choice
from geodl.io.vector import read_features
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.ops.nms import suppress
from geodl.ops.polygon_overlap import Polygons, polygon_iou, share_of_smaller
from geodl.tools.feature_fields import (
    CLASS_FIELDS,
    SCORE_FIELD,
    class_texts,
    find_field,
    scores_of,
)
from geodl.tools.product import Product

if TYPE_CHECKING:
    import geopandas as gpd

_MEASURES = {"iou": polygon_iou, "smaller": share_of_smaller}


def non_max_suppression(
    features: Any,
    confidence_score_field: str | None = None,
    class_value_field: str | None = None,
    max_overlap_ratio: float = 0.0,
    output_name: str | os.PathLike[str] | None = None,
    *,
    class_wise: bool = True,
    measure: str = "iou",
    overwrite: bool = False,
) -> gpd.GeoDataFrame:
    """Of polygons that overlap too much, keep the one with the best score.

    Polygons are looked up through a spatial index: a million boxes take well under a minute.
    Equal scores are ranked by place, so the result does not depend on the order of the features.

    Parameters
    ----------
    features
        Polygons: a GeoDataFrame or anything that geopandas reads.
    confidence_score_field
        Column of scores; None is ``Confidence``, in any spelling of upper and lower case.
    class_value_field
        Column of classes: only polygons of one class suppress each other. None is ``Classvalue``
        or ``Value``, and all are one class where there is neither.
    max_overlap_ratio
        Overlap up to which both are kept, 0..1.
    output_name
        ``.parquet``, ``.gpkg``, ``.fgb``, ``.geojson`` or ``.shp`` to write; None writes nothing.
    class_wise
        False: polygons of different classes suppress each other too.
    measure
        ``"iou"``: intersection over union; ``"smaller"``: intersection over the smaller of both,
        which also drops small boxes inside large ones.
    overwrite
        Replace a product that is there.

    Returns
    -------
    GeoDataFrame: those kept, in their old order, with all their columns, in their CRS;
    ``.attrs["path"]`` says where they were written.

    Raises
    ------
    OptionError
        A column that is not there, or a value outside its domain.
    DataError
        Scores that are no numbers, or features that are no polygons.
    OutputExistsError
        A product is there.
    """
    most = as_float(max_overlap_ratio, "max_overlap_ratio", minimum=0.0, maximum=1.0)
    ratio = _MEASURES[check_choice(measure, tuple(_MEASURES), "measure")]
    separate = as_bool(class_wise, "class_wise")
    product = None
    if output_name is not None:
        product = Product.at(
            output_name,
            suffixes=FEATURE_SUFFIXES,
            default_stem="non_max_suppression",
            gis=None,
            overwrite=overwrite,
        )
    frame = read_features(features, may_be_empty=True)
    scores = _scores(frame, confidence_score_field)
    field = find_field(frame, class_value_field, CLASS_FIELDS, "class_value_field")
    labels = None
    if separate:
        _, labels = np.unique(class_texts(frame, field).astype(str), return_inverse=True)
    polygons = as_polygons(frame, "The features")
    kept = suppress(
        polygons.bounds,
        scores,
        labels,
        most,
        overlap=lambda first, second: ratio(polygons, first, polygons, second),
    )
    result = frame.iloc[np.sort(kept)].reset_index(drop=True)
    if product is not None:
        write_features(result, product.path)
        result.attrs["path"] = str(product.path)
    return result


def as_polygons(frame: gpd.GeoDataFrame, label: str) -> Polygons:
    """The geometries of features that must be polygons.

    Raises
    ------
    DataError
        There are others.
    """
    kinds = set(frame.geom_type.dropna()) - {"Polygon", "MultiPolygon"}
    if kinds:
        raise DataError(
            f"{label} hold {', '.join(sorted(kinds))}; polygons are expected. Buffer points and "
            "lines first."
        )
    return Polygons(frame.geometry.to_numpy())


def _scores(frame: gpd.GeoDataFrame, given: str | None) -> np.ndarray:
    field = find_field(frame, given, (SCORE_FIELD,), "confidence_score_field")
    if field is None:
        names = ", ".join(str(n) for n in frame.columns if n != frame.geometry.name)
        raise OptionError(
            f"The features have no column {SCORE_FIELD!r}; name the one with the scores by "
            f"confidence_score_field. They have: {names or 'none'}."
        )
    return scores_of(frame, field)
