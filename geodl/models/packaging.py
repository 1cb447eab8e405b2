"""From a model to its package and back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from geodl.base.errors import BundleError, DataWarning, OptionError
from geodl.base.options import as_path
from geodl.bundle.onnx_file import SUFFIX as ONNX_SUFFIX
from geodl.bundle.points import ATTRIBUTES_KEY
from geodl.bundle.raster_functions import raster_function
from geodl.bundle.read import Bundle, read_bundle
from geodl.bundle.schema import definition
from geodl.bundle.weights import load_exactly, load_matching, write_weights
from geodl.bundle.write import check_name, package_files, write_package, zip_files
from geodl.models.base import TorchModel
from geodl.models.card import CARD_NAME, SETTINGS_NAME, json_bytes, model_card, training_settings
from geodl.models.report import report_html
from geodl.train.record import draw_losses

PICTURES = "ModelCharacteristics"
_SAMPLE_ROWS = 4
_PACKAGE_SUFFIXES = (".dlpk", ".emd")


def model_folder(model: TorchModel, name_or_path: str | os.PathLike[str]) -> Path:
    """Where a model of that name or path lies.

    Raises
    ------
    OptionError
        No name; or a bare name of a model without data, which has no models folder.
    """
    path = as_path(name_or_path, "name_or_path")
    if path.suffix.lower() in _PACKAGE_SUFFIXES:
        # The folder holds files of these names; it is none itself.
        path = path.with_suffix("")
    text = os.fspath(name_or_path)
    bare = path.parent == Path(".") and not text.startswith(".")
    if not bare:
        path = path.absolute()
        check_name(path.name)
        return path
    check_name(path.name)
    if model.data is None:
        raise OptionError(
            f"{text!r} is a bare name, and a model without data has no models folder; give a path."
        )
    return Path(model.data.models_dir) / path.name


def save_model(
    model: TorchModel,
    name_or_path: str | os.PathLike[str],
    *,
    compute_metrics: bool,
    save_optimizer: bool,
    save_inference_file: bool = True,
    framework: str = "PyTorch",
) -> Path:
    """Write the whole package; see :meth:`geodl.models.base.TorchModel.save`."""
    folder = model_folder(model, name_or_path)
    name = folder.name
    scored = compute_metrics and model.data is not None
    metrics = model.score_for_package() if scored else {}
    emd = _definition(model, metrics)
    function = raster_function(model.contract.kind) if save_inference_file else None
    if function is not None:
        emd["InferenceFunction"] = function[0]
    pictures = _pictures(model)
    titles = {"loss_graph.png": "Loss", "show_results.png": "Sample results"}
    report = report_html(name, emd, {titles[file]: png for file, png in pictures.items()})
    settings = training_settings(model)
    extra = {
        "model_metrics.html": report.encode("utf-8"),
        CARD_NAME: model_card(name, emd, settings).encode("utf-8"),
        SETTINGS_NAME: json_bytes(settings),
        **{f"{PICTURES}/{file}": png for file, png in pictures.items()},
    }
    extra |= dict([function] if function else [])
    for end, content in model.exported(framework).items():
        extra[f"{name}{end}"] = content
        emd |= _export_key(f"{name}{end}")
    if save_optimizer and model.record.optimizer:
        extra[f"{name}.optimizer.safetensors"] = _optimizer_bytes(model)
    files = _files(model, name, emd, extra)
    dlpk = {f"{name}.dlpk": zip_files(files)}
    # The EMD stays last: it says what the weights are.
    write_package(folder, {**dlpk, **files})
    return folder


def _export_key(file: str) -> dict[str, dict[str, str]]:
    """The documented key of a definition that names an exported network."""
    if file.endswith(ONNX_SUFFIX):
        return {"ONNX": {"INFER": file}}
    return {"TorchScript": {"GPU": file, "CPU": file}}


def write_definition(model: TorchModel, folder: Path, name: str) -> Path:
    """Write definition and weights alone; return the EMD's path."""
    files = _files(model, name, _definition(model, {}), {})
    write_package(folder, files)
    return folder / f"{name}.emd"


def save_checkpoint(model: TorchModel, folder: Path, epoch: int) -> Path:
    """Write the present weights as a package ``epoch_<number>`` in ``folder``."""
    name = f"epoch_{epoch:03d}"
    return write_definition(model, folder / name, name).parent


def _files(
    model: TorchModel, name: str, emd: Mapping[str, Any], extra: Mapping[str, bytes]
) -> dict[str, bytes]:
    contract = model.contract
    return package_files(
        name,
        emd,
        write_weights(model.net),
        contract=contract,
        extra={**model.package_files(), **extra},
    )


def _definition(model: TorchModel, metrics: Mapping[str, Any]) -> dict[str, Any]:
    resize = getattr(model.data, "resize_to", None)
    described = {**model.parameters, **model.parameter_keys(model.parameters)}
    emd = definition(model.contract, {**described, "backend": "pytorch"})
    own = model.emd_keys(model.parameters)
    if ATTRIBUTES_KEY in emd and ATTRIBUTES_KEY in own:
        own[ATTRIBUTES_KEY] = {**emd[ATTRIBUTES_KEY], **own[ATTRIBUTES_KEY]}
    return {
        **emd,
        **own,
        "DatasetType": getattr(model.data, "dataset_type", None) or model.dataset_types[0],
        "resize_to": list(resize) if resize else None,
        "LearningRate": str(model.record.rate),
        **metrics,
    }


def _pictures(model: TorchModel) -> dict[str, bytes]:
    """PNG files by name: those for which there is something to draw."""
    pictures = {}
    if model.record.rows:
        pictures["loss_graph.png"] = draw_losses(model.record).to_png()
    if model.data is not None:
        pictures["show_results.png"] = model.results_picture(_SAMPLE_ROWS).to_png()
    return pictures


_SEPARATOR = "|"


def _optimizer_bytes(model: TorchModel) -> bytes:
    """The optimiser's moments as a safetensors file, ``<parameter>|<moment>``."""
    flat = {
        f"{name}{_SEPARATOR}{moment}": value.detach().cpu().contiguous().clone()
        for name, moments in model.record.optimizer.items()
        for moment, value in moments.items()
    }
    return bytes(safetensors.torch.save(flat))


def _optimizer_state(bundle: Bundle) -> dict[str, dict[str, torch.Tensor]]:
    """The stored moments, or none."""
    from geodl.bundle.weights import read_weights

    name = str(bundle.weights_name).removesuffix(".safetensors") + ".optimizer.safetensors"
    try:
        content = bundle.read_file(name)
    except BundleError:
        return {}
    state: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in read_weights(content, name, bundle.where).items():
        parameter, _, moment = key.rpartition(_SEPARATOR)
        state.setdefault(parameter, {})[moment] = value
    return state


def _say_other_data(model: TorchModel, bundle: Bundle) -> None:
    """Warn where the weights learned other classes, or another scaling of what they see."""
    own, theirs = model.contract, bundle.contract
    facts = {
        "classes": ([(e.value, e.name) for e in c.classes] for c in (own, theirs)),
        "bands": (c.extract_bands for c in (own, theirs)),
        "normalisation": (c.normalization for c in (own, theirs)),
        "point attributes": (c.points for c in (own, theirs)),
    }
    other = [name for name, (ours, given) in facts.items() if ours != given]
    if other:
        warnings.warn(
            f"{bundle.where}: the weights were trained with other {', '.join(other)} than those "
            f"of this model's data, and are read by those of the data. "
            f"{type(model).__name__}.from_model(path, data) takes those of the package.",
            DataWarning,
            stacklevel=4,
        )


def load_into(model: TorchModel, name_or_path: str | os.PathLike[str], *, strict: bool) -> None:
    """Give a model the weights of a package; see :meth:`geodl.models.base.TorchModel.load`."""
    path = as_path(name_or_path, "name_or_path")
    if path.parent == Path(".") and model.data is not None:
        # As save() has it: a bare name is first of all a model of this data.
        saved = model_folder(model, name_or_path)
        path = path if path.exists() and not saved.exists() else saved
    bundle = read_bundle(path, verify=False)
    bundle.require_class(type(model).__name__)
    state = bundle.trained_weights()
    if strict:
        try:
            load_exactly(model.net, state, bundle.where)
        except BundleError as error:
            raise BundleError(
                f"{error} {type(model).__name__}.from_model(path, data) builds the package's own "
                "network; strict=False takes the weights that fit."
            ) from error
        _say_other_data(model, bundle)
    else:
        load_matching(model.net, state)
    model.net.eval()
    model.record.optimizer = _optimizer_state(bundle) if strict else {}
