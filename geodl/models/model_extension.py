"""ModelExtension: training, packages and tools for a network of the user's own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import nn

from geodl.base.errors import ModelDataError, OptionError
from geodl.base.options import as_bool
from geodl.bundle.code import (
    CLASS_KEY,
    CODE_KEY,
    SOURCE_NAME,
    known_class,
    register,
    source_bytes,
    trust,
)
from geodl.bundle.read import read_bundle
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.models.base import TorchModel
from geodl.tasks.base import Task
from geodl.tasks.extension import ExtensionData, ExtensionObjects, ExtensionPixels

_NEEDED = ("get_model", "on_batch_begin", "loss", "post_process")
_TASKS = {"objects": ExtensionObjects, "pixels": ExtensionPixels}


class ExtensionNet(nn.Module):
    """The user's network, with what training asks of every network."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    @property
    def backbone(self) -> nn.Module:
        """The part that freezes: the network's own ``backbone``, or nothing."""
        found = getattr(self.model, "backbone", None)
        return found if isinstance(found, nn.Module) else nn.Identity()

    def layer_groups(self) -> list[list[nn.Module]]:
        """All layers as one."""
        return [[self.model]]

    def forward(self, *inputs: Any) -> Any:
        return self.model(*inputs)


class ModelExtension(TorchModel):
    """A network of your own for detection, segmentation or edges.

    Parameters
    ----------
    data
        From ``prepare_data``: boxes, or classified tiles (of edges too).
    model_conf
        A class with

        - ``get_model(data, backbone=None, **kwargs)``: the torch network; ``data`` has
          ``classes``, ``c`` (with background), ``chip_size`` and ``bands``,
        - ``on_batch_begin(learn, model_input_batch, model_target_batch, **kwargs)``: a pair of what
          the network and what ``loss`` take; a list holds several arguments. Images are float32
          (B, C, H, W), normalised. Targets of segmentation are ``[int64 (B, 1, H, W)]``, of
          detection ``[boxes, labels]``, y0, x0, y1, x1 from -1 to 1 and 1..K, filled up with 0,
        - ``transform_input(xb)``, ``transform_input_multispectral(xb)``: what the network takes in
          inference, of 3 bands and of others,
        - ``loss(model_output, *model_target)``: a 0-d tensor,
        - ``post_process(pred, nms_overlap, thres, chip_size, device)`` of detection: one (boxes,
          labels, scores) per image, as the targets are; ``post_process(pred, thres)`` of
          segmentation: class masks (B, 1, H, W) or scores (B, K + 1, H, W).

        A package holds its source with the imports of its file; what else it uses must be
        imported inside.
    backbone
        Handed to ``get_model``; a name or other JSON value.
    pretrained_path
        A saved model to start from.
    **kwargs
        Handed to ``get_model``; JSON values.

    Raises
    ------
    OptionError
        A class without these methods, or one whose source cannot be had.
    ModelDataError
        Data of another kind.
    """

    kind: TaskKind = "objects"  # type: ignore[misc]  # of the data
    dataset_types = ("PASCAL_VOC_rectangles", "KITTI_rectangles", "Classified_Tiles")
    variable_tile: ClassVar[bool] = False

    def __init__(
        self,
        data: Any,
        model_conf: type,
        backbone: Any = None,
        pretrained_path: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> None:
        missing = [name for name in _NEEDED if not callable(getattr(model_conf, name, None))]
        if not isinstance(model_conf, type) or missing:
            raise OptionError(
                f"model_conf is a class with {', '.join(_NEEDED)}; {model_conf!r} lacks "
                f"{', '.join(missing) or 'being a class'}."
            )
        kind = getattr(data, "kind", None)
        if kind is not None and kind not in _TASKS:
            raise ModelDataError(
                f"ModelExtension trains on boxes or classified tiles; {data.dataset_type} holds "
                f"{kind}."
            )
        self.kind = kind or "objects"  # type: ignore[misc]
        parameters = {
            **register(model_conf), "kind": self.kind, "backbone": backbone, "arguments": kwargs,
        }  # fmt: skip
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
        configuration = known_class(str(parameters[CODE_KEY]))()
        kind = str(parameters["kind"])
        data = ExtensionData(tuple(classes.names), tuple(classes.values), tile_px, bands, kind)
        net = configuration.get_model(
            data, backbone=parameters.get("backbone"), **dict(parameters.get("arguments") or {})
        )
        if not isinstance(net, nn.Module):
            raise OptionError(f"get_model() gave {type(net).__name__}; expected a torch network.")
        task = _TASKS[kind](classes, configuration, data)
        return ExtensionNet(net), task, False

    @classmethod
    def emd_keys(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "ModelConfigurationFile": SOURCE_NAME,
            "ModelFileConfigurationClass": parameters[CLASS_KEY],
            "Kwargs": dict(parameters.get("arguments") or {}),
            "IsEdgeDetection": False,
        }

    def package_files(self) -> dict[str, bytes]:
        return {SOURCE_NAME: source_bytes(str(self._parameters[CODE_KEY]))}

    def _restore(self, bundle: Any, data: Any) -> None:
        self.kind = bundle.contract.kind  # type: ignore[misc]
        super()._restore(bundle, data)

    @classmethod
    def from_model(
        cls,
        emd_path: str | os.PathLike[str],
        data: Any = None,
        *,
        trust_code: bool = False,
    ) -> Self:
        """Open a saved model.

        Parameters
        ----------
        emd_path
            Path of an ``.emd``, a ``.dlpk`` or a saved folder.
        data
            For more training; None opens it for inference only.
        trust_code
            Run the Python source in the package. Without it only models whose class this process
            has made, or trusted before, are opened.

        Raises
        ------
        BundleError
            A package that is corrupt or foreign, or whose source is not trusted.
        ModelDataError
            Classes or bands of ``data`` differ from the model's.
        """
        if as_bool(trust_code, "trust_code"):
            bundle = read_bundle(emd_path, verify=False)
            bundle.require_class(cls.__name__)
            trust(bundle)
        return super().from_model(emd_path, data)
