"""Attributions of every channel of an embedding, in chunks, within bounded memory.

The loop that one writes first, `for k in range(D): method.attribute(images, target=k)`, runs the network forwards
again for every channel, although the images are the same. Here a chunk of channels shares its forward passes: the
gradients of all its channels come from one vectorised backward pass (`pullback`), on a copy of the network with
BatchNorm folded into its convolutions where that computes the same.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.base.captum import (
    Attribution,
    GradientAttribution,
    _format_additional_forward_args,
    compute_gradients,
)
from xfr_plugin.base.options import checked_at_least
from xfr_plugin.base.replicas import replica
from xfr_plugin.base.rows import has_rows, with_rows
from xfr_plugin.channels.pullback import one_hot_cotangents, pull_back
from xfr_plugin.errors import InputError
from xfr_plugin.recognition.folding import safely_folded

__all__ = ["attribute_all_channels", "iterate_channels"]


def attribute_all_channels(
    method: Attribution | Callable[..., Tensor],
    images: Tensor,
    /,
    *,
    channels: range | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
    chunk_size: int = 16,
    additional_forward_args: object | None = None,
    fold: bool = True,
    **options: Any,
) -> Tensor:
    """Attribute every channel of an embedding to the images.

    ::

        gradients = attribute_all_channels(model, images)                                  # N×D×C×H×W
        maps = attribute_all_channels(IntegratedGradients(model), images, n_steps=20)

    Args:
        method: an embedding model N×… → N×D, for its plain gradient; or a method of Captum on such a model.
            Methods that ask `gradient_func` for their gradients (IntegratedGradients, InputXGradient, Saliency,
            GradientShap …) share forward passes; others are merely run on several channels at once.
        images: N×….
        channels: which channels; all D, if left out.
        reduce: applied to each chunk N×K×…, to keep less than all of it, e.g. a sum over colours.
        chunk_size: channels at once. Memory grows with it: that of a backward pass of N·chunk_size images (times
            `internal_batch_size` / (N·chunk_size), if a method has and is given it).
        additional_forward_args: further arguments of the model; tensors with N rows are repeated like the images.
        fold: differentiate a copy with BatchNorm folded in, where that computes the same. It does so up to
            rounding.
        **options: passed on to the method's `attribute`.

    Returns:
        N×K×…, for K channels, in memory; iterate with `iterate_channels` if that is too much.

    Raises:
        InputError: options for a plain gradient, no image, a model that does not return N×D, a chunk size below 1.
    """
    chunks = iterate_channels(
        method,
        images,
        channels=channels,
        chunk_size=chunk_size,
        additional_forward_args=additional_forward_args,
        fold=fold,
        **options,
    )
    return torch.cat([maps if reduce is None else reduce(maps) for _, maps in chunks], dim=1)


def iterate_channels(
    method: Attribution | Callable[..., Tensor],
    images: Tensor,
    /,
    *,
    channels: range | None = None,
    chunk_size: int = 16,
    additional_forward_args: object | None = None,
    fold: bool = True,
    **options: Any,
) -> Iterator[tuple[range, Tensor]]:
    """Like `attribute_all_channels`, a chunk at a time.

    Yields:
        The channels of the chunk, and their attributions N×K×….

    Raises:
        InputError: as `attribute_all_channels`.
    """
    checked_at_least("chunk_size", chunk_size, 1)
    if not isinstance(images, Tensor) or len(images) == 0:
        raise InputError("images must be a tensor of at least one image")
    arguments = _format_additional_forward_args(additional_forward_args) or ()
    if isinstance(method, Attribution):
        yield from _by_method(method, images.detach(), channels, chunk_size, arguments, fold, options)
        return
    if options:
        raise InputError(f"a plain gradient has no options: {', '.join(options)}")
    yield from _by_gradient(method, images.detach(), channels, chunk_size, arguments, fold)


def _by_gradient(
    model: Callable[..., Tensor],
    images: Tensor,
    channels: range | None,
    chunk_size: int,
    arguments: tuple[Any, ...],
    fold: bool,
) -> Iterator[tuple[range, Tensor]]:
    function = safely_folded(model, images, arguments) if fold else model
    embedding, pullback = pull_back(lambda leaf: function(leaf, *arguments), images, chunk_size)
    for chunk in _chunks(_checked_channels(channels, embedding), chunk_size):
        yield chunk, pullback(_cotangents(chunk, embedding)).transpose(0, 1)


def _by_method(
    method: Attribution,
    images: Tensor,
    channels: range | None,
    chunk_size: int,
    arguments: tuple[Any, ...],
    fold: bool,
    options: dict[str, Any],
) -> Iterator[tuple[range, Tensor]]:
    with torch.no_grad():
        embedding = method.forward_func(images, *arguments)
    wanted = _checked_channels(channels, embedding)
    batched = _on_replica(method)
    shares = _shares_gradients(method)
    if shares and fold:
        batched.forward_func = safely_folded(method.forward_func, images, arguments)
    for chunk in _chunks(wanted, chunk_size):
        if shares:
            batched.gradient_func = _SharedForward(chunk, len(images))
        yield chunk, _attribute_chunk(batched, images, chunk, arguments, options)


def _on_replica(method: Attribution) -> Attribution:
    """A copy of a method with a replica of its network, whose layers Captum may hook while others use them."""
    own, holder = copy.copy(method), nn.Module()
    if isinstance(method.forward_func, nn.Module):
        holder.network = method.forward_func
    holder.__dict__["attributes"] = dict(method.__dict__)
    own.__dict__.update(replica(holder).__dict__["attributes"])
    return own


def _shares_gradients(method: Attribution) -> bool:
    """Whether a method asks its `gradient_func`, and does not change its network's layers."""
    return isinstance(method, GradientAttribution) and not hasattr(method, "model")


def _attribute_chunk(
    method: Attribution, images: Tensor, chunk: range, arguments: tuple[Any, ...], options: dict[str, Any]
) -> Tensor:
    """Attributions N×K×… of a chunk of channels: all images for its first channel, then for the next …"""
    count = len(images)

    def repeated(rows: Tensor) -> Tensor:
        return rows.repeat(len(chunk), *(1,) * (rows.ndim - 1))

    many = repeated(images).requires_grad_()
    further = with_rows(arguments, count, repeated)
    per_image = dict(zip(options, with_rows(options.values(), count, repeated), strict=True))
    if per_image.get("internal_batch_size") is not None:
        per_image["internal_batch_size"] = max(per_image["internal_batch_size"], len(many))
    elif "internal_batch_size" in inspect.signature(method.attribute).parameters:
        per_image["internal_batch_size"] = len(many)
    target = torch.tensor(list(chunk), device=images.device).repeat_interleave(count)
    maps = method.attribute(many, target=target, additional_forward_args=further or None, **per_image)
    by_channel: Tensor = maps.detach().unflatten(0, (len(chunk), count))
    return by_channel.transpose(0, 1)


class _SharedForward:
    """Captum's `gradient_func` for inputs that hold the same N images once for each of K channels.

    Captum's methods hand over S points of each of the K·N rows. Where the K copies of an image are equal (on the path
    of integrated gradients; not so with noise), they go forwards once.
    """

    def __init__(self, channels: range, count: int) -> None:
        self.channels = channels
        self.count = count

    def __call__(
        self,
        forward_fn: Callable[..., Tensor],
        inputs: Any,
        target_ind: Any = None,
        additional_forward_args: Any = None,
    ) -> tuple[Tensor, ...]:
        points: Tensor = inputs[0] if isinstance(inputs, tuple) else inputs
        arguments = _format_additional_forward_args(additional_forward_args) or ()
        rows = len(points)
        if not all(self._repeats(value, rows) for value in (points, *arguments)):
            plain: tuple[Tensor, ...] = compute_gradients(
                forward_fn, inputs, target_ind, additional_forward_args
            )
            return plain
        images, *further = (self._once(value, rows) for value in (points, *arguments))
        embedding, pullback = pull_back(lambda leaf: forward_fn(leaf, *further), images, len(self.channels))
        gradients = pullback(_cotangents(self.channels, embedding))
        by_point = gradients.unflatten(1, (-1, self.count)).transpose(0, 1)
        return (by_point.reshape(points.shape),)

    def _repeats(self, value: Any, rows: int) -> bool:
        if not has_rows(value, rows):
            return True
        copies = value.detach().unflatten(0, (-1, len(self.channels), self.count))
        return bool((copies == copies[:, :1]).all())

    def _once(self, value: Any, rows: int) -> Any:
        if not has_rows(value, rows):
            return value
        return value.detach().unflatten(0, (-1, len(self.channels), self.count))[:, 0].flatten(0, 1)


def _cotangents(channels: range, embedding: Tensor) -> Tensor:
    """Cotangents K×M×D that select these channels, which need not be neighbours."""
    return one_hot_cotangents(range(embedding.shape[1]), embedding)[list(channels)]


def _checked_channels(channels: range | None, embedding: Tensor) -> range:
    if embedding.ndim != 2:
        raise InputError(f"the model must return N×D embeddings, got {tuple(embedding.shape)}")
    every = range(embedding.shape[1])
    wanted = every if channels is None else channels
    if len(wanted) == 0 or min(wanted) < 0 or max(wanted) >= len(every):
        raise InputError(f"channels must be within 0…{len(every) - 1}, got {wanted}")
    return wanted


def _chunks(channels: range, chunk_size: int) -> Iterator[range]:
    for start in range(0, len(channels), chunk_size):
        yield channels[start : start + chunk_size]
