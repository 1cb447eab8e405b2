"""Models for ArcGIS Pro: what answers the Python raster function that a package carries.

Pro reads the raster, cuts it into blocks and writes the product; the network runs here, by the
same code as in the tools. Documented on github.com/Esri/raster-functions (wiki) and in the docs of
github.com/Esri/raster-deep-learning.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch

from geodl.base.errors import BundleError, DataWarning, ModelDataError, OptionError
from geodl.base.files import parse_json
from geodl.base.models import MODELS
from geodl.base.options import as_bool, as_int
from geodl.bundle import Bundle, ModelRef, read_bundle, resolve_model
from geodl.bundle.code import code_of, trust
from geodl.core.blocks import RasterBlock
from geodl.core.detections import Detections
from geodl.infer.delivered import Delivered, delivered, delivered_block
from geodl.infer.instances import InstanceBlocks, InstanceOptions
from geodl.infer.objects import ObjectBlocks, ObjectOptions
from geodl.infer.options import TileOptions, tile_options
from geodl.infer.pixels import PixelBlocks, PixelOptions
from geodl.ops.nms import suppress
from geodl.tools.device import run_device
from geodl.tools.esri_json import attribute_table, feature_set, fields_json
from geodl.tools.function_arguments import argument, tile_arguments
from geodl.tools.instance_features import whole_instances

# Bits of inheritProperties: NoData, dimensions with spatial reference, resampling.
_INHERITED = 2 | 4 | 8
_OBJECT_FIELDS = {"Class": "String", "Confidence": "Double"}


def open_function(model: str, folder: str, device: Any = None) -> BlockFunction:
    """What answers for a model package.

    Parameters
    ----------
    model
        Path of its EMD, or the EMD's JSON text, whose other files lie in ``folder`` or beside an
        absolute ``ModelFile``.
    folder
        Where the package lies.
    device
        Number of a GPU, -1 for the CPU, -2 for whichever is there; None is as -2.

    Raises
    ------
    BundleError
        A package that is refused, or another than the definition says.
    ModelDataError
        A model that runs over no rasters.
    OptionError
        There is no such device.
    """
    from geodl.tools.chip_function import ChipFunction

    bundle = read_bundle(_package_path(model, folder), verify=False)
    bundle.require_own()
    kinds: Mapping[str, type[BlockFunction]] = {
        "pixels": PixelFunction,
        "objects": ObjectFunction,
        "instances": InstanceFunction,
        "tiles": ChipFunction,
    }
    if bundle.contract.kind not in kinds:
        raise ModelDataError(
            f"{bundle.where}: {bundle.contract.model_name} gives {bundle.contract.kind}, for which "
            "there is no raster function."
        )
    return kinds[bundle.contract.kind](bundle, device_name(device))


def _package_path(model: str, folder: str) -> Path:
    if not model.lstrip().startswith("{"):
        return Path(model)
    emd = parse_json(model.encode("utf-8"), "model definition")
    named = Path(str(emd.get("ModelFile", "")))
    path = named.parent if named.is_absolute() else Path(folder)
    own = emd.get("Geodl")
    there = read_bundle(path, verify=False).emd.get("Geodl")
    if not isinstance(own, dict) or own.get("weights_sha256") != (there or {}).get(
        "weights_sha256"
    ):
        raise BundleError(
            f"The model definition is not that of the package in {path}; give the path of the "
            "package's EMD."
        )
    return path


def device_name(device: Any) -> str:
    """torch's name of a device by Pro's number. Raises OptionError."""
    number = -2 if device is None else as_int(device, "device", minimum=-2)
    if number == -2:
        return run_device(None)
    if number == -1:
        return "cpu"
    count = torch.cuda.device_count()
    if number >= count:
        raise OptionError(f"device={number}: torch sees {count} GPUs here; -1 is the CPU.")
    return f"cuda:{number}"


class BlockFunction(ABC):
    """A model that another program feeds with pixels.

    Parameters
    ----------
    bundle
        Of the model.
    device
        torch's name of it.
    """

    def __init__(self, bundle: Bundle, device: str) -> None:
        self.bundle, self.contract, self.device = bundle, bundle.contract, device

    def parameters(self) -> list[dict[str, Any]]:
        """Arguments besides the raster and the model, as ``getParameterInfo()`` tells them."""
        own = self._arguments()
        if code_of(self.bundle.parameters) is not None:
            own.append(argument("trust_code", False))
        return own

    def configure(self, scalars: Mapping[str, Any]) -> dict[str, Any]:
        """Take the values of the arguments, which may be texts; what blocks have to look like.

        Raises
        ------
        OptionError
            A value outside its domain.
        """
        if as_bool(scalars.get("trust_code") or False, "trust_code"):
            trust(self.bundle)
        names = [parameter["name"] for parameter in self._arguments()]
        given = {k: scalars[k] for k in names if scalars.get(k) not in (None, "")}
        if self.contract.pixel_scale != 1:
            warnings.warn(
                f"{self.contract.model_name} was trained on resized chips: set the cell size to "
                f"{1 / self.contract.pixel_scale:.4g} times the raster's.",
                DataWarning,
                stacklevel=3,
            )
        return {
            "extractBands": tuple(self.contract.extract_bands),
            "fixedTileSize": 1,
            "inheritProperties": _INHERITED,
            "inputMask": True,
            **self._configured(given),
        }

    @cached_property
    def ref(self) -> ModelRef:
        """The package, checked; workers of a cluster would load it by this too."""
        path = Path(self.bundle.where)
        return resolve_model(path, path.parent)

    @abstractmethod
    def _arguments(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _configured(self, given: Mapping[str, Any]) -> dict[str, Any]: ...


class TileFunction(BlockFunction):
    """A model that runs over the tiles of a block."""

    _options: TileOptions | None = None

    def _arguments(self) -> list[dict[str, Any]]:
        return tile_arguments(self.contract, self.device)

    @property
    def options(self) -> TileOptions:
        """As configured, or the model's defaults."""
        if self._options is None:
            self._options = tile_options(self.contract, None)
        return self._options

    @property
    def _side(self) -> int:
        """Tiles along the side of a block: the largest square that a batch holds."""
        most = self.options.batch_for(self.contract.kind, self.device, 2**30)
        return math.isqrt(most)

    def _configured(self, given: Mapping[str, Any]) -> dict[str, Any]:
        self._options = tile_options(self.contract, given)
        side = self._side * (self.options.tile_px - 2 * self.options.padding_px)
        return {"padding": self.options.padding_px, "tx": side, "ty": side}

    def _delivered(self, pixels: Any, mask: Any) -> tuple[RasterBlock, Delivered | None]:
        images = getattr(MODELS.get(self.contract.model_name), "images", 1)
        block = delivered_block(pixels, mask, self.contract, images=images)
        options = self.options
        return block, delivered(block, tile_px=options.tile_px, padding_px=options.padding_px)

    def _task(self, kind: Any, found: Delivered) -> Any:
        return kind(
            source=found.source, plan=found.plan, model=self.ref, options=self.options.run,
            batch=self._side**2, device=self.device,
        )  # fmt: skip


class PixelFunction(TileFunction):
    """A model of pixels."""

    @property
    def _run(self) -> PixelOptions:
        run = self.options.run
        if not isinstance(run, PixelOptions):
            raise ModelDataError(f"{self.contract.model_name} gives no pixels")
        return run

    @property
    def data_type(self) -> str:
        """What ``updateKeyMetadata()`` says of the output."""
        return "Processed" if self._run.output == "scores" else "Thematic"

    def raster_info(self) -> dict[str, Any]:
        """Of the output, for ``updateRasterInfo()``."""
        plain = {"statistics": (), "histogram": (), "colormap": ()}
        classes = self.contract.classes
        if self._run.output == "scores":
            return {**plain, "bandCount": len(classes) + 1, "pixelType": "f4", "noData": math.nan}
        table = attribute_table(classes, background=self._run.predict_background)
        nodata = classes.raster_dtype()[1]
        return {
            **plain, "bandCount": 1, "pixelType": "i4", "noData": nodata,
            "rasterAttributeTable": table,
        }  # fmt: skip

    def pixels(self, pixels: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
        """Values of a block without its padding.

        Parameters
        ----------
        pixels, mask
            See :func:`geodl.infer.delivered.delivered_block`.

        Returns
        -------
        int32 or float32 (bands, H, W), and uint8 (H, W), 0 where there is no data.
        """
        block, found = self._delivered(pixels, mask)
        info = self.raster_info()
        pad = self.options.padding_px
        height, width = (side - 2 * pad for side in block.mask.shape)
        out = np.full((info["bandCount"], height, width), info["noData"], info["pixelType"])
        seen = np.zeros((height, width), np.uint8)
        if found is not None:
            task = self._task(PixelBlocks, found)
            part = task.read(found.spec)
            values, _ = task.compute(found.spec, part)
            if values is not None:
                place = found.spec.core.within(found.wanted)
                out[:, *place], seen[place] = values, task.valid(found.spec, part)
        return out, seen


class ObjectFunction(TileFunction):
    """A detector."""

    def fields(self) -> str:
        """Of the features, for ``getFields()``."""
        return fields_json(_OBJECT_FIELDS)

    def features(self, pixels: Any, mask: Any) -> str:
        """Objects whose centre lies in a block without its padding, as an Esri feature set.

        Parameters
        ----------
        pixels, mask
            See :func:`geodl.infer.delivered.delivered_block`.
        """
        _, found = self._delivered(pixels, mask)
        if found is None:
            return feature_set(_OBJECT_FIELDS, [], [])
        shapes, labels, scores = self._found(found)
        origin = np.array([found.wanted.col, found.wanted.row], np.float64)
        names = self.contract.classes.names
        rows = [
            {"Class": names[label - 1], "Confidence": 100 * float(score)}
            for label, score in zip(labels, scores, strict=True)
        ]
        moved = shapely.transform(shapes, lambda xy: xy - origin)
        return feature_set(_OBJECT_FIELDS, rows, moved)

    def _found(self, found: Delivered) -> tuple[np.ndarray, Sequence[int], np.ndarray]:
        task = self._task(ObjectBlocks, found)
        seen, _ = task.compute(found.spec, task.read(found.spec))
        every = Detections.none() if seen is None else seen.whole.ordered()
        run = self.options.run
        if isinstance(run, ObjectOptions):
            kept = suppress(every.boxes, every.scores, every.labels, run.nms_overlap)
            every = every.take(kept)
        return shapely.box(*every.boxes.T), every.labels.tolist(), every.scores


class InstanceFunction(ObjectFunction):
    """A detector of outlines. Parts of an object in two blocks are two features."""

    def _found(self, found: Delivered) -> tuple[np.ndarray, Sequence[int], np.ndarray]:
        run = self.options.run
        if not isinstance(run, InstanceOptions):
            raise ModelDataError(f"{self.contract.model_name} gives no instances")
        task = self._task(InstanceBlocks, found)
        seen, _ = task.compute(found.spec, task.read(found.spec))
        if seen is None:
            return np.zeros(0, object), [], np.zeros(0, np.float32)
        shapes, labels, scores = whole_instances(seen, run)
        return shapes, labels.tolist(), scores
