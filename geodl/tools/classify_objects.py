"""Labels of features from the imagery around them, over a raster of any size."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from geodl.base.errors import DataWarning, ModelDataError, OptionError
from geodl.base.options import as_bool, as_float, as_int, check_known
from geodl.bundle import load_model, resolve_model
from geodl.core.contract import ChipCut
from geodl.core.grid import GeoGrid
from geodl.infer.chips import ChipPlan
from geodl.infer.labels import Label, LabelBlocks, LabelOptions, from_payload
from geodl.infer.memory import LIBRARY_BYTES, Memory, network_bytes
from geodl.infer.options import run_context
from geodl.io.extent import extent_window
from geodl.io.staging import staged
from geodl.io.vector import features_identity, features_on_grid, read_features
from geodl.io.writers import FEATURE_SUFFIXES, write_features
from geodl.runtime.ledger import Ledger
from geodl.tools.device import run_device
from geodl.tools.inference import ToolCall
from geodl.tools.job import Job, check_cell_size
from geodl.tools.job_source import job_source

if TYPE_CHECKING:
    import pandas as pd
    from geopandas import GeoDataFrame

_LABEL, _CONFIDENCE, _IMAGE = "ClassLabel", "Confidence", "Image"
_TABLE_SUFFIXES = (".parquet", ".csv")
# Chips at once; more gain nothing on a CPU and cost memory.
_BATCH = {"cuda": 64}
_CPU_BATCH = 8
# A chip of this many timed for an estimate.
_TIMED_CHIPS = 32


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
        ``batch_size`` (64; 8 on a CPU), ``test_time_augmentation`` (False) and, where chips have
        several classes, ``threshold`` (0.5).
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
    future, estimate
        Return a future at once; or only the worker-hours expected.
    client
        A Dask client; None takes the active one, or this process.
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
    with its name in ``Image``. ``.attrs["path"]`` says where it is.

    Raises
    ------
    ModelDataError
        The raster does not fit the model, or the model labels no chips.
    OptionError
        The features have a column of the label's name already.
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
        join=_first_labels(columns) if frame is not None else _together,
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


@dataclass(frozen=True, kw_only=True)
class LabelJob(Job):
    """A classifier of chips, a raster and features.

    Parameters
    ----------
    frame
        The features, or None for the image as a whole.
    labels
        How the classifier is run.
    several
        Whether a chip has any number of classes.
    """

    plan: ChipPlan  # type: ignore[assignment]  # it has what run_job asks of a plan
    frame: GeoDataFrame | None
    labels: LabelOptions
    batch: int
    several: bool

    def task(self, **extra: Any) -> LabelBlocks:  # type: ignore[override]
        return LabelBlocks(
            source=self.source,
            model=self.model,
            cut=self.plan.cut,
            tile_px=self.contract.tile_px,
            options=self.labels,
            batch=max(1, min(self.batch, self.plan.tile_count)),
            device=self.device,
            **extra,
        )


@dataclass(frozen=True, kw_only=True)
class LabelCall(ToolCall):
    """A call of :func:`classify_objects`.

    Parameters
    ----------
    features
        The layer, or None for whole images.
    columns
        Names for label and confidence.
    """

    features: GeoDataFrame | None
    columns: tuple[str, str]

    def _prepared(self, raster: Any, client: Any = None) -> Any:
        return _prepared(self, raster, client)

    def _planned(self, job: LabelJob, client: Any) -> tuple[LabelJob, LabelPlan]:
        plan = job.plan
        return job, LabelPlan(
            tool=job.tool,
            raster=job.source.name,
            features=len(plan.inside),
            chips=plan.tile_count,
            blocks=plan.block_count,
            block_px=plan.block_px,
            memory=_memory(job),
        )

    def _hours(self, job: LabelJob) -> float:
        return estimated_hours(job)


@dataclass(frozen=True, kw_only=True)
class LabelPlan:
    """What a run will do, before it starts: features, those of them with a chip, and blocks."""

    tool: str
    raster: str
    features: int
    chips: int
    blocks: int
    block_px: int
    memory: Memory
    worker_hours: float | None = None

    def __str__(self) -> str:
        return (
            f"{self.tool} of {self.raster}: {self.chips} chips of {self.features} features in "
            f"{self.blocks} blocks of {self.block_px} px; {self.memory.total / 2**30:.1f} GB of "
            f"memory for each process"
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _memory(job: LabelJob) -> Memory:
    """Of a process: one block is read, one classified, one written, with the batch's tensors."""
    plan, source = job.plan, job.source
    side = plan.block_px + max(plan.cut.size_yx)
    pixels = min(side, plan.extent.height) * min(side, plan.extent.width)
    model = load_model(job.model, "cpu")
    weights = sum(p.numel() * p.element_size() for p in model.net.parameters())
    return Memory(
        base=LIBRARY_BYTES + weights,
        network=network_bytes(model, job.contract.tile_px, job.batch),
        blocks=3 * pixels * (source.count * source.dtype.itemsize + 1),
    )


@contextmanager
def _prepared(call: LabelCall, raster: Any, client: Any) -> Iterator[LabelJob]:
    """Open the raster and the model, check that they fit, and plan the chips."""
    where = run_context(call.context)
    if where.mask is not None:
        raise OptionError("classify_objects takes no context mask; leave out features instead.")
    with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
        ref = resolve_model(call.model, folder)
        device = run_device(where.device, client)
        loaded = load_model(ref, device if client is None else "cpu")
        contract = loaded.contract
        if contract.chip is None:
            raise ModelDataError(
                f"classify_objects needs a model that labels chips, such as FeatureClassifier; "
                f"{contract.model_name} gives {contract.kind}."
            )
        source = job_source(raster, contract, where)
        check_cell_size(source.grid, contract)
        several = bool(getattr(loaded.task, "multilabel", False))
        options, batch = label_options(call.model_arguments, several, device)
        extent = None
        if where.extent is not None:
            extent = extent_window(where.extent, where.extent_crs, source.grid, source.name)
        plan = _plan(call.features, source.grid, contract.chip, extent, call.block_size)
        settings = {
            "tool": call.tool,
            "source": source.identity(),
            "model": ref.sha256,
            "plan": plan.answer(),
            "options": options.answer(),
            "features": None if call.features is None else features_identity(call.features),
            "columns": list(call.columns),
        }
        yield LabelJob(
            tool=call.tool,
            source=source,
            model=ref,
            contract=contract,
            options=None,  # type: ignore[arg-type]  # there are no tiles
            context=where,
            plan=plan,
            device=device,
            area=None,
            settings=settings,
            frame=call.features,
            labels=options,
            batch=batch,
            several=several,
        )


def label_options(
    given: Mapping[str, Any] | None, several: bool, device: str
) -> tuple[LabelOptions, int]:
    """Read ``model_arguments``; values may be texts. Returns the options and the batch size.

    Raises
    ------
    UnknownOptionError, OptionError
        Names the argument.
    """
    values = dict(given or {})
    known = ["batch_size", "test_time_augmentation", *(["threshold"] if several else [])]
    check_known(values, known, "model_arguments")
    options = LabelOptions(
        threshold=as_float(values.get("threshold", 0.5), "threshold", minimum=0, maximum=1),
        augment=as_bool(values.get("test_time_augmentation", False), "test_time_augmentation"),
    )
    batch = values.get("batch_size", _BATCH.get(device, _CPU_BATCH))
    return options, as_int(batch, "batch_size", minimum=1)


def _plan(
    frame: GeoDataFrame | None, grid: GeoGrid, cut: ChipCut, extent: Any, block_px: Any
) -> ChipPlan:
    block = None if block_px is None else as_int(block_px, "block_size", minimum=1)
    if frame is None:
        whole = replace(cut, fixed=False, blacken=False, buffer_radius=None)
        shape = np.array([_outline(grid)], object)
        return ChipPlan.make(shape, grid, whole, extent=extent, block_px=block)
    geometries = np.full(len(frame), None, object)
    shapes = frame.geometry.to_numpy()
    there = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    moved = features_on_grid(frame.iloc[there], grid)
    geometries[there] = moved.geometry.to_numpy()
    return ChipPlan.make(geometries, grid, cut, extent=extent, block_px=block)


def _outline(grid: GeoGrid) -> shapely.Geometry:
    corners = ((0, 0), (grid.width, 0), (grid.width, grid.height), (0, grid.height))
    return shapely.Polygon([grid.affine @ corner for corner in corners])


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
            else geopandas.GeoDataFrame(name, geometry=[_outline(grid)], crs=grid.crs)
        )
    result.attrs = {}
    _warn_of_missing(len(result), len(labels), job.source.name)
    _label(result, labels, columns, several=job.several)
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


def _together(parts: list[Any]) -> Any:
    import pandas as pd

    crs = parts[0].crs if hasattr(parts[0], "crs") else None
    moved = [part if crs is None else part.to_crs(crs) for part in parts]
    joined = pd.concat(moved, ignore_index=True)
    joined.attrs = {"path": [part.attrs["path"] for part in parts]}
    return joined


def estimated_hours(job: LabelJob) -> float:
    """Worker-hours that the job will take, from some timed chips of its middle block."""
    specs = list(job.plan.blocks())
    if not specs:
        return 0.0
    spec = specs[len(specs) // 2]
    few = slice(0, _TIMED_CHIPS)
    spec = replace(
        spec,
        rows=spec.rows[few],
        windows=spec.windows[few],
        shapes=None if spec.shapes is None else spec.shapes[few],
    )
    task = job.task()
    task.compute(spec, task.read(spec))
    started = time.perf_counter()
    task.compute(spec, task.read(spec))
    each_s = (time.perf_counter() - started) / len(spec.rows)
    return each_s * job.plan.tile_count / 3600
