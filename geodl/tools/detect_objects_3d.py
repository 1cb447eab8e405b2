"""Objects found among the points of a cloud, as polygons with height and yaw."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.options import as_path
from geodl.core.classes import ClassTable
from geodl.core.oriented import OrientedBoxes
from geodl.core.points import PointPlan
from geodl.infer.boxes3d import DetectedTiles, from_payload, joined
from geodl.io.point_cells import SortedCloud
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.ops.boxes3d import footprints, suppress_oriented
from geodl.runtime.connect import chosen_client
from geodl.runtime.future import RunFuture, start
from geodl.runtime.ledger import Ledger
from geodl.runtime.report import check_report, reported
from geodl.tasks.objects import as_share
from geodl.tools.point_job import PointRun, estimated_point_hours, matched, point_plan, run_points
from geodl.tools.product import Product

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


@dataclass(frozen=True, kw_only=True)
class BoxJob(PointRun):
    """A run that finds objects.

    Parameters
    ----------
    threshold
        Least score, 0..1.
    nms_overlap
        Overlap of two boxes of a class beyond which the weaker is dropped.
    """

    threshold: float
    nms_overlap: float

    def task(self, cloud: SortedCloud, folder: Path) -> DetectedTiles:
        return DetectedTiles(
            cloud=cloud,
            model=self.model,
            device=self.device,
            threshold=self.threshold,
            nms_overlap=self.nms_overlap,
        )

    def run_plan(self, cloud: SortedCloud) -> PointPlan:
        plan = self.plan(cloud)
        return replace(plan, tiles=with_neighbours(plan.tiles))

    def finish(self, ledger: Ledger, plan: PointPlan, path: Path) -> GeoDataFrame:
        """Drop what is found twice and write the features."""
        parts = [OrientedBoxes.none(), *(from_payload(data) for _, data in ledger.payloads())]
        found = suppress_oriented(joined(parts), self.nms_overlap)
        features = box_features(found, self.contract.classes, self.cloud.crs)
        write_features(features, path)
        features.attrs["path"] = str(path)
        return features


def detect_objects_3d(
    points: Any,
    model: Any,
    output: str | os.PathLike[str],
    *,
    threshold: float = 0.3,
    nms_overlap: float = 0.2,
    tile_size: float | None = None,
    buffer: float | None = None,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    future: bool = False,
    estimate: bool = False,
    dry_run: bool = False,
    report: str | os.PathLike[str] | None = None,
) -> GeoDataFrame:
    """Find objects among the points of a cloud.

    Square tiles with a buffer are cut into overlapping blocks of the size that the model was
    trained on; each block answers for the objects in its middle. The result is the same for every
    tile size and number of workers as long as the buffer is at least as wide as a block. A run
    that was stopped goes on when the same call is made again.

    Parameters
    ----------
    points
        Whatever :func:`geodl.open_points` takes, or what it returned.
    model
        A trained object, a ``.emd`` or ``.dlpk`` file, or the folder that ``save`` returned.
    output
        ``.parquet`` (GeoParquet), ``.gpkg``, ``.fgb``, ``.geojson`` or ``.shp``.
    threshold
        Least score of an object, 0..1.
    nms_overlap
        Of two boxes of a class whose overlap, seen from above, is larger, the weaker is dropped.
    tile_size, buffer
        Side of the tiles and what is seen around them, in units of the CRS. By default tiles of
        about two million points or less, and the side of a block.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Show a bar, the plan before the run and the speed after it.
    overwrite
        Replace a finished product; begin anew where an unfinished run has other settings.
    future
        Return at once a future with ``progress``; ``cancel()`` leaves the run resumable.
    estimate
        Return the expected worker-hours as a float instead.
    dry_run
        Only say what would be done: a :class:`geodl.tools.preview.PointRunPlan`.
    report
        ``.html`` page to write on what the client's workers did and when.

    Returns
    -------
    GeoDataFrame, best first: the boxes seen from above as polygons in the cloud's CRS, with
    ``Class``, ``ClassValue``, ``Confidence`` (0..100), ``z`` of the bottom, ``height``, ``length``
    and ``width`` in units of the CRS, and ``yaw`` of the length in degrees, anticlockwise from x,
    within -180..180. ``.attrs["path"]`` says where it is.

    Raises
    ------
    ModelDataError
        The points lack a dimension that the model takes, or the model is for something else.
    OptionError
        An argument outside its domain.
    OutputExistsError
        A finished product is there.
    BlockError
        Some tiles failed; the others are kept, the same call goes on.
    """
    client = chosen_client(client)
    options = {
        "threshold": as_share(threshold, "threshold"),
        "nms_overlap": as_share(nms_overlap, "nms_overlap"),
        "tile_size": tile_size,
        "buffer": buffer,
        "client": client,
    }
    as_path(output, "output")
    if estimate:
        with _prepared(points, model, **options) as job:
            hours: Any = estimated_point_hours(job)
            return hours
    product = Product.at(
        output, suffixes=FEATURE_SUFFIXES, default_stem="objects", gis=None, overwrite=overwrite
    )
    if dry_run:
        with _prepared(points, model, **options) as job:
            plan: Any = point_plan(job, product.path)
            return plan
    page = check_report(client, report)

    def make(handle: RunFuture | None) -> Any:
        with _prepared(points, model, **options) as job, reported(client, page):
            return run_points(job, product, client=client, progress=progress, future=handle)

    # With future=True a RunFuture, as documented.
    result: Any = start(make) if future else make(None)
    return result


@contextmanager
def _prepared(
    points: Any, model: Any, *, threshold: float, nms_overlap: float, **options: Any
) -> Iterator[BoxJob]:
    """Cloud and model, checked."""
    with matched(
        points,
        model,
        tool="detect_objects_3d",
        kind="boxes3d",
        gives="finds boxes among points",
        **options,
    ) as found:
        found["settings"] |= {"threshold": threshold, "nms_overlap": nms_overlap}
        yield BoxJob(**found, threshold=threshold, nms_overlap=nms_overlap)


def with_neighbours(tiles: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Tiles and those around them: a block that lies in an empty tile owns ground beyond it."""
    steps = (-1, 0, 1)
    return tuple(sorted({(r + i, c + j) for r, c in tiles for i in steps for j in steps}))


def box_features(found: OrientedBoxes, classes: ClassTable, crs: str | None) -> GeoDataFrame:
    """Boxes as polygons with their numbers in columns."""
    import geopandas as gpd

    names = np.array(["", *classes.names], object)
    boxes = found.boxes
    return gpd.GeoDataFrame(
        {
            "Class": names[found.labels],
            "ClassValue": classes.value_of_index()[found.labels],
            "Confidence": found.scores.astype(np.float64) * 100,
            "z": boxes[:, 2],
            "height": boxes[:, 5],
            "length": boxes[:, 3],
            "width": boxes[:, 4],
            "yaw": np.degrees(boxes[:, 6]),
        },
        geometry=footprints(boxes),
        crs=crs,
    )
