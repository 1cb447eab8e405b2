"""Reading a model package: what it promises, and on request its weights."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from geodl.base.errors import BundleError, FormatError
from geodl.base.files import JSON_LIMIT_BYTES, parse_json, sha256_json
from geodl.base.models import MODELS
from geodl.base.options import nearest
from geodl.base.payloads import PAYLOADS
from geodl.bundle.archive import MEMBERS_LIMIT, PackageFiles, open_package, plain_name
from geodl.bundle.onnx_file import SUFFIX as ONNX_SUFFIX
from geodl.bundle.points import ATTRIBUTES_KEY
from geodl.bundle.schema import SCHEMA_VERSION, EmdReader, read_contract
from geodl.core.contract import ModelContract

if TYPE_CHECKING:
    from torch import Tensor

    from geodl.bundle.onnx_file import OnnxFile

METRIC_KEYS = (
    "accuracy", "average_precision_score", "mIoU", "score", "PSNR", "SSIM", "FID", "FID_A",
    "FID_B", "panoptic_quality", "per_class_metrics",
)  # fmt: skip

# Files that only change how a package looks to people: they are not part of what the model is.
_IDENTITY_KEYS = (
    "ModelName", "ModelType", "ExtractBands", "ImageHeight", "ImageWidth", "Classes",
    "NormalizationStats", "ModelParameters", "SupportsVariableTileSize", "MinCellSize",
    "MaxCellSize", "ImageSpaceUsed", "Bands",
)  # fmt: skip
# What :func:`geodl.bundle.schema.own_keys` writes.
_OWN_KEYS = ("dtype", "source_bands", "pixel_scale", "chip_size_yx", "buffer_radius")
# Of models that classify chips only.
_CROP_KEYS = ("CropSizeFixed", "BlackenAroundFeature")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A model package that was found sound.

    Parameters
    ----------
    where
        Its path, for messages.
    contract
        What the model demands and promises.
    parameters
        ``ModelParameters``: what builds the network again.
    metrics
        Those in the definition, by EMD key.
    emd
        The definition as it stands.
    weights_name
        The weights file, relative to the EMD; None in a foreign package.
    weights_sha256
        Of that file.
    sha256
        Of everything that changes the model's answers, thus the same for a folder and its DLPK.
    """

    where: str
    contract: ModelContract
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    emd: Mapping[str, Any]
    weights_name: str | None
    weights_sha256: str | None
    sha256: str
    _files: PackageFiles = field(repr=False)

    @property
    def foreign(self) -> bool:
        """True for a package that geodl did not make; its ONNX network can be run all the same."""
        return self.weights_name is None or self.contract.model_name not in MODELS

    @property
    def payload(self) -> str | None:
        """The suffix of a network that stands in for weights, of ``PAYLOADS``; None of weights."""
        suffix = PurePosixPath(self.weights_name or "").suffix.lower()
        return suffix if suffix in PAYLOADS else None

    def require_class(self, name: str) -> None:
        """Refuse a package of another class.

        Raises
        ------
        BundleError
            Names the class to use.
        """
        self.require_weights()
        if self.contract.model_name != name:
            raise BundleError(
                f"{self.where}: ModelName is {self.contract.model_name!r}, not {name!r}; open it "
                f"with {self.contract.model_name}.from_model()."
            )

    def require_own(self) -> None:
        """Refuse a package that geodl cannot run.

        Raises
        ------
        BundleError
            Says what can be done.
        """
        if self.weights_name is None:
            raise BundleError(
                f"{self.where} was not made by geodl; its definition can be read, but its weights "
                "belong to another program's network. Train "
                f"{self.contract.model_name} on the same exported chips with geodl instead."
            )

    def require_weights(self) -> None:
        """Refuse a package without weights that a class of geodl could train.

        Raises
        ------
        BundleError
            Foreign, or a network that can only be run.
        """
        self.require_own()
        if self.payload is not None:
            raise BundleError(
                f"{self.where} is a network that can be run but not trained ({self.payload}); give "
                "it as model to the inferencing tools, such as classify_pixels() and "
                "detect_objects(), or open the package that it was exported from."
            )

    def trained_weights(self) -> dict[str, Tensor]:
        """The weights, checked against their sha256 and for numbers that are not finite.

        Raises
        ------
        BundleError
            Foreign, missing, damaged or unsafe weights.
        """
        from geodl.bundle.weights import read_weights

        self.require_weights()
        name = str(self.weights_name)
        return read_weights(self._weights_bytes(), name, self.where)

    def network_file(self) -> OnnxFile:
        """The ONNX network, checked against its sha256.

        Raises
        ------
        BundleError
            It was changed since the package was opened, or is refused.
        """
        from geodl.bundle.onnx_file import read_onnx

        name = str(self.weights_name)
        file = read_onnx(self._files, name)
        self._compare(name, file.sha256[name], str(self.weights_sha256))
        return file

    def _weights_bytes(self) -> bytes:
        return self.checked_file(str(self.weights_name), str(self.weights_sha256))

    def verify(self) -> None:
        """Read all of the weights file and compare its sha256.

        Raises
        ------
        BundleError
            It differs or cannot be read.
        """
        self.require_own()
        self._check(str(self.weights_name), str(self.weights_sha256))

    def verify_parts(self) -> list[str]:
        """Compare every part that the definition has a sha256 of, weights first.

        Returns
        -------
        The names of the parts that were compared.

        Raises
        ------
        BundleError
            A part differs, is missing or cannot be read; names it.
        """
        self.verify()
        where = f"{self.where}: Geodl"
        sums = EmdReader(EmdReader(self.emd, self.where).table("Geodl"), where).table("sha256")
        if len(sums) > MEMBERS_LIMIT:
            raise BundleError(f"{where} sha256 names {len(sums)} files; at most {MEMBERS_LIMIT}.")
        for name, expected in sums.items():
            self._check(plain_name(name, f"{where} sha256"), str(expected))
        return [str(self.weights_name), *sums]

    def checked_file(self, name: str, sha256: str) -> bytes:
        """A file of the package whose sha256 is what was said. Raises BundleError."""
        content = self._files.read(name)
        self._compare(name, hashlib.sha256(content).hexdigest(), sha256)
        return content

    def _check(self, name: str, sha256: str) -> None:
        self._compare(name, self._files.sha256(name), sha256)

    def _compare(self, name: str, found: str, stated: str) -> None:
        if found != stated:
            raise BundleError(
                f"{self.where}: the sha256 of {name!r} is {found}, the definition states "
                f"{stated}; the file was changed or damaged. Copy it again."
            )

    def read_file(self, name: str) -> bytes:
        """Another file of the package; its name is relative to the EMD."""
        return self._files.read(name)


def read_bundle(path: str | os.PathLike[str], *, verify: bool = True) -> Bundle:
    """Open a model package: ``.emd``, ``.dlpk`` or the folder that ``save`` returned; or a lone
    ``.onnx`` file, whose metadata say what it is.

    Parameters
    ----------
    verify
        Also compare the weights file with its sha256. False is for callers that read the
        weights anyway, which compares it too.

    Raises
    ------
    SourceNotFoundError
        There is nothing at the path.
    BundleError
        Corrupt, unsafe, of a newer geodl, or with keys that are missing or wrong; names file
        and key.
    """
    files = open_package(path)
    if files.emd_name.lower().endswith(ONNX_SUFFIX):
        return _read_onnx_bundle(files, files.emd_name, None)
    reader = EmdReader(_read_emd(files), _emd_where(files))
    if reader.emd.get("ModelType") is None and reader.emd.get("MetaDataMode") is not None:
        raise BundleError(
            f"{reader.where} describes exported training data, not a model; give its folder to "
            "prepare_data() and train a model on it first."
        )
    named = reader.emd.get("ModelFile")
    if isinstance(named, str) and named.lower().endswith(ONNX_SUFFIX):
        return _read_onnx_bundle(files, plain_name(named, f"{reader.where}: ModelFile"), reader.emd)
    own = reader.emd.get("Geodl")
    name = model_name(reader, "model")
    contract = read_contract(EmdReader({**reader.emd, "ModelName": name}, reader.where))
    weights, sha = _weights(reader) if own is not None else (None, None)
    bundle = Bundle(
        where=reader.where,
        contract=contract,
        parameters=_parameters(reader),
        metrics={key: reader.emd[key] for key in METRIC_KEYS if key in reader.emd},
        emd=reader.emd,
        weights_name=weights,
        weights_sha256=sha,
        sha256=identity(reader.emd, sha),
        _files=files,
    )
    if verify and bundle.weights_name is not None:
        bundle.verify()
    return bundle


def model_name(reader: EmdReader, default: str) -> str:
    """``ModelName`` of a definition; one of geodl's own has to be known, and of no newer geodl.

    Raises
    ------
    BundleError
        See above.
    """
    if reader.emd.get("Geodl") is None:
        return reader.text("ModelName", default)
    _check_version(reader)
    name = reader.text("ModelName")
    if name not in MODELS:
        raise reader.fail(
            "ModelName",
            f"is {name!r}, which geodl does not have."
            f"{nearest(name, MODELS)} Known: {', '.join(sorted(MODELS))}",
        )
    return name


def _read_onnx_bundle(files: PackageFiles, name: str, emd: Mapping[str, Any] | None) -> Bundle:
    from geodl.bundle.onnx_package import read_onnx_bundle

    return read_onnx_bundle(files, name, emd)


def identity(emd: Mapping[str, Any], weights_sha256: str | None) -> str:
    """The sha256 of what changes a model's answers."""
    facts = {key: emd.get(key) for key in _IDENTITY_KEYS}
    facts |= {key: emd[key] for key in (*_CROP_KEYS, ATTRIBUTES_KEY) if key in emd}
    own = emd.get("Geodl")
    if isinstance(own, dict):
        facts |= {key: own[key] for key in _OWN_KEYS if key in own}
    return sha256_json({"weights": weights_sha256, "emd": facts})


def _emd_where(files: PackageFiles) -> str:
    return (
        files.where if files.where.endswith(files.emd_name) else f"{files.where}:{files.emd_name}"
    )


def _read_emd(files: PackageFiles) -> dict[str, Any]:
    name = files.emd_name.rpartition("/")[2]
    content = files.read(name, JSON_LIMIT_BYTES)
    try:
        emd = parse_json(content, _emd_where(files))
    except FormatError as error:
        raise BundleError(str(error)) from error
    if not isinstance(emd, dict):
        raise BundleError(f"{_emd_where(files)} is no JSON object, thus no model definition.")
    return emd


def _check_version(reader: EmdReader) -> None:
    own = EmdReader(reader.table("Geodl"), f"{reader.where}: Geodl")
    version = own.whole("schema", 1, 2**31)
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{reader.where} was written by a newer geodl (schema {version}; this one reads "
            f"{SCHEMA_VERSION}); update geodl."
        )


def _parameters(reader: EmdReader) -> dict[str, Any]:
    """``ModelParameters`` without the keys that say what the file format is."""
    return {k: v for k, v in reader.table("ModelParameters").items() if k != "backend"}


def _weights(reader: EmdReader) -> tuple[str, str]:
    name = plain_name(reader.text("ModelFile"), f"{reader.where}: ModelFile")
    sums = EmdReader(reader.table("Geodl"), f"{reader.where}: Geodl").table("weights_sha256")
    sha = sums.get(name)
    if not isinstance(sha, str) or len(sha) != 64:
        raise reader.fail("Geodl.weights_sha256", f"has no sha256 for {name!r}")
    return name, sha
