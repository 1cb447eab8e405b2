"""Pictures of what models of points do."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from geodl.base.errors import DataWarning, OptionError
from geodl.base.options import as_int, check_known
from geodl.data.draw_points import PointPicture, draw_items, with_matplotlib
from geodl.data.figure import ShownFigure
from geodl.data.point_classes import as_codes
from geodl.train.device import net_device, to_device

if TYPE_CHECKING:
    from geodl.models.base import TorchModel

MOST_SHOWN = 20_000


def picture_of(given: Mapping[str, Any], codes: Sequence[int], most_points: int) -> PointPicture:
    """The documented keywords of ``show_results`` in 3D.

    Raises
    ------
    OptionError, UnknownOptionError
        An unknown keyword, no colour, or a code that the model has not.
    """
    check_known(
        given, ("color_mapping", "mask_class", "width", "height", "max_display_point"),
        "show_results()",
    )  # fmt: skip
    hidden = as_codes(given.get("mask_class"), "mask_class")
    colours = _colours(given.get("color_mapping") or {})
    for name, listed in (("mask_class", hidden), ("color_mapping", tuple(colours))):
        strange = [code for code in listed if code not in codes]
        if strange:
            raise OptionError(f"{name} names {strange[0]}; the class codes are {list(codes)}.")
    return PointPicture(
        colours=colours,
        hidden=hidden,
        width=as_int(given.get("width", 750), "width", minimum=50),
        height=as_int(given.get("height", 512), "height", minimum=50),
        most_points=most_points,
    )


def _colours(given: Any) -> dict[int, tuple[int, int, int]]:
    if not isinstance(given, Mapping):
        raise OptionError(f"color_mapping={given!r} is no dict of class code to colour.")
    found = {}
    for code, colour in given.items():
        parts = np.ravel(colour).tolist() if isinstance(colour, (list, tuple, np.ndarray)) else []
        if len(parts) != 3 or not all(isinstance(p, int) and 0 <= p <= 255 for p in parts):
            raise OptionError(f"color_mapping: {colour!r} is no red, green, blue of 0..255.")
        found[as_int(code, "color_mapping")] = (parts[0], parts[1], parts[2])
    return found


def result_items(
    model: TorchModel, dataset: Any, rows: int, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Truth and prediction of blocks, one after the other, as items."""
    task = model.task
    model.net.eval()
    found = []
    for i in range(min(rows, len(dataset))):
        item = dataset[i]
        batch = to_device(task.collate([item]), net_device(model.net))
        prediction = task.predict(model.net, batch, **options)[0]
        found.append({**item, "name": f"{item['name']}: truth"})
        found.append({**item, "name": f"{item['name']}: prediction", "target": _target(prediction)})
    return found


def _target(prediction: Any) -> Any:
    """A prediction in the form of a target: indices of points, or boxes with labels."""
    if isinstance(prediction, np.ndarray):
        return torch.from_numpy(prediction)
    return {
        "boxes": torch.as_tensor(prediction.boxes),
        "labels": torch.as_tensor(prediction.labels),
    }


def results_figure_3d(
    model: TorchModel,
    dataset: Any,
    rows: int,
    picture: PointPicture,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """Truth on the left and prediction on the right; plotly where it is installed."""
    items = result_items(model, dataset, rows, options or {})
    largest = max((len(item["points"]) for item in items), default=0)
    if largest > picture.most_points:
        warnings.warn(
            f"A block has {largest} points; {picture.most_points} of them, drawn by chance, are "
            "shown. Give max_display_point to show more.",
            DataWarning,
            stacklevel=3,
        )
    return draw_items(items, model.contract.classes, picture)


def results_image(model: TorchModel, rows: int) -> ShownFigure:
    """The same for a package, by matplotlib."""
    items = result_items(model, model.data.valid_ds, rows, {})
    return with_matplotlib(items, model.contract.classes, PointPicture(most_points=4000))
