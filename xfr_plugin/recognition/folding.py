"""Folding BatchNorm into convolutions: the same function and the same input gradients, in less time.

Where no gradient is wanted, another runtime may take still less, see `recognition.backends`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.optimization import fuse

from xfr_plugin.base.tracing import PrivateTracer
from xfr_plugin.recognition.backends import PAYS, carries_hooks
from xfr_plugin.recognition.black_boxes import BlackBox, depends_on
from xfr_plugin.recognition.recognizer import Recognizer
from xfr_plugin.recognition.self_test import faces_of_nobody

__all__ = ["fast_recognizer", "fold_batchnorm", "folded_recognizer", "for_scores", "safely_folded"]


def fold_batchnorm(network: nn.Module) -> nn.Module:
    """Copy a network in evaluation mode, with each BatchNorm that follows a convolution folded into it.

    The copy computes the same function up to rounding, and input gradients of it take about half the time on a CPU.
    Networks that cannot be traced (control flow that depends on data), that carry hooks, or that train are
    returned as they are, and so are those in which another framework computes.
    """
    if network.training or carries_hooks(network):
        return network
    if any(isinstance(module, BlackBox) for module in network.modules()):
        return network
    try:
        tracer = PrivateTracer()
        graph = tracer.trace(network)
        folded: nn.Module = fuse(fx.GraphModule(tracer.root, graph), no_trace=True)
    except Exception:  # tracing foreign code can fail in any way, and folding is only a matter of speed
        return network
    laid_out: nn.Module = folded._apply(_colours_innermost)
    return laid_out


def _colours_innermost(values: Tensor) -> Tensor:
    """Maps in the order in memory that convolutions take less time for; other tensors have no such order."""
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values


def folded_recognizer(recognizer: Recognizer) -> Recognizer:
    """Copy a recognizer with its network folded, see `fold_batchnorm`; itself, if it is no network of torch."""
    if recognizer.gives != "gradient":
        return recognizer
    return recognizer.with_network(fold_batchnorm(recognizer.network))


@torch.no_grad()
def safely_folded(
    function: Callable[..., Tensor], images: Tensor, arguments: Sequence[Any] = ()
) -> Callable[..., Tensor]:
    """A function of images with BatchNorm folded in, if it is a module and that computes the same for these."""
    if not isinstance(function, nn.Module) or not _is_of_torch(function, images, arguments):
        return function
    folded = folded_recognizer(function) if isinstance(function, Recognizer) else fold_batchnorm(function)
    if folded is function:
        return function
    expected = function(images, *arguments)
    try:
        found = folded(images, *arguments)
    except RuntimeError:  # tracing can bake a shape in
        return function
    # tracing can also take a wrong branch, where code asks what a tensor is
    return folded if _close(found, expected) else function


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
