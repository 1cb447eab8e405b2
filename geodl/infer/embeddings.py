"""Networks that turn images and texts into vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image, UnidentifiedImageError

from geodl.base.errors import FormatError, SourceError
from geodl.base.packages import require
from geodl.core.contract import IMAGENET_MEAN, IMAGENET_STD
from geodl.infer.side_by_side import side_by_side
from geodl.nets.tile_net import make_tile_net
from geodl.nets.weights import offline
from geodl.runtime.cores import available_cores

# Images decoded ahead of the network, for each thread.
_AHEAD = 4
Encode = Callable[[list[str]], np.ndarray]


class ImageEncoder:
    """A backbone of timm without its head.

    Parameters
    ----------
    backbone
        As :func:`geodl.nets.tile_net.check_tile_backbone` returns it.
    side
        Of the images in pixels.
    """

    def __init__(self, backbone: str, side: int) -> None:
        self.side = side
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Where weights cannot be had they are random: the same in every process and call.
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            net, _ = make_tile_net(backbone, 3, 1, side, timm.is_model_pretrained(_bare(backbone)))
        self.net = net.eval().to(self.device)

    def vectors(self, images: np.ndarray) -> np.ndarray:
        """float32 (B, d) of float32 (B, 3, side, side)."""
        with torch.inference_mode():
            x = torch.from_numpy(images).to(self.device)
            found = self.net.body.forward_head(self.net.features(x), pre_logits=True)
        return np.asarray(found.float().cpu().numpy())


@lru_cache(maxsize=1)
def image_encoder(backbone: str, side: int) -> ImageEncoder:
    """The encoder of this process, loaded once."""
    return ImageEncoder(backbone, side)


def image_vectors(
    files: Sequence[Path], backbone: str, side: int, normalize: bool, batch: int
) -> np.ndarray:
    """float32 (n, d) of image files, in their order.

    Raises
    ------
    FormatError
        A file that is no image; names it.
    """
    encoder = image_encoder(backbone, side)
    images = (pixels for _, pixels in decoded_images(files, side, normalize))
    parts = []
    while some := list(islice(images, batch)):
        parts.append(encoder.vectors(np.stack(some)))
    return np.concatenate(parts)


def _bare(name: str) -> str:
    return name.removeprefix("timm:")


def decoded_images(
    files: Sequence[Path], side: int, normalize: bool
) -> Iterator[tuple[Path, np.ndarray]]:
    """Paths with float32 (3, side, side) pixels, in order, decoded by several threads ahead.

    Raises
    ------
    FormatError
        A file that is no image; names it.
    """
    threads = max(1, min(8, available_cores()))
    pixels = side_by_side(
        lambda path: read_image_square(path, side, normalize),
        files,
        threads=threads,
        ahead=threads * (_AHEAD - 1),
    )
    yield from zip(files, pixels, strict=True)


def read_image_square(path: Path, side: int, normalize: bool) -> np.ndarray:
    """float32 (3, side, side) of an image file, 0..1 or normalised by ImageNet's statistics."""
    try:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path} is no readable image: {error}.") from error
    pixels = np.asarray(resized, np.float32).transpose(2, 0, 1) / 255
    if normalize:
        shape = (3, 1, 1)
        mean = np.array(IMAGENET_MEAN, np.float32).reshape(shape)
        pixels = (pixels - mean) / np.array(IMAGENET_STD, np.float32).reshape(shape)
    return np.ascontiguousarray(pixels, np.float32)


def text_encoder(name: str, pooling: str) -> Encode:
    """What turns texts into float32 (n, d), by a transformer and a pooling of its tokens.

    Parameters
    ----------
    name
        Of a model on the hub, or a local folder.
    pooling
        ``mean``, ``max`` or ``first`` (the vector of the first token).

    Raises
    ------
    SourceError
        The model cannot be had; says what to do.
    MissingPackageError
        sentence-transformers is not installed.
    """
    library = require("sentence_transformers", "embeddings")
    modules = require("sentence_transformers.sentence_transformer.modules", "embeddings")
    local = Path(name).expanduser().is_dir()
    place = str(Path(name).expanduser()) if local else name
    options = {"local_files_only": local or offline()}
    try:
        words = modules.Transformer(
            place, model_kwargs=options, processor_kwargs=options, config_kwargs=options
        )
    except (OSError, ValueError, RuntimeError) as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SourceError(
            f"The text model {name!r} cannot be had ({cause}). Where there is internet, download "
            "it with `huggingface-cli download`, copy its folder here, and give backbone=FOLDER."
        ) from error
    mode = {"mean": "mean", "max": "max", "first": "cls"}[pooling]
    pool = modules.Pooling(words.get_embedding_dimension(), pooling_mode=mode)
    encoder: Any = library.SentenceTransformer(modules=[words, pool])

    def encode(texts: list[str]) -> np.ndarray:
        found = encoder.encode(
            texts, batch_size=len(texts), show_progress_bar=False, convert_to_numpy=True
        )
        return np.asarray(found, np.float32)

    return encode
