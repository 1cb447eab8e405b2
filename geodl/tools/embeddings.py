"""Embeddings: vectors of images or texts, in a file of any size."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from geodl.base.errors import FormatError, OptionError, SourceNotFoundError
from geodl.base.options import as_bool, as_int, check_choice, check_known
from geodl.base.packages import require
from geodl.data.embedding_items import (
    IMAGE_ENDINGS,
    TEXT_ENDINGS,
    TextReading,
    item_files,
    texts_of,
)
from geodl.runtime.connect import chosen_client
from geodl.runtime.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

_TEXT_BACKBONE = "sentence-transformers/distilbert-base-nli-stsb-mean-tokens"
# Models of sentence-transformers that are often used; any other, or a local folder, may be named.
_TEXT_BACKBONES = (
    _TEXT_BACKBONE,
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-MiniLM-L12-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "sentence-transformers/distiluse-base-multilingual-cased-v2",
)
_POOLING = ("mean", "max", "first")
_SHARED = ("file_extensions",)
_IMAGE_KEYWORDS = (*_SHARED, "normalize", "chip_size", "client")
# Batches that a process does in one go.
_BATCHES_OF_TASK = 4
_TEXT_KEYWORDS = (
    *_SHARED, "encoding", "text_column", "remove_urls", "remove_html_tags", "pooling_strategy",
)  # fmt: skip
_ITEMS, _VECTORS = "items", "embeddings"


class Embeddings:
    """Vectors of images or texts by a pretrained network.

    Parameters
    ----------
    dataset_type
        ``"image"`` (RGB) or ``"text"``.
    backbone
        A backbone of timm for images, by default resnet34. For texts the name of a model of
        sentence-transformers or of a transformer, or a local folder of one.
    **kwargs
        ``working_dir``: folder for what is written, by default the present one.

    Raises
    ------
    OptionError, UnknownOptionError
        An argument outside its domain, or an unknown one.
    NotSupportedError
        A backbone that does not exist.
    """

    def __init__(
        self, dataset_type: str = "image", backbone: str | None = None, **kwargs: Any
    ) -> None:
        check_known(kwargs, ("working_dir",), "Embeddings")
        self._kind = str(check_choice(dataset_type, ("image", "text"), "dataset_type"))
        self._working_dir = Path(kwargs.get("working_dir") or ".").expanduser()
        if self._kind == "image":
            from geodl.nets.tile_net import check_tile_backbone

            self._backbone = check_tile_backbone(backbone or "resnet34")
        else:
            self._backbone = str(backbone or _TEXT_BACKBONE)

    def __repr__(self) -> str:
        return f"Embeddings({self._kind!r}, {self._backbone!r})"

    @classmethod
    def supported_backbones(cls, dataset_type: str = "image") -> list[str]:
        """Names of usable models; others of timm or sentence-transformers may be named too."""
        if check_choice(dataset_type, ("image", "text"), "dataset_type") == "text":
            return list(_TEXT_BACKBONES)
        from geodl.nets.backbones import backbone_names, timm_names
        from geodl.nets.tile_net import image_transformers

        return [*backbone_names(), *timm_names(), *image_transformers()]

    def get(
        self,
        text_or_list: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        batch_size: int = 32,
        show_progress: bool = True,
        return_embeddings: bool = False,
        **kwargs: Any,
    ) -> str | pd.DataFrame:
        """Compute the vectors of all files in a folder, or in several.

        Parameters
        ----------
        text_or_list
            A folder, which is searched with all below it, or a list of folders and files.
        batch_size
            Items at once.
        show_progress
            Show a bar where the error stream is a terminal.
        return_embeddings
            Return a DataFrame rather than write a file.
        **kwargs
            ``file_extensions``: a text or list of those to read. Images: ``normalize`` (True) by
            the statistics of ImageNet; ``chip_size`` (224), to which they are resized. Texts:
            ``encoding`` ("UTF-8"), ``text_column`` ("text") of csv and json, ``remove_urls`` and
            ``remove_html_tags`` (False), ``pooling_strategy`` ("mean", "max", "first"). Images
            also ``client``: a Dask client whose workers share them; None takes the active one, or
            this process.

        Returns
        -------
        Path of an HDF5 file in ``<working_dir>/embeddings`` with ``items`` (n,) and ``embeddings``
        float32 (n, d); or a DataFrame with these columns.

        Raises
        ------
        SourceNotFoundError
            There is no such folder, or nothing to read in it.
        FormatError
            A file that cannot be read; names it.
        SourceError
            A text model that cannot be had; says what to do.
        """
        keywords = _IMAGE_KEYWORDS if self._kind == "image" else _TEXT_KEYWORDS
        check_known(kwargs, keywords, f"get() of {self._kind} embeddings")
        size = as_int(batch_size, "batch_size", minimum=1)
        endings = IMAGE_ENDINGS if self._kind == "image" else TEXT_ENDINGS
        files = item_files(text_or_list, kwargs.get("file_extensions"), endings)
        bar = Progress(len(files), "embed", show=as_bool(show_progress, "show_progress"))
        parts = self._parts(files, size, kwargs, bar)
        try:
            if as_bool(return_embeddings, "return_embeddings"):
                return _as_frame(parts)
            return str(self._written(parts))
        finally:
            bar.close()

    def _parts(
        self, files: Sequence[Path], size: int, options: dict[str, Any], bar: Progress
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        """Items with their vectors, batch by batch."""
        if self._kind == "image":
            yield from self._image_parts(files, size, options, bar)
        else:
            yield from self._text_parts(files, size, options, bar)

    def _image_parts(
        self, files: Sequence[Path], size: int, options: dict[str, Any], bar: Progress
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        from geodl.infer.embeddings import image_vectors

        side = as_int(options.get("chip_size", 224), "chip_size", minimum=1)
        normalize = as_bool(options.get("normalize", True), "normalize")
        client = chosen_client(options.get("client"))
        step = size * _BATCHES_OF_TASK
        chunks = [files[first : first + step] for first in range(0, len(files), step)]
        calls = ((chunk, self._backbone, side, normalize, size) for chunk in chunks)
        if client is None:
            found: Iterable[np.ndarray] = (image_vectors(*arguments) for arguments in calls)
        else:
            from geodl.runtime.remote import each_in_order

            found = each_in_order(client, image_vectors, calls)
        for chunk, vectors in zip(chunks, found, strict=True):
            for _ in chunk:
                bar.advance()
            yield [str(path) for path in chunk], vectors

    def _text_parts(
        self, files: Sequence[Path], size: int, options: dict[str, Any], bar: Progress
    ) -> Iterator[tuple[list[str], np.ndarray]]:
        from geodl.infer.embeddings import text_encoder

        reading = TextReading(
            encoding=str(options.get("encoding", "UTF-8")),
            column=str(options.get("text_column", "text")),
            remove_urls=as_bool(options.get("remove_urls", False), "remove_urls"),
            remove_tags=as_bool(options.get("remove_html_tags", False), "remove_html_tags"),
        )
        pooling = check_choice(
            options.get("pooling_strategy", "mean"), _POOLING, "pooling_strategy"
        )
        encoder = text_encoder(self._backbone, pooling)
        texts = _each_text(files, reading, bar)
        while batch := list(islice(texts, size)):
            yield batch, np.asarray(encoder(batch), np.float32)

    def _written(self, parts: Iterable[tuple[list[str], np.ndarray]]) -> Path:
        h5py = require("h5py", "embeddings")
        folder = self._working_dir / "embeddings"
        folder.mkdir(parents=True, exist_ok=True)
        path = _unused(folder / f"embeddings_{time.strftime('%Y-%m-%d_%H-%M-%S')}.h5")
        part = path.with_suffix(".part")
        try:
            with h5py.File(part, "w") as file:
                for items, vectors in parts:
                    _append(h5py, file, items, vectors)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def load(self, file_path: str | os.PathLike[str], load_to_memory: bool = True) -> Any:
        """Read a file of :meth:`get`.

        Parameters
        ----------
        file_path
            HDF5 file.
        load_to_memory
            False returns open data sets, which are read as they are indexed.

        Returns
        -------
        ``(embeddings, items)``: float (n, d) and object (n,) arrays; or ``(file, embeddings,
        items)``, which are open until ``file.close()``.

        Raises
        ------
        SourceNotFoundError, FormatError
            No such file, or one without both data sets of one length.
        """
        file = _opened(file_path)
        vectors, items = file[_VECTORS], file[_ITEMS]
        if not as_bool(load_to_memory, "load_to_memory"):
            return file, vectors, items
        with file:
            return vectors[:], _decoded(items[:])

    def visualize(
        self,
        file_path: str | os.PathLike[str],
        visualize_with_items: bool = True,
        n_clusters: int = 5,
        dimensions: int = 3,
    ) -> Any:
        """Draw the vectors, coloured by k-means clusters, along their principal components.

        Parameters
        ----------
        file_path
            HDF5 file of :meth:`get`.
        visualize_with_items
            Write the items beside the points.
        n_clusters
            Clusters, at most the number of items.
        dimensions
            2 or 3.

        Returns
        -------
        The plotly Figure; in a notebook it is also shown.

        Raises
        ------
        SourceNotFoundError, FormatError
            See :meth:`load`.
        OptionError
            An argument outside its domain.
        """
        from geodl.data.embedding_plot import embedding_figure

        vectors, items = self.load(file_path)
        axes = check_choice(dimensions, (2, 3), "dimensions")
        clusters = as_int(n_clusters, "n_clusters", minimum=1)
        if clusters > len(vectors):
            raise OptionError(f"n_clusters={clusters} is more than the {len(vectors)} items.")
        with_items = as_bool(visualize_with_items, "visualize_with_items")
        return embedding_figure(vectors, items, clusters, axes, with_items)


def _each_text(files: Sequence[Path], reading: TextReading, bar: Progress) -> Iterator[str]:
    for path in files:
        yield from texts_of(path, reading)
        bar.advance()


def _as_frame(parts: Iterable[tuple[list[str], np.ndarray]]) -> pd.DataFrame:
    import pandas as pd

    items: list[str] = []
    vectors: list[np.ndarray] = []
    for names, rows in parts:
        items += names
        vectors += list(rows)
    return pd.DataFrame({_ITEMS: items, _VECTORS: vectors})


def _append(h5py: Any, file: Any, items: list[str], vectors: np.ndarray) -> None:
    if _VECTORS not in file:
        width = vectors.shape[1]
        rows = max(1, 2**18 // max(1, width))
        file.create_dataset(
            _VECTORS, (0, width), np.float32, maxshape=(None, width), chunks=(rows, width)
        )
        kind = h5py.special_dtype(vlen=bytes)
        file.create_dataset(_ITEMS, (0,), kind, maxshape=(None,), chunks=(1024,))
    start = len(file[_VECTORS])
    for name in (_VECTORS, _ITEMS):
        file[name].resize(start + len(items), axis=0)
    file[_VECTORS][start:] = vectors
    file[_ITEMS][start:] = np.array([item.encode("utf-8") for item in items], object)


def _unused(path: Path) -> Path:
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_stem(f"{path.stem}-{number}")
    return found


def _opened(file_path: str | os.PathLike[str]) -> Any:
    h5py = require("h5py", "embeddings")
    path = Path(file_path).expanduser()
    if not path.is_file():
        raise SourceNotFoundError(f"There is no file of embeddings {path}.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FormatError(f"{path} is no readable HDF5 file: {error}.") from error
    for name in (_VECTORS, _ITEMS):
        if not isinstance(file.get(name), h5py.Dataset):
            file.close()
            raise FormatError(f"{path} has no data set {name!r}; it is no file of embeddings.")
    counts = file[_VECTORS].shape[:1], file[_ITEMS].shape[:1]
    if counts[0] != counts[1] or file[_VECTORS].ndim != 2:
        file.close()
        raise FormatError(f"{path}: embeddings and items have {counts[0]} and {counts[1]} rows.")
    return file


def _decoded(items: np.ndarray) -> np.ndarray:
    if items.dtype.kind not in "OS":
        return items
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in items]
    return np.array(texts, object)
