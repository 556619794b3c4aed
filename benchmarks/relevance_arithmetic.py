"""What the rules of `lrp` and `ebp` take of a processor by their arithmetic alone, beside what the methods take.

Every layer's values of one call are kept, and what its rule computes of them is computed again, straight: for the
signed z⁺ rule a pass forward with other weights and one or two back, and the dividing and multiplying between them.
Beside it stand the forward passes of the two faces, which both need. No hooks, no autograd, no looking whether the
network is as it was.

    python benchmarks/relevance_arithmetic.py [--recognizer xfr_compact128] [--repeats 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from overhead import cpu_seconds, explaining, in_batch
from torch import Tensor, nn

from xfr_plugin.lrp.rules import SignedPlus, SumPlus, _where_positive
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.recognition.folding import folded_recognizer

METHODS = ("lrp", "ebp")

Step = Callable[[], object]


def steps_of(explain: Step) -> list[Step]:
    """The arithmetic of every rule that a call applies."""
    steps: list[Step] = []

    def noting(backward: Callable[..., Any], step_of: Callable[..., Step]) -> Callable[..., Any]:
        def noted(hook: Any, module: nn.Module, grad_input: Any, grad_output: tuple[Tensor, ...]) -> Any:
            steps.append(step_of(hook, module, grad_output[0].detach()))
            return backward(hook, module, grad_input, grad_output)

        return noted

    with (
        patch.object(SignedPlus, "backward", noting(SignedPlus.backward, plus)),
        patch.object(SumPlus, "backward", noting(SumPlus.backward, shared)),
    ):
        explain()
    return steps


def plus(hook: SignedPlus, module: nn.Module, relevance: Tensor) -> Step:
    """Of the signed z⁺ rule: by the positive parts where there are no others, else by magnitudes."""
    x, z = hook.stored_tensors["input"].detach(), hook.stored_tensors["output"]
    weight = module.weight.detach()
    positive, magnitudes = weight.clamp(min=0), weight.abs()
    forward, back = passes(module, x)

    def by_parts() -> Tensor:
        return x * back(_where_positive(relevance, z) / (forward(x, positive) + 1e-6), positive)

    def by_magnitudes() -> Tensor:
        large = x.abs()
        scaled = relevance / (forward(large, magnitudes) + z.abs())
        return x * back(scaled * z.sign(), weight) + large * back(scaled, magnitudes)

    is_positive = bool(x.amin() >= 0) and torch.equal(_where_positive(relevance, z), relevance)
    return by_parts if is_positive else by_magnitudes


def passes(module: nn.Module, x: Tensor) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """A layer's pass forward and back with weights that are given."""
    if isinstance(module, nn.Linear):
        return (lambda values, weight: values @ weight.T), (lambda values, weight: values @ weight)
    settings = [module.stride, module.padding, module.dilation]

    def back(values: Tensor, weight: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.convolution_backward(
            values, x, weight, None, *settings, False, [0, 0], module.groups, [True, False, False]
        )[0]
        return found

    return (lambda values, weight: torch.conv2d(values, weight, None, *settings, module.groups)), back


def shared(hook: SumPlus, module: Any, relevance: Tensor) -> Step:
    """Of the rule for sums of branches."""
    x, z = hook.stored_tensors["input"], hook.stored_tensors["output"].unsqueeze(module.dim)

    def share() -> Tensor:
        agreeing = _where_positive(x, x * z)
        return agreeing * (relevance / (agreeing.sum(module.dim) + 1e-6)).unsqueeze(module.dim)

    return share


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recognizer", default="xfr_compact128")
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recognizer = load_recognizer(arguments.recognizer)
    folded, faces = folded_recognizer(recognizer), in_batch(recognizer, 2)
    print(f"{'method':8} {'CPU ms':>8} {'arithmetic':>11} {'of it rules':>12} {'ratio':>7}")
    for name in METHODS:
        explain = explaining(recognizer, name)
        explain()
        steps = steps_of(explain)
        with torch.no_grad():
            rules = cpu_seconds(lambda steps=steps: [step() for step in steps], arguments.repeats)
            whole = rules + cpu_seconds(lambda: folded(faces), arguments.repeats)
        spent = cpu_seconds(explain, arguments.repeats)
        shown = (1000 * spent, 1000 * whole, 1000 * rules)
        print(f"{name:8} {shown[0]:8.1f} {shown[1]:11.1f} {shown[2]:12.1f} {spent / whole:7.2f}", flush=True)


if __name__ == "__main__":
    main()
