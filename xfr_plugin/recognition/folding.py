"""Folding BatchNorm into convolutions: the same function and the same input gradients, in less time.

What was folded, and found to compute the same, is kept as long as the network is in the state that it was folded in
(`base.replicas.state_of`); weights that were folded are there twice then. Where no gradient is wanted, another
runtime may take still less time, see `recognition.backends`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xfr_plugin.base.folding import batchnorm_folded
from xfr_plugin.base.kept import kept
from xfr_plugin.base.replicas import parts_of
from xfr_plugin.recognition.backends import PAYS, carries_hooks
from xfr_plugin.recognition.black_boxes import BlackBox, depends_on
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.recognition.self_test import faces_of_nobody

__all__ = ["fast_recognizer", "fold_batchnorm", "folded_recognizer", "for_scores", "safely_folded"]


def fold_batchnorm(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each BatchNorm that follows a convolution folded into it.

    The copy computes the same function up to rounding, and input gradients of it take about half the time on a CPU.
    Weights that nothing was folded into are shared. Networks that cannot be traced (control flow that depends on
    data), that carry hooks, or that train are returned as they are, and so are those in which another framework
    computes.
    """
    if network.training or carries_hooks(network):
        return network
    if any(isinstance(module, BlackBox) for module in network.modules()):
        return network
    try:
        return batchnorm_folded(network)
    except Exception:  # tracing foreign code can fail in any way, and folding is only a matter of speed
        return network


def folded_recognizer(recognizer: Recognizer) -> Recognizer:
    """Copy a recognizer with its network folded, see `fold_batchnorm`; itself, if it is no network of torch."""
    if recognizer.gives != "gradient":
        return recognizer
    return recognizer.with_network(fold_batchnorm(recognizer.network))


def safely_folded(
    function: Callable[..., Tensor], images: Tensor, arguments: Sequence[Any] = ()
) -> Callable[..., Tensor]:
    """A function of images with BatchNorm folded in, if it is a module and that computes the same for these.

    What was found for images of a size serves all of that size, unless the function takes further arguments.
    """
    if not isinstance(function, nn.Module) or carries_hooks(function):
        return function
    if any(part.training for part in parts_of(function)):  # which to try would change it
        return function
    if arguments:
        return _checked(function, images, arguments) or function
    network = function.network if isinstance(function, Recognizer) else function
    kind = (type(function), tuple(images.shape[1:]), images.dtype, images.device)
    folded = kept(network, ("folded", *kind), lambda: _network(_checked(function, images[:1], ())))
    if folded is None:
        return function
    return function.with_network(folded) if isinstance(function, Recognizer) else folded


def _network(function: nn.Module | None) -> nn.Module | None:
    return function.network if isinstance(function, Recognizer) else function


@torch.no_grad()
def _checked(function: nn.Module, images: Tensor, arguments: Sequence[Any]) -> nn.Module | None:
    """A module with BatchNorm folded in; None if there is none, or if it does not compute the same."""
    if not _is_of_torch(function, images, arguments):
        return None
    folded = folded_recognizer(function) if isinstance(function, Recognizer) else fold_batchnorm(function)
    if folded is function or (isinstance(function, Recognizer) and folded.network is function.network):
        return None
    expected = function(images, *arguments)
    try:
        found = folded(images, *arguments)
    except RuntimeError:  # tracing can bake a shape in
        return None
    # tracing can also take a wrong branch, where code asks what a tensor is
    return folded if _close(found, expected) else None


def for_scores(
    function: Callable[..., Tensor], images: Tensor, arguments: Sequence[Any] = (), passes: int = PAYS
) -> Callable[..., Tensor]:
    """A function of images that computes the same in the least time, and gives no gradient.

    Args:
        function: a `Recognizer`, another module, or a plain function, which is left as it is.
        images: some of those that are meant.
        arguments: further arguments of the function.
        passes: how many images there will be, about.
    """
    if isinstance(function, Recognizer) and not arguments:
        fast = function.for_forward_passes(passes)
        if fast is not function:
            return fast
    return safely_folded(function, images, arguments)


def fast_recognizer(recognizer: Recognizer, passes: int = PAYS) -> Recognizer:
    """A recognizer, or a copy that computes the same in less time and gives no gradient; see `for_scores`."""
    faces = faces_of_nobody(recognizer.input_size)[:2].to(recognizer.device, recognizer.dtype)
    found = for_scores(recognizer, faces, passes=passes)
    assert isinstance(found, Recognizer)  # as what is given
    return found


def _is_of_torch(function: nn.Module, images: Tensor, arguments: Sequence[Any]) -> bool:
    """Whether a module may be traced: a gradient reaches its images, so that torch computes it.

    Others are not to be traced: what is not of torch can end the process when it is given what stands for a tensor.
    """
    if isinstance(function, Recognizer):
        return function.gives == "gradient"
    leaf = images.detach().clone().requires_grad_()
    try:
        with torch.enable_grad():
            output = function(leaf, *arguments)
    except Exception:  # foreign code, as arrays that want no gradient
        return False
    return isinstance(output, Tensor) and depends_on(output, leaf)


def _close(found: Tensor, expected: Tensor) -> bool:
    scale = float(expected.abs().max())
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * scale)
