"""ImageCaptioning: images and sentences that describe them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.utils.data import Dataset

from geodl.base.errors import DataWarning
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization
from geodl.data.batch_size import typical_batch_size
from geodl.data.builder import item_side
from geodl.data.figure import ShownFigure
from geodl.data.keywords import CHIP_KEYWORDS
from geodl.data.paired import (
    PairedSample,
    PartedDataset,
    StackLoader,
    ValidPixels,
    parted_sets,
    set_normalization,
    split_samples,
)
from geodl.data.request import DataRequest
from geodl.data.sample_data import SampleData, common_fields, one_folder, refuse_arguments
from geodl.formats.captions import open_captions
from geodl.formats.image_sets import ImageSet
from geodl.formats.paired import PairedLayout


@dataclass(kw_only=True, eq=False, repr=False)
class CaptionData(SampleData):
    """Images with captions.

    Attributes
    ----------
    bands, band_names, dtype
        Of the images.
    normalization, statistics_name
        For these bands, and where it comes from.
    chip_size
        Side of the square items in pixels.
    sentences
        Captions over both sets.
    """

    bands: int
    band_names: tuple[str, ...]
    dtype: str
    normalization: Normalization
    statistics_name: str
    chip_size: int
    image_space: str
    sentences: int

    @property
    def extract_bands(self) -> tuple[int, ...]:
        """0-based bands of the source that items hold: all of them."""
        return tuple(range(self.bands))

    def draw(self, rows: int) -> ShownFigure:
        from geodl.data.draw_samples import draw_captions

        return draw_captions(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("images", f"{self.bands} x {self.dtype}, {self.chip_size} x {self.chip_size} px, "
                       f"normalised by {self.statistics_name}"),
            ("captions", str(self.sentences)),
        ]  # fmt: skip


class CaptionDataset(Dataset[dict[str, Any]]):
    """Images of one set with their sentences, see :class:`ImageCaptioning`."""

    def __init__(
        self, images: PartedDataset, captions: Sequence[tuple[str, ...]], *, draws: bool
    ) -> None:
        self.images = images
        self.captions = tuple(captions)
        self.draws = draws

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, seed = index if isinstance(index, tuple) else (int(index), None)
        item = self.images[index]
        sentences = self.captions[position]
        chosen = 0
        if self.draws:
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            chosen = int(torch.randint(len(sentences), (), generator=generator))
        return {
            "image": item["image"],
            "caption": sentences[chosen],
            "captions": sentences,
            "name": item["name"],
        }


class ImageCaptioning:
    """Images with one or more sentences each.

    Items: ``image`` float32 (C, side, side), normalised by ``normalization``; ``caption``, one
    sentence, drawn by chance in training and the first in validation; ``captions``, all of them;
    ``name``. Blanks in sentences are single, letters as they were.

    ``kind`` is ``captions``. The default augmentation flips and turns, so that sentences stay
    true unless they tell left from right.
    """

    keywords = CHIP_KEYWORDS
    kind: ClassVar[str] = "captions"

    def build(self, request: DataRequest) -> CaptionData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request)
        layout = open_captions(one_folder(request))
        silent = len(layout.images.files) - len(layout.captions)
        if silent:
            warnings.warn(
                f"{silent} of {len(layout.images.files)} images of {layout.path} have no caption "
                "and are left out.",
                DataWarning,
                stacklevel=3,
            )
        samples = _samples(layout.images, tuple(layout.captions), layout.path, layout.image_space)
        split, split_name = split_samples(samples, request)
        normalization, source = set_normalization(samples, 0, request)
        side = item_side(layout.images.size, request)
        train, valid = parted_sets(
            samples,
            split,
            StackLoader(ValidPixels(), any_size=True),
            side_px=side,
            parts=(normalization,),
            request=request,
            image_space=layout.image_space,
        )
        texts = [layout.captions[sample.name] for sample in samples]
        draws = request.transforms is not False
        train_ds = CaptionDataset(train, [texts[i] for i in split.train], draws=draws)
        valid_ds = CaptionDataset(valid, [texts[i] for i in split.valid], draws=False)
        images = layout.images
        return CaptionData(
            **common_fields(request, train_ds, valid_ds, typical_batch_size(images.bands, side)),
            kind=self.kind,
            class_table=ClassTable(()),
            split=split_name,
            bands=images.bands,
            band_names=images.band_names,
            dtype=images.dtype,
            normalization=normalization,
            statistics_name=source,
            chip_size=side,
            image_space=layout.image_space,
            sentences=sum(map(len, texts)),
        )


def _samples(
    images: ImageSet, names: tuple[str, ...], path: Any, image_space: str
) -> list[PairedSample]:
    layout = PairedLayout(path=path, sets=(images,), names=names, image_space=image_space)
    return [PairedSample(name, layout, name) for name in sorted(names)]
