"""What a classifier of chips does with layers of features and folders of photographs."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
import torch

from geodl.base.errors import (
    DataError,
    DataWarning,
    ModelDataError,
    NotSupportedError,
    OptionError,
    OutputExistsError,
    SourceNotFoundError,
)
from geodl.base.options import as_bool, as_float, as_int
from geodl.bundle import resolve_model
from geodl.core.blocks import RasterBlock, RasterSource
from geodl.core.contract import ChipCut, ModelContract
from geodl.formats import open_export
from geodl.formats.images import read_image
from geodl.infer.chips import ChipPlan
from geodl.infer.labels import Label, LabelBlocks, LabelOptions, label_all
from geodl.infer.tiles import clean_block
from geodl.io.crs import crs_text
from geodl.io.photographs import image_files, photograph_place
from geodl.io.source import open_source
from geodl.io.vector import read_features
from geodl.io.writers import FEATURE_SUFFIXES, write_features

if TYPE_CHECKING:
    from geopandas import GeoDataFrame

Pairs = list[tuple[str, float]]
Join = Callable[[Pairs], tuple[str, float]]


class FeatureLayers:
    """Part of :class:`geodl.models.feature_classifier.FeatureClassifier`; no use without it."""

    contract: ModelContract

    def predict_folder_and_create_layer(
        self,
        folder: str | os.PathLike[str],
        feature_layer_name: str | os.PathLike[str],
        gis: Any = None,
        prediction_field: str = "predict",
        confidence_field: str = "confidence",
    ) -> GeoDataFrame:
        """Classify photographs and place them by the position in their EXIF tags.

        Parameters
        ----------
        folder
            Of ``.jpg``, ``.png`` and ``.tif`` images. Those without a position are left out, with
            a warning.
        feature_layer_name
            Path of the layer to write; without a suffix it is ``.parquet``, a bare name lies in
            the working folder.
        gis
            A :class:`geodl.Catalog` to publish the layer in, or None.
        prediction_field, confidence_field
            Columns for the class name and its score, 0..1.

        Returns
        -------
        GeoDataFrame of points in EPSG:4326 with the file names in ``image``; ``.attrs["path"]``
        says where it is.

        Raises
        ------
        SourceNotFoundError
            There is no such folder.
        DataError
            No image in it has a position.
        OutputExistsError
            The layer is there already.
        """
        import geopandas

        path = _layer_path(feature_layer_name)
        images = image_files(folder)
        places = {image: photograph_place(image) for image in images}
        placed = {image: place for image, place in places.items() if place is not None}
        if not placed:
            raise DataError(
                f"None of the {len(images)} images in {os.fspath(folder)} states its position "
                "(EXIF GPS latitude and longitude); predict() classifies single images."
            )
        if len(placed) < len(images):
            warnings.warn(
                f"{len(images) - len(placed)} of {len(images)} images in {os.fspath(folder)} state "
                "no position and are left out.",
                DataWarning,
                stacklevel=2,
            )
        labels = [self.predict(image) for image in placed]  # type: ignore[attr-defined]
        layer = geopandas.GeoDataFrame(
            {
                "image": [image.name for image in placed],
                prediction_field: [_joined(name) for name, _ in labels],
                confidence_field: [_joined(score) for _, score in labels],
            },
            geometry=shapely.points(np.array(list(placed.values()))),
            crs="EPSG:4326",
        )
        write_features(layer, path)
        layer.attrs["path"] = str(path)
        if gis is not None:
            gis.add(path)
        return layer

    def categorize_features(
        self,
        feature_layer: Any,
        raster: Any = None,
        class_value_field: str = "class_val",
        class_name_field: str = "prediction",
        confidence_field: str = "confidence",
        cell_size: float = 1,
        coordinate_system: Any = None,
        predict_function: Join | None = None,
        batch_size: int = 64,
        overwrite: bool = False,
    ) -> bool:
        """Classify features over a raster and write the result into their layer.

        .. deprecated:: 1.7.1
            ``geodl.learn.classify_objects`` does it for rasters of any size and on a cluster.

        Parameters
        ----------
        feature_layer
            Path of a vector file, which is written anew, or a GeoDataFrame, which gets columns.
        raster
            What :func:`geodl.open_raster` takes. Features with attached images instead of a raster
            are not offered.
        class_value_field, class_name_field, confidence_field
            Columns for class value, class name and score of 0..1.
        cell_size
            Of the chips, in units of their CRS.
        coordinate_system
            Of the chips; None is the raster's.
        predict_function
            Not used with a raster: each feature has one chip.
        batch_size
            Chips at once.
        overwrite
            Replace columns of these names.

        Returns
        -------
        True: the columns are written.

        Raises
        ------
        NotSupportedError
            No raster.
        OptionError
            A column is there already.
        """
        _deprecated("categorize_features()")
        if raster is None:
            raise NotSupportedError(
                "categorize_features() without raster= reads attachments of a portal's layer, "
                "which is not offered; give raster=, or classify image files with predict()."
            )
        del predict_function
        frame = read_features(feature_layer)
        columns = (class_value_field, class_name_field, confidence_field)
        _check_columns(frame, columns, as_bool(overwrite, "overwrite"))
        crs = None if coordinate_system is None else crs_text(coordinate_system)
        size = as_float(cell_size, "cell_size")
        source = self._opened(raster, crs, size)
        labels = self._labels_over(frame, source, as_int(batch_size, "batch_size", minimum=1))
        values = {entry.name: entry.value for entry in self.contract.classes}
        rows = [labels.get(k, Label((), ())) for k in range(len(frame))]
        first = [values[label.names[0]] if label.names else None for label in rows]
        _put_columns(
            feature_layer,
            frame,
            {
                class_value_field: first,
                class_name_field: [",".join(label.names) or None for label in rows],
                confidence_field: [label.scores[0] if label.scores else np.nan for label in rows],
            },
        )
        return True

    def _opened(self, raster: Any, crs: str | None, cell_size: float) -> RasterSource:
        """The raster with the bands that the model takes, at the cell size asked for."""
        whole = open_source(raster)
        bands = self.contract.extract_bands
        if whole.count <= max(bands):
            raise ModelDataError(
                f"{whole.name} has {whole.count} bands; the model takes the bands "
                f"{[band + 1 for band in bands]} (counted from 1)."
            )
        numbers = [band + 1 for band in bands]
        return open_source(whole, bands=numbers, crs=crs, resolution=cell_size)

    def _labels_over(
        self, frame: GeoDataFrame, source: RasterSource, batch: int
    ) -> dict[int, Label]:
        contract = self.contract
        moved = frame if source.grid.crs is None else frame.to_crs(source.grid.crs)
        cut = contract.chip or ChipCut(size_yx=(contract.tile_px, contract.tile_px))
        with tempfile.TemporaryDirectory(prefix="geodl-model-") as folder:
            task = LabelBlocks(
                source=source,
                model=resolve_model(self, folder),
                cut=cut,
                tile_px=contract.tile_px,
                options=LabelOptions(),
                batch=batch,
                device="cuda" if torch.cuda.is_available() else "cpu",
            )
            return label_all(task, ChipPlan.make(moved.geometry.to_numpy(), source.grid, cut))

    def classify_features(
        self,
        feature_layer: Any,
        labeled_tiles_directory: str | os.PathLike[str],
        input_label_field: str,
        output_label_field: str,
        confidence_field: str | None = None,
        predict_function: Join | None = None,
    ) -> bool:
        """Classify chips that were exported for features, and write the result into their layer.

        .. deprecated:: 1.9.1
            ``geodl.learn.classify_objects`` cuts the chips itself.

        Parameters
        ----------
        feature_layer
            Path of a vector file, which is written anew, or a GeoDataFrame, which gets columns.
        labeled_tiles_directory
            An export of Labeled_Tiles whose labels are the features' ids.
        input_label_field
            The column of those ids.
        output_label_field, confidence_field
            Columns for the class name and its score of 0..1; None writes no score.
        predict_function
            Takes the (class name, score) pairs of the chips of a feature and gives one; None takes
            the most certain.

        Returns
        -------
        True: the columns are written.

        Raises
        ------
        DataError
            The layer has no such column, or no chip belongs to it.
        """
        _deprecated("classify_features()")
        frame = read_features(feature_layer)
        if input_label_field not in frame.columns:
            raise DataError(
                f"input_label_field={input_label_field!r} is no column; the layer has "
                f"{', '.join(map(str, frame.columns))}."
            )
        pairs = self._labels_of_tiles(labeled_tiles_directory)
        ids = [str(value) for value in frame[input_label_field]]
        if not set(ids) & set(pairs):
            raise DataError(
                f"No chip in {os.fspath(labeled_tiles_directory)} has a label that occurs in the "
                f"column {input_label_field!r}; export Labeled_Tiles with that column as classes."
            )
        join = predict_function or _most_certain
        found = {name: join(own) for name, own in pairs.items()}
        columns: dict[str, Any] = {
            output_label_field: [found[i][0] if i in found else None for i in ids]
        }
        if confidence_field is not None:
            columns[confidence_field] = [found[i][1] if i in found else np.nan for i in ids]
        _put_columns(feature_layer, frame, columns)
        return True

    def _labels_of_tiles(self, folder: str | os.PathLike[str]) -> dict[str, Pairs]:
        """(class, score) pairs of an export's chips, by the name of their label."""
        export = open_export(Path(folder), None)
        names = {entry.value: entry.name for entry in export.classes}
        bands = list(self.contract.extract_bands)
        pairs: dict[str, Pairs] = {}
        for ref in export.chips:
            image = read_image(ref.image)
            block = clean_block(RasterBlock(image.data[bands], image.mask))
            scores = self.scores_of(self.prepared(block))[0]  # type: ignore[attr-defined]
            for value in export.chip_format.read_label(ref, export).values.tolist():
                place = int(scores.argmax())
                pair = self.contract.classes.names[place], float(scores[place])
                pairs.setdefault(names[value], []).append(pair)
        return pairs


def _most_certain(pairs: Pairs) -> tuple[str, float]:
    return max(pairs, key=lambda pair: pair[1])


def _joined(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


def _deprecated(name: str) -> None:
    warnings.warn(
        f"{name} is deprecated: geodl.learn.classify_objects() does its work for rasters of any "
        "size.",
        DeprecationWarning,
        stacklevel=3,
    )


def _layer_path(name: str | os.PathLike[str]) -> Path:
    path = Path(name).expanduser().absolute()
    if path.suffix.lower() not in FEATURE_SUFFIXES:
        path = path.with_name(path.name + FEATURE_SUFFIXES[0])
    if path.exists():
        raise OutputExistsError(f"{path} exists already; give another feature_layer_name.")
    return path


def _check_columns(frame: GeoDataFrame, columns: Sequence[str], overwrite: bool) -> None:
    there = [name for name in columns if name in frame.columns]
    if there and not overwrite:
        raise OptionError(
            f"The layer has the column {there[0]!r} already; give overwrite=True or another name."
        )


def _put_columns(layer: Any, frame: GeoDataFrame, columns: Mapping[str, Any]) -> None:
    """Write columns into a GeoDataFrame in memory, or into a file."""
    if hasattr(layer, "geometry"):
        for name, values in columns.items():
            layer.loc[frame.index, name] = values
        return
    path = Path(layer)
    if not path.is_file():
        raise SourceNotFoundError(f"{path} is no file that columns can be written into.")
    write_features(frame.assign(**dict(columns)), path)
