"""The arguments of ``export_training_data`` as values that were checked."""

from __future__ import annotations

import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geodl.base.errors import NotSupportedError, OptionError
from geodl.base.options import as_bool, as_float, as_int, check_choice, check_known
from geodl.formats import FORMATS
from geodl.formats.images import SUFFIXES
from geodl.io.crs import Bounds
from geodl.io.extent import read_extent

CONTEXT = ("exportAllTiles", "startIndex", "cellSize", "extent")
SPACES = ("MAP_SPACE", "IMAGE_SPACE", "PIXEL_SPACE")
DEFAULT_METADATA = "KITTI_rectangles"
_DEFAULT_TILE_PX = 256
# Nine digits number the chips.
MOST_CHIPS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipOptions:
    """What is cut and how it is written.

    Parameters
    ----------
    tile_yx, stride_yx
        Pixels, rows and columns.
    metadata_format, chip_format
        Names of the documented choices.
    class_field
        Of the labels; None finds it.
    buffer_radius
        In map units; None leaves points and lines as they are.
    every_chip
        Also chips without labels.
    first
        Number of the first chip.
    cell_size
        In units of the CRS; None is the raster's own.
    extent, extent_crs
        What is cut; None is the whole raster.
    least_share
        Share of a feature that a chip must hold to be labelled with it, 0..1.
    image_space
        ``MAP_SPACE``, ``IMAGE_SPACE`` or ``PIXEL_SPACE``.
    rotation_deg
        Step between turned copies of each chip; 0 makes none.
    blacken, fixed_size
        Of chips that are cut for features: whether the rest is black, and whether all have the
        size of a tile.
    instance_field
        Class field of the objects of panoptic labels.
    every_item
        Whether each of several rasters is an image of its own, rather than all a mosaic.
    """

    tile_yx: tuple[int, int]
    stride_yx: tuple[int, int]
    metadata_format: str
    chip_format: str
    class_field: str | None
    buffer_radius: float | None
    every_chip: bool
    first: int
    cell_size: float | None
    extent: Bounds | None
    extent_crs: str | None
    least_share: float
    image_space: str
    rotation_deg: float = 0.0
    blacken: bool = False
    fixed_size: bool = True
    instance_field: str | None = None
    every_item: bool = False

    def answer(self) -> dict[str, Any]:
        """JSON of everything here that changes the chips; labels and grid state the rest."""
        return {
            "tile_yx": list(self.tile_yx),
            "stride_yx": list(self.stride_yx),
            "metadata_format": self.metadata_format,
            "chip_format": self.chip_format,
            "every_chip": self.every_chip,
            "first": self.first,
            "least_share": self.least_share,
            "image_space": self.image_space,
            "rotation_deg": self.rotation_deg,
            "blacken": self.blacken,
            "fixed_size": self.fixed_size,
        }


def chip_options(
    *,
    chip_format: Any,
    tile_size: Any,
    stride_size: Any,
    metadata_format: Any,
    classvalue_field: Any,
    buffer_radius: Any,
    context: Mapping[str, Any] | None,
    reference_system: Any,
    min_polygon_overlap_ratio: Any,
    rotation_angle: Any = 0,
    blacken_around_feature: Any = False,
    fix_chip_size: Any = True,
    instance_class_value_field: Any = None,
    process_all_raster_items: Any = False,
) -> ChipOptions:
    """Check the arguments; texts are taken for numbers where they hold some.

    Raises
    ------
    UnknownOptionError, OptionError, NotSupportedError
        Names the argument and what it may be.
    """
    values = dict(context or {})
    check_known(values, CONTEXT, "context")
    tile = _size(tile_size, "tile_size", (_DEFAULT_TILE_PX, _DEFAULT_TILE_PX))
    extent, extent_crs = read_extent(values.get("extent"))
    return ChipOptions(
        tile_yx=tile,
        stride_yx=_size(stride_size, "stride_size", tile),
        metadata_format=_metadata(metadata_format),
        chip_format=check_choice(
            "TIFF" if chip_format is None else str(chip_format).upper(), SUFFIXES, "chip_format"
        ),
        class_field=_field(classvalue_field, "classvalue_field"),
        buffer_radius=_radius(buffer_radius),
        every_chip=as_bool(_given(values, "exportAllTiles", False), "exportAllTiles"),
        first=_first(_given(values, "startIndex", 0)),
        cell_size=_cell_size(values.get("cellSize")),
        extent=extent,
        extent_crs=extent_crs,
        least_share=as_float(
            min_polygon_overlap_ratio, "min_polygon_overlap_ratio", minimum=0, maximum=1
        ),
        image_space=check_choice(reference_system, SPACES, "reference_system"),
        rotation_deg=_rotation(rotation_angle),
        blacken=as_bool(_or(blacken_around_feature, False), "blacken_around_feature"),
        fixed_size=as_bool(_or(fix_chip_size, True), "fix_chip_size"),
        instance_field=_field(instance_class_value_field, "instance_class_value_field"),
        every_item=as_bool(_or(process_all_raster_items, False), "process_all_raster_items"),
    )


def swap_short_form(
    classvalue_field: Any, buffer_radius: Any, output_location: Any
) -> tuple[Any, Any, Any]:
    """The published workflow passes the radius and the folder in the seventh and eighth place.

    There the class field and the radius belong by the documented signature; a number cannot be a
    field, nor a path a radius, so that what is meant is certain.

    Raises
    ------
    OptionError
        A folder is given in both places.
    """
    number = isinstance(classvalue_field, numbers.Real) and not isinstance(classvalue_field, bool)
    if not (number and isinstance(buffer_radius, str | os.PathLike)):
        return classvalue_field, buffer_radius, output_location
    if output_location is not None:
        raise OptionError(
            f"buffer_radius={os.fspath(buffer_radius)!r} is a path, and output_location is given "
            "too; name the arguments: classvalue_field=, buffer_radius=, output_location=."
        )
    return None, classvalue_field, buffer_radius


_TILES = "Labeled_Tiles"
_PANOPTIC = "Panoptic_Segmentation"
PAIRED = "CycleGAN"


def check_format(options: ChipOptions, *, labels: bool, instances: bool, second: bool) -> None:
    """Hold the options, and what else was given, to the metadata format.

    Raises
    ------
    OptionError
        Names the argument and the formats that it is for.
    """
    name = options.metadata_format
    chosen = FORMATS[name]
    with_second = sorted(n for n in FORMATS if FORMATS[n].second_raster)
    refused = {
        "blacken_around_feature": (options.blacken and name != _TILES, _TILES),
        "fix_chip_size": (not options.fixed_size and name != _TILES, _TILES),
        "input_instance_data": (instances and name != _PANOPTIC, _PANOPTIC),
        "instance_class_value_field": (
            options.instance_field is not None and name != _PANOPTIC,
            _PANOPTIC,
        ),
        "additional_input_raster": (
            second and not chosen.second_raster and name != PAIRED,
            ", ".join([*with_second, PAIRED]),
        ),
    }
    for argument, (wrong, formats) in refused.items():
        if wrong:
            raise OptionError(f"{argument} is for {formats}, not for {name}; leave it out.")
    missing = {
        "labels: give input_class_data, features or a class raster": chosen.needs_labels
        and not labels,
        "objects: give input_instance_data, features or a raster of numbers": name == _PANOPTIC
        and not instances,
        "a second raster: give additional_input_raster, the images of domain B": name == PAIRED
        and not second,
    }
    for argument, lacking in missing.items():
        if lacking:
            raise OptionError(f"{name} needs {argument}.")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _field(value: Any, argument: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise OptionError(f"{argument}={value!r} is not the name of a field.")
    return value


def _rotation(value: Any) -> float:
    angle = as_float(_or(value, 0), "rotation_angle", minimum=0)
    if angle and not 1 <= angle < 360:
        raise OptionError(
            f"rotation_angle={angle:g} is the step between copies in degrees: 0 for none, or at "
            "least 1 and below 360."
        )
    return angle


def _given(values: Mapping[str, Any], key: str, default: Any) -> Any:
    value = values.get(key)
    return default if value is None else value


def _metadata(value: Any) -> str:
    name = DEFAULT_METADATA if value is None else str(value)
    if name not in FORMATS:
        said = "metadata_format" if value is not None else "metadata_format (by default)"
        raise NotSupportedError(
            f"{said} {name!r} is not offered; choose one of: {', '.join(sorted(FORMATS))}."
        )
    return name


def _size(value: Any, name: str, default: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of ``{"x": columns, "y": rows}`` or of one number for both."""
    if value is None:
        return default
    if not isinstance(value, Mapping):
        side = as_int(value, name, minimum=1)
        return side, side
    check_known(value, ("x", "y"), name)
    missing = [key for key in ("x", "y") if value.get(key) is None]
    if missing:
        raise OptionError(
            f'{name}={dict(value)!r} lacks {missing[0]!r}; give {{"x": .., "y": ..}}.'
        )
    return as_int(value["y"], f"{name} y", minimum=1), as_int(value["x"], f"{name} x", minimum=1)


def _radius(value: Any) -> float | None:
    if value is None:
        return None
    radius = as_float(value, "buffer_radius", minimum=0)
    return radius or None


def _first(value: Any) -> int:
    first = as_int(value, "startIndex", minimum=0)
    if first >= MOST_CHIPS:
        raise OptionError(f"startIndex={first} does not fit the nine digits of chip names.")
    return first


def _cell_size(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        check_known(value, ("x", "y", "spatialReference"), "cellSize")
        if value.get("x") != value.get("y"):
            raise OptionError(f"cellSize={dict(value)!r}: x and y differ; chips have square cells.")
        value = value.get("x")
    size = as_float(value, "cellSize")
    if size <= 0:
        raise OptionError(f"cellSize={size:g} is not above 0.")
    return size
