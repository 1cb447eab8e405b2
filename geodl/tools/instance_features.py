"""From detections to features: classes by name, confidence in per cent, shapes in the run's CRS."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import shapely

from geodl.core.grid import GeoGrid
from geodl.infer.instances import FoundInstances, InstanceOptions
from geodl.ops.instance_parts import join_parts
from geodl.ops.nms import suppress
from geodl.ops.polygon_overlap import Polygons, polygon_iou
from geodl.tools.job import Job

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def to_features(
    labels: np.ndarray, scores: np.ndarray, shapes: np.ndarray, job: Job
) -> GeoDataFrame:
    """Detections as features in the CRS of the run's grid.

    Parameters
    ----------
    labels
        int (N,), 1..K.
    scores
        float (N,), 0..1.
    shapes
        object (N,): polygons in the CRS.
    """
    import geopandas

    classes = job.contract.classes
    names = np.array(["Background", *classes.names], dtype=object)
    return geopandas.GeoDataFrame(
        {
            "Class": names[labels],
            "ClassValue": classes.value_of_index()[labels],
            "Confidence": scores.astype(np.float64) * 100,
        },
        geometry=shapes,
        crs=job.plan.grid.crs,
    )


def instance_features(job: Job, payloads: Iterable[bytes]) -> GeoDataFrame:
    """The outlines of all blocks, parts of one object joined and duplicates dropped."""
    found = FoundInstances.concatenate([FoundInstances.from_payload(data) for data in payloads])
    shapes, labels, scores = whole_instances(found, job.instance_options)
    return to_features(labels, scores, _in_crs(shapes, job.plan.grid), job)


def whole_instances(
    found: FoundInstances, options: InstanceOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outlines (N,) in pixel edges, their labels 1..K and scores 0..1: each object once."""
    # In one order, so that the result does not depend on that of the blocks.
    bounds = shapely.bounds(found.outlines).reshape(-1, 4)
    keys = (found.labels, *bounds.T, *found.tiles.T, -found.scores.astype(np.float64))
    found = found.take(np.lexsort(keys))
    groups = join_parts(found.outlines, found.labels, found.tiles, found.cut)
    outlines = np.array([_whole(found.outlines[group]) for group in groups], object)
    scores = np.array([found.scores[group].max() for group in groups], np.float32)
    labels = np.array([found.labels[group[0]] for group in groups], np.int64)
    shapes = Polygons(outlines)
    kept = suppress(
        shapes.bounds,
        scores,
        labels,
        options.nms_overlap,
        overlap=lambda i, j: polygon_iou(shapes, i, shapes, j),
    )
    return _shaped(shapes.shapes[kept], options.outlines), labels[kept], scores[kept]


def _whole(parts: np.ndarray) -> shapely.Geometry:
    return parts[0] if len(parts) == 1 else shapely.union_all(parts)


def _shaped(outlines: np.ndarray, how: str) -> np.ndarray:
    shapes: np.ndarray = outlines
    if how == "bounds":
        shapes = shapely.box(*shapely.bounds(outlines).reshape(-1, 4).T)
    elif how == "turned":
        shapes = np.array([shapely.minimum_rotated_rectangle(shape) for shape in outlines], object)
    return shapes


def _in_crs(shapes: np.ndarray, grid: GeoGrid) -> np.ndarray:
    """Shapes in pixel edges as shapes in the CRS."""

    a, b, c, d, e, f = grid.transform

    def place(xy: np.ndarray) -> np.ndarray:
        x, y = xy.T
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=1)

    turned: np.ndarray = shapely.transform(shapes, place)
    return turned
