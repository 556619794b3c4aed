"""Networks that return more than a tensor N×D, compute in other types, or come wrapped, are followed."""

from __future__ import annotations

import threading
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xfr_plugin.errors import InputError
from xfr_plugin.recognition import Recognizer

SIZE = (8, 8)
Both = namedtuple("Both", ["embedding", "logits"])


class Output(OrderedDict[str, Any]):
    """Like the outputs of transformers: a dictionary whose items are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


@dataclass
class Typed:
    features: Tensor
    maps: Tensor


class Returns(nn.Module):
    """A small network, and what it makes of its embedding N×6."""

    def __init__(self, shape: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 6)
        self.shape, self.lock = shape, threading.Lock()

    def forward(self, images: Tensor) -> object:
        with self.lock:
            return self.shape(self.fc(torch.relu(self.conv(images)).flatten(1)))


FOLLOWED: dict[str, Callable[[Tensor], object]] = {
    "tensor": lambda e: e,
    "N×D×1×1": lambda e: e[:, :, None, None],
    "squeezed": lambda e: e.squeeze(),
    "tuple": lambda e: (e,),
    "embedding and norm": lambda e: (e, e.norm(dim=1, keepdim=True)),
    "maps and embedding": lambda e: [e[:, :, None, None].expand(-1, -1, 4, 4), e],
    "named tuple": lambda e: Both(e, None),
    "dictionary": lambda e: {"loss": None, "vectors": e},
    "transformers": lambda e: Output(last_hidden_state=e[:, None].expand(-1, 9, -1), pooler_output=e),
    "convolutional transformers": lambda e: Output(
        last_hidden_state=e[:, :, None, None].expand(-1, -1, 2, 2), pooler_output=e[:, :, None, None]
    ),
    "two towers": lambda e: Output(image_embeds=e, logits=e @ e.T @ torch.ones(len(e), 9)),
    "data class": lambda e: Typed(features=e, maps=e[:, None, :, None].expand(-1, 2, -1, 5)),
    "object": lambda e: SimpleNamespace(embedding=e, logits=e[:, :3]),
}
REFUSED: dict[str, Callable[[Tensor], object]] = {
    "nothing": lambda e: None,
    "text": lambda e: "embedding",
    "two of the same shape": lambda e: (e, 2 * e),
    "hidden states alone": lambda e: Output(last_hidden_state=e[:, None].expand(-1, 9, -1)),
    "the batch in the wrong place": lambda e: torch.cat([e, e]),
    "an empty tuple": lambda e: (),
}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", FOLLOWED)
def test_the_embedding_is_found(kind: str, images: Tensor) -> None:
    expected = Recognizer(Returns(FOLLOWED["tensor"]), input_size=SIZE)
    found = Recognizer(Returns(FOLLOWED[kind]), input_size=SIZE)
    for some in (images, images[:1]):
        torch.testing.assert_close(found.embed(some), expected.embed(some))
    if kind != "squeezed":
        output = found.network(found.preprocess(images))
        torch.testing.assert_close(output, expected.features(images))  # every method sees a tensor N×D


@pytest.mark.parametrize("kind", REFUSED)
def test_where_it_is_not_clear_one_error_says_what_to_do(kind: str, images: Tensor) -> None:
    recognizer = Recognizer(Returns(REFUSED[kind]), input_size=SIZE)
    for entry in (recognizer.embed, recognizer, recognizer.features):
        with pytest.raises(InputError, match=r"must be N×D: return it alone"):
            entry(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("whole", [False, True])
def test_other_types(dtype: torch.dtype, whole: bool, images: Tensor) -> None:
    expected = Recognizer(Returns(FOLLOWED["tensor"]), input_size=SIZE).embed(images)
    network = Returns(FOLLOWED["tensor"])
    recognizer = (
        Recognizer(network, input_size=SIZE).to(dtype)
        if whole
        else Recognizer(network.to(dtype), input_size=SIZE)
    )
    assert recognizer.dtype in (torch.float32, torch.float64)
    found = recognizer.embed(images.to(recognizer.dtype))
    assert found.dtype == recognizer.dtype
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0)
    given = images.to(recognizer.dtype).requires_grad_()
    recognizer(given)[:, 0].sum().backward()
    assert given.grad is not None
    assert given.grad.dtype == recognizer.dtype


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, torch.compile, lambda net: torch.compile(nn.DataParallel(net))]
)
def test_wrapped_networks_are_taken_out(wrap: Callable[[nn.Module], nn.Module], images: Tensor) -> None:
    network = Returns(FOLLOWED["tensor"])
    recognizer = Recognizer(wrap(network), input_size=SIZE)
    assert recognizer.network is network
    assert recognizer.name == "Returns"
    assert recognizer.embed(images).shape == (3, 6)


def test_made_and_used_in_inference_mode(images: Tensor) -> None:
    network = Returns(FOLLOWED["tensor"])
    with torch.inference_mode():
        recognizer = Recognizer(network, input_size=SIZE)
        embedded = recognizer.embed(images)
        assert embedded.shape == (3, 6)
    given = images.clone().requires_grad_()
    recognizer(given)[:, 0].sum().backward()
    assert given.grad is not None


@pytest.mark.parametrize("network", ["resnet50", None, lambda images: images, Returns])
def test_what_is_no_network(network: object) -> None:
    with pytest.raises(InputError, match=r"torch\.nn\.Module"):
        Recognizer(network)
