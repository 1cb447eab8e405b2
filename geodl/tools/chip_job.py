"""An export before its first block: images and labels opened, checked and planned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geodl.base.errors import DataError
from geodl.base.files import sha256_json
from geodl.core.blocks import RasterSource
from geodl.core.classes import ClassTable
from geodl.formats import FORMATS, ChipFolder, ChipFormat
from geodl.formats.base import BUFFER_KEY
from geodl.formats.images import check_holds, open_image
from geodl.formats.panoptic import INSTANCE_KEY
from geodl.io.extent import extent_window
from geodl.io.raster_folder import listed
from geodl.io.source import open_source
from geodl.ops.chip_grid import ChipGrid
from geodl.ops.chip_turns import turns
from geodl.tools.chip_blocks import SelectTask, WriteTask
from geodl.tools.chip_classes import classes_of_values, united
from geodl.tools.chip_cut import Part
from geodl.tools.chip_labels import (
    FeatureLabels,
    Labels,
    NoOverlapError,
    RasterLabels,
    is_raster,
    open_labels,
    polygons_in_pixels,
    regions,
)
from geodl.tools.chip_options import ChipOptions
from geodl.tools.chip_places import ChipPlaces, FeaturePlaces, GridPlaces
from geodl.tools.chip_plan import ChipPlan, PartPlan, default_block_px
from geodl.tools.chip_second import SecondRaster, second_raster

TOOL = "export_training_data"
_UNNAMED = re.compile(r"Band_\d+")


@dataclass(frozen=True, kw_only=True)
class ExportInput:
    """What an export is made of, as the caller gave it."""

    raster: Any
    labels: Any
    mask_polygons: Any = None
    second: Any = None
    instances: Any = None
    assume_crs: Any = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """One image with its labels.

    Parameters
    ----------
    labels
        None for formats without labels.
    things
        Objects of panoptic labels, or None.
    """

    source: RasterSource
    labels: Labels | None
    things: Labels | None
    second: SecondRaster | None
    places: ChipPlaces
    mask: shapely.Geometry | None
    area: list[int]

    def part(self) -> Part:
        classes = self.labels if isinstance(self.labels, RasterLabels) else None
        numbers = self.things if isinstance(self.things, RasterLabels) else None
        return Part(source=self.source, classes=classes, numbers=numbers, second=self.second)

    def plan(self) -> PartPlan:
        return PartPlan(
            places=self.places,
            features=self.labels if isinstance(self.labels, FeatureLabels) else None,
            things=self.things if isinstance(self.things, FeatureLabels) else None,
            mask=self.mask,
        )

    def settings(self) -> dict[str, Any]:
        """JSON of all that changes the chips."""
        known: dict[str, Any] = {
            "source": self.source.identity(),
            "grid": self.source.grid.to_json(),
            "area": self.area,
            "labels": None if self.labels is None else self.labels.identity(),
            "mask": None if self.mask is None else sha256_json(shapely.to_wkb(self.mask).hex()),
        }
        if self.things is not None:
            known["instances"] = self.things.identity()
        if self.second is not None:
            known["second"] = self.second.identity()
        return known


@dataclass(frozen=True, eq=False, kw_only=True)
class ExportJob:
    """Images, their labels and what is cut of them: all that is known before the first block.

    Parameters
    ----------
    base
        The export that is added to, or None.
    """

    scenes: tuple[Scene, ...]
    options: ChipOptions
    plan: ChipPlan
    base: ChipFolder | None

    @property
    def settings(self) -> dict[str, Any]:
        """JSON of all that changes the chips."""
        scenes = [scene.settings() for scene in self.scenes]
        return {"tool": TOOL, **scenes[0], "further": scenes[1:], "options": self.options.answer()}

    @property
    def fingerprint(self) -> str:
        return sha256_json(self.settings)

    @property
    def source(self) -> RasterSource:
        return self.scenes[0].source

    @property
    def default_name(self) -> str:
        return f"{TOOL}_{Path(self.source.name).stem or 'raster'}_{self.fingerprint[:8]}"

    @property
    def chip_format(self) -> ChipFormat:
        chosen: ChipFormat = FORMATS[self.options.metadata_format]()
        return chosen

    @property
    def has_second(self) -> bool:
        return self.scenes[0].second is not None

    def _shared(self) -> dict[str, Any]:
        return {
            "parts": tuple(scene.part() for scene in self.scenes),
            "turns": self.plan.turns,
            "metadata_format": self.options.metadata_format,
            "least_share": self.options.least_share,
            "every_chip": self.plan.every_chip,
        }

    @property
    def takes_all(self) -> bool:
        """Whether all chips are written, and their classes known, without a look at any."""
        return self.plan.every_chip and not any(
            isinstance(scene.labels, RasterLabels) for scene in self.scenes
        )

    def select_task(self) -> SelectTask:
        return SelectTask(**self._shared())

    def write_task(self, folder: Path, classes: ClassTable, writers: int = 1) -> WriteTask:
        return WriteTask(
            chip_format=self.options.chip_format,
            classes=classes,
            folder=str(folder),
            image_space=self.options.image_space,
            blacken=self.options.blacken,
            writers=writers,
            **self._shared(),
        )

    def classes(self, values: Iterable[int]) -> ClassTable:
        """The classes of the export; those of a class raster are the values found in its chips."""
        known = None if self.base is None else self.base.classes
        tables = []
        for scene in self.scenes:
            if isinstance(scene.labels, FeatureLabels):
                tables.append(scene.labels.classes)
            elif scene.labels is not None:
                tables.append(classes_of_values(values, known, scene.labels.names))
        tables.append(self.thing_classes(united(tables)))
        return self.chip_format.export_classes(united(tables))

    def thing_classes(self, known: ClassTable) -> ClassTable:
        """The classes of panoptic objects, called as ``known`` calls them."""
        tables: list[ClassTable] = []
        for scene in self.scenes:
            if isinstance(scene.things, FeatureLabels):
                tables.append(scene.things.classes)
            elif scene.things is not None:
                tables.append(ClassTable.from_mapping({1: "1"}))
        found = united(tables)
        names = {entry.value: entry for entry in known}
        return ClassTable(tuple(names.get(entry.value, entry) for entry in found))

    def emd_keys(self, classes: ClassTable) -> dict[str, Any]:
        """Keys of the EMD that only this format has."""
        if self.options.metadata_format == "Labeled_Tiles":
            return {
                "CropTileMode": "Fixed_Size" if self.options.fixed_size else "Variable_Size",
                "BlackenAroundFeature": self.options.blacken,
                BUFFER_KEY: self.options.buffer_radius,
            }
        if self.options.metadata_format == "Panoptic_Segmentation":
            things = self.thing_classes(classes)
            before = [] if self.base is None else self.base.emd.get(INSTANCE_KEY) or []
            entries = {e["Value"]: e for e in [*before, *things.to_json()]}
            return {INSTANCE_KEY: [entries[value] for value in sorted(entries)]}
        return {}


def prepare(
    given: ExportInput, options: ChipOptions, *, base: ChipFolder | None, block_px: int | None
) -> ExportJob:
    """Open images and labels, check that they fit each other and the format, and plan.

    Raises
    ------
    GeodlError
        Whatever of the input cannot be used; nothing has been written then.
    """
    every_chip = options.every_chip or given.labels is None
    scenes: list[Scene] = []
    missed: NoOverlapError | None = None
    items = _items(listed(given.raster), options)
    for item in items:
        try:
            scenes.append(_scene(item, given, options, base))
        except NoOverlapError as error:
            # Of several images, labels or the second raster may cover some only.
            missed = error
            if len(items) == 1:
                raise
    if not scenes and missed is not None:
        raise missed
    _check_alike(scenes)
    if base is not None:
        _check_base(base, scenes[0], options)
    first = scenes[0]
    plan = ChipPlan(
        parts=tuple(scene.plan() for scene in scenes),
        block_px=block_px or default_block_px(first.source, first.places.tile_yx),
        every_chip=every_chip,
        turns=turns(options.rotation_deg),
    )
    return ExportJob(scenes=tuple(scenes), options=options, plan=plan, base=base)


def _items(raster: Any, options: ChipOptions) -> Sequence[Any]:
    """The images: each of a list, or all of them as one mosaic."""
    if options.every_item and isinstance(raster, list | tuple) and raster:
        return raster
    return [raster]


def _scene(raster: Any, given: ExportInput, options: ChipOptions, base: ChipFolder | None) -> Scene:
    source = open_source(raster, resolution=options.cell_size)
    check_holds(options.chip_format, source.count, source.dtype.name)
    area = source.grid.window
    if options.extent is not None:
        area = extent_window(options.extent, options.extent_crs, source.grid, source.name)
    chosen: ChipFormat = FORMATS[options.metadata_format]()
    known = None if base is None else base.classes
    labels = things = second = None
    if given.labels is not None:
        labels = open_labels(
            given.labels,
            source.grid,
            class_field=options.class_field,
            buffer_radius=_radius(given.labels, given.instances, options),
            needs_area=chosen.kind == "objects" or options.blacken or not options.fixed_size,
            known=known,
            assume_crs=given.assume_crs,
            one_of_several=options.every_item,
        )
    if given.instances is not None:
        things = _things(given, source, options, known)
    if given.second is not None:
        finer = chosen.kind == "images"
        second = second_raster(given.second, source.grid, finer=finer)
        check_holds(options.chip_format, second.source.count, second.source.dtype.name)
    if chosen.one_per_feature and isinstance(labels, RasterLabels):
        labels = regions(labels, source.grid, known)
    if chosen.one_per_feature and isinstance(labels, FeatureLabels):
        places: ChipPlaces = FeaturePlaces.around(
            labels, area, options.tile_yx, fixed=options.fixed_size
        )
    else:
        grid = ChipGrid(area=area, tile_yx=options.tile_yx, stride_yx=options.stride_yx)
        places = GridPlaces(grid)
    mask = None
    if given.mask_polygons is not None:
        mask = polygons_in_pixels(given.mask_polygons, source.grid, given.assume_crs)
    return Scene(
        source=source,
        labels=labels,
        things=things,
        second=second,
        places=places,
        mask=mask,
        area=area.to_json(),
    )


def _things(
    given: ExportInput, source: RasterSource, options: ChipOptions, known: ClassTable | None
) -> Labels:
    """The objects of panoptic labels; a raster holds their numbers."""
    return open_labels(
        given.instances,
        source.grid,
        class_field=options.instance_field,
        buffer_radius=_radius(given.instances, given.labels, options),
        needs_area=False,
        known=known,
        assume_crs=given.assume_crs,
        one_of_several=options.every_item,
    )


def _radius(layer: Any, other: Any, options: ChipOptions) -> float | None:
    """By how much a layer is widened: of a raster and features, the features are meant."""
    if other is not None and is_raster(layer) and not is_raster(other):
        return None
    return options.buffer_radius


def _check_alike(scenes: Sequence[Scene]) -> None:
    first = scenes[0].source
    for scene in scenes[1:]:
        ours = (first.count, first.dtype.name)
        theirs = (scene.source.count, scene.source.dtype.name)
        if ours != theirs:
            raise DataError(
                f"{scene.source.name} has {theirs[0]} bands of {theirs[1]} and {first.name} "
                f"{ours[0]} of {ours[1]}; chips of one export are alike. Export them apart."
            )


def _check_base(base: ChipFolder, scene: Scene, options: ChipOptions) -> None:
    """Refuse to mix chips of different kinds in one export."""
    pairs = {
        "metadata format": (base.metadata_mode, options.metadata_format),
        "tile size": (base.tile_size, options.tile_yx[::-1]),
        "number of bands": (base.bands, scene.source.count),
        "dtype": (base.dtype, scene.source.dtype.name),
        "reference system": (base.image_space, options.image_space),
        "second raster (images2)": (_second_of(base), _second_chips(scene.second, options)),
    }
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise DataError(
                f"startIndex={options.first}: the {name} of {base.path} is {theirs}, that of the "
                f"chips to be added {ours}; export them to another output_location."
            )


def _second_of(base: ChipFolder) -> str | None:
    """What the chips in ``images2`` are, by the first of them; None where there are none."""
    path = base.path / "images2" / base.chips[0].image.name
    if not path.parent.is_dir():
        return None
    with open_image(path) as dataset:
        width, height, dtype = dataset.width, dataset.height, dataset.dtypes[0]
        return f"{width} x {height} pixels with {dataset.count} bands of {dtype}"


def _second_chips(second: SecondRaster | None, options: ChipOptions) -> str | None:
    """The same of the chips that are to be written."""
    if second is None:
        return None
    height, width = (side * second.factor for side in options.tile_yx)
    count, dtype = second.source.count, second.source.dtype.name
    return f"{width} x {height} pixels with {count} bands of {dtype}"


def band_names(source: RasterSource) -> tuple[str, ...]:
    """Names of the bands; those of a plain RGB image come from its colour interpretation."""
    colors: tuple[str, ...] = getattr(source, "color_names", ())
    if colors == ("red", "green", "blue") and all(map(_UNNAMED.fullmatch, source.band_names)):
        return ("Red", "Green", "Blue")
    return source.band_names


def cell_sizes(scenes: Sequence[Scene]) -> np.ndarray:
    """float64 (N, 2): x and y of each image."""
    return np.array([scene.source.grid.cell_size_xy for scene in scenes])
