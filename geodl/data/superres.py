"""superres: images of low resolution and what they show in high resolution."""

from __future__ import annotations

from typing import Any, ClassVar

from geodl.base.errors import DataError, OptionError
from geodl.base.options import as_float
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization
from geodl.data.batch_size import typical_batch_size
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.paired import (
    PairedSample,
    StackLoader,
    ValidPixels,
    check_mergeable,
    paired_samples,
    parted_sets,
    set_normalization,
    split_samples,
    whole_side,
)
from geodl.data.paired_data import PairedData, image_facts
from geodl.data.request import DataRequest
from geodl.data.sample_data import common_fields, refuse_arguments
from geodl.formats.paired import superres_layout
from geodl.nets.resize import resize_image

DEFAULT_FACTOR = 4.0


class Shrunk:
    """``image`` made from the high-resolution image, which becomes ``image_b``."""

    def __init__(self, side_px: int) -> None:
        self.side_px = side_px

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        high = item.pop("image")
        return {"image": resize_image(high, (self.side_px, self.side_px)), "image_b": high, **item}


class Thinned:
    """``image`` back in its own resolution, after it was repeated to that of ``image_b``."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        step = self.factor
        return item | {"image": item["image"][:, ::step, ::step].contiguous()}


class SuperResolution:
    """Images of low and high resolution.

    Items: ``image`` float32 (C, s, s) and ``image_b`` float32 (C_b, S, S) with S = s times
    ``downsample_factor``, normalised by ``normalization`` and ``normalization_b``; ``valid`` bool
    (S, S); ``name``.

    An export with one raster is the high resolution; the low one is made of it when an item is
    read (area-weighted), so nothing is written. With ``images2`` (or an export that another
    reader has changed, see `superres_layout`) both are read, and the factor is that of the sizes.

    ``kind`` is ``superres``. The default augmentation flips and turns both images alike.
    """

    keywords = CHIP_KEYWORDS | {"downsample_factor"}
    kind: ClassVar[str] = "superres"

    def build(self, request: DataRequest) -> PairedData:
        """Open the folders and put the data object together. Raises as `prepare_data` does."""
        found = [superres_layout(path) for path in request.paths]
        layouts = [layout for layout, _ in found]
        check_mergeable(layouts)
        refuse_arguments(request, resize=found[0][1] is not None)
        samples = paired_samples(layouts, labelled=False)
        factor = found[0][1]
        if factor is None:
            return _from_one(samples, request)
        if len({one for _, one in found}) > 1:
            factors = ", ".join(str(one or "none of their own") for _, one in found)
            raise DataError(
                f"The folders cannot be merged: their factors differ ({factors}). Give folders "
                "of the same factor."
            )
        return _from_two(samples, int(factor), request)


def _from_one(samples: list[PairedSample], request: DataRequest) -> PairedData:
    factor = _asked(request, DEFAULT_FACTOR)
    if factor <= 1:
        raise OptionError(f"downsample_factor={factor:g} makes nothing smaller; give more than 1.")
    layout = samples[0].layout
    size = request.resize_to[::-1] if request.resize_to else layout.sets[0].size
    side = whole_side(size, request.dataset_type)
    low = int(side / factor)
    if low < 1:
        raise OptionError(
            f"downsample_factor={factor:g} leaves nothing of chips of {side} pixels; give less."
        )
    normalization, source = set_normalization(samples, 0, request)
    loader = StackLoader(ValidPixels(), resize_to=request.resize_to)
    facts = image_facts(layout, ("low", "high"), (normalization, normalization))
    for key in ("all_bands", "all_names", "all_dtypes"):
        facts[key] *= 2
    return _data(
        samples, request, loader, (normalization,), facts,
        side=round(low * factor), low=low, factor=factor, finish=Shrunk(low), source=source,
    )  # fmt: skip


def _from_two(samples: list[PairedSample], factor: int, request: DataRequest) -> PairedData:
    asked = _asked(request, float(factor))
    layout = samples[0].layout
    if asked != factor:
        raise OptionError(
            f"downsample_factor={asked:g}, but the chips of {layout.sets[1].folder} have {factor} "
            f"times the side of those of {layout.sets[0].folder}. Leave it out."
        )
    low = whole_side(layout.sets[0].size, request.dataset_type)
    found = [set_normalization(samples, i, request) for i in (0, 1)]
    parts = tuple(normalization for normalization, _ in found)
    facts = image_facts(layout, ("low", "high"), parts)
    source = ", ".join(dict.fromkeys(name for _, name in found))
    return _data(
        samples, request, StackLoader(ValidPixels(), factor=factor), parts, facts,
        side=low * factor, low=low, factor=float(factor), finish=Thinned(factor), source=source,
    )  # fmt: skip


def _data(
    samples: list[PairedSample],
    request: DataRequest,
    loader: StackLoader,
    parts: tuple[Normalization, ...],
    facts: dict[str, Any],
    *,
    side: int,
    low: int,
    factor: float,
    finish: Shrunk | Thinned,
    source: str,
) -> PairedData:
    split, split_name = split_samples(samples, request)
    train, valid = parted_sets(
        samples, split, loader, side_px=side, parts=parts, request=request,
        image_space=samples[0].layout.image_space, finish=finish,
    )  # fmt: skip
    bands = sum(part.bands for part in parts)
    return PairedData(
        **common_fields(request, train, valid, typical_batch_size(bands, side)),
        **facts,
        kind=SuperResolution.kind,
        class_table=ClassTable(()),
        split=split_name,
        statistics_name=source,
        chip_size=low,
        downsample_factor=factor,
        resize_to=request.resize_to,
    )


def _asked(request: DataRequest, default: float) -> float:
    given = request.options.get("downsample_factor", default)
    return as_float(given, "downsample_factor", minimum=1, maximum=1024)
