"""PSETAE: time series of the pixels of a region, and its class."""

from __future__ import annotations

import datetime
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from geodl.base.errors import OptionError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization
from geodl.data.dataset import SeededItems
from geodl.data.figure import ShownFigure
from geodl.data.normalize import BandStatistics, RunningStatistics
from geodl.data.paired import loader_limit
from geodl.data.request import DataRequest
from geodl.data.sample_data import (
    SampleData,
    common_fields,
    named,
    one_folder,
    refuse_arguments,
    refuse_transforms,
)
from geodl.data.split import Split, random_split
from geodl.data.store import ChipStore, LoadedChip
from geodl.formats.base import ESRI_EMD
from geodl.formats.climate import variable_summary
from geodl.formats.image_sets import band_summaries, emd_classes
from geodl.formats.time_series import Region, SeriesLayout, open_series

_PIXELS = 64


@dataclass(kw_only=True, eq=False, repr=False)
class SeriesData(SampleData):
    """Time series of regions.

    Attributes
    ----------
    dates
        Of the time steps that items hold; ``days`` counts them from the first of the export.
    bands
        Of each time step in items; ``extract_bands`` are their 0-based numbers in the export.
    normalization
        For these bands, over all time steps.
    n_pixels
        Pixels of a region in an item.
    """

    dates: tuple[datetime.date, ...]
    days: tuple[int, ...]
    extract_bands: tuple[int, ...]
    timesteps: tuple[int, ...]
    normalization: Normalization
    n_pixels: int

    @property
    def bands(self) -> int:
        return len(self.extract_bands)

    def draw(self, rows: int) -> ShownFigure:
        from geodl.data.draw_series import draw_series

        return draw_series(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        return [
            ("dates", f"{len(self.dates)}, {self.dates[0]} to {self.dates[-1]}"),
            ("pixels", f"{self.n_pixels} of a region, {self.bands} bands"),
        ]


@dataclass(frozen=True, slots=True)
class RegionLoader:
    """Reads the pixels of a region for the store: (C, T, P), the steps and bands asked for."""

    layout: SeriesLayout
    timesteps: tuple[int, ...]
    channels: tuple[int, ...]
    index_by_value: dict[int, int]

    def __call__(self, region: Region) -> LoadedChip:
        pixels = self.layout.read(region)[np.ix_(self.channels, self.timesteps)]
        return LoadedChip(pixels, None, np.array(self.index_by_value[region.value], np.int64))


class SeriesDataset(SeededItems):
    """Regions of one set as items, see :class:`Psetae`.

    Parameters
    ----------
    draws
        Whether other pixels are drawn each time; else they follow from the region's name.
    """

    def __init__(
        self,
        store: ChipStore,
        positions: Sequence[int],
        normalization: Normalization,
        days: Sequence[int],
        pixels: int,
        *,
        draws: bool,
    ) -> None:
        self.store = store
        self.positions = tuple(positions)
        self.normalization = normalization
        self.days = tuple(days)
        self.pixels = pixels
        self.draws = draws

    def __len__(self) -> int:
        return len(self.positions)

    def _item(self, index: int) -> dict[str, Any]:
        region: Region = self.store.chips[self.positions[index]]
        chip = self.store[self.positions[index]]
        available = chip.data.shape[2]
        chosen = self._chosen(available, region.name)
        values = self.normalization.apply(chip.data[:, :, chosen])
        return {
            "pixels": torch.from_numpy(np.ascontiguousarray(values.transpose(1, 0, 2))),
            "valid": torch.arange(self.pixels) < available,
            "days": torch.tensor(self.days, dtype=torch.int64),
            "target": torch.tensor(int(chip.target)),
            "name": region.name,
        }

    def _chosen(self, available: int, name: str) -> np.ndarray:
        """Positions of the pixels; of a small region all of them, then some of them again."""
        if self.draws:
            order = torch.randperm(available).numpy()
        else:
            digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
            order = np.random.default_rng(int.from_bytes(digest, "big")).permutation(available)
        return np.resize(order, self.pixels)


class Psetae:
    """Time series of pixel sets.

    A sample is a region: the pixels of one class in one chip. Items: ``pixels`` float32
    (T, C, S), normalised by ``normalization``, S = ``n_pixels`` pixels of the region (drawn anew
    each time in training); ``valid`` bool (S,), False for pixels that are there a second time
    because the region is smaller; ``days`` int64 (T,), days since the first date of the export;
    ``target`` int64 (), network output 1..K; ``name``.

    ``kind`` is ``series``. Class values are the names of the folders of masks.
    """

    keywords = frozenset(
        {
            "n_temporal",
            "n_temporal_dates",
            "min_points",
            "timesteps_of_interest",
            "channels_of_interest",
            "num_workers",
        }
    )
    kind: ClassVar[str] = "series"

    def build(self, request: DataRequest) -> SeriesData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request, mapping=False)
        refuse_transforms(request)
        options = request.options
        layout = open_series(
            one_folder(request), options.get("n_temporal"), options.get("n_temporal_dates")
        )
        timesteps = _indices(options, "timesteps_of_interest", layout.steps)
        channels = _indices(options, "channels_of_interest", layout.bands)
        pixels = as_int(options.get("min_points") or _PIXELS, "min_points", minimum=1)
        if pixels % _PIXELS:
            raise OptionError(f"min_points={pixels} must be 64 or a multiple of it.")
        table = _table(layout, request)
        normalization = _normalization(layout, channels)
        split = _split(layout, request)
        days = [(layout.dates[t] - layout.dates[0]).days for t in timesteps]
        loader = RegionLoader(layout, timesteps, channels, table.index_by_value)
        store = ChipStore(layout.regions, loader, loader_limit(request))
        make = partial(SeriesDataset, store, normalization=normalization, days=days, pixels=pixels)
        train = make(split.train, draws=request.transforms is not False)
        valid = make(split.valid, draws=False)
        return SeriesData(
            **common_fields(request, train, valid, 64),
            kind=self.kind,
            class_table=table,
            split="random",
            unit="regions",
            count_classes=partial(_count, layout),
            dates=tuple(layout.dates[t] for t in timesteps),
            days=tuple(days),
            extract_bands=channels,
            timesteps=timesteps,
            normalization=normalization,
            n_pixels=pixels,
        )


def _count(layout: SeriesLayout) -> dict[int, int]:
    return dict(Counter(region.value for region in layout.regions))


def _indices(options: Any, name: str, count: int) -> tuple[int, ...]:
    """0-based positions from an option; all of them without it. Raises OptionError."""
    given = options.get(name)
    if given is None:
        return tuple(range(count))
    if isinstance(given, (str, bytes)) or not isinstance(given, (list, tuple)) or not given:
        raise OptionError(f"{name}={given!r} is no list of numbers, counted from 0.")
    found = tuple(as_int(one, name, minimum=0) for one in given)
    if max(found) >= count or len(set(found)) != len(found):
        raise OptionError(f"{name}={list(found)}: numbers must differ and lie in 0..{count - 1}.")
    if name.startswith("timesteps") and list(found) != sorted(found):
        raise OptionError(f"{name}={list(found)} must ascend.")
    return found


def _table(layout: SeriesLayout, request: DataRequest) -> ClassTable:
    """The classes of the folders; names and colours by the export where it has them."""
    values = sorted({region.value for region in layout.regions})
    listed = emd_classes(layout.emd, layout.path / ESRI_EMD)
    known = {entry.value: entry for entry in listed or ()}
    own = ClassTable.from_json(
        {"Value": v, "Name": known[v].name, "Color": known[v].color} if v in known else {"Value": v}
        for v in values
    )
    return named(own, request)


def _normalization(layout: SeriesLayout, channels: Sequence[int]) -> Normalization:
    """Statistics of each band over all dates: the export's, or of the regions' pixels."""
    where = f"{layout.path / ESRI_EMD}: AllTilesStats"
    listed = band_summaries(layout.emd.get("AllTilesStats"), layout.images.bands, where)
    if listed is not None:
        merged = [variable_summary(listed[band :: layout.bands]) for band in channels]
        found = [summary for summary in merged if summary is not None]
        return BandStatistics(
            minimum=tuple(s.minimum for s in found),
            maximum=tuple(s.maximum for s in found),
            mean=tuple(s.mean for s in found),
            std=tuple(s.std for s in found),
        ).normalization()
    running = RunningStatistics(len(channels))
    for region in layout.regions:
        running.add(layout.read(region)[list(channels)], None)
    result = running.result()
    if result is None:
        raise OptionError(
            f"The regions of {layout.path} hold no finite value in the channels chosen; choose "
            "others, or export the regions again."
        )
    return result.normalization()


def _split(layout: SeriesLayout, request: DataRequest) -> Split:
    """Whole chips validate; of a single chip, regions."""
    chips = sorted({region.chip for region in layout.regions})
    if len(chips) < 2:
        keys = [region.name for region in layout.regions]
        return random_split(keys, request.val_split_pct, request.seed)
    parts = random_split(chips, request.val_split_pct, request.seed)
    chosen = {chips[i] for i in parts.valid}
    inside = [region.chip in chosen for region in layout.regions]
    return Split(
        tuple(i for i, is_valid in enumerate(inside) if not is_valid),
        tuple(i for i, is_valid in enumerate(inside) if is_valid),
    )
