"""Batches from a data set: what all data objects share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from geodl.data.dataset import SeededSampler

Collate = Callable[[list[dict[str, Any]]], Any]


def collate_chips(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join items to a batch: images stacked, masks stacked, boxes a list (their number differs).

    Returns
    -------
    ``{"image": float32 (B, C, H, W), "target": int64 (B, H, W) or list, "name": list of str}``
    """
    targets = [item["target"] for item in items]
    return {
        "image": torch.stack([item["image"] for item in items]),
        "target": torch.stack(targets) if isinstance(targets[0], torch.Tensor) else targets,
        "name": [item["name"] for item in items],
    }


def collate_samples(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join items of any type: tensors of one shape are stacked, all else becomes a list."""
    batch: dict[str, Any] = {}
    for key in items[0]:
        values = [item[key] for item in items]
        alike = all(isinstance(v, torch.Tensor) and v.shape == values[0].shape for v in values)
        batch[key] = torch.stack(values) if alike else values
    return batch


class SomeBatches:
    """As many batches of a loader as are asked for, starting it over where it ends.

    Parameters
    ----------
    loader
        Gives a batch at least.
    count
        Batches of an epoch.
    """

    def __init__(self, loader: DataLoader[Any], count: int) -> None:
        self.loader = loader
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        given = 0
        while given < self.count:
            for batch in self.loader:
                yield batch
                given += 1
                if given == self.count:
                    return


class BatchLoaders:
    """Loaders over ``train_ds`` and ``valid_ds``; data objects inherit it."""

    train_ds: Dataset[dict[str, Any]]
    valid_ds: Dataset[dict[str, Any]]
    batch_size: int
    seed: int
    num_workers: int
    collate_fn: Collate

    @staticmethod
    def default_collate(items: list[dict[str, Any]]) -> Any:
        """Join items where neither the user nor the model says how."""
        return collate_chips(items)

    def train_loader(
        self,
        collate: Collate | None = None,
        *,
        generator: torch.Generator | None = None,
        batch_size: int | None = None,
    ) -> DataLoader[Any]:
        """Shuffled, augmented training batches.

        Parameters
        ----------
        collate
            Joins items; a ``collate_fn`` of the user's goes before it.
        generator
            Makes order and augmentation; seeded with ``seed`` when None. Its state between two
            epochs is all that a resumed training needs.
        batch_size
            Instead of the data's own.

        Returns
        -------
        The last batch may be short, but never has one item only (batch normalisation cannot
        train on it), unless the set itself has one.
        """
        length = len(self.train_ds)  # type: ignore[arg-type]
        size = min(batch_size or self.batch_size, length)
        generator = generator or torch.Generator().manual_seed(self.seed)
        return self._loader(
            self.train_ds,
            collate,
            size,
            sampler=SeededSampler(length, generator),
            drop_last=size > 1 and length % size == 1,
        )

    def valid_loader(
        self, collate: Collate | None = None, *, batch_size: int | None = None
    ) -> DataLoader[Any]:
        """All validation batches in the samples' order, never augmented."""
        length = len(self.valid_ds)  # type: ignore[arg-type]
        return self._loader(self.valid_ds, collate, min(batch_size or self.batch_size, length))

    def _loader(
        self,
        dataset: Dataset[dict[str, Any]],
        collate: Collate | None,
        size: int,
        **options: Any,
    ) -> DataLoader[Any]:
        own = None if self.collate_fn is collate_chips else self.collate_fn
        return DataLoader(
            dataset,
            batch_size=size,
            collate_fn=own or collate or self.default_collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            # A generator of its own keeps the loader from drawing on torch's global one.
            generator=torch.Generator().manual_seed(self.seed),
            **options,
        )
