"""How much memory a run takes in each process, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from geodl.bundle import LoadedModel
from geodl.core.blocks import RasterSource
from geodl.core.plan import TilePlan
from geodl.infer.chips import ChipPlan
from geodl.infer.pixels import PixelOptions
from geodl.io.handles import GDAL_CACHE_BYTES
from geodl.nets.memory import peak_tensor_bytes

# Python with torch, rasterio, xarray and the rest imported: 700 MB with the CUDA build of torch.
LIBRARY_BYTES = 750 * 2**20
# Workspaces of convolutions, and what an allocator keeps, beyond the tensors that are counted:
# a U-Net with ResNet-34 takes 33 MB for a tile of 256 pixels, of which 24.6 MB are counted.
_WORKSPACE = 1.5
# Copies of a block's pixels while it is read (file, mask, clean copy), and the block read ahead.
_READ_COPIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes of one process.

    Parameters
    ----------
    base
        Before the first block: Python, libraries, weights.
    network
        Tensors of one batch. On a GPU they lie in its own memory and are 0 here.
    blocks
        Pixels of the blocks in hand, and GDAL's cache.
    """

    base: int
    network: int
    blocks: int

    @property
    def total(self) -> int:
        return self.base + self.network + self.blocks


def network_bytes(model: LoadedModel, tile_px: int, batch: int) -> int:
    """Bytes that one batch of tiles takes in the network, from one tile that is run on a CPU."""
    contract = model.contract
    own = getattr(model.net, "working_bytes", None)
    if own is not None:
        # Not run by torch, which could count.
        tiles = 4 * batch * len(contract.extract_bands) * tile_px**2
        return int((own(tile_px, batch) + tiles) * _WORKSPACE)
    device = next((p.device for p in model.net.parameters()), torch.device("cpu"))
    if device.type != "cpu":
        return 0
    x = torch.zeros(1, len(contract.extract_bands), tile_px, tile_px)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        if contract.kind in ("objects", "instances"):
            # Nothing passes, so that decoding costs no more than on an empty tile.
            counted = peak_tensor_bytes(
                lambda: model.task.detect(model.net, x, threshold=1.0, nms_overlap=0.5)
            )
        elif hasattr(model.task, "describe"):
            counted = peak_tensor_bytes(lambda: model.task.describe(model.net, x))
        else:
            counted = peak_tensor_bytes(lambda: model.task.scores(model.net, x))
    return int((counted + x.nbytes) * batch * _WORKSPACE)


def chip_bytes(plan: ChipPlan, source: RasterSource, tile_px: int) -> int:
    """Bytes of the blocks of chips that one process has in hand, and of GDAL's cache."""
    pixel = source.count * source.dtype.itemsize + 1
    return plan.most_pixels(tile_px) * pixel * _READ_COPIES + GDAL_CACHE_BYTES


def block_bytes(plan: TilePlan, source: RasterSource, outputs: int, options: object) -> int:
    """Bytes of the blocks that one process has in hand: one computed, its neighbours in I/O.

    Parameters
    ----------
    outputs
        Scores of each pixel.
    options
        Of the run; objects take no raster.
    """
    side = plan.block_px
    rows, cols = (min(side, n) for n in (plan.extent.height, plan.extent.width))
    reach = 2 * plan.padding_px
    seen = (rows + reach) * (cols + reach) * (source.count * source.dtype.itemsize + 1)
    core = 0
    if isinstance(options, PixelOptions):
        scores = options.output == "scores"
        value = 4 * outputs if scores else 2
        # The mosaic and its result, the result that is being written, and its encoded chunks.
        core = 4 * value
        if plan.merge == "blend":
            core += 4 * (outputs + 1)
    return seen * _READ_COPIES + rows * cols * (core + 1) + GDAL_CACHE_BYTES
