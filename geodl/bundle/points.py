"""The part of a model definition that is about points instead of bands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from geodl.base.errors import BundleError
from geodl.core.contract import ModelContract, Normalization, TaskKind
from geodl.core.points import PointFeature, PointInput

if TYPE_CHECKING:
    from geodl.bundle.schema import EmdReader

POINT_TYPES: dict[str, TaskKind] = {
    "PointCloudClassification": "points",
    "PointCloudDetection": "boxes3d",
}
ATTRIBUTES_KEY = "DataAttributes"
# What Pro runs such models by is not named in the definition.
_NO_PROGRAM = {"Framework": "N/A", "ModelConfiguration": "N/A"}
_UNIT_KEY = "unit_m"
_MOST_POINTS = 2**31
_MOST_CODES = 65536


def point_definition(contract: ModelContract, parameters: dict[str, Any]) -> dict[str, Any]:
    """The EMD of a model of point clouds, without its files and metrics."""
    spec = contract.points
    if spec is None:
        raise BundleError(f"{contract.model_name} is a model of points without their description")
    types = {kind: name for name, kind in POINT_TYPES.items()}
    index = contract.classes.index_by_value
    order = [index[code] for code in spec.codes]
    return {
        "ModelName": contract.model_name,
        "ModelType": types[contract.kind],
        **(_NO_PROGRAM if contract.kind == "points" else {}),
        "backend": "pytorch",
        "Classes": contract.classes.to_json(),
        ATTRIBUTES_KEY: {
            "block_size": spec.block_size,
            "max_point": spec.max_points,
            "scale_factor": spec.scale,
            "extra_features": [
                [feature.name, _plain(feature.maximum), _plain(feature.minimum)]
                for feature in spec.features
            ],
            **({} if spec.unit_m is None else {_UNIT_KEY: spec.unit_m}),
            "extra_dim": spec.columns - 3,
            "num_features": spec.columns,
            "classes": list(spec.codes),
            "class2idx": {str(code): i for i, code in enumerate(spec.codes)},
            "idx2class": {str(i): code for i, code in enumerate(spec.codes)},
            "color_mapping": {
                str(code): list(contract.classes.entries[i - 1].color) if i else [150, 150, 150]
                for code, i in zip(spec.codes, order, strict=True)
            },
            **(
                _class_codes(contract, spec)
                if contract.kind == "points"
                else {"no_of_points_per_tile": spec.max_points}
            ),
        },
        "ModelParameters": {
            **({"sample_point_num": spec.max_points} if contract.kind == "points" else {}),
            **parameters,
        },
    }


def _class_codes(contract: ModelContract, spec: PointInput) -> dict[str, Any]:
    """What is documented of classes besides: none is left out or taken for another."""
    names = {entry.value: entry.name for entry in contract.classes}
    return {
        "remap": False,
        "remap_bool": False,
        "remap_dict": {},
        "subset_classes": [],
        "important_classes": list(spec.codes),
        "class_mapping": {str(code): names.get(code, "Background") for code in spec.codes},
        "features_to_keep": [feature.name for feature in spec.features],
        "background_classcode": None,
        "pc_type": "PointCloud",
    }


def _plain(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)


def read_point_contract(reader: EmdReader) -> ModelContract:
    """The contract in the EMD of a model of point clouds.

    Raises
    ------
    BundleError
        Names the file and the key that is missing or wrong.
    """
    from geodl.bundle.schema import EmdReader, read_classes

    own = EmdReader(reader.table(ATTRIBUTES_KEY), f"{reader.where}: {ATTRIBUTES_KEY}")
    classes = read_classes(reader)
    kind = POINT_TYPES[reader.text("ModelType")]
    codes = _codes(own, classes.values)
    return ModelContract(
        model_name=reader.text("ModelName"),
        kind=kind,
        classes=classes,
        extract_bands=(),
        band_names=(),
        source_bands=0,
        tile_px=1,
        normalization=Normalization(minimum=(), maximum=(), scaled_mean=(), scaled_std=()),
        dtype="float32",
        points=PointInput(
            block_size=_above_zero(own, "block_size"),
            max_points=own.whole("max_point", 1, _MOST_POINTS),
            scale=_above_zero(own, "scale_factor"),
            features=tuple(_feature(own, entry) for entry in own.items("extra_features", 4096)),
            codes=codes if kind == "points" else (),
            unit_m=_above_zero(own, _UNIT_KEY) if own.emd.get(_UNIT_KEY) is not None else None,
        ),
    )


def _codes(reader: EmdReader, values: list[int]) -> tuple[int, ...]:
    codes = reader.items("classes", _MOST_CODES)
    if not all(isinstance(code, int) and not isinstance(code, bool) for code in codes):
        raise reader.fail("classes", "is no list of class codes")
    if codes and [code for code in codes if code != 0] != values:
        raise reader.fail("classes", f"is {codes}, while Classes has the values {values}")
    return tuple(codes)


def _above_zero(reader: EmdReader, key: str) -> float:
    value = reader.emd.get(key)
    if isinstance(value, int | float) and value is not True and 0 < value < math.inf:
        return float(value)
    raise reader.fail(key, f"is {value!r}; expected a number above 0")


def _feature(reader: EmdReader, entry: Any) -> PointFeature:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        raise reader.fail("extra_features", f"holds {entry!r}; expected [name, most, least]")
    most, least = (_numbers(reader, part) for part in entry[1:])
    if len(most) != len(least):
        raise reader.fail("extra_features", f"{entry[0]!r} has limits that do not fit together")
    return PointFeature(name=entry[0], minimum=least, maximum=most)


def _numbers(reader: EmdReader, value: Any) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    for number in values:
        good = isinstance(number, int | float) and not isinstance(number, bool)
        if not good or not math.isfinite(number):
            raise reader.fail("extra_features", f"holds {number!r}; expected a finite number")
    return tuple(float(number) for number in values)
