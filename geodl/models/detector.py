"""What all object detectors share: average precision, boxes in an image file, drawing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from matplotlib.figure import Figure

from geodl.base.options import as_bool, as_int, as_path
from geodl.data.figure import show
from geodl.models.base import TorchModel
from geodl.models.detector_export import ExportsDetector
from geodl.models.image_detection import (
    ImageDetector,
    boxes_figure,
    documented_answer,
    trained_size,
)
from geodl.models.precision_scores import PrecisionScores
from geodl.tasks.objects import BoxMeter, ObjectTask, as_share


class DetectorModel(PrecisionScores, ExportsDetector, TorchModel):
    """A model that finds boxes; a subclass has its documented constructor and ``build``."""

    kind: ClassVar[Literal["objects"]] = "objects"
    dataset_types = (
        "PASCAL_VOC_rectangles",
        "KITTI_rectangles",
        "COCO_rectangles",
        "YOLO_rectangles",
    )

    _task: ObjectTask

    @property
    def task(self) -> ObjectTask:
        """What turns the network's outputs into losses, scores and boxes."""
        return self._task

    def average_precision_score(
        self,
        detect_thresh: float = 0.2,
        iou_thresh: float = 0.1,
        mean: bool = False,
        show_progress: bool = True,
    ) -> dict[str, float] | float:
        """Average precision on the validation set, as COCO defines it (101 recalls).

        Parameters
        ----------
        detect_thresh
            Detections with lower scores do not count, 0..1.
        iou_thresh
            Least overlap with a true box for a detection to be right, 0..1.
        mean
            False: a dict by class name; True: the mean over the classes that occur in the truth.
        show_progress
            Show a bar where the error stream is a terminal.

        Returns
        -------
        0..1; NaN for a class that the validation set has no object of.

        Raises
        ------
        ModelDataError
            The model was opened without data.
        """
        threshold = as_share(detect_thresh, "detect_thresh")
        task = type(self.task)(self.task.classes, **{**self.task.options, "threshold": threshold})
        meter = BoxMeter(len(task.classes), as_share(iou_thresh, "iou_thresh"))
        return self._precision(task, meter, mean, progress=as_bool(show_progress, "show_progress"))

    def predict(
        self,
        image_path: str | os.PathLike[str],
        threshold: float = 0.5,
        nms_overlap: float = 0.1,
        return_scores: bool = False,
        visualize: bool = False,
        resize: bool = False,
        batch_size: int = 1,
    ) -> tuple[list[Any], ...]:
        """Find objects in an image file.

        Parameters
        ----------
        image_path
            Any image that GDAL reads, with at least the bands the model takes.
        threshold
            Least score, 0..1.
        nms_overlap
            IoU of two boxes of a class above which the weaker is dropped, 0..1.
        return_scores
            Also return the scores.
        visualize
            Show the image with its boxes, in a notebook.
        resize
            Scale the whole image to the size the model was trained on; otherwise windows of that
            size slide over it.
        batch_size
            Windows at once.

        Returns
        -------
        ``(boxes, labels)`` or ``(boxes, labels, scores)``: boxes ``[xmin, ymin, width, height]``
        in pixels of the image (x right, y down), class names, scores of 0..1; best first.

        Raises
        ------
        SourceNotFoundError, FormatError
            No such file, or one that cannot be read.
        ModelDataError
            The image lacks bands that the model takes.
        """
        detector = ImageDetector(
            net=self.net.eval(),
            task=self.task,
            contract=self.contract,
            threshold=as_share(threshold, "threshold"),
            nms_overlap=as_share(nms_overlap, "nms_overlap"),
        )
        batch = as_int(batch_size, "batch_size", minimum=1)
        size = trained_size(self.data, self.contract) if as_bool(resize, "resize") else None
        picture, found = detector.in_file(image_path, size, batch)
        if as_bool(visualize, "visualize"):
            show(boxes_figure(picture, found, self.task, self.contract))
        scored = as_bool(return_scores, "return_scores")
        return documented_answer(found, self.contract, scored)

    def predict_video(
        self,
        input_video_path: str | os.PathLike[str],
        metadata_file: str | os.PathLike[str],
        threshold: float = 0.5,
        nms_overlap: float = 0.1,
        track: bool = False,
        visualize: bool = False,
        output_file_path: str | os.PathLike[str] | None = None,
        multiplex: bool = False,
        multiplex_file_path: str | os.PathLike[str] | None = None,
        tracker_options: Mapping[str, Any] = {
            "assignment_iou_thrd": 0.3,
            "vanish_frames": 40,
            "detect_frames": 10,
        },
        visual_options: Mapping[str, Any] = {
            "show_scores": True,
            "show_labels": True,
            "thickness": 2,
            "fontface": 0,
            "color": (255, 255, 255),
        },
        resize: bool = False,
    ) -> None:
        """Find objects in a video, frame by frame, in constant memory.

        Parameters
        ----------
        input_video_path
            Anything that OpenCV decodes.
        metadata_file
            ``.csv`` file that gets the column ``vmtilocaldataset``: a row for each frame, with
            ``number confidence topleft bottomright centre;`` of each object, its latest first. A
            file that is there keeps its columns and rows.
        threshold, nms_overlap
            As in :meth:`predict`.
        track
            Follow objects over the frames: each has its own number, and is reported once its
            track has begun. Otherwise numbers are those of classes.
        visualize
            Write a video with the detections drawn.
        output_file_path
            Of that video; None adds ``_prediction`` to the name of the input.
        multiplex
            Write the video with the detections, and what the csv file says of the platform, as a
            track of MISB KLV.
        multiplex_file_path
            Of that video; None adds ``_multiplex.MOV`` to the name of the input.
        tracker_options
            ``assignment_iou_thrd``: least overlap of a detection with a track's expected place;
            ``vanish_frames``: frames in a row without the object that end its track;
            ``detect_frames``: frames in a row with it that begin one.
        visual_options
            ``show_scores``, ``show_labels``, ``thickness``, ``fontface`` (one of OpenCV's), and
            ``color`` as blue, green, red.
        resize
            Scale whole frames to the size the model was trained on; otherwise windows of that
            size slide over them.

        Raises
        ------
        SourceNotFoundError, SourceError
            No such video, or one that cannot be decoded.
        ModelDataError
            The model takes other bands than red, green and blue.
        OptionError, UnknownOptionError
            An argument outside its domain, or an unknown one.
        MissingPackageError
            OpenCV is not installed.
        """
        from geodl.models import video

        video.check_rgb(self.contract)
        tracker = video.tracker_options(tracker_options)
        table, drawn, multiplexed = video.video_paths(
            input_video_path, metadata_file, output_file_path, multiplex_file_path
        )
        size = trained_size(self.data, self.contract) if as_bool(resize, "resize") else None
        detector = ImageDetector(
            net=self.net.eval(),
            task=self.task,
            contract=self.contract,
            threshold=as_share(threshold, "threshold"),
            nms_overlap=as_share(nms_overlap, "nms_overlap"),
        )
        video.VideoRun(
            detector=detector,
            source=as_path(input_video_path, "input_video_path"),
            metadata=table,
            size_yx=size,
            tracker=tracker if as_bool(track, "track") else None,
            visual=video.visual_options(visual_options),
            drawn=drawn if as_bool(visualize, "visualize") else None,
            multiplexed=multiplexed if as_bool(multiplex, "multiplex") else None,
        ).run()

    def show_results(  # type: ignore[override]  # the documented arguments, by name
        self, rows: int = 5, thresh: float = 0.5, nms_overlap: float = 0.1
    ) -> Figure:
        """Truth on the left and detections on the right, for some validation chips.

        Parameters
        ----------
        rows
            How many chips.
        thresh
            Least score of the detections drawn.
        nms_overlap
            IoU of two boxes of a class above which the weaker is dropped.
        """
        return super().show_results(rows, thresh=thresh, nms_overlap=nms_overlap)
