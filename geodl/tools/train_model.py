"""Training in one call: from folders of chips to a model package, in a catalog if one is given."""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from geodl.base.errors import NotSupportedError, OptionError, OutputExistsError
from geodl.base.models import MODELS
from geodl.base.options import (
    as_bool,
    as_float,
    as_int,
    as_mapping,
    check_choice,
    check_known,
    nearest,
)
from geodl.bundle.write import check_name
from geodl.data import DATASETS
from geodl.data.prepare import prepare_data
from geodl.infer.options import run_context
from geodl.nets.threads import torch_threads
from geodl.runtime.future import start
from geodl.tools.model_package import Model

# The documented model types by the class that trains them.
MODEL_TYPES: Mapping[str, str] = {
    "SSD": "SingleShotDetector",
    "UNET": "UnetClassifier",
    "FEATURE_CLASSIFIER": "FeatureClassifier",
    "PSPNET": "PSPNetClassifier",
    "RETINANET": "RetinaNet",
    "MASKRCNN": "MaskRCNN",
    "YOLOV3": "YOLOv3",
    "DeepLabV3": "DeepLab",
    "FASTERRCNN": "FasterRCNN",
    "BDCN_EDGEDETECTOR": "BDCNEdgeDetector",
    "HED_EDGEDETECTOR": "HEDEdgeDetector",
    "MULTITASK_ROADEXTRACTOR": "MultiTaskRoadExtractor",
    "CONNECTNET": "ConnectNet",
    "PIX2PIX": "Pix2Pix",
    "CYCLEGAN": "CycleGAN",
    "SUPERRESOLUTION": "SuperResolution",
    "CHANGEDETECTOR": "ChangeDetector",
    "IMAGECAPTIONER": "ImageCaptioner",
    "SIAMMASK": "SiamMask",
    "MMDETECTION": "MMDetection",
    "MMSEGMENTATION": "MMSegmentation",
    "DEEPSORT": "DeepSort",
    "PIX2PIXHD": "Pix2PixHD",
    "MAXDEEPLAB": "MaXDeepLab",
}
# Names that differ from ours; all others are written small.
_BACKBONES = {"MOBILENET_V2": "mobilenetv2_100", "DARKNET53": "timm:darknet53"}
_EPOCHS = 20
_CONTEXT = ("processorType", "parallelProcessingFactor")
# Keywords of fit and of prepare_data that model_arguments may hold; the others are arguments of
# their own.
_FIT = ("monitor", "one_cycle", "tensorboard")
_DATA = ("chip_size", "class_mapping", "resize_to", "transforms", "seed", "dataset_type")


def train_model(
    input_folder: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    model_type: str,
    model_arguments: Mapping[str, Any] | None = None,
    batch_size: int = 2,
    max_epochs: int | None = None,
    learning_rate: float | None = None,
    backbone_model: str | None = None,
    validation_percent: float | None = None,
    pretrained_model: Any = None,
    stop_training: bool = True,
    freeze_model: bool = True,
    overwrite_model: bool = False,
    output_name: str | os.PathLike[str] | None = None,
    context: Mapping[str, Any] | None = None,
    *,
    gis: Any = None,
    future: bool = False,
    **kwargs: Any,
) -> Any:
    """Train a model on exported chips and write its package.

    Parameters
    ----------
    input_folder
        A folder of ``export_training_data``, or a list of such of one format, band count and tile
        size.
    model_type
        ``"SSD"``, ``"UNET"``, ``"FEATURE_CLASSIFIER"``, ... or the name of a class of
        ``geodl.learn``.
    model_arguments
        Arguments of the model's class, of ``prepare_data`` (``chip_size``, ``class_mapping``,
        ``resize_to``, ``dataset_type``, ``seed``, ...) and of ``fit`` (``monitor``, ``one_cycle``,
        ``tensorboard``). Values may be texts.
    batch_size
        Chips in a batch.
    max_epochs
        Passes over the training set; None is 20.
    learning_rate
        0..1; None or 0 looks for one.
    backbone_model
        ``"RESNET34"`` and the like; None is the model's own default.
    validation_percent
        Share of the chips that validate, in per cent; None is 10.
    pretrained_model
        A package to start from: a path, a :class:`Model` or an item of a catalog.
    stop_training
        Stop once nothing improves.
    freeze_model
        Keep the weights of the backbone; False trains them too.
    overwrite_model
        Replace a package of that name.
    output_name
        A folder to write the package to; a bare name lies in the catalog, or else in ``models``
        below the first input folder. None names it after the model type and the time.
    context
        ``processorType`` and ``parallelProcessingFactor``.
    gis
        A :class:`geodl.Catalog` to publish the model in.
    future
        Return a future at once.

    Returns
    -------
    The item in the catalog, or the package's folder where no catalog is given.

    Raises
    ------
    NotSupportedError
        A model type that is not offered; names those that are.
    OptionError, UnknownOptionError
        An argument outside its domain, or an unknown one.
    OutputExistsError
        A package of that name is there.
    DataError, ModelDataError
        Chips that cannot be used, or do not fit the model.
    """
    check_known(kwargs, (), "train_model")
    call = _Call(
        model_class=_model_class(model_type),
        arguments={
            key: _value(value)
            for key, value in as_mapping(model_arguments, "model_arguments").items()
        },
        folders=input_folder,
    )
    call.check_arguments()
    if backbone_model is not None:
        call.arguments.setdefault("backbone", _backbone(backbone_model))
    options = {
        "epochs": _EPOCHS if max_epochs is None else as_int(max_epochs, "max_epochs", minimum=1),
        "lr": _rate(learning_rate),
        "early_stopping": as_bool(stop_training, "stop_training"),
    }
    share = 0.1
    if validation_percent is not None:
        share = as_float(validation_percent, "validation_percent", minimum=0, maximum=99) / 100
    size = as_int(batch_size, "batch_size", minimum=2)
    frozen = as_bool(freeze_model, "freeze_model")
    replace = as_bool(overwrite_model, "overwrite_model")
    pretrained = None if pretrained_model is None else _package_of(pretrained_model)
    threads = _threads(context)
    target = _target(output_name, model_type, gis, replace)

    def work() -> Any:
        with torch_threads(threads):
            model = call.model(size, share, pretrained)
            if not frozen:
                model.unfreeze()
            model.fit(**options, **call.fit_options())
        if gis is not None and isinstance(target, str):
            return gis.add(model, id=target, overwrite=replace)
        folder = model.save(target)
        return folder if gis is None else gis.add(folder, overwrite=replace)

    return start(lambda _: work()) if as_bool(future, "future") else work()


class _Call:
    """A model class with the arguments for it and its data."""

    def __init__(self, model_class: Any, arguments: dict[str, Any], folders: Any) -> None:
        self.model_class = model_class
        self.arguments = arguments
        self.folders = folders

    def check_arguments(self) -> None:
        """Refuse names that neither the class nor prepare_data takes."""
        own = [n for n in inspect.signature(self.model_class).parameters if n not in _NOT_OWN]
        known = [
            *own,
            *_DATA,
            *_FIT,
            *_keywords_of_data(),
            *getattr(self.model_class, "keywords", ()),
        ]
        check_known(self.arguments, known, f"model_arguments of {self.model_class.__name__}")

    def model(self, batch_size: int, share: float, pretrained: str | None) -> Any:
        names = (*_DATA, *_keywords_of_data(), *_FIT)
        data_options = {k: v for k, v in self.arguments.items() if k in names and k not in _FIT}
        options = {k: v for k, v in self.arguments.items() if k not in names}
        data = prepare_data(
            self.folders, batch_size=batch_size, val_split_pct=share, **data_options
        )
        if pretrained is not None:
            options["pretrained_path"] = pretrained
        return self.model_class(data, **options)

    def fit_options(self) -> dict[str, Any]:
        """Of the arguments those of training itself."""
        return {k: v for k, v in self.arguments.items() if k in _FIT}


_NOT_OWN = ("data", "args", "kwargs", "pretrained_path")


def _keywords_of_data() -> set[str]:
    """Further keywords of prepare_data, of whatever dataset type."""
    return {name for builder in DATASETS.values() for name in getattr(builder, "keywords", ())}


def _model_class(model_type: str) -> Any:
    """The class of a model type."""
    offered = {kind: name for kind, name in MODEL_TYPES.items() if name in MODELS}
    by_name = {name: name for name in MODELS}
    known = {kind.upper(): name for kind, name in {**by_name, **offered}.items()}
    found = known.get(str(model_type).upper())
    if found is not None:
        return MODELS[found]
    why = "is not offered yet" if model_type in MODEL_TYPES else "is no model type"
    raise NotSupportedError(
        f"model_type={model_type!r} {why}.{nearest(str(model_type), offered)} Choose one of: "
        f"{', '.join(offered)}."
    )


def _backbone(name: str) -> str:
    text = str(name).strip()
    if text.upper() in ("REID_V1", "REID_V2"):
        raise NotSupportedError(
            f"backbone_model={name!r} belongs to the tracker DeepSort, which has no backbone here."
        )
    return _BACKBONES.get(text.upper(), text.lower() if text.isupper() else text)


def _value(value: Any) -> Any:
    """A value, or what a text of it means: ``"[4, 2]"`` is a list, ``"resnet34"`` a text."""
    if not isinstance(value, str):
        return value
    text = {"true": "true", "false": "false", "none": "null"}.get(value.strip().lower(), value)
    try:
        return json.loads(text)
    except ValueError:
        return value


def _rate(value: float | None) -> float | None:
    if value is None:
        return None
    return as_float(value, "learning_rate", minimum=0, maximum=1) or None


def _package_of(model: Any) -> str:
    """Path of the package to start from."""
    given = model if isinstance(model, Model) else Model(model)
    return str(given.package_path)


def _threads(context: Mapping[str, Any] | None) -> int | None:
    check_known(context or {}, _CONTEXT, "context of train_model")
    where = run_context(context)
    if where.device is not None:
        there = "cuda" if torch.cuda.is_available() else "cpu"
        check_choice(where.device, (there,), "context processorType (cpu or cuda) on this machine")
    return where.threads


def _target(output_name: Any, model_type: str, gis: Any, replace: bool) -> Path | str:
    """Folder of the package, or its bare name."""
    stamp = time.strftime("%Y%m%d_%H%M%S")
    text = f"{model_type.lower()}_{stamp}" if output_name is None else os.fspath(output_name)
    path = Path(text).expanduser()
    if gis is not None and not hasattr(gis, "add"):
        raise OptionError(f"gis={gis!r}: give a catalog, gis=geodl.Catalog(folder).")
    if path.parent == Path(".") and not text.startswith("."):
        return check_name(path.name)
    if path.exists() and not replace:
        raise OutputExistsError(f"{path} exists already; pass overwrite_model=True to replace it.")
    return path
