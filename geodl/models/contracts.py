"""The contract between a data object and a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from geodl.base.errors import ModelDataError, OptionError
from geodl.core.contract import ModelContract, Normalization, TaskKind
from geodl.core.points import PointFeature, PointInput, other_unit
from geodl.data.dataset import ChipDataset


def check_data_fits(
    data: Any, model_name: str, kind: TaskKind, dataset_types: Sequence[str]
) -> None:
    """Refuse what is no data object, or one with labels of another kind.

    Raises
    ------
    OptionError
        Not made by prepare_data.
    ModelDataError
        Labels of another kind; names the formats that fit.
    """
    if not hasattr(data, "class_table") or not hasattr(data, "train_ds"):
        raise OptionError(
            f"{model_name} needs the data object that prepare_data() returns, not "
            f"{type(data).__name__}. To use a saved model without data, call from_model(path)."
        )
    if data.kind != kind:
        fitting = f" Datasets that fit: {', '.join(dataset_types)}." if dataset_types else ""
        given = f"{data.dataset_type} holds {data.kind}"
        raise ModelDataError(f"{model_name} works on labels of {kind}; {given}.{fitting}")


def contract_of_data(
    data: Any, model_name: str, kind: TaskKind, variable_tile: bool
) -> ModelContract:
    """What a model that is trained on a data object will demand of rasters, or of points."""
    if kind in ("points", "boxes3d"):
        return contract_of_points(data, model_name, kind)
    return ModelContract(
        model_name=model_name,
        kind=kind,
        classes=data.class_table,
        extract_bands=tuple(data.extract_bands),
        band_names=tuple(data.band_names),
        source_bands=data.bands,
        tile_px=data.chip_size,
        normalization=data.normalization,
        dtype=str(data.dtype),
        cell_size=data.cell_size,
        image_space=data.image_space,
        variable_tile=variable_tile,
        # Samples of several images are not resized.
        pixel_scale=getattr(data, "pixel_scale", 1.0),
    )


def data_for_contract(data: Any, contract: ModelContract) -> Any:
    """The data object, normalised as the model was trained; the caller's own is unchanged.

    Raises
    ------
    ModelDataError
        Classes, bands or a fixed tile size differ from the model's; names both.
    """
    name = contract.model_name
    own = [(entry.value, entry.name) for entry in contract.classes]
    given = [(entry.value, entry.name) for entry in data.class_table]
    if own != given:
        raise ModelDataError(
            f"{name} was trained on the classes {_pairs(own)}; the data has {_pairs(given)}. Bring "
            "them in line with class_mapping in prepare_data(), or start a new model with "
            "pretrained_path."
        )
    if contract.points is not None:
        check_points_fit(data, contract.points, name)
        return data.scaled_by(
            {f.name: (np.array(f.minimum), np.array(f.maximum)) for f in contract.points.features}
        )
    if tuple(data.extract_bands) != contract.extract_bands:
        raise ModelDataError(
            f"{name} takes the bands {list(contract.extract_bands)} (counted from 0); the data "
            f"gives {list(data.extract_bands)}. Export chips with the same bands."
        )
    if not contract.variable_tile and data.chip_size != contract.tile_px:
        raise ModelDataError(
            f"{name} takes tiles of {contract.tile_px} px only; the data gives {data.chip_size}. "
            f"Give chip_size={contract.tile_px} to prepare_data()."
        )
    return _normalised(data, contract.normalization)


def contract_of_points(data: Any, model_name: str, kind: TaskKind) -> ModelContract:
    """What a model that is trained on blocks of points will demand of points."""
    return ModelContract(
        model_name=model_name,
        kind=kind,
        classes=data.class_table,
        extract_bands=(),
        band_names=(),
        source_bands=0,
        tile_px=1,
        normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
        dtype="float32",
        points=PointInput(
            block_size=data.tile_size,
            max_points=data.max_points,
            scale=data.scale,
            features=tuple(
                PointFeature(
                    name=name,
                    minimum=tuple(low.tolist()),
                    maximum=tuple(high.tolist()),
                )
                for name, (low, high) in data.limits.items()
            ),
            codes=data.codes if kind == "points" else (),
            unit_m=data.unit_m,
        ),
    )


def check_points_fit(data: Any, points: PointInput, name: str) -> None:
    """Hold blocks to those that a model was trained on.

    Raises
    ------
    ModelDataError
        Another size of blocks, other attributes or class codes; names both.
    """
    own = (points.block_size, tuple(feature.name for feature in points.features))
    given = (data.tile_size, data.extra_features)
    if own != given:
        raise ModelDataError(
            f"{name} was trained on blocks of {own[0]:g} units with the attributes "
            f"{', '.join(own[1]) or 'none'}; the data has blocks of {given[0]:g} with "
            f"{', '.join(given[1]) or 'none'}. Export and prepare points alike."
        )
    if other_unit(points.unit_m, data.unit_m):
        raise ModelDataError(
            f"{name} was trained on points whose unit is {points.unit_m:g} m, that of the data is "
            f"{data.unit_m:g} m; export points in one unit."
        )
    if points.codes and data.codes != points.codes:
        raise ModelDataError(
            f"{name} knows the class codes {list(points.codes)}, the data has {list(data.codes)}; "
            "bring them in line with remap_classes in prepare_data()."
        )


def _pairs(classes: Sequence[tuple[int, str]]) -> str:
    return ", ".join(f"{value}: {name}" for value, name in classes)


def _normalised(data: Any, normalization: Normalization) -> Any:
    """The same chips with other statistics: a model never sees two scalings."""
    if data.normalization == normalization:
        return data
    return dataclasses.replace(
        data,
        normalization=normalization,
        train_ds=_dataset(data.train_ds, normalization),
        valid_ds=_dataset(data.valid_ds, normalization),
    )


def _dataset(chips: ChipDataset, normalization: Normalization) -> ChipDataset:
    return ChipDataset(
        chips.store,
        chips.positions,
        chips.names,
        targets=chips.targets,
        side_px=chips.side_px,
        bands=chips.bands,
        normalization=normalization,
        augmentation=chips.augmentation,
    )
