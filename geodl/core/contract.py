"""What a trained model demands of its input and promises of its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from geodl.base.errors import BundleError
from geodl.core.classes import ClassTable
from geodl.core.points import PointInput

TaskKind = Literal["objects", "pixels", "instances", "tiles", "panoptic", "points", "boxes3d"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Label of pixels that take no part in loss or metrics: outside the image's mask, or of ignored
# classes. PyTorch's own default.
IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """Per band: ``((x - minimum) / (maximum - minimum) - scaled_mean) / scaled_std``.

    Plain 8-bit RGB is minimum 0, maximum 255 and the ImageNet mean and deviation.
    All tuples have one number per band of the network's input.
    """

    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    scaled_mean: tuple[float, ...]
    scaled_std: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(v) for v in (self.minimum, self.maximum, self.scaled_mean, self.scaled_std)}
        if len(lengths) != 1:
            raise BundleError(f"normalisation lists have different lengths: {sorted(lengths)}")
        if any(high <= low for low, high in zip(self.minimum, self.maximum, strict=True)):
            raise BundleError("normalisation: a band's maximum is not above its minimum")
        if any(std <= 0 for std in self.scaled_std):
            raise BundleError("normalisation: a band's standard deviation is not above 0")

    @classmethod
    def imagenet(cls) -> Normalization:
        return cls(
            minimum=(0.0,) * 3,
            maximum=(255.0,) * 3,
            scaled_mean=IMAGENET_MEAN,
            scaled_std=IMAGENET_STD,
        )

    @property
    def bands(self) -> int:
        return len(self.minimum)

    def scale_offset(self) -> tuple[np.ndarray, np.ndarray]:
        """float32 (C, 1, 1) each, so that the normalised value is ``x * scale + offset``."""
        low, high = np.asarray(self.minimum, np.float64), np.asarray(self.maximum, np.float64)
        mean, std = np.asarray(self.scaled_mean), np.asarray(self.scaled_std)
        scale = 1.0 / ((high - low) * std)
        offset = -(low / (high - low) + mean) / std
        shape = (-1, 1, 1)
        return (
            scale.reshape(shape).astype(np.float32),
            offset.reshape(shape).astype(np.float32),
        )

    def apply(self, data: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
        """Normalise pixels.

        Parameters
        ----------
        data
            (C, H, W), any numeric dtype.
        mask
            bool (H, W), True where there is data. Elsewhere the raw value 0 is taken, as in
            training; NaN counts as 0 too.

        Returns
        -------
        float32 (C, H, W)
        """
        scale, offset = self.scale_offset()
        if np.issubdtype(data.dtype, np.integer):
            values = data.astype(np.float32)
        else:
            # A nodata value of -1.8e308 becomes infinite here, and then 0 like the rest.
            with np.errstate(over="ignore"):
                values = data.astype(np.float32)
            np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        if mask is not None and not mask.all():
            values *= mask
        values *= scale
        values += offset
        return values

    def invert(self, data: np.ndarray) -> np.ndarray:
        """float32 (C, H, W) raw values of normalised ones."""
        scale, offset = self.scale_offset()
        values: np.ndarray = (data - offset) / scale
        return values

    def to_json(self) -> dict[str, list[float]]:
        return {
            "minimum": list(self.minimum),
            "maximum": list(self.maximum),
            "scaled_mean": list(self.scaled_mean),
            "scaled_std": list(self.scaled_std),
        }

    @classmethod
    def from_json(cls, value: dict[str, list[float]]) -> Normalization:
        return cls(**{key: tuple(map(float, numbers)) for key, numbers in value.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipCut:
    """How chips around features were cut for a model that classifies whole chips.

    Parameters
    ----------
    size_yx
        Height and width of fixed chips in pixels of the raster; also where a feature has no
        extent.
    fixed
        Chips of ``size_yx`` centred on the feature; False cuts the feature's bounds.
    blacken
        Whether pixels outside the feature were 0.
    buffer_radius
        By which points and lines were widened, in units of the raster's CRS; None: not.
    """

    size_yx: tuple[int, int]
    fixed: bool = True
    blacken: bool = False
    buffer_radius: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContract:
    """The part of a model package that inference needs, without the network.

    Parameters
    ----------
    model_name
        Class name in ``geodl.learn``.
    kind
        What the network's outputs are: ``objects`` (boxes), ``pixels`` (class scores), ``tiles``
        (classes of the whole image) and so on.
    classes
        In network order; output 0 is background, but of ``tiles``, which have none.
    extract_bands
        0-based bands of the source that the network takes, in its order.
    source_bands
        Bands that a source has at least; their names are in ``band_names`` (may be empty).
    tile_px
        Side of the square tile the model was trained on.
    normalization
        For the extracted bands.
    cell_size
        Least and largest cell size of the training data in metres on the ground, or None.
    image_space
        ``MAP_SPACE``, ``IMAGE_SPACE`` or ``PIXEL_SPACE``.
    variable_tile
        Whether other tile sizes than ``tile_px`` may be run.
    pixel_scale
        Pixels of the network per pixel of the training raster: below 1 where chips were reduced
        with ``resize_to``. Rasters are resampled alike.
    points
        Of a model of point clouds: its blocks. Such a model takes no bands of rasters, and its
        ``tile_px`` has no meaning.
    chip
        How chips are cut around features, where the model classifies chips as a whole. They are
        then resized to ``tile_px``.
    arguments
        Defaults of ``model_arguments`` that the package itself states, by name.
    """

    model_name: str
    kind: TaskKind
    classes: ClassTable
    extract_bands: tuple[int, ...]
    band_names: tuple[str, ...]
    source_bands: int
    tile_px: int
    normalization: Normalization
    dtype: str = "uint8"
    cell_size: tuple[float, float] | None = None
    image_space: str = "MAP_SPACE"
    variable_tile: bool = True
    pixel_scale: float = 1.0
    points: PointInput | None = None
    chip: ChipCut | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.extract_bands) != self.normalization.bands:
            raise BundleError(
                f"the model takes {len(self.extract_bands)} bands but has statistics for "
                f"{self.normalization.bands}"
            )

    @property
    def inputs(self) -> int:
        """Bands, or columns of the points, that the network takes."""
        return len(self.extract_bands) if self.points is None else self.points.columns

    def input_text(self) -> str:
        """What the network takes, in words."""
        if self.points is None:
            return f"{self.inputs} bands, {self.tile_px} x {self.tile_px} px"
        names = ", ".join(("x", "y", "z", *(feature.name for feature in self.points.features)))
        most, size = self.points.max_points, self.points.block_size
        return f"{names} of blocks of {size:g} units with {most} points or less"

    def describe(self) -> dict[str, Any]:
        """JSON for the manifest and for ``geodl model info``."""
        return {
            "model_name": self.model_name,
            "kind": self.kind,
            "classes": self.classes.to_json(),
            "extract_bands": list(self.extract_bands),
            "band_names": list(self.band_names),
            "tile_px": self.tile_px,
            "cell_size": list(self.cell_size) if self.cell_size else None,
            **({"points": self.points.to_json()} if self.points else {}),
        }
