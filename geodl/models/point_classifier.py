"""What all classifiers of points share: their options, training, scores and pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from geodl.base.errors import OptionError
from geodl.base.options import as_bool, as_float, as_int, check_known
from geodl.data.figure import ShownFigure
from geodl.models.base import TorchModel
from geodl.models.contracts import check_data_fits
from geodl.tasks.pixel_metrics import accuracy, mean_iou, precision_recall_f1
from geodl.tasks.points import PointMeter, PointTask

# Blocks of a larger set are counted in part.
_MOST_COUNTED_BLOCKS = 500


class PointClassifier(TorchModel):
    """A model that gives each point a class; a subclass has its constructor and ``build``."""

    kind: ClassVar[Literal["points"]] = "points"
    dataset_types = ("PointCloud",)
    keywords: ClassVar[tuple[str, ...]] = ("focal_loss", "class_weights", "encoder_params")
    norm_counts_items = False
    fit_keywords = ("iters_per_epoch",)

    _task: PointTask

    @property
    def task(self) -> PointTask:
        """What turns blocks into losses and classes."""
        return self._task

    def fit(  # type: ignore[override]  # the documented arguments; monitor is a keyword of them
        self,
        epochs: int = 10,
        lr: float | slice | None = None,
        one_cycle: bool = True,
        early_stopping: bool = False,
        checkpoint: bool | str = True,
        tensorboard: bool = False,
        **kwargs: Any,
    ) -> None:
        """Train; as :meth:`geodl.models.base.TorchModel.fit`.

        Parameters
        ----------
        epochs, lr, one_cycle, early_stopping, checkpoint, tensorboard
            As for all models.
        **kwargs
            ``monitor`` (``"valid_loss"``); ``iters_per_epoch``: batches of an epoch, in place of
            one pass over the training blocks.

        Raises
        ------
        OptionError, UnknownOptionError, TrainingError
            As for all models.
        """
        check_known(kwargs, (*self.fit_keywords, "monitor"), "fit()")
        super().fit(
            epochs, lr, one_cycle, early_stopping, checkpoint, tensorboard,
            kwargs.pop("monitor", "valid_loss"), **kwargs,
        )  # fmt: skip

    def compute_precision_recall(self) -> dict[str, dict[str, float]]:
        """Precision, recall and F1 on the validation set.

        Returns
        -------
        Class name to ``precision``, ``recall`` and ``f1``, 0..1.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        counts = self._validation_counts()
        rows = np.stack(precision_recall_f1(counts), axis=1).tolist()
        names = ("precision", "recall", "f1")
        return {
            name: dict(zip(names, row, strict=True))
            for name, row in zip(self.code_names(), rows, strict=True)
        }

    def code_names(self) -> list[str]:
        """Name of the class of each score; ``0`` for code 0."""
        own = dict(zip(self.contract.classes.values, self.contract.classes.names, strict=True))
        return [own.get(code, str(code)) for code in self.task.codes]

    def _validation_counts(self) -> np.ndarray:
        """int64 (K, K) over the points of the validation blocks, truth down."""
        meter = self._score().meter
        if not isinstance(meter, PointMeter):
            raise TypeError(f"{type(meter).__name__} counts no points")
        return meter.counts()

    def score_for_package(self) -> dict[str, Any]:
        counts = self._validation_counts()
        rows = precision_recall_f1(counts)
        table = {
            name: {"precision": float(p), "recall": float(r), "f1": float(f)}
            for name, p, r, f in zip(self.code_names(), *rows, strict=True)
        }
        return {
            "accuracy": f"{accuracy(counts):.4e}",
            "mIoU": mean_iou(counts),
            "per_class_metrics": json.dumps(table),
        }

    def predict_h5(
        self,
        path: str | os.PathLike[str],
        output_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Path:
        """Classify blocks of points in HDF5 files.

        Parameters
        ----------
        path
            A folder with ``ListTable.h5`` and ``Statistics.json``, as an export makes it; class
            codes are not needed.
        output_path
            Folder for the results; None is ``results`` inside ``path``.
        **kwargs
            ``batch_size`` (1): blocks at once.

        Returns
        -------
        The folder. For each block file ``<stem>_pred.h5`` with ``label_seg`` (n,) class codes,
        ``confidence`` (n,) float32 and ``per_class_confidence`` float32 (n + 1, K), whose first
        row holds the class codes.

        Raises
        ------
        FormatError
            A folder that is no such export.
        ModelDataError
            Blocks of another size, or without an attribute that the model takes.
        """
        from geodl.models.point_files import classify_h5

        check_known(kwargs, ("batch_size",), "predict_h5()")
        batch = as_int(kwargs.get("batch_size", 1), "batch_size", minimum=1)
        return classify_h5(
            self, Path(path), None if output_path is None else Path(output_path), batch
        )

    def predict_las(
        self,
        path: str | os.PathLike[str],
        output_path: str | os.PathLike[str] | None = None,
        print_metrics: bool = False,
        **kwargs: Any,
    ) -> Path:
        """Classify LAS or LAZ files; a short way to :func:`geodl.classify_points`.

        Parameters
        ----------
        path
            A file, or a folder of files.
        output_path
            The file to write, or a folder for several; None is ``results`` beside the file or
            inside the folder.
        print_metrics
            Print precision, recall and F1 against the classes that the files hold already, of
            points whose class is one that the model gives.
        **kwargs
            Further arguments of :func:`geodl.classify_points`: ``tile_size``, ``buffer``,
            ``classes``, ``confidence``, ``probabilities``, ``client``, ``progress``,
            ``overwrite``.

        Returns
        -------
        Where the results are.

        Raises
        ------
        As :func:`geodl.classify_points`.
        """
        from geodl.models.point_files import LAS_OPTIONS, classify_las

        check_known(kwargs, LAS_OPTIONS, "predict_las()")
        target = None if output_path is None else Path(output_path)
        metrics = as_bool(print_metrics, "print_metrics")
        return classify_las(self, Path(path), target, metrics, kwargs)

    def show_results(self, rows: int = 2, **kwargs: Any) -> Any:
        """Truth on the left and prediction on the right, for some validation blocks.

        Parameters
        ----------
        rows
            How many blocks.
        **kwargs
            ``color_mapping``: class code to red, green, blue of 0..255; ``mask_class``: codes to
            hide; ``width`` (750) and ``height`` (512) of the picture in pixels;
            ``max_display_point`` (20000): most points of a block that are drawn, kept for later
            calls.

        Returns
        -------
        A plotly Figure where plotly is installed, else one of matplotlib.
        """
        from geodl.models.point_pictures import MOST_SHOWN, picture_of, results_figure_3d

        data = self._need_data("show_results()")
        given = kwargs.get("max_display_point", getattr(self, "_most_shown", MOST_SHOWN))
        most = as_int(given, "max_display_point", minimum=1)
        picture = picture_of(kwargs, self.task.codes, most)
        self._most_shown = most
        count = as_int(rows, "rows", minimum=1)
        return results_figure_3d(self, data.valid_ds, count, picture)

    def results_picture(self, rows: int) -> ShownFigure:
        from geodl.models.point_pictures import results_image

        return results_image(self, rows)


def point_parameters(
    model_name: str, data: Any, given: Mapping[str, Any], own: Sequence[str]
) -> dict[str, Any]:
    """The options that all classifiers of points take, checked; plain values.

    Parameters
    ----------
    own
        Keywords of the model itself.

    Raises
    ------
    OptionError, UnknownOptionError, ModelDataError
        An option outside its domain, an unknown one, data of another kind.
    """
    check_known(given, ("focal_loss", "class_weights", *own), model_name)
    check_data_fits(data, model_name, "points", PointClassifier.dataset_types)
    return {
        "codes": list(data.codes),
        "focal_loss": as_bool(given.get("focal_loss", False), "focal_loss"),
        "class_weights": _class_weights(data, given.get("class_weights")),
        # Points lie on surfaces: as if evenly spread over the block.
        "spacing": 2 / math.sqrt(max(1, data.typical_points)),
    }


def _class_weights(data: Any, given: Any) -> list[float] | None:
    """One number per code, from None, ``"balanced"`` or a dict by class code."""
    if given is None:
        return None
    if given == "balanced":
        return balanced_weights(data)
    if not isinstance(given, Mapping):
        raise OptionError(
            f"class_weights={given!r}: give a dict of class code to weight, 'balanced' or None."
        )
    strange = [code for code in given if code not in data.codes]
    if strange:
        raise OptionError(
            f"class_weights names {strange[0]!r}; the class codes are {list(data.codes)}."
        )
    return [as_float(given.get(code, 1.0), "class_weights", minimum=0.0) for code in data.codes]


def balanced_weights(data: Any) -> list[float]:
    """Weights by the inverse square root of the points of a class; their mean is 1.

    The whole inverse lets rare classes win where they are not.
    """
    shift = 0 if 0 in data.codes else 1
    store = data.train_ds.store
    step = max(1, len(store) // _MOST_COUNTED_BLOCKS)
    counts = np.zeros(len(data.codes), np.int64)
    for i in range(0, len(store), step):
        target = store[i].target
        counts += np.bincount(target[target >= 0] - shift, minlength=len(counts))
    weights = 1 / np.sqrt(np.maximum(counts, 1))
    weights[counts == 0] = 1.0 if not counts.any() else weights[counts > 0].mean()
    return [float(w) for w in weights / weights.mean()]


def point_emd_keys(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Documented keys of the definition of a classifier of points."""
    return {"FocalLoss": parameters["focal_loss"], "excludedClasses": [], "blockShape": "square"}


def level_lists(given: Any, defaults: Mapping[str, Any], lists: Sequence[str]) -> dict[str, Any]:
    """``encoder_params`` over their defaults, the lists of one length.

    Raises
    ------
    OptionError, UnknownOptionError
        No dict, an unknown key, or lists of different lengths.
    """
    if given is None:
        return dict(defaults)
    if not isinstance(given, Mapping):
        raise OptionError(f"encoder_params={given!r} is no dict.")
    check_known(given, defaults, "encoder_params")
    merged = {**defaults, **given}
    lengths = {}
    for key in lists:
        if isinstance(merged[key], (str, bytes)) or not isinstance(merged[key], Sequence):
            raise OptionError(f"encoder_params: {key}={merged[key]!r} is no list.")
        lengths[key] = len(merged[key])
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        shown = ", ".join(f"{key} {n}" for key, n in lengths.items())
        raise OptionError(f"encoder_params: the lists must have one length, one or more; {shown}.")
    return merged
