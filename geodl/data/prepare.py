"""`prepare_data`: from a folder of training data to a data object."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from geodl.base.errors import OptionError
from geodl.base.options import as_int, as_path
from geodl.data import DATASETS
from geodl.data.chips import ChipData
from geodl.data.keywords import check_keywords
from geodl.data.loaders import collate_chips
from geodl.data.request import DataRequest, as_class_mapping, as_paths, as_share, as_size
from geodl.data.sample_data import SampleData
from geodl.formats.inference import infer_dataset_type


def prepare_data(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    class_mapping: Mapping[Any, str] | None = None,
    chip_size: int = 224,
    val_split_pct: float = 0.1,
    batch_size: int | None = 64,
    transforms: Any = None,
    collate_fn: Callable[..., Any] = collate_chips,
    seed: int = 42,
    dataset_type: str | None = None,
    resize_to: int | tuple[int, int] | None = None,
    working_dir: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> ChipData | SampleData:
    """Prepare training data of any type for training.

    The export is only read; models and caches go to ``working_dir``. What the items hold is said
    by the class of the dataset type, see ``geodl.data.DATASETS``.

    Parameters
    ----------
    path
        Folder of the export, or a list of such folders, which are merged: they must have one
        format, band count, dtype and tile size; classes are united by value. Types that are no
        chips, and those of two or more exports side by side, take one folder.
    class_mapping
        Class value to name, instead of the names in the export. Values may be text.
    chip_size
        Side of the square items in pixels; multiples of 32 suit all networks. Larger chips are
        cropped, at random to train and in the middle to validate. The shorter side of smaller
        chips takes its place. Without effect when ``transforms`` is False, and for superres,
        WNet_cGAN, Pix2Pix, CycleGAN, ObjectTracking, time series and point clouds.
    val_split_pct
        Share of the chips that validate, 0..1; at least one chip does.
    batch_size
        Items in a training batch, 2 or more, at most the training set; None takes a size that
        fits the device (see :func:`estimate_batch_size` for one measured on a model).
    transforms
        None or True: flips, right-angle turns (in map space), zoom, brightness and contrast.
        False: none. A pair (training, validation) of transforms, lists of them or None, each
        called with a dict of tv_tensors (``image`` float32 in 0..1 over the band's range,
        ``valid``, and ``boxes`` with ``labels``, or ``classes``) and returning it, as those of
        `torchvision.transforms.v2` do. Something that is no pair is for training. Samples of
        several images have the bands of all of them in one ``image``. Point clouds take a
        :class:`Transform3d`, or a pair of them or None; videos and series take none of their own.
    collate_fn
        Joins items to a batch; usually the default works.
    seed
        Makes the split, the batches and their augmentation repeatable.
    dataset_type
        For folders without the export's own metadata, which otherwise decides (exports of points
        are known by their files); and for another
        use of the same files: ``superres``, ``Pix2Pix``, ``CycleGAN``, ``ChangeDetection``,
        ``ObjectTracking``, ``PSETAE``.
    resize_to
        Side, or (height, width), that chips are resized to before they are cropped; for
        PASCAL_VOC_rectangles. Smaller than ``chip_size`` it takes its place.
    working_dir
        Folder of models and caches; the export's own path by default, where only a model that is
        saved under a bare name is written, in ``models``.
    **kwargs
        ``split``: ``"random"`` (default) or ``"block"``: blocks of neighbouring chips validate,
        and chips that overlap them are left out of training. ``stratify``: keep the shares of
        classes in both sets (default False; True for chips of one class each). ``num_workers``:
        loader processes (default 0). ``norm_pct``: share of the chips that band statistics are
        computed from where the export has none (default 0.3; all of fewer than 300 chips).

        ChangeDetection: ``split="folder"`` takes the sub-folders ``train`` and ``val`` as they
        are. superres: ``downsample_factor`` (default 4). PSETAE: ``n_temporal`` and
        ``n_temporal_dates`` (``YYYY-MM-DD``) unless the export says its dates; ``min_points``,
        pixels of a region (default 64); ``timesteps_of_interest`` and ``channels_of_interest``,
        lists of positions from 0. ClimaX: ``forecast_timesteps`` (default 1) and
        ``hrs_each_step`` (default 1).

        Point clouds: ``min_points``, the smallest block that is kept; ``extra_features``,
        attributes besides x, y and z; ``remap_classes``, a dict of code to code;
        ``classes_of_interest``, codes after that, one of which a block must hold;
        ``background_classcode``: the code that all other classes become (PointCloud), or True to
        drop them (PointCloudOD).

    Returns
    -------
    ChipData or SampleData
        ``train_ds``, ``valid_ds``, ``classes``, ``show_batch(rows)`` and what models read.

    Raises
    ------
    OptionError, UnknownOptionError
        An argument outside its domain; a keyword that nothing reads, or that is for other data.
    SourceNotFoundError, FormatError
        A folder or file that is missing or broken; names it. Label files that are only read with
        their item raise then.
    DataError
        Folders or sets that do not fit together, values in ``class_mapping`` that no class has,
        or fewer than two usable chips.
    NotSupportedError
        An unknown dataset type; several folders of a type that takes one.
    MissingPackageError
        Point clouds without h5py.
    """
    paths = as_paths(path)
    name = infer_dataset_type(paths[0], dataset_type)
    builder = DATASETS[name]
    request = DataRequest(
        paths=paths,
        dataset_type=name,
        class_mapping=as_class_mapping(class_mapping),
        chip_size=as_int(chip_size, "chip_size", minimum=1),
        val_split_pct=as_share(val_split_pct),
        batch_size=None if batch_size is None else as_int(batch_size, "batch_size", minimum=2),
        transforms=transforms,
        collate_fn=_callable(collate_fn),
        seed=as_int(seed, "seed", minimum=0),
        resize_to=as_size(resize_to),
        working_dir=None if working_dir is None else as_path(working_dir, "working_dir"),
        options=check_keywords(kwargs, builder.keywords, name, of=prepare_data),
    )
    return builder().build(request)


def _callable(collate_fn: Any) -> Callable[..., Any]:
    if not callable(collate_fn):
        raise OptionError(f"collate_fn={collate_fn!r} cannot be called; it joins items to a batch.")
    return collate_fn
