"""The raster of a job, or the pair of rasters, with its bands as the model's network takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geodl.base.errors import ModelDataError, OptionError
from geodl.base.models import MODELS
from geodl.core.blocks import RasterSource
from geodl.core.contract import ModelContract
from geodl.infer.options import RunContext
from geodl.io.crs import crs_label, same_crs
from geodl.io.raster_pair import PairedRaster
from geodl.io.source import bands_note, open_source


@dataclass(frozen=True)
class RasterPair:
    """Two rasters of the same ground for a model that compares them.

    Parameters
    ----------
    before, after
        Whatever :func:`geodl.open_raster` takes; the grid is that of ``before``.
    """

    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class _Bands:
    """Bands of one image as a model was trained on them.

    Parameters
    ----------
    count
        Of the image.
    positions
        From 0: those that the network takes.
    names
        Of all, or none.
    """

    count: int
    positions: tuple[int, ...]
    names: tuple[str, ...]


def job_source(raster: Any, contract: ModelContract, context: RunContext) -> RasterSource:
    """Open what a model runs over.

    Parameters
    ----------
    raster
        What :func:`geodl.open_raster` takes, or a :class:`RasterPair`.
    context
        Its CRS, cell size and snap raster make the grid.

    Raises
    ------
    ModelDataError
        The bands do not fit the model, or a pair meets a model of single images.
    GridMismatchError
        A pair cannot be brought onto one grid.
    """
    if not isinstance(raster, RasterPair):
        return _opened(raster, contract, _all_bands(contract), context)
    if _images(contract) != 2:
        raise ModelDataError(
            f"{contract.model_name} takes one raster; a model that compares two, such as "
            "ChangeDetector, is needed here."
        )
    first, second = _bands_of_pair(contract)
    before = _opened(raster.before, contract, first, context)
    after = _fit_bands(open_source(raster.after), contract, second)
    return PairedRaster.of(before, after)


def _images(contract: ModelContract) -> int:
    """How many images of the same ground a model looks at."""
    return int(getattr(MODELS.get(contract.model_name), "images", 1))


def _opened(
    raster: Any, contract: ModelContract, bands: _Bands, context: RunContext
) -> RasterSource:
    source = open_source(
        raster, crs=context.out_crs, resolution=context.cell_size, snap=context.snap
    )
    if context.cell_crs is not None and not same_crs(context.cell_crs, source.grid.crs):
        raise OptionError(
            f"cellSize is stated in {crs_label(context.cell_crs)}, but the run's grid is in "
            f"{crs_label(source.grid.crs)}; give it in that CRS, or choose the other by outSR."
        )
    return _as_trained(_fit_bands(source, contract, bands), contract, context)


def _all_bands(contract: ModelContract) -> _Bands:
    return _Bands(contract.source_bands, contract.extract_bands, contract.band_names)


def _bands_of_pair(contract: ModelContract) -> tuple[_Bands, _Bands]:
    """Those of each image: a model of pairs was trained on a stack, before first."""
    half = contract.source_bands // 2
    first = tuple(band for band in contract.extract_bands if band < half)
    second = tuple(band - half for band in contract.extract_bands if band >= half)
    names = contract.band_names
    return _Bands(half, first, names[:half]), _Bands(half, second, names[half:])


def _fit_bands(source: RasterSource, contract: ModelContract, bands: _Bands) -> RasterSource:
    """The source with its bands as the network takes them.

    Raises
    ------
    ModelDataError
        The bands cannot be told, or the pixels are of another kind than the model was trained on.
    """
    names = [bands.names[band] for band in bands.positions] if bands.names else []
    if source.count == bands.count:
        numbers = [band + 1 for band in bands.positions]
    elif names and len(set(names)) == len(names) and set(names) <= set(source.band_names):
        numbers = [source.band_names.index(name) + 1 for name in names]
    else:
        trained = f" ({', '.join(bands.names)})" if bands.names else ""
        raise ModelDataError(
            f"{source.name} has {source.count} bands "
            f"({', '.join(source.band_names) or 'unnamed'}); {contract.model_name} was trained on "
            f"{bands.count}{trained}. Choose the bands: "
            f"geodl.open_raster(path, bands=[...]).{_pair_note(contract, bands)}"
            f"{bands_note(source)}"
        )
    if source.dtype.kind == "c":
        raise ModelDataError(
            f"{source.name} holds complex numbers, of which networks take none; pass what the "
            f"model was trained on, such as abs(geodl.open_raster(path))."
        )
    if contract.dtype == "uint8" and source.dtype.name != "uint8":
        raise ModelDataError(
            f"{source.name} holds {source.dtype.name}; {contract.model_name} was trained on 8-bit "
            f"pixels and would see noise. Scale the raster as the training data was and pass "
            f'the result of geodl.open_raster(path) ... .astype("uint8").'
        )
    if numbers == list(range(1, source.count + 1)):
        return source
    return open_source(source, bands=numbers)


def _pair_note(contract: ModelContract, bands: _Bands) -> str:
    """What to do with one raster and a model that compares two; empty for other models."""
    if bands.count < contract.source_bands or _images(contract) != 2:
        return ""
    return (
        " It compares two images: give both to detect_change_using_deep_learning, or stack them, "
        'the earlier first: xarray.concat([before, after], "band").'
    )


def _as_trained(source: RasterSource, contract: ModelContract, context: RunContext) -> RasterSource:
    """The source resampled as the training chips were, unless the caller set the cell size."""
    if contract.pixel_scale == 1 or context.cell_size is not None or context.snap is not None:
        return source
    x, y = (side / contract.pixel_scale for side in source.grid.cell_size_xy)
    return open_source(source, resolution=(x, y))
