"""Where decoded faces change with a channel, and the atlas of these maps: on a decoder that can be foreseen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.channels import channel_atlas, decoded_changes, normalised_maps
from xfr_plugin.errors import InputError


class Quadrants(nn.Module):
    """Each of four channels paints its own quadrant, the last one nothing."""

    def forward(self, embeddings: Tensor) -> Tensor:
        picture = torch.zeros(len(embeddings), 3, 4, 4)
        for k, (row, column) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
            picture[:, :, row : row + 2, column : column + 2] = embeddings[:, k, None, None, None]
        return picture


def test_difference_maps_and_atlas_show_where_a_channel_lives() -> None:
    embedding = torch.tensor([0.5, -0.5, 0.1, 0.0, 0.7])
    (maps,) = decoded_changes(Quadrants(), embedding[None], torch.arange(5)[None], batch_size=2)
    assert maps.shape == (5, 4, 4)
    torch.testing.assert_close(maps[1, :2, 2:], torch.full((2, 2), 0.5))
    assert float(maps[1].sum()) == pytest.approx(2.0)
    assert float(maps[3:].sum()) == 0
    atlas = channel_atlas(Quadrants(), torch.stack((embedding, 2 * embedding)))
    torch.testing.assert_close(atlas.sum(dim=(1, 2)), torch.tensor([1.0, 1, 1, 0, 0]))
    torch.testing.assert_close(atlas[2, 2:, :2], torch.full((2, 2), 0.25))
    with pytest.raises(InputError, match="at least one embedding"):
        channel_atlas(Quadrants(), torch.empty(0, 5))


def test_maps_are_normalised_by_either_norm() -> None:
    maps = torch.tensor([[[3.0, 4.0]], [[0.0, 0.0]]])
    torch.testing.assert_close(normalised_maps(maps, 2)[0], torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(normalised_maps(maps)[0], torch.tensor([[3 / 7, 4 / 7]]))
    assert float(normalised_maps(maps)[1].abs().sum()) == 0
    with pytest.raises(InputError, match="not order 3"):
        normalised_maps(maps, 3)
