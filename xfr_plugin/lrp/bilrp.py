"""BiLRP: which part of one face matched which part of the other (Eberle et al., TPAMI 2022, arXiv 2003.05431)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from xfr_plugin.base.options import checked_at_least, checked_choice
from xfr_plugin.errors import InputError
from xfr_plugin.faces.regions import RegionMap, template_regions
from xfr_plugin.lrp.attributors import AttrOutput, EmbeddingAttributor, unit_embeddings
from xfr_plugin.lrp.propagation import Propagation, region_relevance

__all__ = [
    "BiLRP",
    "Regions",
    "grid_masks",
    "normalized_factors",
    "random_projection",
    "region_masks",
    "specific_factors",
]

Regions: TypeAlias = RegionMap | int | Tensor | None
"""Named regions; or p for a p×p grid; or weights P×H×W of the pixels; or None for the template's regions."""


class BiLRP(EmbeddingAttributor):
    """Relevance of pairs of regions: R = Σ_k R_k(A) ⊗ R_k(B), on maps pooled over regions.

    R_k(A) is the relevance of channel k of the unit embedding of A, starting with its value â_k. The score is the
    sum of products Σ_k â_k b̂_k, and LRP of a product is the product of both factors' relevances; so by
    conservation the P×P entries of R sum to the score, and its row sums are the pooled relevance of the score for A.
    Computed in factors: the relevance of each channel in each region of both faces, and one matrix product.

    A call takes 2N images, N probes followed by their N references, and returns embeddings 2N×D and relevance
    N×P×P: entry (i, j) belongs to region i of the probe and region j of the reference.

    Two options go beyond the paper. Biases absorb relevance, differently in each channel, so that R can be far from
    the score and ruled by few channels. `normalization="l1"` replaces R_k(A) by â_k · |R_k(A)| / Σ|R_k(A)|, the
    channel's value spread as its pooled relevance is: then R sums to the score exactly. And most channels look at
    much the same regions, which makes R close to an outer product of row and column sums. `part="specific"` takes
    each face's common distribution m = Σ_k â_k R_k(A) out of its channels, R_k(A) − â_k m: what is left, positive or
    negative, says which regions match beyond that. Where relevance is conserved its rows and columns sum to 0.

    The exact result needs min(P, D) passes after the recording of the propagation. With `projections=m` the
    channels are first projected to m random directions (see `random_projection`): m passes, and an error that falls
    with √m. This pays where both P and D are large.

    Args:
        model: see `EmbeddingAttributor`.
        composite: see `EmbeddingAttributor`.
        attr_output: relevance 2N×D of the channels, or a function from the output to it; the unit embeddings, if
            left out.
        regions: see `Regions`.
        normalization: of each channel's pooled relevance: `none` (default, the published method), or `l1`.
        part: `all` of the relevance (default), or what is `specific` to pairs of regions.
        projections: number of random directions; None (default) is exact.
        seed: of the directions.
        chunk_size: passes at once; memory grows with it.

    Raises:
        InputError: an option that makes no sense; `l1` with projections, which do not know single channels.
    """

    def __init__(
        self,
        model: nn.Module,
        composite: Any | None = None,
        attr_output: AttrOutput | None = None,
        *,
        regions: Regions = None,
        normalization: Literal["none", "l1"] = "none",
        part: Literal["all", "specific"] = "all",
        projections: int | None = None,
        seed: int = 0,
        chunk_size: int = 8,
    ) -> None:
        super().__init__(model, composite, attr_output)
        if isinstance(regions, int) and regions < 1:
            raise InputError(f"a grid needs at least one row, got regions={regions}")
        if projections is not None and projections < 1:
            raise InputError(
                f"projections must be at least 1, or None for the exact result, got {projections}"
            )
        if normalization == "l1" and projections is not None:
            raise InputError("normalization='l1' needs every channel: leave projections out")
        self.normalization = checked_choice("normalization", normalization, "none", "l1")
        self.part = checked_choice("part", part, "all", "specific")
        self.regions = regions
        self.projections = projections
        self.seed = seed
        self.chunk_size = checked_at_least("chunk_size", chunk_size, 1)

    @staticmethod
    def default_attr_output(output: Tensor) -> Tensor:
        """Unit embeddings: their products by channel sum to the score."""
        return unit_embeddings(output)

    def forward(self, input: Tensor, attr_output_fn: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Compute R; called by `__call__`, with the composite registered.

        Raises:
            InputError: an odd number of images, or regions of another size.
        """
        if len(input) == 0 or len(input) % 2:
            raise InputError(
                f"a batch of pairs holds N probes and then N references, got {len(input)} images"
            )
        masks = region_masks(self.regions, input)
        with self.propagation(input) as propagation:
            relevance = attr_output_fn(propagation.output)
            factors = self._factors(propagation, masks, relevance)
        probes, references = factors.chunk(2)
        return propagation.output, probes @ references.transpose(1, 2)

    def _factors(self, propagation: Propagation, masks: Tensor, relevance: Tensor) -> Tensor:
        """Factors of R, 2N×P×D, or 2N×P×m with a projection."""
        if self.projections is not None:
            return self._projected(propagation, masks, relevance, self.projections)
        pooled = region_relevance(propagation, masks, relevance, self.chunk_size)
        if self.normalization == "l1":
            pooled = normalized_factors(pooled, relevance)
        return pooled if self.part == "all" else specific_factors(pooled, relevance)

    def _projected(
        self, propagation: Propagation, masks: Tensor, relevance: Tensor, projections: int
    ) -> Tensor:
        directions = random_projection(projections, relevance.shape[1], self.seed).to(relevance)
        pooled = _pooled(propagation, masks, directions[:, None] * relevance, self.chunk_size)
        if self.part == "all":
            return pooled
        common = _pooled(propagation, masks, (relevance**2)[None], self.chunk_size)[..., 0]
        common = common / _square(relevance)
        return pooled - common[..., None] * (relevance @ directions.T)[:, None]


def _pooled(propagation: Propagation, masks: Tensor, relevance: Tensor, chunk_size: int) -> Tensor:
    """Totals by region, M×P×K, of the maps of relevance K×M×D."""
    maps = (propagation.maps(rows) for rows in relevance.split(chunk_size))
    return torch.cat([torch.einsum("kmchw,phw->mpk", chunk, masks) for chunk in maps], dim=2)


def normalized_factors(pooled: Tensor, relevance: Tensor) -> Tensor:
    """Pooled relevance M×P×D, each channel's made a distribution over regions times its own relevance M×D."""
    totals = pooled.abs().sum(dim=1, keepdim=True)
    tiny = torch.finfo(totals.dtype).tiny  # a channel without relevance takes no part
    return pooled.abs() / totals.clamp_min(tiny) * relevance[:, None]


def specific_factors(pooled: Tensor, relevance: Tensor) -> Tensor:
    """Pooled relevance M×P×D, less the distribution that, times each channel's relevance M×D, comes nearest to it."""
    common = pooled @ relevance[..., None] / _square(relevance)[..., None]
    return pooled - common * relevance[:, None]


def _square(relevance: Tensor) -> Tensor:
    squares: Tensor = relevance.square().sum(dim=1, keepdim=True)
    return squares.clamp_min(torch.finfo(squares.dtype).tiny)


def random_projection(directions: int, channels: int, seed: int) -> Tensor:
    """Random directions m×D with entries ±1/√m: products of projected vectors are unbiased for those of the vectors.

    The standard deviation of a product ⟨x, y⟩ is at most √((‖x‖²‖y‖² + ⟨x, y⟩²) / m).
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (directions, channels), generator=generator, dtype=torch.float64) * 2 - 1
    projection: Tensor = signs / directions**0.5
    return projection


def region_masks(regions: Regions, images: Tensor) -> Tensor:
    """Weights of the pixels in each region, P×H×W, on the device and of the type of images M×C×H×W.

    Raises:
        InputError: regions of another size than the images, or that are none of `Regions`.
    """
    size = (int(images.shape[-2]), int(images.shape[-1]))
    if regions is None:
        regions = template_regions(size)
    if isinstance(regions, int):
        return grid_masks(regions, size).to(images)
    if isinstance(regions, RegionMap):
        labels = torch.from_numpy(regions.labels.astype("int64"))
        masks = torch.nn.functional.one_hot(labels, len(regions.names)).permute(2, 0, 1)
    else:
        masks = regions
    if masks.ndim != 3 or tuple(masks.shape[1:]) != size:
        raise InputError(f"the regions have shape {tuple(masks.shape)}, the images {size[0]}×{size[1]}")
    return masks.to(images)


def grid_masks(rows: int, size: tuple[int, int]) -> Tensor:
    """Masks p²×H×W of a p×p grid, row by row; every pixel belongs to one cell.

    Raises:
        InputError: more cells in a row than pixels.
    """
    if rows > min(size):
        raise InputError(f"a grid of {rows}×{rows} does not fit into {size[0]}×{size[1]} pixels")
    down, across = (torch.arange(length) * rows // length for length in size)
    cells = down[:, None] * rows + across
    masks: Tensor = (cells == torch.arange(rows * rows)[:, None, None]).double()
    return masks
