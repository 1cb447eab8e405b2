"""Images with sentences that describe them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geodl.base.errors import FormatError
from geodl.base.files import read_json
from geodl.formats.base import ESRI_EMD
from geodl.formats.image_sets import ImageSet, image_set, list_files, need_folder
from geodl.formats.inference import read_metadata
from geodl.formats.voc_xml import read_xml, text_of

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True, kw_only=True)
class CaptionLayout:
    """Images and their sentences.

    Parameters
    ----------
    captions
        Name of an image to its sentences, at least one; images without any are not in it.
    """

    path: Path
    images: ImageSet
    captions: Mapping[str, tuple[str, ...]] = field(repr=False)
    image_space: str = "MAP_SPACE"


def open_captions(path: Path) -> CaptionLayout:
    """``annotations.json`` beside ``images/``, or an export with a caption in each label.

    Raises
    ------
    FormatError
        Neither of the two, an image that is missing, or a caption without text; names the file.
    """
    emd = read_metadata(path / ESRI_EMD)
    images = image_set(need_folder(path, "images"), emd, where=path / ESRI_EMD)
    if (path / ANNOTATIONS).is_file():
        captions = _annotated(path / ANNOTATIONS, images)
    elif (path / "labels").is_dir():
        captions = _labelled(path / "labels", images)
    else:
        raise FormatError(
            f"{path} has neither {ANNOTATIONS} nor 'labels'; captions come from one of them."
        )
    space = str(emd.get("ImageSpaceUsed") or "MAP_SPACE")
    return CaptionLayout(path=path, images=images, captions=captions, image_space=space)


def _annotated(path: Path, images: ImageSet) -> dict[str, tuple[str, ...]]:
    value = read_json(path)
    entries = value.get("images") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{path} has no list 'images' with entries.")
    by_file = {file.name: name for name, file in images.files.items()}
    found: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: images[{number}]"
        file = entry.get("filename") if isinstance(entry, dict) else None
        if file not in by_file:
            raise FormatError(f"{where} names the file {file!r}, which {images.folder} has not.")
        if by_file[file] in found:
            raise FormatError(f"{where} names the file {file!r} a second time.")
        found[by_file[file]] = _sentences(entry.get("sentences"), where)
    return found


def _sentences(listed: Any, where: str) -> tuple[str, ...]:
    entries = listed if isinstance(listed, list) else []
    texts = [entry.get("raw") if isinstance(entry, dict) else None for entry in entries]
    found = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    if not found or len(found) != len(texts) or not all(found):
        raise FormatError(f"{where} must have 'sentences', each with text under 'raw'.")
    return tuple(found)


def _labelled(folder: Path, images: ImageSet) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, path in list_files(folder, frozenset({".xml"})).items():
        if name not in images.files:
            raise FormatError(f"{path} has no image {name!r} in {images.folder}.")
        node = read_xml(path).find("object")
        if node is None:
            raise FormatError(f"{path} has no 'object' with a caption as its 'name'.")
        found[name] = (" ".join(text_of(node, "name", str(path)).split()),)
        if not found[name][0]:
            raise FormatError(f"{path}: the caption is empty.")
    return found
