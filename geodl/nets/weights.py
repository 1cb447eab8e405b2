"""Pretrained weights, or a warning: the one place that may reach for the network.

Looked at in turn: the folder ``GEODL_WEIGHTS``, the user's ordinary caches, the network. One
failed attempt at the network stops all others, in this process, in its children (by the
environment) and in the user's other processes on the machine (by a marker file, for a while).
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import URLError

import huggingface_hub.constants
import huggingface_hub.errors
import torch
from safetensors import SafetensorError
from torch import nn

from geodl.base.errors import OfflineWarning, OptionError, SourceError
from geodl.base.options import as_bool
from geodl.base.registry import Registry

logger = logging.getLogger(__name__)

Net = TypeVar("Net", bound=nn.Module)

# An attempt that brings no megabyte within this time has failed; with the time to build a network
# it stays below 10 s. The hub's own retries would take three quarters of a minute.
STALL_S = 8.0
# Requests in a row that fail at once, without a name server or a route: more would fail too.
_MOST_RETRIES = 2
_CHUNK_BYTES = 2**20
# After this time another process tries again: the cable may be back.
_MARKER_S = 900.0

# What timm, smp, torchvision and transformers raise for weights that cannot be had or do not fit.
# A blocked socket raises RuntimeError under some test tools and sandboxes.
_FAILURES = (
    OSError,
    RuntimeError,
    HTTPException,
    SafetensorError,
    huggingface_hub.errors.EntryNotFoundError,
    # The base of httpx's own errors, which is no OSError.
    getattr(huggingface_hub.errors, "HTTPError", OSError),
)

# Who knows which weights a name stands for: "module:function" of name -> builders.
PROVIDERS = Registry(
    "source of pretrained weights",
    {
        "backbones": "geodl.nets.backbones:pretrained_builders",
        "tiles": "geodl.nets.tile_net:pretrained_builders",
        "detectors": "geodl.nets.coco:pretrained_builders",
    },
)

_lock = threading.RLock()
_cause = ""


def with_pretrained(
    build: Callable[[bool], Net], name: str, pretrained: bool = True
) -> tuple[Net, bool]:
    """Build a network with pretrained weights where they can be had, else with random ones.

    Parameters
    ----------
    build
        Makes the network; with True it loads its weights through timm, smp, torchvision,
        transformers or anything else that uses the caches of huggingface_hub or torch.hub.
        May be called several times.
    name
        Of the weights, for the log.
    pretrained
        False makes random weights and looks nowhere.

    Returns
    -------
    The network, and whether pretrained weights are in it.

    Warns
    -----
    OfflineWarning
        The weights cannot be had; the random ones are those that ``pretrained=False`` gives.
    """
    if not pretrained:
        return build(False), False
    with _lock:
        state = torch.get_rng_state()
        for look in (_from_folder, _from_caches, _from_network):
            # Every attempt draws random numbers; the next must not see that.
            torch.set_rng_state(state)
            net = look(build, name)
            if net is not None:
                return net, True
        torch.set_rng_state(state)
    # One text from one line, so that Python's default filter shows it once in a process.
    warnings.warn(
        f"Pretrained weights cannot be had ({_cause or 'no source has them'}); training starts "
        "from random weights, with the backbone unfrozen. Where there is internet, run 'geodl "
        "weights fetch NAME' and point GEODL_WEIGHTS to that folder here, or give "
        "pretrained_path. GEODL_OFFLINE=0 tries the network again.",
        OfflineWarning,
        stacklevel=1,
    )
    return build(False), False


def fetch(names: Iterable[str], folder: str | os.PathLike[str] | None = None) -> list[str]:
    """Download weights into a folder that machines without internet can read.

    Parameters
    ----------
    names
        Backbones, as the models take them, and detectors that were trained on COCO.
    folder
        None is ``GEODL_WEIGHTS``.

    Returns
    -------
    The names, in order; each is there now.

    Raises
    ------
    OptionError
        No folder, or a name that nothing knows.
    SourceError
        Weights that cannot be had; names them and the cause.
    """
    target = folder or os.environ.get("GEODL_WEIGHTS")
    if not target:
        raise OptionError("Set GEODL_WEIGHTS to the folder that is to hold the weights.")
    done = []
    for name in names:
        builders = [b for source in PROVIDERS.values() for b in source(name)]
        if not builders:
            raise OptionError(f"There are no pretrained weights called {name!r}.")
        for build in builders:
            with _lock, _places(Path(target), network=True):
                result = _attempt(build, None)
            if not isinstance(result, nn.Module):
                raise SourceError(f"The weights of {name!r} cannot be had: {result}.")
        done.append(name)
    return done


def offline() -> bool:
    """Whether the network must not be tried: by the user's word or after a failure.

    ``GEODL_OFFLINE=0`` is the user's word that it may.
    """
    said = os.environ.get("GEODL_OFFLINE", "").strip()
    if said:
        return as_bool(said, "GEODL_OFFLINE")
    if _truthy(os.environ.get("HF_HUB_OFFLINE")):
        return True
    try:
        return time.time() - _marker().stat().st_mtime < _MARKER_S
    except OSError:
        return False


def _from_folder(build: Callable[[bool], Net], name: str) -> Net | None:
    folder = os.environ.get("GEODL_WEIGHTS")
    return _locally(build, name, Path(folder)) if folder else None


def _from_caches(build: Callable[[bool], Net], name: str) -> Net | None:
    return _locally(build, name, None)


def _locally(build: Callable[[bool], Net], name: str, folder: Path | None) -> Net | None:
    with _places(folder, network=False):
        try:
            return build(True)
        except _FAILURES as error:
            logger.debug("%s is not in %s: %s", name, folder or "the caches", error)
            return None


def _from_network(build: Callable[[bool], Net], name: str) -> Net | None:
    global _cause
    if offline():
        _cause = _cause or "offline; see GEODL_OFFLINE"
        return None
    folder = os.environ.get("GEODL_WEIGHTS")
    with _places(Path(folder) if folder else None, network=True) as retries:
        result = _attempt(build, retries)
    if isinstance(result, nn.Module):
        return result
    _cause = result
    _go_offline()
    logger.info("no weights for %s: %s", name, result)
    return None


def _attempt(build: Callable[[bool], Net], retries: _Retries | None) -> Net | str:
    """The network, or why there is none.

    The attempt runs in a thread of its own, which is left behind when it stalls or goes on
    retrying: a socket that hangs in connecting or in a name look-up cannot be interrupted.
    """
    done: list[Net] = []
    causes: list[str] = []

    def work() -> None:
        try:
            done.append(build(True))
        except _FAILURES as error:
            causes.append(
                f"{type(error).__name__}: {str(error).splitlines()[0]}"
                if str(error)
                else type(error).__name__
            )

    thread = threading.Thread(target=work, name="geodl-weights", daemon=True)
    thread.start()
    seen, since = -1, time.monotonic()
    while thread.is_alive() and time.monotonic() - since < STALL_S:
        thread.join(0.1)
        if retries is not None and len(retries.causes) >= _MOST_RETRIES:
            break
        if (size := _bytes_arrived()) != seen:
            seen, since = size, (time.monotonic() if seen >= 0 else since)
    if done:
        return done[0]
    causes += retries.causes if retries is not None else []
    return causes[0] if causes else f"no answer within {STALL_S:.0f} s"


class _Retries(logging.Handler):
    """Takes what the hub logs when it tries a request again; nothing of it is printed."""

    def __init__(self) -> None:
        super().__init__()
        self.causes: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "thrown while requesting" in text:
            self.causes.append(text.partition(" thrown while")[0].strip("'"))


def _bytes_arrived() -> int:
    """Bytes of downloads under way in the caches in use."""
    hub = Path(huggingface_hub.constants.HF_HUB_CACHE)
    parts = [*hub.glob("*/blobs/*.incomplete"), *Path(torch.hub.get_dir()).glob("checkpoints/*")]
    total = 0
    for part in parts:
        try:
            total += part.stat().st_size
        except FileNotFoundError:
            continue
    return total


@contextmanager
def _places(folder: Path | None, *, network: bool) -> Iterator[_Retries]:
    """Point huggingface_hub and torch.hub to a folder's caches, with or without the network.

    Their modules' attributes are set, because they read the environment only when imported.
    """
    constants, logs = huggingface_hub.constants, logging.getLogger("huggingface_hub")
    torch_dir, handlers, spreads = torch.hub.get_dir(), logs.handlers, logs.propagate
    retries = _Retries()
    changes: dict[str, Any] = {
        "HF_HUB_OFFLINE": not network,
        # Only the plain download shows its progress as a file that grows.
        "HF_HUB_DISABLE_XET": True,
        "DOWNLOAD_CHUNK_SIZE": _CHUNK_BYTES,
    }
    if folder is not None:
        changes["HF_HUB_CACHE"] = str(folder / "hub")
        torch.hub.set_dir(str(folder / "torch"))
    before = {key: getattr(constants, key) for key in changes if hasattr(constants, key)}
    download = torch.hub.download_url_to_file
    for key in before:
        setattr(constants, key, changes[key])
    if not network:
        torch.hub.download_url_to_file = _refuse_download
    logs.handlers, logs.propagate = [retries], False
    try:
        yield retries
    finally:
        for key, value in before.items():
            setattr(constants, key, value)
        torch.hub.download_url_to_file = download
        torch.hub.set_dir(torch_dir)
        logs.handlers, logs.propagate = handlers, spreads


def _refuse_download(url: str, *_: Any, **__: Any) -> None:
    raise URLError(f"{url} is not in the cache")


def _go_offline() -> None:
    """Stop further attempts: here, in children, in the thread left behind, in other processes."""
    os.environ["GEODL_OFFLINE"] = "1"
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        _marker().touch(mode=0o600)
        os.utime(_marker())
    except OSError as error:
        logger.debug("no marker for other processes: %s", error)


def _marker() -> Path:
    owner = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return Path(tempfile.gettempdir()) / f"geodl-offline-{owner}"


def _truthy(text: str | None) -> bool:
    return (text or "").strip().lower() in {"1", "true", "yes", "on", "y", "t"}
