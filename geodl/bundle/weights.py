"""Weights as files and as tensors: read without running code, checked before they are used."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
from collections.abc import Mapping
from pathlib import PurePosixPath

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from geodl.base.errors import BundleError

PICKLE_SUFFIXES = (".pth", ".pt")
_SHOWN_NAMES = 3


def write_weights(net: nn.Module) -> bytes:
    """A network's weights and buffers as a safetensors file."""
    state = {
        name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()
    }
    return bytes(safetensors.torch.save(state))


def read_weights(content: bytes, name: str, where: str) -> dict[str, Tensor]:
    """Tensors by name from the bytes of a weights file.

    Raises
    ------
    BundleError
        Damaged, of an unknown kind, with pickled objects, or with numbers that are not finite.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".safetensors":
        state = _read_safetensors(content, name, where)
    elif suffix in PICKLE_SUFFIXES:
        state = _read_pickle(content, name, where)
    else:
        raise BundleError(
            f"{where}: ModelFile {name!r} is of no kind that is read; expected .safetensors."
        )
    for key, value in state.items():
        # A tensor may claim any size by repeating itself; looking at it would fill the memory.
        if value.numel() * value.element_size() > len(content):
            raise BundleError(
                f"{where}: the weights {key!r} in {name!r} claim the shape {tuple(value.shape)}, "
                f"which the {len(content)} bytes of the file cannot hold; it is refused."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BundleError(
                f"{where}: the weights {key!r} in {name!r} hold numbers that are not finite; "
                "the model cannot be used."
            )
    return state


def _read_safetensors(content: bytes, name: str, where: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise BundleError(f"{where}: ModelFile {name!r} is damaged: {error}.") from error


# What the restricted unpickler raises for objects it does not know and for damaged streams.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    struct.error,
)


def _read_pickle(content: bytes, name: str, where: str) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # A remark on the pickle's protocol, which the caller cannot change.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except _PICKLE_ERRORS as error:
        raise BundleError(
            f"{where}: ModelFile {name!r} holds no plain tensors, or more than them; such a file "
            "could run code and is not read. Save the model again with geodl."
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise BundleError(f"{where}: ModelFile {name!r} is not a table of named tensors.")
    return state


def load_exactly(net: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put weights into a network, all of them, after comparing names and shapes.

    Raises
    ------
    BundleError
        Missing, surplus or other shapes; names some of them. The network is unchanged.
    """
    check_fit(net, state, where)
    net.load_state_dict(dict(state))


def check_fit(net: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes of weights with those of a network, on whatever device it is.

    Raises
    ------
    BundleError
        Missing, surplus or other shapes; names some of them.
    """
    own = net.state_dict()
    missing = [name for name in own if name not in state]
    surplus = [name for name in state if name not in own]
    other = [n for n, v in own.items() if n in state and state[n].shape != v.shape]
    for what, names in (("lack", missing), ("have the unknown", surplus)):
        if names:
            raise BundleError(
                f"{where}: the weights {what} {', '.join(names[:_SHOWN_NAMES])} "
                f"({len(names)} in all); they are of another network."
            )
    if other:
        name = other[0]
        raise BundleError(
            f"{where}: the weights {name!r} have the shape {tuple(state[name].shape)}, the network "
            f"{tuple(own[name].shape)} ({len(other)} differ); they are of another network."
        )


def load_matching(net: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Put those weights into a network whose name and shape match; return the names left out.

    Raises
    ------
    BundleError
        None matches. The network is unchanged.
    """
    own = net.state_dict()
    fitting = {n: v for n, v in state.items() if n in own and own[n].shape == v.shape}
    if not any(own[name].ndim > 1 for name in fitting):
        raise BundleError("None of the weights fits the network; is it another backbone?")
    net.load_state_dict({**own, **fitting})
    return [name for name in own if name not in fitting]
