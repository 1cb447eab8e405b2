"""MMDetection3D: oriented boxes of objects among points."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from torch import nn

from geodl.base.errors import DataError, NotSupportedError, OptionError
from geodl.base.options import as_float, as_int, check_choice, check_known
from geodl.core.classes import ClassTable
from geodl.data.figure import ShownFigure
from geodl.models.base import TorchModel
from geodl.models.contracts import check_data_fits
from geodl.models.precision_scores import PrecisionScores
from geodl.nets.second import SecondNetwork
from geodl.tasks.base import Task
from geodl.tasks.boxes3d import BoxTask, OrientedMeter
from geodl.tasks.objects import as_share

_NAMES = ("SECOND",)
_VOXEL_KEYS = ("voxel_size", "voxel_points", "max_voxels")
# Cells along the shorter side of the smallest objects.
_CELLS_OF_OBJECT = 6
_MOST_CELLS, _LEAST_CELLS = 400, 32
_POINTS_OF_VOXEL = 16
_MOST_VOXELS = 60_000
# Wider voxels leave no map to find objects in; more take more than a gigabyte for one block.
_FEWEST_CELLS, _MOST_LATTICE = 8, 2**28
# Above and below the objects of the training data.
_MARGIN_SHARE = 0.25
# Training blocks whose boxes tell sizes and heights.
_MOST_SURVEYED = 200


class MMDetection3D(PrecisionScores, TorchModel):
    """Detector of objects among points.

    Parameters
    ----------
    data
        From ``prepare_data``, of the type PointCloudOD.
    model
        ``"SECOND"``: sparsely embedded convolutional detection (Yan et al. 2018,
        10.3390/s18103337).
    pretrained_path
        A saved model to start from.
    **kwargs
        ``voxel_parms``: dict of ``voxel_size`` (x, y, z in units of the CRS), ``voxel_points``
        (most points of a voxel) and ``max_voxels`` (most voxels of a block in training and
        otherwise); what it lacks, or None, is worked out from the data.

    Raises
    ------
    NotSupportedError
        A configuration file of the MMDetection3D package.
    OptionError, UnknownOptionError
        A keyword outside its domain, or an unknown one.
    ModelDataError
        Data of another kind.
    """

    kind: ClassVar[Literal["boxes3d"]] = "boxes3d"
    dataset_types = ("PointCloudOD",)
    keywords: ClassVar[tuple[str, ...]] = ("voxel_parms",)
    norm_counts_items = False
    supported_models: ClassVar[list[str]] = list(_NAMES)

    _task: BoxTask

    def __init__(
        self,
        data: Any,
        model: str = "SECOND",
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        name = type(self).__name__
        check_known(kwargs, ("voxel_parms",), name, of=type(self))
        if isinstance(model, (str, os.PathLike)) and Path(model).suffix == ".py":
            raise NotSupportedError(
                f"{os.fspath(model)} is a configuration of the MMDetection3D package, whose "
                "compiled operators geodl does not use; choose one of supported_models: "
                f"{', '.join(_NAMES)}."
            )
        check_data_fits(data, name, self.kind, self.dataset_types)
        parameters = {
            "model": check_choice(model, _NAMES, "model"),
            **_layout(data, kwargs.get("voxel_parms")),
        }
        self._setup(data, parameters, pretrained_path)

    @classmethod
    def build(
        cls,
        *,
        classes: ClassTable,
        bands: int,
        tile_px: int,
        parameters: Mapping[str, Any],
        pretrained: bool,
        batch_size: int | None,
    ) -> tuple[nn.Module, Task, bool]:
        check_choice(parameters["model"], _NAMES, "model")
        net = SecondNetwork(
            bands,
            space=parameters["space"],
            sizes=parameters["sizes"],
            bottoms=parameters["bottoms"],
        )
        return net, BoxTask(classes, space=parameters["space"]), False

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        space = parameters["space"]
        (x0, y0, z0), (x1, y1, z1) = space["low"], space["high"]
        return {
            "DataAttributes": {
                "voxel_size": space["size"],
                "range": [x0, y0, z0, x1, y1, z1],
                "z_range": [z0, z1],
                # Of each class: where its anchors stand.
                "anchor_range": [[x0, y0, z, x1, y1, z] for z in parameters["bottoms"]],
                "average_box_size": parameters["sizes"],
            }
        }

    @property
    def task(self) -> BoxTask:
        """What turns blocks into losses and boxes."""
        return self._task

    def average_precision_score(
        self,
        detect_thresh: float = 0.2,
        iou_thresh: float = 0.1,
        nms_overlap: float = 0.2,
        mean: bool = False,
        **kwargs: Any,
    ) -> dict[str, float] | float:
        """Average precision at 101 recalls, by the overlap of volumes.

        Parameters
        ----------
        detect_thresh
            Detections with lower scores do not count, 0..1.
        iou_thresh
            Least overlap with a true box for a detection to be right, 0..1.
        nms_overlap
            Overlap of two boxes of a class, seen from above, beyond which the weaker is dropped.
        mean
            False: a dict by class name; True: the mean over the classes that occur in the truth.
        **kwargs
            ``view_type``: ``"valid"`` (default) or ``"train"``.

        Returns
        -------
        0..1; NaN for a class that the set has no object of.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        check_known(
            kwargs, ("view_type",), "average_precision_score()", of=self.average_precision_score
        )
        view = check_choice(kwargs.get("view_type", "valid"), ("valid", "train"), "view_type")
        options = {
            **self.task.options,
            "threshold": as_share(detect_thresh, "detect_thresh"),
            "nms_overlap": as_share(nms_overlap, "nms_overlap"),
        }
        task = type(self.task)(self.task.classes, **options)
        data = self._need_data("average_precision_score()")
        batches = data.train_loader(task.collate) if view == "train" else None
        meter = OrientedMeter(len(task.classes), as_share(iou_thresh, "iou_thresh"))
        return self._precision(task, meter, mean, batches=batches)

    def predict_h5(
        self,
        path: str | os.PathLike[str],
        output_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Find objects in blocks of points in HDF5 files.

        Parameters
        ----------
        path
            A folder with ``ListTable.h5`` and ``Statistics.json``, as an export makes it.
        output_path
            Folder for the results; None is ``results`` inside ``path``.
        **kwargs
            ``batch_size`` (1): blocks at once; ``detect_thresh`` (0.1): least score;
            ``nms_overlap`` (0.6): overlap of two boxes beyond which the weaker is dropped.

        Returns
        -------
        The folder. For each block file ``<stem>_pred.h5`` with ``orientedBoundingBox`` (m, 8) in
        the units of the blocks, ``objectCode`` (m,), ``confidence`` (m,) and ``Tiles`` (n, 3):
        row of the list table, first box and boxes of each block.

        Raises
        ------
        FormatError
            A folder that is no such export.
        ModelDataError
            Blocks of another size, or without an attribute that the model takes.
        """
        from geodl.models.point_files import detect_h5

        check_known(
            kwargs,
            ("batch_size", "detect_thresh", "nms_overlap"),
            "predict_h5()",
            of=self.predict_h5,
        )
        return detect_h5(
            self,
            Path(path),
            None if output_path is None else Path(output_path),
            as_int(kwargs.get("batch_size", 1), "batch_size", minimum=1),
            threshold=as_share(kwargs.get("detect_thresh", 0.1), "detect_thresh"),
            nms_overlap=as_share(kwargs.get("nms_overlap", 0.6), "nms_overlap"),
        )

    def show_results(  # type: ignore[override]  # the documented arguments, by name
        self, rows: int = 2, detect_thresh: float = 0.3, nms_overlap: float = 0.01, **kwargs: Any
    ) -> Any:
        """Truth on the left and boxes on the right, for some blocks.

        Parameters
        ----------
        rows
            How many blocks.
        detect_thresh
            Least score of the boxes drawn.
        nms_overlap
            Overlap of two boxes of a class beyond which the weaker is dropped.
        **kwargs
            ``color_mapping``: class value to red, green, blue of 0..255; ``max_display_point``
            (20000), kept for later calls; ``view_type``: ``"valid"`` or ``"train"``.

        Returns
        -------
        A plotly Figure where plotly is installed, else one of matplotlib.
        """
        from geodl.models.point_pictures import MOST_SHOWN, picture_of, results_figure_3d

        data = self._need_data("show_results()")
        check_known(
            kwargs,
            ("color_mapping", "max_display_point", "view_type"),
            "show_results()",
            of=self.show_results,
        )
        view = check_choice(kwargs.pop("view_type", "valid"), ("valid", "train"), "view_type")
        given = kwargs.get("max_display_point", getattr(self, "_most_shown", MOST_SHOWN))
        self._most_shown = as_int(given, "max_display_point", minimum=1)
        picture = picture_of(kwargs, self.task.classes.values, self._most_shown)
        options = {"detect_thresh": detect_thresh, "nms_overlap": nms_overlap}
        dataset = data.valid_ds if view == "valid" else data.train_ds
        count = as_int(rows, "rows", minimum=1)
        return results_figure_3d(self, dataset, count, picture, options)

    def results_picture(self, rows: int) -> ShownFigure:
        from geodl.models.point_pictures import results_image

        return results_image(self, rows)


def _layout(data: Any, given: Any) -> dict[str, Any]:
    """Space, voxels and anchors, from the boxes of the training data and ``voxel_parms``."""
    values = data.class_table.values
    sizes = [list(data.average_sizes[value]) for value in values]
    bottoms, (low_z, high_z) = _heights(data, sizes)
    margin = _MARGIN_SHARE * (high_z - low_z)
    half = data.tile_size / 2
    low, high = [-half, -half, low_z - margin], [half, half, high_z + margin]
    space = {"low": low, "high": high, **_voxels(data, given, sizes, high[2] - low[2])}
    return {"space": space, "sizes": sizes, "bottoms": bottoms}


def _voxels(
    data: Any, given: Any, sizes: Sequence[Sequence[float]], height: float
) -> dict[str, Any]:
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise OptionError(f"voxel_parms={given!r} is no dict of {', '.join(_VOXEL_KEYS)}.")
    check_known(given, _VOXEL_KEYS, "voxel_parms")
    side = data.tile_size
    cell = min(min(size[:2]) for size in sizes) / _CELLS_OF_OBJECT
    cell = min(max(cell, side / _MOST_CELLS), side / _LEAST_CELLS)
    size = _numbers(given.get("voxel_size"), [cell, cell, min(cell, height / 8)], "voxel_size")
    _check_lattice(size, side, height)
    cells = min(data.max_points, _MOST_VOXELS)
    most = _numbers(given.get("max_voxels"), [cells, cells], "max_voxels")
    points = given.get("voxel_points")
    return {
        "size": size,
        "voxel_points": as_int(
            _POINTS_OF_VOXEL if points is None else points, "voxel_points", minimum=1
        ),
        "max_voxels": [as_int(n, "max_voxels", minimum=1) for n in most],
    }


def _check_lattice(size: Sequence[float], side: float, height: float) -> None:
    """Hold voxels to what a network can be made of. Raises OptionError."""
    if max(size[:2]) > side / _FEWEST_CELLS:
        raise OptionError(
            f"voxel_parms: voxel_size={list(size)} is too wide for blocks of {side:g}; give x and "
            f"y of {side / _FEWEST_CELLS:g} or less."
        )
    cells = math.prod(math.ceil(n / s) for n, s in zip((side, side, height), size, strict=True))
    if cells > _MOST_LATTICE:
        raise OptionError(
            f"voxel_parms: voxel_size={list(size)} divides blocks of {side:g} x {side:g} x "
            f"{height:g} into {cells} voxels, of which {_MOST_LATTICE} fit in memory; give larger "
            "ones."
        )


def _numbers(given: Any, default: list[float], name: str) -> list[float]:
    if given is None:
        return [float(n) for n in default]
    if not isinstance(given, (list, tuple)) or len(given) != len(default):
        raise OptionError(f"voxel_parms: {name}={given!r} is no list of {len(default)} numbers.")
    numbers = [as_float(n, name) for n in given]
    if min(numbers) <= 0:
        raise OptionError(f"voxel_parms: {name}={given!r} must be above 0.")
    return numbers


def _heights(
    data: Any, sizes: Sequence[Sequence[float]]
) -> tuple[list[float], tuple[float, float]]:
    """Median height of each class's bottom over the block's median, and the range of all boxes."""
    store = data.train_ds.store
    step = max(1, len(store) // _MOST_SURVEYED)
    bottoms: list[list[float]] = [[] for _ in sizes]
    ends: list[float] = []
    for i in range(0, len(store), step):
        block = store[i]
        boxes, labels = block.target
        level = float(np.median(block.data[:, 2])) if len(block.data) else 0.0
        for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
            bottoms[label - 1].append(box[2] - level)
            ends += [box[2] - level, box[2] + box[5] - level]
    if not ends:
        raise DataError(f"No training block of {data.path} holds an object; export more.")
    every = [bottom for own in bottoms for bottom in own]
    return [float(np.median(own or every)) for own in bottoms], (min(ends), max(ends))
