"""Labels of features from the imagery around them, over a raster of any size."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import DataWarning, OptionError
from geodl.base.options import as_bool, check_known
from geodl.infer.labels import Label, from_payload
from geodl.io.staging import staged
from geodl.io.vector import read_features
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.runtime.ledger import Ledger
from geodl.tools.inference import together
from geodl.tools.label_job import LabelCall, LabelJob, outline
from geodl.tools.product import Product

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

_LABEL, _CONFIDENCE, _IMAGE, _PICTURE = "ClassLabel", "Confidence", "Image", "ExpMap"
_TABLE_SUFFIXES = (".parquet", ".csv")
# pyogrio writes bytes as text into all other formats.
_PICTURE_SUFFIX = ".parquet"


def classify_objects(
    input_raster: Any,
    model: Any,
    model_arguments: Mapping[str, Any] | None = None,
    input_features: Any = None,
    class_label_field: str | None = None,
    process_all_raster_items: bool = False,
    output_name: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | None = None,
    *,
    gis: Any = None,
    future: bool = False,
    estimate: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    block_size: int | None = None,
    report: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    **kwargs: Any,
) -> GeoDataFrame | pd.DataFrame:
    """Label features by the chip of the raster around each, cut as the model's chips were.

    Parameters
    ----------
    input_raster
        Whatever :func:`geodl.open_raster` takes.
    model
        A trained object, a ``.emd`` or ``.dlpk`` file, or the folder that ``save`` returned; of
        ``FeatureClassifier`` or another class that labels chips.
    model_arguments
        ``batch_size`` (64; on a CPU 8 to 64 by the tile), ``test_time_augmentation`` (False),
        ``explainability_map`` (False) and, where chips have several classes, ``threshold`` (0.5).
    input_features
        Points, lines or polygons: a GeoDataFrame, or anything that geopandas reads. None labels
        the raster as one image.
    class_label_field
        Column for the class name; None is ``ClassLabel``.
    process_all_raster_items
        True takes each raster of a list by itself: a feature has the label of the first one that
        it lies on; without features each has a label. False makes a mosaic of them.
    output_name
        ``.parquet``, ``.gpkg``, ``.fgb``, ``.geojson`` or ``.shp``; None names it after the raster
        and the run. Without features and without a CRS a table: ``.parquet`` or ``.csv``.
    context
        ``cellSize``, ``extent``, ``outSR``, ``snapRaster``, ``processorType``,
        ``parallelProcessingFactor``; ``cellSize`` is the chips' own.
    gis
        A :class:`geodl.Catalog` in which the product is published; bare names lie there.
    future
        Return a future at once: its ``progress``, ``cancel()`` and ``result()``.
    estimate
        Only return the worker-hours expected.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Show a bar, the plan before the run and the speed after it.
    overwrite
        Replace a finished product; begin anew where an unfinished run has other settings.
    block_size
        Pixels: chips whose centres lie in one such square are read together. Does not change the
        result.
    report
        ``.html`` page to write on what the client's workers did and when.
    dry_run
        Only say what would be done: a :class:`LabelPlan`.

    Returns
    -------
    GeoDataFrame with every input feature once, geometry and columns as they were, and the label
    with its ``Confidence`` (0..100); where the features have such a column already, ours is
    called ``<class_label_field>_Confidence``. With several classes both are texts with commas
    between, best first. No label, and NaN or no text, for features that do not lie on the
    raster. Without features one polygon around the image, or a DataFrame where it has no CRS,
    with its name in ``Image``. With ``explainability_map`` also a column ``ExpMap`` of PNG
    pictures, 255 where the chip speaks most for its label. ``.attrs["path"]`` says where it is.

    Raises
    ------
    ModelDataError
        The raster does not fit the model, or the model labels no chips.
    OptionError
        The features have a column of the label's name already, or the format has no pictures.
    OutputExistsError
        A finished product is there.
    BlockError
        Some blocks failed; the others are kept, the same call goes on.
    """
    check_known(kwargs, (), "classify_objects")
    frame = None if input_features is None else read_features(input_features, keep_missing=True)
    columns = _columns(class_label_field, frame)
    call = LabelCall(
        tool="classify_objects",
        kind="tiles",
        raster=input_raster,
        model=model,
        model_arguments=model_arguments,
        context=context,
        block_size=block_size,
        output_name=output_name,
        suffixes=FEATURE_SUFFIXES if frame is not None else (*FEATURE_SUFFIXES, ".csv"),
        gis=gis,
        overwrite=overwrite,
        separately=as_bool(process_all_raster_items, "process_all_raster_items"),
        client=client,
        progress=progress,
        report=report,
        finalise=partial(_finalise, columns=columns),
        check=_check_pictures,
        join=_first_labels(columns) if frame is not None else together,
        features=frame,
        columns=columns,
    )
    return call.run(future=future, estimate=estimate, dry_run=dry_run)


def _columns(label: str | None, frame: GeoDataFrame | None) -> tuple[str, str]:
    """Names of the columns for label and confidence."""
    name = _LABEL if label is None else str(label)
    if not name.strip():
        raise OptionError("class_label_field is empty; give the name of a column.")
    there = [] if frame is None else [str(column) for column in frame.columns]
    if name in there:
        raise OptionError(
            f"The features have a column {name!r} already; give another class_label_field."
        )
    return name, f"{name}_{_CONFIDENCE}" if _CONFIDENCE in there else _CONFIDENCE


def _check_pictures(job: Any, product: Product) -> None:
    """Refuse pictures where they find no place."""
    if not job.labels.explain:
        return
    if product.path.suffix.lower() != _PICTURE_SUFFIX:
        raise OptionError(
            f"{product.path.name}: explainability_map=True makes pictures, for which this format "
            f"has no place; choose {_PICTURE_SUFFIX}."
        )
    if job.frame is not None and _PICTURE in job.frame.columns:
        raise OptionError(
            f"The features have a column {_PICTURE!r} already, where explainability_map=True puts "
            "its pictures; rename it."
        )


def _finalise(
    job: LabelJob, ledger: Ledger, path: Path, *, columns: tuple[str, str]
) -> GeoDataFrame | pd.DataFrame:
    """The labels of all blocks, put to their features, and written."""
    import geopandas
    import pandas as pd

    labels: dict[int, Label] = {}
    for _, payload in ledger.payloads():
        labels.update(from_payload(payload))
    if job.frame is not None:
        result = job.frame.copy()
    else:
        name = {_IMAGE: [job.source.name]}
        grid = job.source.grid
        result = (
            pd.DataFrame(name)
            if grid.crs is None
            else geopandas.GeoDataFrame(name, geometry=[outline(grid)], crs=grid.crs)
        )
    result.attrs = {}
    _warn_of_missing(len(result), len(labels), job.source.name)
    _label(result, labels, columns, several=job.several)
    if job.labels.explain:
        found = (labels.get(row) for row in range(len(result)))
        result[_PICTURE] = [None if label is None else label.picture for label in found]
    _written(result, path)
    result.attrs["path"] = str(path)
    return result


def _label(
    frame: GeoDataFrame | pd.DataFrame,
    labels: Mapping[int, Label],
    columns: tuple[str, str],
    *,
    several: bool,
) -> None:
    found = [labels.get(row) for row in range(len(frame))]
    name, confidence = columns
    frame[name] = [None if label is None else ",".join(label.names) for label in found]
    if several:
        frame[confidence] = [
            None if label is None else ",".join(f"{100 * score:.2f}" for score in label.scores)
            for label in found
        ]
    else:
        frame[confidence] = [
            np.nan if label is None or not label.scores else 100 * label.scores[0]
            for label in found
        ]


def _warn_of_missing(features: int, labelled: int, raster: str) -> None:
    if labelled < features:
        warnings.warn(
            f"{features - labelled} of {features} features have no label: their chips' centres do "
            f"not lie on {raster}, or not in the extent.",
            DataWarning,
            stacklevel=2,
        )


def _written(frame: GeoDataFrame | pd.DataFrame, path: Path) -> None:
    suffix = path.suffix.lower()
    if hasattr(frame, "geometry"):
        if suffix not in FEATURE_SUFFIXES:
            raise OptionError(
                f"{path.name}: the image has a CRS, so its label is a feature; choose "
                f"{', '.join(FEATURE_SUFFIXES)}."
            )
        write_features(frame, path)
        return
    if suffix not in _TABLE_SUFFIXES:
        raise OptionError(
            f"{path.name}: the image has no CRS, so its label is a row of a table; choose "
            f"{' or '.join(_TABLE_SUFFIXES)}."
        )
    with staged(path) as place:
        frame.to_csv(place, index=False) if suffix == ".csv" else frame.to_parquet(place)


def _first_labels(columns: tuple[str, str]) -> Callable[[list[Any]], Any]:
    """Joins layers of several rasters: each feature once, with the first label that it has."""

    def join(parts: list[Any]) -> Any:
        result = parts[0].copy()
        for part in parts[1:]:
            empty = result[columns[0]].isna().to_numpy()
            for column in columns:
                result[column] = result[column].where(~empty, part[column])
        result.attrs["path"] = [part.attrs["path"] for part in parts]
        return result

    return join
