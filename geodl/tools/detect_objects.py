"""Objects found by a detector, wall to wall, as features."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodl.base.errors import DataWarning, OptionError
from geodl.base.options import as_bool, as_float, check_known
from geodl.core.detections import Detections
from geodl.core.grid import GeoGrid
from geodl.infer.objects import Found
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.ops.nms import suppress
from geodl.runtime.ledger import Ledger
from geodl.tools.inference import ToolCall, together
from geodl.tools.instance_features import instance_features, to_features
from geodl.tools.job import Job

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

Overlaps = Callable[["GeoDataFrame"], "GeoDataFrame"]


def detect_objects(
    input_raster: Any,
    model: Any,
    model_arguments: Mapping[str, Any] | None = None,
    output_name: str | os.PathLike[str] | None = None,
    run_nms: bool = False,
    confidence_score_field: str | None = None,
    class_value_field: str | None = None,
    max_overlap_ratio: float = 0,
    context: Mapping[str, Any] | None = None,
    process_all_raster_items: bool = False,
    *,
    gis: Any = None,
    future: bool = False,
    estimate: bool = False,
    dry_run: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    block_size: int | None = None,
    report: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> GeoDataFrame:
    """Find objects in a raster.

    Parameters
    ----------
    input_raster
        Whatever :func:`geodl.open_raster` takes.
    model
        A trained object, a ``.emd`` or ``.dlpk`` file, or the folder that ``save`` returned; or an
        ``.onnx`` file: an export of geodl, or one with the metadata of the QGIS plugin Deepness.
    model_arguments
        ``padding`` (a quarter of the tile), ``batch_size`` (64), ``tile_size``, ``threshold``
        (0.5), ``nms_overlap`` (0.1), ``exclude_pad_detections`` (True),
        ``test_time_augmentation`` (False) with ``tta_scales`` ("1"), ``precision`` (``float32``;
        ``bfloat16`` is faster, and is refused where a few tiles show other objects).
    output_name
        ``.parquet``, ``.gpkg``, ``.fgb``, ``.geojson`` or ``.shp``; None names it after the raster
        and the run.
    run_nms, max_overlap_ratio, confidence_score_field, class_value_field
        A pass of your own over the features: of two of one class whose IoU is above
        ``max_overlap_ratio`` the less confident is dropped.
    context
        ``cellSize``, ``extent``, ``mask``, ``outSR``, ``snapRaster``, ``processorType``,
        ``parallelProcessingFactor``.
    process_all_raster_items
        True searches each raster of a list by itself; the features are put together, in the CRS of
        the first. Products that the same call has finished before are kept.
    gis
        A :class:`geodl.Catalog` in which the product is published; bare names lie there.
    future
        Return a future at once: its ``progress``, ``cancel()`` and ``result()``.
    estimate
        Only return the worker-hours expected.
    dry_run
        Only say what the run would do and take: its blocks, tiles, memory, hours and output.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Show a bar, the plan before the run and the speed after it.
    overwrite
        Replace a finished product, of several rasters every one; begin anew where an unfinished
        run has other settings.
    block_size
        Pixels; rounded up to whole tile strides. Does not change the result.
    report
        ``.html`` page to write on what the client's workers did and when.

    Returns
    -------
    GeoDataFrame with ``Class``, ``ClassValue``, ``Confidence`` (0..100) and polygons in the run's
    CRS, best first; ``.attrs["path"]`` says where it is.

    Raises
    ------
    ModelDataError
        The raster does not fit the model.
    OutputExistsError
        A finished product is there.
    BlockError
        Some blocks failed; the others are kept, the same call goes on.
    """
    check_known(kwargs, (), "detect_objects")
    overlaps = _overlaps(
        as_bool(run_nms, "run_nms"), confidence_score_field, class_value_field, max_overlap_ratio
    )
    call = ToolCall(
        tool="detect_objects",
        kind="objects",
        raster=input_raster,
        model=model,
        model_arguments=model_arguments,
        context=context,
        block_size=block_size,
        output_name=output_name,
        suffixes=FEATURE_SUFFIXES,
        gis=gis,
        overwrite=overwrite,
        separately=as_bool(process_all_raster_items, "process_all_raster_items"),
        client=client,
        progress=progress,
        report=report,
        finalise=partial(_finalise, overlaps=overlaps),
        making={} if overlaps is None else dict(overlaps.keywords),
        reopens=True,
        join=together,
    )
    return call.run(future=future, estimate=estimate, dry_run=dry_run)


def _overlaps(
    run: bool, score_field: str | None, class_field: str | None, most: float
) -> partial[GeoDataFrame] | None:
    """The user's own suppression, or None."""
    if not run:
        return None
    most = as_float(most, "max_overlap_ratio", minimum=0, maximum=1)
    columns = ("Class", "ClassValue", "Confidence")
    for name, field in (
        ("confidence_score_field", score_field),
        ("class_value_field", class_field),
    ):
        if field is not None and field not in columns:
            raise OptionError(f"{name}={field!r} is no field; the features have {columns}")
    if score_field == "Class":
        raise OptionError("confidence_score_field='Class' holds no numbers; take 'Confidence'")
    return partial(
        _drop_overlaps,
        score=score_field or "Confidence",
        label=class_field or "ClassValue",
        most=most,
    )


def _drop_overlaps(features: GeoDataFrame, *, score: str, label: str, most: float) -> GeoDataFrame:
    boxes = shapely.bounds(features.geometry.to_numpy())
    if len(features) == 0:
        return features
    _, labels = np.unique(features[label].to_numpy(), return_inverse=True)
    kept = suppress(boxes, features[score].to_numpy(np.float64), labels, most)
    return features.iloc[np.sort(kept)].reset_index(drop=True)


def _finalise(job: Job, ledger: Ledger, path: Path, *, overlaps: Overlaps | None) -> GeoDataFrame:
    """All blocks' detections put together, duplicates of overlapping tiles dropped, and written."""
    payloads = (data for _, data in ledger.payloads())
    if job.contract.kind == "instances":
        features = instance_features(job, payloads)
    else:
        features = _box_features(job, payloads)
    if overlaps is not None:
        features = overlaps(features)
    write_features(features, path)
    features.attrs["path"] = str(path)
    return features


def _box_features(job: Job, payloads: Iterable[bytes]) -> GeoDataFrame:
    found = Found.concatenate([Found.from_payload(data) for data in payloads])
    every = found.whole.ordered()
    kept = every.take(
        suppress(every.boxes, every.scores, every.labels, job.object_options.nms_overlap)
    )
    _warn_of_cut(found.cut, kept, job)
    return to_features(kept.labels, kept.scores, _polygons(kept.boxes, job.plan.grid), job)


def _warn_of_cut(cut: Detections, kept: Detections, job: Job) -> None:
    """Count boxes cut by tile edges that no kept box explains: objects larger than a tile shows."""
    if len(cut) == 0:
        return
    alone = np.ones(len(cut), bool)
    if len(kept):
        tree = shapely.STRtree(shapely.box(*kept.boxes.T))
        alone[np.unique(tree.query(shapely.box(*cut.boxes.T))[0])] = False
    if alone.any():
        limit = job.plan.tile_px - job.plan.padding_px
        warnings.warn(
            f"{int(alone.sum())} detections were cut by the edges of their tiles and are left out: "
            f"objects of more than about {limit} pixels do not fit a tile less its padding. Choose "
            f'a larger tile_size or padding, or "exclude_pad_detections": False.',
            DataWarning,
            stacklevel=2,
        )


def _polygons(boxes: np.ndarray, grid: GeoGrid) -> np.ndarray:
    """Polygons (N,) in the CRS of boxes (N, 4) in pixels; ring order as the grid maps it."""
    x0, y0, x1, y1 = boxes.T
    cols = np.stack([x0, x0, x1, x1], axis=1)
    rows = np.stack([y0, y1, y1, y0], axis=1)
    a, b, c, d, e, f = grid.transform
    corners = np.stack([a * cols + b * rows + c, d * cols + e * rows + f], axis=-1)
    polygons: np.ndarray = shapely.polygons(corners)
    return polygons
