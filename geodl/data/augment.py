"""Augmentation of overhead imagery: `torchvision.transforms.v2` on any number of bands.

A sample on its way through the transforms is a dict of tv_tensors that are moved together:
``image`` (Image, float32 (C, H, W)), ``valid`` (Mask, bool (H, W), False outside the data), and
what the dataset type adds: ``boxes`` (BoundingBoxes, XYXY) with ``labels``, or ``classes`` (Mask).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from geodl.base.errors import OptionError

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]

# Side of the ground that fills a training chip, as a share of the chip's own side.
ZOOM_RANGE = (0.8, 1.25)
ZOOM_SHARE = 0.75
# In standard deviations of the band, and as a factor around its mean: differences of light and
# season between scenes, not of kind.
BRIGHTNESS = 0.3
CONTRAST = 0.15


class RandomRightAngle(v2.Transform):
    """Turn by 0, 90, 180 or 270 degrees with equal chance; exact, no pixel is resampled."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"turns": int(torch.randint(4, ()))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        turns = params["turns"]
        if turns and isinstance(inpt, tv_tensors.BoundingBoxes):
            return _turn_boxes(inpt, turns)
        if not turns or not isinstance(inpt, (tv_tensors.Image, tv_tensors.Mask)):
            return inpt
        return tv_tensors.wrap(torch.rot90(inpt.as_subclass(Tensor), turns, (-2, -1)), like=inpt)


def _turn_boxes(boxes: tv_tensors.BoundingBoxes, turns: int) -> tv_tensors.BoundingBoxes:
    """Anticlockwise quarter turns, as `torch.rot90` does to the pixels."""
    height, width = boxes.canvas_size
    x0, y0, x1, y1 = boxes.as_subclass(Tensor).unbind(-1)
    for _ in range(turns):
        x0, y0, x1, y1 = y0, width - x1, y1, width - x0
        height, width = width, height
    turned = torch.stack((x0, y0, x1, y1), dim=-1)
    return tv_tensors.BoundingBoxes(turned, format="XYXY", canvas_size=(height, width))


class RandomLight(v2.Transform):
    """Brightness and contrast of normalised images, the same for all bands.

    Parameters
    ----------
    brightness
        Largest shift, in standard deviations.
    contrast
        Largest relative change of the distance from the mean.
    p
        Share of samples that change.
    """

    def __init__(
        self, brightness: float = BRIGHTNESS, contrast: float = CONTRAST, p: float = 0.75
    ) -> None:
        super().__init__()
        self.brightness, self.contrast, self.p = brightness, contrast, p

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        chance, shift, factor = torch.rand(3).tolist()
        if chance >= self.p:
            return {"shift": 0.0, "factor": 1.0}
        return {
            "shift": (2 * shift - 1) * self.brightness,
            "factor": 1 + (2 * factor - 1) * self.contrast,
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Image):
            return inpt
        changed = inpt.as_subclass(Tensor) * params["factor"] + params["shift"]
        return tv_tensors.wrap(changed, like=inpt)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """What happens to the chips of one set.

    Parameters
    ----------
    crop
        ``random`` draws the window that becomes the item from chips larger than it, ``centre``
        takes the middle one.
    zoom
        Least and largest side of that window as a share of the item's side; (1, 1) never resizes.
    transform
        Applied to the cropped sample, or None.
    scaled
        The transform takes images as 0..1 over the band's range instead of normalised ones.
    """

    crop: str = "centre"
    zoom: tuple[float, float] = (1.0, 1.0)
    transform: Transform | None = None
    scaled: bool = False


def default_moves(image_space: str) -> list[v2.Transform]:
    """Flips and right-angle turns, which change no pixel.

    Only in map space has the scene no upright direction; elsewhere (oblique and street-level
    images) chips are mirrored left to right but neither turned nor put upside down.
    """
    moves: list[v2.Transform] = [v2.RandomHorizontalFlip(0.5)]
    if image_space == "MAP_SPACE":
        moves += [v2.RandomVerticalFlip(0.5), RandomRightAngle()]
    return moves


def default_augmentation(image_space: str) -> Augmentation:
    """Moves as :func:`default_moves`, zoom, brightness and contrast."""
    return Augmentation(
        "random", ZOOM_RANGE, v2.Compose([*default_moves(image_space), RandomLight()])
    )


def augmentations(transforms: Any, image_space: str) -> tuple[Augmentation, Augmentation]:
    """The two augmentations (training, validation) that the ``transforms`` argument asks for.

    Parameters
    ----------
    transforms
        None or True: the defaults. False: none. A callable or list of callables: applied to
        training samples. A pair of these: for training and for validation.
    image_space
        ``MAP_SPACE``, ``IMAGE_SPACE`` or ``PIXEL_SPACE``.

    Raises
    ------
    OptionError
        Anything else.
    """
    if transforms is None or transforms is True:
        return default_augmentation(image_space), Augmentation()
    if transforms is False:
        return Augmentation(), Augmentation()
    train, valid = transforms if _is_pair(transforms) else (transforms, None)
    return _own(train, "random"), _own(valid, "centre")


def _is_pair(transforms: Any) -> bool:
    return isinstance(transforms, tuple) and len(transforms) == 2


def _own(transform: Any, crop: str) -> Augmentation:
    if transform is None or transform is False:
        return Augmentation(crop)
    steps = list(transform) if isinstance(transform, Sequence) else [transform]
    if not all(callable(step) for step in steps):
        raise OptionError(
            f"transforms={transform!r} cannot be called. Give a pair (training, validation) of "
            "transforms from torchvision.transforms.v2, lists of them, or None for one that does "
            "nothing; True for the defaults, False for none."
        )
    if not steps:
        return Augmentation(crop)
    single = steps[0] if len(steps) == 1 else v2.Compose(steps)
    return Augmentation(crop, transform=single, scaled=True)
