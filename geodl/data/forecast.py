"""ClimaX: variables now, and the same variables some steps ahead."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.utils.data import Dataset

from geodl.base.errors import DataError
from geodl.base.options import as_int
from geodl.core.classes import ClassTable
from geodl.core.contract import Normalization
from geodl.data.batch_size import typical_batch_size
from geodl.data.figure import ShownFigure
from geodl.data.normalize import BandStatistics, compute_statistics
from geodl.data.paired import loader_limit
from geodl.data.request import DataRequest
from geodl.data.sample_data import (
    SampleData,
    common_fields,
    one_folder,
    refuse_arguments,
    refuse_transforms,
)
from geodl.data.store import ChipStore, LoadedChip
from geodl.formats.climate import ClimateLayout, open_climate, variable_summary

# Hours are given to the network in hundreds, as the ClimaX paper does
# (Nguyen et al., 2023, arXiv:2301.10343).
LEAD_UNIT_H = 100.0


@dataclass(kw_only=True, eq=False, repr=False)
class ForecastData(SampleData):
    """Series of fields.

    Attributes
    ----------
    variables
        Their names, in the order of the items' channels.
    dates
        Of the time steps.
    forecast_timesteps, hrs_each_step
        How many steps ahead the target lies, and the hours of one.
    normalization
        One entry per variable.
    size_yx
        Height and width of the chips in pixels.
    """

    variables: tuple[str, ...]
    dates: tuple[datetime.date, ...]
    forecast_timesteps: int
    hrs_each_step: int
    normalization: Normalization
    size_yx: tuple[int, int]

    def draw(self, rows: int) -> ShownFigure:
        from geodl.data.draw_series import draw_fields

        return draw_fields(self, rows)

    def facts(self) -> list[tuple[str, str]]:
        ahead = self.forecast_timesteps * self.hrs_each_step
        return [
            ("fields", f"{', '.join(self.variables)}; {self.size_yx[0]} x {self.size_yx[1]} px"),
            ("dates", f"{len(self.dates)}, {self.dates[0]} to {self.dates[-1]}"),
            ("ahead", f"{self.forecast_timesteps} steps, {ahead} hours"),
        ]


@dataclass(frozen=True, slots=True)
class FieldLoader:
    """Reads all steps of a chip for the store; its latitudes are the target. Picklable."""

    layout: ClimateLayout

    def __call__(self, name: str) -> LoadedChip:
        return LoadedChip(self.layout.read(name), None, self.layout.latitudes(name))


class ForecastDataset(Dataset[dict[str, Any]]):
    """Starting times of one set as items, see :class:`ClimaX`.

    Parameters
    ----------
    starts
        (position of the chip, time step) of each item.
    """

    def __init__(
        self,
        store: ChipStore,
        starts: Sequence[tuple[int, int]],
        normalization: Normalization,
        ahead: int,
        lead_h: float,
    ) -> None:
        self.store = store
        self.starts = tuple(starts)
        self.normalization = normalization
        self.ahead = ahead
        self.lead_h = lead_h

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        position, step = self.starts[index[0] if isinstance(index, tuple) else int(index)]
        chip = self.store[position]
        now, then = chip.data[step], chip.data[step + self.ahead]
        return {
            "image": torch.from_numpy(self.normalization.apply(now)),
            "target": torch.from_numpy(self.normalization.apply(then)),
            "valid": torch.from_numpy(np.isfinite(now) & np.isfinite(then)),
            "latitude": torch.from_numpy(chip.target),
            "lead_time": torch.tensor(self.lead_h / LEAD_UNIT_H),
            "name": f"{self.store.chips[position]}/{step}",
        }


class ClimaX:
    """Weather and climate fields with their future.

    Items: ``image`` and ``target`` float32 (V, H, W), all variables at one time step and
    ``forecast_timesteps`` later, normalised by ``normalization``; ``valid`` bool (V, H, W), True
    where both have data; ``latitude`` float32 (H,), y of the rows in units of the CRS;
    ``lead_time`` float32 (), hours ahead divided by 100; ``name``. Chips are taken whole
    (``chip_size`` does not count) and never augmented: their place on the globe matters.

    ``kind`` is ``forecast``. The last share of the time steps validates, and no training target
    reaches into it.
    """

    keywords = frozenset({"forecast_timesteps", "hrs_each_step", "num_workers"})
    kind: ClassVar[str] = "forecast"

    def build(self, request: DataRequest) -> ForecastData:
        """Open the folder and put the data object together. Raises as `prepare_data` does."""
        refuse_arguments(request)
        refuse_transforms(request)
        layout = open_climate(one_folder(request))
        ahead = as_int(
            request.options.get("forecast_timesteps", 1), "forecast_timesteps", minimum=1
        )
        hours = as_int(request.options.get("hrs_each_step", 1), "hrs_each_step", minimum=1)
        train_steps, valid_steps = time_split(layout.steps, ahead, request.val_split_pct)
        normalization = _normalization(layout)
        store = ChipStore(layout.names, FieldLoader(layout), loader_limit(request))
        train, valid = (
            ForecastDataset(
                store,
                [(i, step) for i in range(len(layout.names)) for step in steps],
                normalization,
                ahead,
                float(ahead * hours),
            )
            for steps in (train_steps, valid_steps)
        )
        width, height = layout.size
        batch = typical_batch_size(2 * len(layout.variables), max(width, height))
        return ForecastData(
            **common_fields(request, train, valid, batch),
            kind=self.kind,
            class_table=ClassTable(()),
            split="time",
            variables=tuple(layout.variables),
            dates=layout.dates,
            forecast_timesteps=ahead,
            hrs_each_step=hours,
            normalization=normalization,
            size_yx=(height, width),
        )


def time_split(steps: int, ahead: int, share: float) -> tuple[range, range]:
    """Starting steps of training and validation.

    Parameters
    ----------
    steps
        Of the series.
    ahead
        Steps between a start and its target.
    share
        Of the starts that validate, 0..1; at least one does.

    Raises
    ------
    DataError
        The series is too short for one start in each.
    """
    starts = steps - ahead
    count = min(max(1, round(starts * share)), starts - 1)
    first = starts - count
    # The targets of training end before the first start of validation.
    if starts < 2 or first - ahead < 1:
        raise DataError(
            f"{steps} time steps are too few to forecast {ahead} ahead with a share of {share:g} "
            "for validation; lower forecast_timesteps or val_split_pct, or export more steps."
        )
    return range(first - ahead), range(first, starts)


def _normalization(layout: ClimateLayout) -> Normalization:
    """Statistics of each variable over all steps: the export's, or of all chips."""
    summaries = [variable_summary(images.stats) for images in layout.variables.values()]
    found = [summary for summary in summaries if summary is not None]
    if len(found) == len(summaries):
        return BandStatistics(
            minimum=tuple(s.minimum for s in found),
            maximum=tuple(s.maximum for s in found),
            mean=tuple(s.mean for s in found),
            std=tuple(s.std for s in found),
        ).normalization()
    pixels = (
        (layout.read(name).transpose(1, 0, 2, 3).reshape(len(summaries), -1, 1), None)
        for name in layout.names
    )
    return compute_statistics(pixels, len(summaries), str(layout.path)).normalization()
