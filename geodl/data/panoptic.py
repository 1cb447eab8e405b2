"""Classes of all pixels and objects among them: Panoptic_Segmentation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from geodl.base.errors import FormatError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import TaskKind
from geodl.core.grid import Window
from geodl.data.builder import ChipBuilder
from geodl.data.chips import ChipData
from geodl.data.instances import InstanceTargets
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.request import DataRequest
from geodl.data.targets import MaskTargets, TargetKind
from geodl.formats import open_export
from geodl.formats.panoptic import instance_classes

DEFAULT_MASKS = 30


@dataclass(kw_only=True, eq=False, repr=False)
class PanopticData(ChipData):
    """Chips with classes and objects.

    Attributes
    ----------
    n_masks
        Most masks that a network gives for a chip: its objects and the classes of the rest.
    instance_values
        Class values whose objects are told apart.
    """

    n_masks: int = DEFAULT_MASKS
    instance_values: tuple[int, ...] = ()


class PanopticSegmentation(ChipBuilder):
    """Chips whose labels are a class raster and masks of objects.

    An item's ``target`` is ``{"classes": int64 (H, W) 0..K or IGNORE_INDEX, "masks": bool
    (N, H, W), "boxes": float32 (N, 4), "labels": int64 (N,) 1..K}``. ``n_masks`` (30) must hold
    the objects and the other classes of every chip.
    """

    kind: ClassVar[TaskKind] = "panoptic"
    keywords = CHIP_KEYWORDS | {"stratify", "n_masks"}

    def __init__(self) -> None:
        self._n_masks = DEFAULT_MASKS

    def target_kind(self, classes: ClassTable) -> TargetKind:
        return PanopticTargets(classes, self._n_masks)

    def build(self, request: DataRequest) -> PanopticData:
        self._n_masks = as_int(request.options.get("n_masks", DEFAULT_MASKS), "n_masks", minimum=1)
        data = super().build(request)
        values = {v for p in request.paths for v in _instance_values(p, request)}
        known = {f.name: getattr(data, f.name) for f in fields(ChipData)}
        return PanopticData(**known, n_masks=self._n_masks, instance_values=tuple(sorted(values)))


def _instance_values(path: Any, request: DataRequest) -> list[int]:
    return instance_classes(open_export(path, request.dataset_type)).values


class PanopticTargets:
    """Encoded as those of class masks and of instances together."""

    def __init__(self, classes: ClassTable, n_masks: int) -> None:
        self.classes = MaskTargets(classes)
        self.instances = InstanceTargets(classes)
        self.n_masks = n_masks

    def encode(self, label: Any, shape_yx: tuple[int, int], where: str) -> Any:
        classes = self.classes.encode(label, shape_yx, where)
        bits, labels, size = self.instances.encode(label.instances, shape_yx, where)
        rest = set(label.values.ravel().tolist()) - {0, *label.instances.values.tolist()}
        needed = len(labels) + len(rest)
        if needed > self.n_masks:
            raise FormatError(
                f"{where} holds {len(labels)} objects and {len(rest)} other classes, and "
                f"n_masks is {self.n_masks}; pass n_masks={needed} or more."
            )
        return classes, bits, labels, size

    def resized(self, encoded: Any, scale_yx: tuple[float, float]) -> Any:
        classes, *instances = encoded
        return (
            self.classes.resized(classes, scale_yx),
            *self.instances.resized(tuple(instances), scale_yx),
        )

    def cut(self, encoded: Any, window: Window, side_px: int, visible: float) -> dict[str, Any]:
        classes, *instances = encoded
        # An object that is cut still fills pixels of its class, so the least share is 0.
        return self.classes.cut(classes, window, side_px, visible) | self.instances.cut(
            tuple(instances), window, side_px, 0.0
        )

    def target(self, sample: dict[str, Any], valid: Tensor | None) -> dict[str, Tensor]:
        found = self.instances.target(sample, valid)
        return {"classes": self.classes.target(sample, valid), **found}
