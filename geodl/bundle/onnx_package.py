"""An ONNX network as a model package: by itself, or beside a definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from geodl.base.errors import BundleError
from geodl.bundle.archive import PackageFiles
from geodl.bundle.onnx_definition import (
    FOREIGN_NAME,
    LAYOUT_KEY,
    OWN_KEY,
    definition_of,
    own_layout,
    stated_layout,
)
from geodl.bundle.onnx_file import OnnxFile, read_onnx
from geodl.bundle.read import METRIC_KEYS, Bundle, identity, model_name
from geodl.bundle.schema import EmdReader, read_contract
from geodl.core.contract import ModelContract, Normalization


def read_onnx_bundle(files: PackageFiles, name: str, emd: Mapping[str, Any] | None) -> Bundle:
    """Open an ONNX network as a package.

    Parameters
    ----------
    name
        Of the ONNX file, beside the definition.
    emd
        The definition; None takes what the metadata of the file say.

    Raises
    ------
    BundleError
        A file that is refused, metadata or a definition that is wrong, or a network whose input
        and outputs are not what the definition says.
    MissingPackageError
        onnx is not installed.
    """
    file = read_onnx(files, name)
    arguments: Mapping[str, Any] = {}
    if emd is None:
        emd, arguments = definition_of(file)
    where = file.where if files.emd_name == name else f"{files.where}"
    reader = EmdReader(_whole(emd, file, name), where)
    title = model_name(EmdReader(emd, where), FOREIGN_NAME)
    contract = read_contract(EmdReader({**reader.emd, "ModelName": title}, where))
    contract = replace(contract, arguments=dict(arguments))
    if OWN_KEY in file.metadata:
        contract = replace(contract, normalization=_as_it_is(contract.inputs))
    parameters = {**reader.table("ModelParameters"), LAYOUT_KEY: _layout(file, contract, reader)}
    _check_input(file, contract)
    sha = file.sha256[name]
    return Bundle(
        where=where,
        contract=contract,
        parameters={key: value for key, value in parameters.items() if key != "backend"},
        metrics={key: reader.emd[key] for key in METRIC_KEYS if key in reader.emd},
        emd=reader.emd,
        weights_name=name,
        weights_sha256=sha,
        sha256=identity(
            {**reader.emd, "ModelParameters": parameters}, "|".join(file.sha256.values())
        ),
        _files=files,
    )


def _whole(emd: Mapping[str, Any], file: OnnxFile, name: str) -> dict[str, Any]:
    """The definition with what the file says of itself."""
    own = emd.get("Geodl", {})
    sums = {key: value for key, value in file.sha256.items() if key != name}
    return {
        **emd,
        "ModelFile": name,
        "SupportsVariableTileSize": None in file.input.shape[2:],
        "Geodl": {
            **(own if isinstance(own, dict) else {}),
            "weights_sha256": {name: file.sha256[name]},
            "sha256": sums,
        },
    }


def _as_it_is(bands: int) -> Normalization:
    """Of a network that takes raw values: nothing is done."""
    zeros, ones = (0.0,) * bands, (1.0,) * bands
    return Normalization(minimum=zeros, maximum=ones, scaled_mean=zeros, scaled_std=ones)


def _layout(file: OnnxFile, contract: ModelContract, reader: EmdReader) -> dict[str, Any]:
    """How the outputs are read."""
    stated = reader.table("ModelParameters").get(LAYOUT_KEY)
    if OWN_KEY in file.metadata:
        stated = own_layout(contract.kind)
    elif contract.model_name != FOREIGN_NAME or not isinstance(stated, dict):
        stated = stated_layout(file, contract.kind, len(contract.classes))
    if stated is None:
        raise BundleError(
            f"{file.where}: networks of {contract.kind} are not run from ONNX; open the package "
            "that it was exported from."
        )
    return dict(stated)


def _check_input(file: OnnxFile, contract: ModelContract) -> None:
    """Compare the network's input with the definition."""
    _, channels, height, width = file.input.shape
    if channels not in (None, contract.inputs):
        raise BundleError(
            f"{file.where}: the input {file.input} takes {channels} bands; the definition names "
            f"{contract.inputs}."
        )
    for side in (height, width):
        if side not in (None, contract.tile_px):
            raise BundleError(
                f"{file.where}: the input {file.input} takes tiles of {height} x {width} px; the "
                f"definition names {contract.tile_px}."
            )
