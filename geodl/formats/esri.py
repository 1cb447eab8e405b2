"""The root files of an export: data EMD, accumulated statistics, ``stats.txt`` and ``map.txt``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pyproj import CRS

from geodl.core.classes import ClassTable
from geodl.formats.base import counts_pixels
from geodl.formats.chip_format import ChipFormat
from geodl.formats.counts import ClassCount, ExportCounts, padded, summaries, unit_of
from geodl.ops.statistics import BandState, Summary

_WEB_MERCATOR = (102100, 3857)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFacts:
    """What the root files say of an export besides its counts.

    Parameters
    ----------
    chip_format
        Instance of the metadata format.
    tile_size
        Width and height in pixels.
    cell_size
        Smallest and largest cell size, (x, y) each, in units of ``crs``.
    crs
        WKT, or None.
    band_names2
        Of the second raster; empty without one.
    rasters
        Number of images that chips come from.
    extra
        Further keys of the EMD.
    """

    chip_format: ChipFormat
    classes: ClassTable
    tile_size: tuple[int, int]
    band_names: tuple[str, ...]
    cell_size: tuple[tuple[float, float], tuple[float, float]]
    crs: str | None
    image_space: str = "MAP_SPACE"
    band_names2: tuple[str, ...] = ()
    rasters: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


def number(value: float) -> int | float:
    """Whole numbers as such: ``255`` rather than ``255.0``."""
    return int(value) if float(value).is_integer() else float(value)


def data_emd(facts: ExportFacts, counts: ExportCounts) -> dict[str, Any]:
    """The template EMD of an export, with the keys that newer releases write."""
    width, height = facts.tile_size
    smallest, largest = (_cell_size(size, facts.crs) for size in facts.cell_size)
    emd: dict[str, Any] = {
        "Framework": "e.g. PyTorch",
        "ModelConfiguration": "e.g. the file name of a model configuration",
        "ModelType": "e.g. ObjectDetection or ImageClassification",
        "ModelFile": "e.g. the file name of the trained weights",
        "MetaDataMode": facts.chip_format.name,
        "ImageSpaceUsed": facts.image_space,
        "IsMultidimensional": False,
        "ImageHeight": height,
        "ImageWidth": width,
        "MinCellSize": smallest,
        "MaxCellSize": largest,
        "Classes": facts.classes.to_json(),
        "InputRastersProps": {
            "RasterCount": facts.rasters,
            "SensorName": "",
            "BandNames": list(facts.band_names),
        },
        "AllTilesStats": _tile_stats(facts.band_names, counts.bands),
    }
    if counts.bands2:
        emd["AllTilesStats2"] = _tile_stats(facts.band_names2, counts.bands2)
    return emd | dict(facts.extra)


def _tile_stats(names: Sequence[str], bands: Sequence[BandState]) -> list[dict[str, Any]]:
    return [
        {
            "BandName": name,
            "Min": number(band.minimum),
            "Max": number(band.maximum),
            "Mean": band.mean,
            "StdDev": band.std,
        }
        for name, band in zip(names, summaries(bands), strict=True)
    ]


def _cell_size(size: tuple[float, float], crs: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"x": size[0], "y": size[1]}
    if crs is None:
        return entry
    code = CRS(crs).to_epsg()
    if code is None:
        return {**entry, "spatialReference": {"wkt": CRS(crs).to_wkt("WKT1_ESRI")}}
    wkid, latest = _WEB_MERCATOR if code == 3857 else (code, code)
    return {**entry, "spatialReference": {"wkid": wkid, "latestWkid": latest}}


def accumulated_stats(facts: ExportFacts, counts: ExportCounts) -> dict[str, Any]:
    """``esri_accumulated_stats.json``; all counts are whole numbers of any size."""
    width, height = facts.tile_size
    objects = not counts_pixels(facts.chip_format.kind)
    stats = _feature_stats if objects else _pixel_stats
    found: dict[str, Any] = {
        "Version": 1,
        "NumBands": len(counts.bands),
        "TileSizeX": width,
        "TileSizeY": height,
        "NumClasses": len(facts.classes),
        "NumTiles": counts.chips,
        "OutputFeatures": objects,
        "MetaDataMode": facts.chip_format.name,
        "Classes": [{"ClassValue": e.value, "ClassName": e.name} for e in facts.classes],
        "FeatureStats" if objects else "ClassPixelStats": stats(facts.classes, counts),
        "BandStatsState": _band_states(counts.bands),
    }
    if counts.bands2:
        found["BandStatsState2"] = _band_states(counts.bands2)
    return found


def _band_states(bands: Sequence[BandState]) -> list[dict[str, Any]]:
    return [
        {
            "Min": number(band.minimum),
            "Max": number(band.maximum),
            "M1": band.mean,
            "M2": band.squared_deviations,
            "Num": band.count,
        }
        if band.count
        else {"Min": 0, "Max": 0, "M1": 0.0, "M2": 0.0, "Num": 0}
        for band in bands
    ]


def _of_classes(classes: ClassTable, counts: ExportCounts) -> list[ClassCount]:
    return [counts.classes.get(value, ClassCount()) for value in classes.values]


def _summary(summary: Summary) -> dict[str, Any]:
    if not summary.count:
        return {"Min": 0, "Max": 0, "Mean": 0.0, "Sum": 0, "Count": 0}
    return {
        "Min": number(summary.minimum),
        "Max": number(summary.maximum),
        "Mean": summary.mean,
        "Sum": number(float(summary.total)),
        "Count": summary.count,
    }


def _feature_stats(classes: ClassTable, counts: ExportCounts) -> dict[str, Any]:
    listed = _of_classes(classes, counts)
    return {
        "NumClasses": len(listed),
        "NumImagesTotal": counts.chips,
        "NumFeaturesTotal": sum(count.total for count in counts.classes.values()),
        "NumImagesPerClass": [count.images for count in listed],
        "NumFeaturesPerClass": [count.total for count in listed],
        "NumFeaturesPerImage": _summary(counts.per_image),
        "FeatureAreaPerClass": [_summary(count.sizes) for count in listed],
    }


def _pixel_stats(classes: ClassTable, counts: ExportCounts) -> dict[str, Any]:
    listed = _of_classes(classes, counts)
    return {
        "NumClasses": len(listed),
        "NumImagesTotal": counts.chips,
        "NumImagesPerClass": [count.images for count in listed],
        "NumPixelsPerClass": [count.total for count in listed],
        "NumClassesPerImage": _summary(counts.per_image),
        "PixelsPerClass": [_summary(padded(count.sizes, counts.chips)) for count in listed],
    }


def stats_text(facts: ExportFacts, counts: ExportCounts) -> str:
    """``stats.txt``, for people."""
    width, height = facts.tile_size
    objects = not counts_pixels(facts.chip_format.kind)
    unit = unit_of(facts.chip_format.kind)
    lines = [f"images = {counts.chips} *{len(counts.bands)}*{width}*{height}"]
    if objects:
        lines.append(f"features = {sum(count.total for count in counts.classes.values())}")
    each = _summary(counts.per_image)
    lines += [
        f"{'features' if objects else 'classes'} per image = "
        f"[min = {each['Min']}, mean = {each['Mean']:.2f}, max = {each['Max']}]",
        f"classes = {len(facts.classes)}",
        f"{'cls name':<20}{'cls value':>11}{'images':>11}{unit:>11}"
        f"{'min size':>12}{'mean size':>12}{'max size':>12}",
    ]
    for entry, count in zip(facts.classes, _of_classes(facts.classes, counts), strict=True):
        sizes = _summary(count.sizes if objects else padded(count.sizes, counts.chips))
        lines.append(
            f"{entry.name:<20}{entry.value:>11}{count.images:>11}{count.total:>11}"
            f"{sizes['Min']:>12.2f}{sizes['Mean']:>12.2f}{sizes['Max']:>12.2f}"
        )
    return "\n".join(lines) + "\n"


def map_line(paths: Iterable[PurePosixPath | str]) -> str:
    """One chip in ``map.txt``: backslashes, two blanks between, one at the end."""
    return "  ".join(str(path).replace("/", "\\") for path in paths) + " \n"


def map_text(chip_format: ChipFormat, stems: Iterable[str], suffix: str) -> str:
    """Lines of chips whose names do not depend on their labels."""
    return "".join(
        map_line([chip_format.image_path(f"{s}{suffix}"), *chip_format.label_paths(s)])
        for s in stems
    )
