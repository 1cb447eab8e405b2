"""The seam of chip formats: how labels are made, named, written, listed, read and counted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from geodl.base.errors import FormatError
from geodl.core.classes import ClassTable
from geodl.formats.base import (
    ESRI_EMD,
    ChipContent,
    ChipFolder,
    ChipFrame,
    ChipImage,
    ChipRef,
    LabelKind,
    check_shape,
)
from geodl.formats.listing import FileTree, labels_by_stem
from geodl.ops.labels import value_counts

LabelSource = Literal["files", "image", "root", "none"]


class ChipFormat(ABC):
    """One metadata format: how labels are made, written, counted and read.

    A new format is one file with a subclass and one row in ``geodl.formats.registry``. Instances
    hold no state.
    """

    name: ClassVar[str]
    """The ``MetaDataMode`` of its exports."""
    kind: ClassVar[LabelKind]
    label_suffixes: ClassVar[tuple[str, ...]] = ()
    """Suffixes of label files, lower case; the first is the one that is written."""
    label_folders: ClassVar[tuple[str, ...]] = ("labels",)
    """Folders that an export makes for labels."""
    label_source: ClassVar[LabelSource] = "files"
    """Where the label of a chip stands: in files of its own, in the place of its image, in the
    first of ``root_files`` for all chips together, or nowhere."""
    root_files: ClassVar[tuple[str, ...]] = ()
    """Further files that :meth:`finalise` writes beside those of Esri."""
    one_per_feature: ClassVar[bool] = False
    """Whether a chip is cut around each feature, rather than tiles of a grid."""
    needs_labels: ClassVar[bool] = True
    nested_images: ClassVar[bool] = False
    """Whether images lie in sub-folders of ``images``."""
    named_by_label: ClassVar[bool] = False
    """Whether the names of a chip's files depend on its label."""
    second_raster: ClassVar[bool] = False
    """Whether chips of a second raster may go to ``images2``."""

    # -- writing ------------------------------------------------------------------------------

    @abstractmethod
    def label_of(self, content: ChipContent) -> Any:
        """The chip's label, of the kind that :meth:`read_label` returns."""

    def is_labelled(self, label: Any) -> bool:
        """Whether the label says anything, so that the chip is worth keeping."""
        return len(label) > 0

    @abstractmethod
    def write_label(self, frame: ChipFrame, label: Any, classes: ClassTable) -> None:
        """Write the files of :meth:`label_paths`, each whole or not at all."""

    def image_path(
        self, file_name: str, label: Any = None, classes: ClassTable | None = None
    ) -> PurePosixPath:
        """The image of a chip, relative to the export."""
        return PurePosixPath("images") / file_name

    def label_paths(
        self, stem: str, label: Any = None, classes: ClassTable | None = None
    ) -> tuple[PurePosixPath, ...]:
        """Label files of a chip, relative to the export."""
        return (PurePosixPath("labels") / f"{stem}{self.label_suffixes[0]}",)

    def export_classes(self, classes: ClassTable) -> ClassTable:
        """The classes as the export names them; some formats name folders by them."""
        return classes

    def fragment(self, frame: ChipFrame, label: Any) -> Any:
        """JSON of a chip that :meth:`finalise` gets; None for formats without root files."""
        return None

    def finalise(  # noqa: B027 - most formats have nothing to add
        self,
        folder: Path,
        fragments: Iterable[tuple[int, Any]],
        classes: ClassTable,
        base: Path | None,
    ) -> None:
        """Write ``root_files`` once all chips are there.

        Parameters
        ----------
        folder
            The export.
        fragments
            Number of each new chip and its fragment, ascending.
        base
            Folder with the root files of the export that is added to; None for a new one.
        """

    # -- reading ------------------------------------------------------------------------------

    def read_chip(self, ref: ChipRef, folder: ChipFolder | None = None) -> ChipImage:
        """Read a chip's image; with ``folder``, hold it to the export's bands and size.

        Raises
        ------
        FormatError
            The image is missing, unreadable, or not as the export says; names the file.
        """
        from geodl.formats.images import read_image

        chip = read_image(ref.image)
        if folder is not None:
            check_shape(ref.image, chip.data.shape, folder)
        return chip

    def list_labels(self, tree: FileTree) -> dict[str, tuple[Path, ...]]:
        """Label files by the stem of their chip, lower case."""
        return labels_by_stem(tree, ["labels"], self.label_suffixes)

    @abstractmethod
    def read_label(self, ref: ChipRef, folder: ChipFolder) -> Any:
        """Read a chip's label; an empty one where the chip has no label file.

        Raises
        ------
        FormatError
            A label that breaks the format; names the file.
        """

    def classes_of(self, chips: Sequence[ChipRef], path: Path) -> ClassTable:
        """The classes of a folder without Esri's files, found in its labels.

        Raises
        ------
        FormatError
            The format cannot tell.
        """
        raise FormatError(
            f"{path} has no {ESRI_EMD}, and labels of {self.name} do not name their classes; "
            "export the chips with their metadata files."
        )

    def count(self, label: Any) -> dict[int, int]:
        """Objects, chips or pixels per class value of one label, background left out."""
        found, numbers = value_counts(label.values[label.values != 0])
        return dict(zip(found.tolist(), numbers.tolist(), strict=True))
