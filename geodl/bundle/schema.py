"""The model definition (EMD): written from a contract, and read back with every key checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from geodl.base.errors import BundleError, DataError
from geodl.bundle.points import POINT_TYPES, point_definition, read_point_contract
from geodl.core.classes import ClassTable
from geodl.core.contract import ChipCut, ModelContract, Normalization, TaskKind
from geodl.io.crs import reference_metres

SCHEMA_VERSION = 1
"""Of the ``Geodl`` object in the EMD; raised when an older reader would misread it."""

TILE_LIMIT_PX = 65536
BANDS_LIMIT = 4096
CLASSES_LIMIT = 65535

_MODEL_TYPES: dict[TaskKind, str] = {
    "objects": "ObjectDetection",
    "pixels": "ImageClassification",
    "tiles": "ObjectClassification",
    "instances": "InstanceDetection",
}
# The misspelling occurs in published packages.
_KINDS: dict[str, TaskKind] = {
    "ObjectDetection": "objects",
    "ObjectionDetection": "objects",
    "ImageClassification": "pixels",
    "ObjectClassification": "tiles",
    "InstanceDetection": "instances",
}
_IMAGE_SPACES = ("MAP_SPACE", "IMAGE_SPACE", "PIXEL_SPACE")


def definition(contract: ModelContract, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The EMD of a model, without its files and metrics.

    ``Framework`` and ``ModelConfiguration`` are left out: they name classes of arcgis.learn.
    """
    if contract.points is not None:
        return point_definition(contract, dict(parameters))
    rgb = contract.normalization == Normalization.imagenet() and contract.dtype == "uint8"
    low, high = contract.cell_size or (None, None)
    return {
        "ModelName": contract.model_name,
        "ModelType": _MODEL_TYPES[contract.kind],
        "ModelFormat": "NCHW",
        "backend": "pytorch",
        "ExtractBands": list(contract.extract_bands),
        "ImageHeight": contract.tile_px,
        "ImageWidth": contract.tile_px,
        "Classes": contract.classes.to_json(),
        "MinCellSize": _cell_size(low),
        "MaxCellSize": _cell_size(high),
        "SupportsVariableTileSize": contract.variable_tile,
        "ImageSpaceUsed": contract.image_space,
        "IsMultispectral": not rgb,
        "IsImageNetNormalization": rgb,
        "DoNormalize": True,
        "Bands": list(contract.band_names),
        "ImageryType": "RGB" if rgb else "ms",
        "NormalizationStats": _statistics(contract),
        "ModelParameters": dict(parameters),
        **_crop_keys(contract.chip),
    }


def _crop_keys(chip: ChipCut | None) -> dict[str, int]:
    if chip is None:
        return {}
    return {"CropSizeFixed": int(chip.fixed), "BlackenAroundFeature": int(chip.blacken)}


def own_keys(contract: ModelContract) -> dict[str, Any]:
    """What of a contract no documented key of an EMD holds; part of its ``Geodl`` object."""
    keys: dict[str, Any] = {
        "dtype": contract.dtype,
        "source_bands": contract.source_bands,
        "pixel_scale": contract.pixel_scale,
    }
    if contract.chip is not None:
        keys["chip_size_yx"] = list(contract.chip.size_yx)
        keys["buffer_radius"] = contract.chip.buffer_radius
    return keys


# Of a reference in metres, which cell sizes are stated in whatever the CRS was.
_METRES = {"wkid": 3857, "latestWkid": 3857}


def _cell_size(size: float | None) -> dict[str, Any] | None:
    return None if size is None else {"x": size, "y": size, "spatialReference": _METRES}


def _statistics(contract: ModelContract) -> dict[str, list[float]]:
    """The eight lists over all bands; bands that the network does not take hold 0 and 1."""
    own = contract.normalization
    columns = {
        "band_min_values": [0.0] * contract.source_bands,
        "band_max_values": [1.0] * contract.source_bands,
        "band_mean_values": [0.0] * contract.source_bands,
        "band_std_values": [1.0] * contract.source_bands,
        "scaled_min_values": [0.0] * contract.source_bands,
        "scaled_max_values": [1.0] * contract.source_bands,
        "scaled_mean_values": [0.0] * contract.source_bands,
        "scaled_std_values": [1.0] * contract.source_bands,
    }
    for i, band in enumerate(contract.extract_bands):
        low, span = own.minimum[i], own.maximum[i] - own.minimum[i]
        columns["band_min_values"][band] = low
        columns["band_max_values"][band] = own.maximum[i]
        columns["band_mean_values"][band] = low + own.scaled_mean[i] * span
        columns["band_std_values"][band] = own.scaled_std[i] * span
        columns["scaled_mean_values"][band] = own.scaled_mean[i]
        columns["scaled_std_values"][band] = own.scaled_std[i]
    return columns


class EmdReader:
    """Typed access to an EMD whose errors name the file and the key."""

    def __init__(self, emd: Mapping[str, Any], where: str) -> None:
        self.emd = emd
        self.where = where

    def fail(self, key: str, message: str) -> BundleError:
        return BundleError(f"{self.where}: {key} {message}.")

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.emd.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise self.fail(key, f"is {value!r}; expected a whole number")
        if not low <= value <= high:
            raise self.fail(key, f"is {value}; expected {low}..{high}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false, which some programs write as 1 and 0."""
        value = self.emd.get(key, default)
        if value not in (0, 1) or isinstance(value, float):
            raise self.fail(key, f"is {value!r}; expected true, false, 1 or 0")
        return bool(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.emd.get(key, default)
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"is {value!r}; expected a text")
        return value

    def table(self, key: str) -> dict[str, Any]:
        value = self.emd.get(key, {})
        if not isinstance(value, dict):
            raise self.fail(key, "is no JSON object")
        return value

    def items(self, key: str, limit: int) -> list[Any]:
        value = self.emd.get(key)
        if not isinstance(value, list):
            raise self.fail(key, "is no list")
        if len(value) > limit:
            raise self.fail(key, f"has {len(value)} entries; at most {limit} are read")
        return value


def read_contract(reader: EmdReader) -> ModelContract:
    """The contract in an EMD.

    Raises
    ------
    BundleError
        Names the file and the key that is missing or wrong.
    """
    if reader.text("ModelType") in POINT_TYPES:
        return read_point_contract(reader)
    own = reader.table("Geodl")
    height = reader.whole("ImageHeight", 1, TILE_LIMIT_PX)
    width = reader.whole("ImageWidth", 1, TILE_LIMIT_PX)
    if height != width:
        raise reader.fail(
            "ImageHeight", f"{height} and ImageWidth {width} differ; tiles are square"
        )
    names = _band_names(reader)
    bands = _extract_bands(reader, names)
    source = EmdReader(own, f"{reader.where}: Geodl").whole(
        "source_bands", max(bands) + 1, BANDS_LIMIT, default=max(len(names), max(bands) + 1)
    )
    space = reader.text("ImageSpaceUsed", "MAP_SPACE")
    if space not in _IMAGE_SPACES:
        raise reader.fail("ImageSpaceUsed", f"is {space!r}; expected {', '.join(_IMAGE_SPACES)}")
    return ModelContract(
        model_name=reader.text("ModelName"),
        kind=_kind(reader),
        classes=read_classes(reader),
        extract_bands=bands,
        band_names=names,
        source_bands=source,
        tile_px=height,
        normalization=_normalization(reader, bands),
        dtype=EmdReader(own, f"{reader.where}: Geodl").text("dtype", "uint8"),
        cell_size=_cell_sizes(reader),
        image_space=space,
        variable_tile=reader.emd.get("SupportsVariableTileSize", True) is True,
        pixel_scale=_pixel_scale(reader, own.get("pixel_scale", 1.0)),
        chip=_chip_cut(reader, own, height),
    )


def _chip_cut(reader: EmdReader, own: Mapping[str, Any], tile_px: int) -> ChipCut | None:
    """How chips are cut; of fixed size unless the definition says otherwise."""
    if _kind(reader) != "tiles":
        return None
    size = own.get("chip_size_yx", [tile_px, tile_px])
    whole = isinstance(size, list) and all(type(side) is int for side in size)
    if not whole or len(size) != 2 or not all(1 <= side <= TILE_LIMIT_PX for side in size):
        raise reader.fail("Geodl chip_size_yx", f"is {size!r}; expected height and width")
    radius = own.get("buffer_radius")
    number = isinstance(radius, int | float) and not isinstance(radius, bool)
    if radius is not None and not (number and 0 < radius < math.inf):
        raise reader.fail("Geodl buffer_radius", f"is {radius!r}; expected a number above 0")
    return ChipCut(
        size_yx=(size[0], size[1]),
        fixed=reader.flag("CropSizeFixed", True),
        blacken=reader.flag("BlackenAroundFeature", False),
        buffer_radius=radius,
    )


def _pixel_scale(reader: EmdReader, value: Any) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 1e-3 <= value <= 1e3:
        raise reader.fail("Geodl pixel_scale", f"is {value!r}; expected 0.001 to 1000")
    return float(value)


def _kind(reader: EmdReader) -> TaskKind:
    text = reader.text("ModelType")
    if text not in _KINDS:
        known = ", ".join([*_KINDS, *POINT_TYPES])
        raise reader.fail("ModelType", f"is {text!r}; expected {known}")
    return _KINDS[text]


def read_classes(reader: EmdReader) -> ClassTable:
    """The classes of an EMD. Raises BundleError."""
    entries = reader.items("Classes", CLASSES_LIMIT)
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise reader.fail("Classes", "is no list of objects with Value and Name")
    try:
        table = ClassTable.from_json(entries)
    except DataError as error:
        raise reader.fail("Classes", f"cannot be used: {error}") from error
    if not table:
        raise reader.fail("Classes", "names no class besides background")
    return table


def _band_names(reader: EmdReader) -> tuple[str, ...]:
    if reader.emd.get("Bands") is None:
        return ()
    names = reader.items("Bands", BANDS_LIMIT)
    return tuple(str(name) for name in names)


def _extract_bands(reader: EmdReader, names: tuple[str, ...]) -> tuple[int, ...]:
    listed = reader.items("ExtractBands", BANDS_LIMIT)
    lower = [name.lower() for name in names]
    bands: list[int] = []
    for band in listed:
        if isinstance(band, str) and band.lower() in lower:
            band = lower.index(band.lower())
        if isinstance(band, bool) or not isinstance(band, int) or not 0 <= band < BANDS_LIMIT:
            raise reader.fail("ExtractBands", f"holds {band!r}, which is no band of the model")
        bands.append(band)
    if not bands or len(set(bands)) != len(bands):
        raise reader.fail("ExtractBands", "is empty or names a band twice")
    return tuple(bands)


def _normalization(reader: EmdReader, bands: tuple[int, ...]) -> Normalization:
    statistics = reader.table("NormalizationStats")
    if not statistics:
        return _default_normalization(reader, bands)
    stats = EmdReader(statistics, f"{reader.where}: NormalizationStats")
    keys = ("band_min_values", "band_max_values", "scaled_mean_values", "scaled_std_values")
    columns = [[_number(stats, key, band) for band in bands] for key in keys]
    low, high, mean, std = (tuple(column) for column in columns)
    try:
        return Normalization(minimum=low, maximum=high, scaled_mean=mean, scaled_std=std)
    except BundleError as error:
        raise reader.fail("NormalizationStats", f"cannot be used: {error}") from error


def _default_normalization(reader: EmdReader, bands: tuple[int, ...]) -> Normalization:
    """Of an EMD without statistics: ImageNet's for three bands, else the values as they are."""
    if len(bands) == 3 and reader.emd.get("IsImageNetNormalization", True) is True:
        return Normalization.imagenet()
    ones, zeros = (1.0,) * len(bands), (0.0,) * len(bands)
    return Normalization(minimum=zeros, maximum=ones, scaled_mean=zeros, scaled_std=ones)


def _number(reader: EmdReader, key: str, band: int) -> float:
    values = reader.items(key, BANDS_LIMIT)
    value = values[band] if band < len(values) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise reader.fail(key, f"has {value!r} for band {band}; expected a finite number")
    return float(value)


def _cell_sizes(reader: EmdReader) -> tuple[float, float] | None:
    sizes = []
    for key in ("MinCellSize", "MaxCellSize"):
        value = reader.emd.get(key)
        if value is None:
            return None
        size = value.get("x") if isinstance(value, dict) else value
        metres = reference_metres(
            value.get("spatialReference") if isinstance(value, dict) else None
        )
        if isinstance(size, bool) or not isinstance(size, int | float) or not size > 0:
            raise reader.fail(key, f"is {value!r}; expected an object with x above 0")
        sizes.append(float(size) * metres)
    return min(sizes), max(sizes)
