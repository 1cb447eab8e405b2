"""Training chips from imagery and labels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from geodl.base.options import as_bool, as_int, check_known
from geodl.runtime.future import start
from geodl.tools.chip_export import ExportCall
from geodl.tools.chip_job import TOOL, ExportInput
from geodl.tools.chip_options import PAIRED, check_format, chip_options, swap_short_form
from geodl.tools.chip_pair import PairCall
from geodl.tools.product import check_catalog


def export_training_data(
    input_raster: Any,
    input_class_data: Any = None,
    chip_format: str | None = None,
    tile_size: Mapping[str, int] | int | None = None,
    stride_size: Mapping[str, int] | int | None = None,
    metadata_format: str | None = None,
    classvalue_field: str | None = None,
    buffer_radius: float | None = None,
    output_location: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | None = None,
    input_mask_polygons: Any = None,
    rotation_angle: float = 0,
    reference_system: str = "MAP_SPACE",
    process_all_raster_items: bool = False,
    blacken_around_feature: bool = False,
    fix_chip_size: bool = True,
    additional_input_raster: Any = None,
    input_instance_data: Any = None,
    instance_class_value_field: str | None = None,
    min_polygon_overlap_ratio: float = 0,
    *,
    gis: Any = None,
    future: bool = False,
    estimate: bool = False,
    client: Any = None,
    progress: bool = True,
    overwrite: bool = False,
    block_size: int | None = None,
    assume_crs: Any = None,
    **kwargs: Any,
) -> str:
    """Cut labelled chips for training from an image.

    Chips lie on the image's own pixels, row by row from its upper left corner (or the extent's),
    one stride apart, and wholly inside it: a rest at the right and lower edge that is narrower
    than one more chip is left out. Chips without a label are left out too, unless asked for.
    ``Labeled_Tiles`` and ``Imagenet`` cut one chip around each feature instead.

    Parameters
    ----------
    input_raster
        Whatever :func:`geodl.open_raster` takes; a list is a mosaic, or with
        ``process_all_raster_items`` several images.
    input_class_data
        Features (a GeoDataFrame or anything geopandas reads; reprojected to the image's CRS), or a
        class raster (resampled by nearest neighbour where its grid differs; nodata counts as 0,
        the background; names come from its attribute table or category names). Of overlapping
        features in pixel labels the last one lies on top. ``Export_Tiles`` and ``CycleGAN`` need
        none; without it they write every chip.
    chip_format
        ``"TIFF"`` (default), ``"PNG"`` (1 to 4 bands of uint8 or uint16), ``"JPEG"`` (1 or 3 bands
        of uint8) or ``"MRF"``. Values are never rescaled; labels are always lossless.
    tile_size, stride_size
        ``{"x": columns, "y": rows}`` in pixels, or one number for both; 256, and no overlap.
    metadata_format
        ``"KITTI_rectangles"`` (default), ``"PASCAL_VOC_rectangles"``, ``"Classified_Tiles"``,
        ``"RCNN_Masks"``, ``"Labeled_Tiles"``, ``"MultiLabeled_Tiles"``, ``"Export_Tiles"``,
        ``"CycleGAN"``, ``"Imagenet"``, ``"Panoptic_Segmentation"``, and beyond those of ArcGIS
        ``"COCO_rectangles"``, ``"COCO_instances"`` and ``"YOLO_rectangles"``.
    classvalue_field
        Field of class numbers or names; None looks for ``classvalue`` or ``value``, and without
        either all features are of class 1. Names are numbered from 1 in alphabetical order.
        Features without a class there are left out, with a warning.
    buffer_radius
        Radius in map units that points and lines are widened by.
    output_location
        Folder of the export; None names it after the raster and the run, in the catalog if there
        is one, where a bare name lies too. The published short form,
        with radius and folder in the places of ``classvalue_field`` and ``buffer_radius``, is
        understood.
    context
        ``exportAllTiles`` (False), ``startIndex`` (0; above 0 chips are added to the export that is
        there), ``cellSize`` in units of the CRS, ``extent`` as ``{"xmin", "ymin", "xmax", "ymax",
        "spatialReference": {"wkid"}}``.
    input_mask_polygons
        Only chips wholly inside these polygons are written.
    reference_system
        ``"MAP_SPACE"``; in ``"IMAGE_SPACE"`` and ``"PIXEL_SPACE"`` chips are placed by pixels.
    min_polygon_overlap_ratio
        A feature labels a chip only if at least this share of it, 0..1, lies inside.
    rotation_angle
        Step in degrees between turned copies of each chip, below 360; 0 makes none. Copies are
        numbered after all chips, take their pixels from the image by nearest neighbour, and are
        written where they hold a label themselves.
    process_all_raster_items
        Take each raster of a list as an image of its own instead of a mosaic; all have the same
        bands and dtype.
    blacken_around_feature
        ``Labeled_Tiles``: set pixels outside the chip's feature to 0.
    fix_chip_size
        ``Labeled_Tiles``: False cuts to the bounds of the feature instead of a tile.
    additional_input_raster
        ``Classified_Tiles``, ``Export_Tiles``: chips of the same ground go to ``images2``;
        resampled to the image's pixels unless they coincide, or in ``Export_Tiles`` divide them.
        ``CycleGAN``: the images of domain ``B``.
    input_instance_data
        ``Panoptic_Segmentation``: the objects, as features or as a raster of their numbers.
    instance_class_value_field
        Their class field; found as ``classvalue_field`` is, else all are of class 1.
    gis
        A :class:`geodl.Catalog` in which the finished export is published.
    future
        Return a future at once: its ``progress``, ``cancel()`` and ``result()``.
    estimate
        Only return the worker-hours expected.
    client
        A Dask client; None takes the active one, or this process.
    progress
        Whether to show progress.
    overwrite
        Replace a former export: what it wrote is deleted, and nothing else in the folder.
    block_size
        Pixels that are read together. Does not change the result.
    assume_crs
        CRS of labels and mask polygons that state none.

    Returns
    -------
    The export's folder.

    Raises
    ------
    OptionError, UnknownOptionError, NotSupportedError
        An argument outside its domain; a chip format that cannot hold the image.
    DataError
        Labels that cannot be used: none, none on the image, no such class field, mixed classes.
    GridMismatchError
        Labels without a CRS for an image with one, or the other way round.
    PlanError
        A tile larger than the image or extent.
    OutputExistsError
        The folder holds something else.
    BlockError, OutputError
        Some chips could not be read or written; the others are kept, the same call goes on.
    """
    check_known(kwargs, (), TOOL)
    classvalue_field, buffer_radius, output_location = swap_short_form(
        classvalue_field, buffer_radius, output_location
    )
    check_catalog(gis, "output_location")
    options = chip_options(
        chip_format=chip_format,
        tile_size=tile_size,
        stride_size=stride_size,
        metadata_format=metadata_format,
        classvalue_field=classvalue_field,
        buffer_radius=buffer_radius,
        context=context,
        reference_system=reference_system,
        min_polygon_overlap_ratio=min_polygon_overlap_ratio,
        rotation_angle=rotation_angle,
        blacken_around_feature=blacken_around_feature,
        fix_chip_size=fix_chip_size,
        instance_class_value_field=instance_class_value_field,
        process_all_raster_items=process_all_raster_items,
    )
    check_format(
        options,
        labels=input_class_data is not None,
        instances=input_instance_data is not None,
        second=additional_input_raster is not None,
    )
    one = ExportCall(
        given=ExportInput(
            raster=input_raster,
            labels=input_class_data,
            mask_polygons=input_mask_polygons,
            second=additional_input_raster,
            instances=input_instance_data,
            assume_crs=assume_crs,
        ),
        options=options,
        output_location=output_location,
        client=client,
        progress=as_bool(progress, "progress"),
        overwrite=as_bool(overwrite, "overwrite"),
        block_px=None if block_size is None else as_int(block_size, "block_size", minimum=1),
        catalog=gis,
    )
    call = PairCall(one) if options.metadata_format == PAIRED else one
    if estimate:
        return call.estimate()  # type: ignore[return-value]  # a float, as documented
    if future:
        return start(call.run)  # type: ignore[return-value]  # a future, as documented
    return call.run()
