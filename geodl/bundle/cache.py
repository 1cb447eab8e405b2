"""Models by reference: a few bytes travel to the workers, each process loads a model once."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from geodl.base.errors import BundleError, OptionError
from geodl.bundle.code import code_of, trust, trusted_here
from geodl.bundle.instantiate import instantiate
from geodl.bundle.read import read_bundle
from geodl.core.contract import ModelContract

# A worker rarely runs more than one model; two leave room for a change of run.
CACHED_MODELS = 2


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model package lies and what it must be; small, picklable.

    Parameters
    ----------
    path
        Absolute path of its EMD, DLPK or folder.
    sha256
        Of everything that changes the model's answers.
    trusted
        The sha256 of Python source in the package that the caller trusts; workers run it too.
    """

    path: str
    sha256: str
    trusted: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready for inference.

    Parameters
    ----------
    contract
        What it demands and promises.
    net
        On its device, in eval mode, without gradients, channels-last.
    task
        Decodes the network's outputs.
    """

    contract: ModelContract
    net: nn.Module
    task: Any


_lock = threading.Lock()
_loaded: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()


def resolve_model(model: Any, folder: str | os.PathLike[str]) -> ModelRef:
    """A reference to a model in any of its forms.

    Parameters
    ----------
    model
        A trained object, a :class:`geodl.learn.Model`, an item of a catalog, or the path of an
        ``.emd``, a ``.dlpk``, an ``.onnx`` or a saved folder.
    folder
        Where a trained object writes its package, so that workers can load it.

    Raises
    ------
    OptionError
        Something else.
    SourceNotFoundError, BundleError
        There is no such package, or it is refused.
    """
    if isinstance(model, str | os.PathLike):
        path = Path(model).expanduser()
    elif hasattr(model, "package_path"):
        path = Path(model.package_path)
    elif hasattr(model, "assets") and "data" in model.assets:
        path = Path(model.assets["data"].href)
    elif hasattr(model, "write_bundle"):
        path = model.write_bundle(Path(folder))
    else:
        raise OptionError(
            f"A {type(model).__name__} is no model; give a trained model of geodl.learn, or the "
            "path of an .emd, a .dlpk, an .onnx or a saved folder."
        )
    bundle = read_bundle(path)
    bundle.require_own()
    code = code_of(bundle.parameters)
    return ModelRef(str(path.resolve()), bundle.sha256, code if trusted_here(code) else None)


def load_model(ref: ModelRef, device: str | torch.device = "cpu") -> LoadedModel:
    """The model of a reference, loaded at most once per process and device.

    Raises
    ------
    SourceNotFoundError
        The package is not where it was.
    BundleError
        It is another model by now, or is refused.
    """
    key = (ref.sha256, str(torch.device(device)))
    with _lock:
        found = _loaded.get(key)
        if found is None:
            found = _load(ref, torch.device(device))
            _loaded[key] = found
            while len(_loaded) > CACHED_MODELS:
                _loaded.popitem(last=False)
        _loaded.move_to_end(key)
        return found


def forget_models() -> None:
    """Drop all cached models of this process."""
    with _lock:
        _loaded.clear()


def _load(ref: ModelRef, device: torch.device) -> LoadedModel:
    bundle = read_bundle(ref.path, verify=False)
    if bundle.sha256 != ref.sha256:
        raise BundleError(
            f"{ref.path} is another model than the run was planned with (sha256 {bundle.sha256}, "
            f"planned {ref.sha256}); plan the run again."
        )
    if ref.trusted is not None and ref.trusted == code_of(bundle.parameters):
        trust(bundle)
    net, task = instantiate(bundle)
    net.requires_grad_(False)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.to(device)
    return LoadedModel(bundle.contract, net.eval(), task)
