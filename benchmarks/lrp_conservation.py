"""How much relevance each layer keeps, on real weights and faces.

Relevance starts with v_k = â_k · b̂_k at channel k, the score in all. For every module with a rule, the relevance of
its outputs is compared with that of its inputs: the net sum, and the sum of magnitudes. What is missing was absorbed
by biases (or by rules that hand on less than all), or blocked where a denominator is zero.

    python benchmarks/lrp_conservation.py [--pairs 8] [--layers]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from zennit.composites import COMPOSITES, EpsilonPlusFlat
from zennit.core import Hook
from zennit.rules import Pass

from xfr_plugin.faces import fit_aligned, load_photo
from xfr_plugin.faces.lfw import read_pairs
from xfr_plugin.lrp import Cosine, FaceCanonizer
from xfr_plugin.recognition import Recognizer, load_recognizer
from xfr_plugin.recognition.zoo import data_root

RECOGNIZERS = ("xfr_compact128", "mobilefacenet_ms1m", "faceid_plain")
OURS = ("epsilon_plus_flat_face", "epsilon_gamma_box_face", "excitation_backprop_face")


@dataclass
class Flow:
    """Relevance of a module's outputs and inputs, N values each: net sums and sums of magnitudes."""

    name: str
    module: str
    rule: str
    net_out: Tensor
    net_in: Tensor
    size_out: Tensor
    size_in: Tensor


def load_faces(recognizer: Recognizer, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` genuine pairs of LFW's development test set."""
    root = data_root() / "faces"
    pairs = [pair for pair in read_pairs(root / "pairsDevTest.txt") if pair.same][:count]
    sides = []
    for names in zip(*((pair.probe, pair.reference) for pair in pairs), strict=True):
        faces = [fit_aligned(load_photo(root / "lfw112" / name), recognizer.input_size) for name in names]
        sides.append(torch.stack([torch.tensor(face).permute(2, 0, 1).float() / 255 for face in faces]))
    return sides[0], sides[1]


@contextmanager
def recorded(network: nn.Module) -> Iterator[list[tuple[str, nn.Module, str, list[Tensor]]]]:
    """Record the inputs and outputs of all modules with a rule, each input as a tensor of its own."""
    records: list[tuple[str, nn.Module, str, list[Tensor]]] = []
    handles = []
    for name, module in network.named_modules():
        rule = rule_of(module)
        if rule is None:
            continue
        tensors: list[Tensor] = []
        records.append((name, module, rule, tensors))

        def before(_: nn.Module, inputs: Any, tensors: list[Tensor] = tensors) -> Any:
            tensors.append(inputs[0].clone())
            return (tensors[-1], *inputs[1:])

        def after(_: nn.Module, inputs: Any, output: Tensor, tensors: list[Tensor] = tensors) -> None:
            tensors.append(output)

        handles += [
            module.register_forward_pre_hook(before, prepend=True),
            module.register_forward_hook(after),
        ]
    try:
        yield records
    finally:
        for handle in handles:
            handle.remove()


def rule_of(module: nn.Module) -> str | None:
    hooks = (getattr(hook, "__self__", None) for hook in module._forward_pre_hooks.values())
    return next((type(hook).__name__ for hook in hooks if isinstance(hook, Hook)), None)


def measure(recognizer: Recognizer, composite: Any, pair: tuple[Tensor, Tensor]) -> tuple[list[Flow], Flow]:
    """Flow of every module from the last to the first, and of the whole network."""
    head = nn.Sequential(recognizer.network, Cosine(recognizer.embed(pair[1])))
    image = recognizer.preprocess(pair[0]).requires_grad_()
    with composite.context(head), recorded(head) as records:
        similarity = head(image)
        tensors = [tensor for *_, kept in records for tensor in kept]
        relevance = torch.autograd.grad(
            similarity, [image, *tensors], similarity.detach(), allow_unused=True, retain_graph=True
        )
    found = {id(tensor): value for tensor, value in zip(tensors, relevance[1:], strict=True)}
    flows = [
        flow(name, type(module).__name__, rule, found[id(kept[1])], found[id(kept[0])])
        for name, module, rule, kept in records
        if len(kept) == 2 and found[id(kept[0])] is not None and found[id(kept[1])] is not None
    ]
    return flows[::-1], flow("all", "", "", similarity.detach(), relevance[0])


def flow(name: str, module: str, rule: str, out: Tensor, into: Tensor) -> Flow:
    sums = [tensor.double().flatten(1).sum(1) for tensor in (out, into, out.abs(), into.abs())]
    return Flow(name, module, rule, *sums)


def composites() -> Iterator[tuple[str, Any]]:
    """Ours, with biases and without; and Zennit's own on the canonized network."""
    for name in OURS:
        yield name, COMPOSITES[name]()
    yield "epsilon_plus_flat_face, zero_params=['bias']", COMPOSITES[OURS[0]](zero_params=["bias"])
    head = [((Cosine, nn.PReLU), Pass())]
    yield (
        "Zennit's EpsilonPlusFlat with FaceCanonizer",
        EpsilonPlusFlat(layer_map=head, canonizers=[FaceCanonizer()]),
    )


def ratio(part: Tensor, whole: Tensor) -> str:
    share = float((part / whole).median())
    return f"{share:.1%}" if abs(share) < 100 else f"{share:.1e}"


def print_layers(flows: list[Flow], total: Flow) -> None:
    print(
        "| module | rule | net out / score | net in / score | kept, net | kept, magnitude |\n"
        + "|---" * 6
        + "|"
    )
    for each in flows:
        if each.rule in ("Pass", "Unchanged") and torch.allclose(each.net_out, each.net_in):
            continue
        columns = (
            ratio(each.net_out, total.net_out),
            ratio(each.net_in, total.net_out),
            ratio(each.net_in, each.net_out),
            ratio(each.size_in, each.size_out),
        )
        print(f"| {each.name} ({each.module}) | {each.rule} | " + " | ".join(columns) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--layers", action="store_true", help="print every layer, too")
    parser.add_argument("--recognizers", nargs="+", default=RECOGNIZERS)
    arguments = parser.parse_args()
    print(
        "| recognizer | composite | net, pixels / score | magnitude, pixels / score | strongest absorption |"
    )
    print("|---|---|---|---|---|")
    for name in arguments.recognizers:
        recognizer = load_recognizer(name)
        pair = load_faces(recognizer, arguments.pairs)
        for title, composite in composites():
            flows, total = measure(recognizer, composite, pair)
            lost = max(flows, key=lambda each: float(((each.net_out - each.net_in) / total.net_out).median()))
            columns = (ratio(total.net_in, total.net_out), ratio(total.size_in, total.net_out))
            absorbed = ratio(lost.net_out - lost.net_in, total.net_out)
            print(
                f"| `{name}` | {title} | " + " | ".join(columns) + f" | {lost.name}: {absorbed} |", flush=True
            )
            if arguments.layers:
                print_layers(flows, total)


if __name__ == "__main__":
    main()
