"""``model_arguments`` and ``context`` as values that were checked, for both kinds of model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from geodl.base.errors import OptionError
from geodl.base.models import MODELS
from geodl.base.options import as_bool, as_float, as_int, as_mapping, check_choice, check_known
from geodl.core.contract import ModelContract, TaskKind
from geodl.core.plan import Merge
from geodl.infer.augment import Policy
from geodl.infer.instances import InstanceOptions
from geodl.infer.objects import ObjectOptions
from geodl.infer.pixels import Output, PixelOptions
from geodl.infer.tiles import Precision
from geodl.io.extent import read_crs, read_extent
from geodl.runtime.cores import available_cores

_SHARED = ("padding", "batch_size", "tile_size", "test_time_augmentation", "precision")
ARGUMENTS: dict[TaskKind, tuple[str, ...]] = {
    "objects": (*_SHARED, "threshold", "nms_overlap", "exclude_pad_detections", "tta_scales"),
    "pixels": (*_SHARED, "predict_background", "merge_policy", "overlap", "output"),
    "instances": (
        *_SHARED, "threshold", "nms_overlap", "return_bboxes", "rotated_bboxes", "merge_policy",
    ),
}  # fmt: skip
CONTEXT = (
    "cellSize",
    "extent",
    "mask",
    "outSR",
    "snapRaster",
    "processorType",
    "parallelProcessingFactor",
)
_BATCH: dict[TaskKind, int] = {"objects": 64, "pixels": 4, "instances": 4}
# Larger batches gain nothing on a CPU and cost memory.
_CPU_BATCH_MOST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TileOptions:
    """How a model is run over a raster.

    Parameters
    ----------
    tile_px, padding_px, merge
        The tile grid.
    batch
        Tiles at once, at most; None takes the default of the kind and device.
    run
        What the kind of model reads.
    """

    tile_px: int
    padding_px: int
    merge: Merge
    batch: int | None
    run: PixelOptions | ObjectOptions | InstanceOptions

    def batch_for(self, kind: TaskKind, device: str, tiles: int) -> int:
        """Tiles at once on this device, no more than the run has."""
        batch = self.batch or (
            _BATCH[kind] if device != "cpu" else min(_BATCH[kind], _CPU_BATCH_MOST)
        )
        return max(1, min(batch, tiles))


def tile_options(contract: ModelContract, given: Mapping[str, Any] | None) -> TileOptions:
    """Read ``model_arguments``; values may be texts, as ArcGIS Pro passes them.

    Raises
    ------
    UnknownOptionError, OptionError
        Names the argument.
    """
    given = as_mapping(given, "model_arguments")
    own = _own_arguments(contract)
    check_known(given, known_arguments(contract), "model_arguments")
    values = {**contract.arguments, **given}
    tile = as_int(values.get("tile_size", contract.tile_px), "tile_size", minimum=1)
    if tile != contract.tile_px and not contract.variable_tile:
        raise OptionError(
            f"tile_size={tile}: this {contract.model_name} runs tiles of {contract.tile_px} only"
        )
    padding = as_int(values.get("padding", tile // 4), "padding", minimum=0)
    if 2 * padding >= tile:
        raise OptionError(
            f"padding={padding} leaves nothing of a tile of {tile} pixels; "
            f"the most is {(tile - 1) // 2}"
        )
    batch = values.get("batch_size")
    run = _run_options(contract, values, own)
    if isinstance(run, ObjectOptions) and not contract.variable_tile and set(run.scales) != {1.0}:
        raise OptionError(
            f"tta_scales={values['tta_scales']!r}: this {contract.model_name} runs tiles of "
            f"{contract.tile_px} only; leave it out"
        )
    return TileOptions(
        tile_px=tile,
        padding_px=padding,
        merge=check_choice(values.get("overlap", "crop"), get_args(Merge), "overlap"),
        batch=None if batch is None else as_int(batch, "batch_size", minimum=1),
        run=run,
    )


def _run_options(
    contract: ModelContract, values: dict[str, Any], own: Mapping[str, Any] | None
) -> PixelOptions | ObjectOptions | InstanceOptions:
    if contract.kind == "objects":
        return _objects(values)
    return _instances(values) if contract.kind == "instances" else _pixels(contract, values, own)


def _instances(values: dict[str, Any]) -> InstanceOptions:
    bounds = as_bool(values.get("return_bboxes", False), "return_bboxes")
    turned = as_bool(values.get("rotated_bboxes", False), "rotated_bboxes")
    if bounds and turned:
        raise OptionError("return_bboxes and rotated_bboxes are two shapes; choose one of them")
    return InstanceOptions(
        threshold=as_float(values.get("threshold", 0.9), "threshold", minimum=0, maximum=1),
        nms_overlap=as_float(values.get("nms_overlap", 0.1), "nms_overlap", minimum=0, maximum=1),
        outlines="bounds" if bounds else "turned" if turned else "mask",
        augment=as_bool(values.get("test_time_augmentation", False), "test_time_augmentation"),
        policy=check_choice(values.get("merge_policy", "mean"), get_args(Policy), "merge_policy"),
        precision=_precision(values),
    )


def _objects(values: dict[str, Any]) -> ObjectOptions:
    scales = values.get("tta_scales", "1")
    texts = scales.split(",") if isinstance(scales, str) else scales
    if not isinstance(texts, (list, tuple)):
        texts = [texts]
    return ObjectOptions(
        threshold=as_float(values.get("threshold", 0.5), "threshold", minimum=0, maximum=1),
        nms_overlap=as_float(values.get("nms_overlap", 0.1), "nms_overlap", minimum=0, maximum=1),
        exclude_pad_detections=as_bool(
            values.get("exclude_pad_detections", True), "exclude_pad_detections"
        ),
        augment=as_bool(values.get("test_time_augmentation", False), "test_time_augmentation"),
        scales=tuple(as_float(t, "tta_scales", minimum=0.1, maximum=10) for t in texts),
        precision=_precision(values),
    )


def _precision(values: Mapping[str, Any]) -> Precision:
    return check_choice(values.get("precision", "float32"), get_args(Precision), "precision")


def _own_arguments(contract: ModelContract) -> Mapping[str, Any] | None:
    """Further arguments of this model's class with their defaults, or other defaults.

    A class that declares them tells one thing from the rest, so background is always predicted.
    """
    return getattr(MODELS.get(contract.model_name), "raster_arguments", None)


def known_arguments(contract: ModelContract) -> list[str]:
    """Names of the ``model_arguments`` that a model takes; none of one that runs over no tiles."""
    if contract.kind not in ARGUMENTS:
        return []
    known = _known(contract.kind, _own_arguments(contract))
    return list(dict.fromkeys([*known, *contract.arguments]))


def _known(kind: TaskKind, own: Mapping[str, Any] | None) -> list[str]:
    shared = [name for name in ARGUMENTS[kind] if own is None or name != "predict_background"]
    return list(dict.fromkeys([*shared, *(own or ())]))


def _pixels(
    contract: ModelContract, given: dict[str, Any], own: Mapping[str, Any] | None
) -> PixelOptions:
    values = {**(own or {}), **given}
    # Training with one class is one against the rest; with several, people label all ground.
    background = own is not None or len(contract.classes) <= 1
    scores = as_bool(values.get("return_probability_raster", False), "return_probability_raster")
    output = check_choice(values.get("output", "classes"), get_args(Output), "output")
    thinning = as_bool(values.get("thinning", False), "thinning")
    if values.get("overlap") == "blend":
        # Lines are thinned within a tile's own border, which blended tiles do not have.
        if thinning and "thinning" in given:
            raise OptionError("thinning=True needs overlap='crop'; leave one of them out")
        thinning = False
    return PixelOptions(
        predict_background=as_bool(
            values.get("predict_background", background), "predict_background"
        ),
        augment=as_bool(values.get("test_time_augmentation", False), "test_time_augmentation"),
        policy=check_choice(values.get("merge_policy", "mean"), get_args(Policy), "merge_policy"),
        output="scores" if scores else output,
        threshold=as_float(values.get("threshold", 0.5), "threshold", minimum=0, maximum=1),
        thinning=thinning,
        precision=_precision(values),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What ``context`` may say, as values.

    Parameters
    ----------
    cell_size, cell_crs
        x and y of the run's grid, in units of its CRS, and the CRS that they are stated in; None
        keeps the raster's own.
    extent, extent_crs
        xmin, ymin, xmax, ymax and their CRS; None is the raster's.
    out_crs
        CRS of the run's grid and product.
    snap
        Raster whose grid is taken.
    mask
        Features that the run is kept to.
    device
        ``cpu``, ``cuda`` or None for what is there.
    threads
        Torch threads of this process, or None for torch's own choice.
    """

    cell_size: tuple[float, float] | None = None
    cell_crs: str | None = None
    extent: tuple[float, float, float, float] | None = None
    extent_crs: str | None = None
    out_crs: str | None = None
    snap: Any = None
    mask: Any = None
    device: str | None = None
    threads: int | None = None


def run_context(given: Mapping[str, Any] | None) -> RunContext:
    """Read ``context``.

    Raises
    ------
    UnknownOptionError, OptionError
        Names the key.
    """
    values = as_mapping(given, "context")
    check_known(values, CONTEXT, "context")
    extent, extent_crs = read_extent(values.get("extent"))
    cell_size, cell_crs = _cell_size(values.get("cellSize"))
    processor = values.get("processorType")
    device = None
    if processor is not None:
        choice = check_choice(str(processor).upper(), ("CPU", "GPU"), "processorType")
        device = {"CPU": "cpu", "GPU": "cuda"}[choice]
    return RunContext(
        cell_size=cell_size,
        cell_crs=cell_crs,
        extent=extent,
        extent_crs=extent_crs,
        out_crs=read_crs(values.get("outSR"), "outSR"),
        snap=values.get("snapRaster"),
        mask=values.get("mask"),
        device=device,
        threads=_threads(values.get("parallelProcessingFactor")),
    )


def _cell_size(value: Any) -> tuple[tuple[float, float] | None, str | None]:
    """A number, or ``{"x", "y", "spatialReference"}``, as two numbers and a CRS."""
    if value is None:
        return None, None
    if not isinstance(value, Mapping):
        value = {"x": value}
    check_known(value, ("x", "y", "spatialReference"), "cellSize")
    if "x" not in value:
        raise OptionError(f'cellSize={dict(value)} lacks "x"; give a number, or x and y')
    x = as_float(value["x"], "cellSize")
    y = as_float(value.get("y", x), "cellSize y")
    if min(x, y) <= 0:
        raise OptionError(f"cellSize={min(x, y):g} is not above 0")
    return (x, y), read_crs(value.get("spatialReference"), "cellSize spatialReference")


def _threads(value: Any) -> int | None:
    """Threads of ``"80%"``, ``0.8``-like shares given in per cent, or a number of processes."""
    if value is None:
        return None
    text = str(value).strip()
    cores = available_cores()
    if text.endswith("%"):
        share = as_float(text[:-1], "parallelProcessingFactor", minimum=0, maximum=100)
        return max(1, round(cores * share / 100))
    return as_int(value, "parallelProcessingFactor", minimum=1)
