"""Calls from many threads at once answer as they do alone, and leave the process and the networks as they were."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from captum.attr import Attribution
from helpers.tiny_decoder import make_decoder
from helpers.tiny_evidence import toy_evidence
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules import module as modules
from zennit.composites import EpsilonPlusFlat

import xfr_plugin
from xfr_plugin.attr import GradCam
from xfr_plugin.attr.registry import METHODS
from xfr_plugin.base.quiet import ignoring
from xfr_plugin.errors import FaceWarning
from xfr_plugin.explanation.matches import match_regions
from xfr_plugin.lrp.bilrp import BiLRP
from xfr_plugin.recognition import Recognizer

Answer = list[NDArray[np.float64]]
Call = Callable[[Recognizer], Answer]
Photo = NDArray[np.uint8]

MIXED = (
    *("lrp", "ebp", "gradcam", "channel_relevance", "fggb", "integrated_gradients", "deeplift", "smoothgrad"),
    *("lime", "kernel_shap", "corrrise", "score_cam", "leave_one_out"),
)


@pytest.fixture
def photos() -> tuple[Photo, Photo]:
    """Noise, which is neither dark nor blurred, so that there is nothing to warn of."""
    probe, reference = np.random.default_rng(0).integers(0, 256, (2, 24, 20, 3), dtype=np.uint8)
    return probe, reference


@pytest.fixture
def calls(recognizer: Recognizer, photos: tuple[Photo, Photo]) -> dict[str, Call]:
    """Public calls that take a recognizer."""
    decoder, tensors = make_decoder(recognizer), [_tensor(photo) for photo in photos]
    evidence = toy_evidence(recognizer, torch.cat(tensors))

    def explained(method: str | None, **options: object) -> Call:
        def call(model: Recognizer) -> Answer:
            found = xfr_plugin.explain(
                *photos, recognizer=model, method=method, options=options, alignment="aligned"
            )
            return [_score(found.verification), found.probe.saliency, found.reference.saliency]

        return call

    def compared(model: Recognizer) -> Answer:
        found = xfr_plugin.compare(
            *photos, methods=["lrp", "gradcam", "fggb"], recognizer=model, alignment="aligned"
        )
        return [one.probe.saliency for one in found.explanations.values()]

    def matched(model: Recognizer) -> Answer:
        found = match_regions(*photos, recognizer=model, alignment="aligned")
        return [_score(found.verification), found.relevance, found.specific]

    return {
        "verify": lambda model: [_score(xfr_plugin.verify(*photos, recognizer=model, alignment="aligned"))],
        "compare": compared,
        "match_regions": matched,
        "default": explained(None),
        "reconstruction": explained("reconstruction", decoder=decoder),
        "amortised": explained("amortised", network=evidence),
        **{name: explained(name, **METHODS[name].trial_options) for name in MIXED},
        "one lrp": _of_one(METHODS["lrp"].build(recognizer, 0.2), tensors),
        "one ebp": _of_one(METHODS["ebp"].build(recognizer, 0.2), tensors),
        "one gradcam": _of_one(METHODS["gradcam"].build(recognizer, 0.2), tensors),
        "gradcam of a function": _of_one(GradCam(lambda images: recognizer(images), 0.2), tensors),
        "one bilrp": _of_one_attributor(BiLRP(recognizer.network, EpsilonPlusFlat(), regions=2), tensors),
    }


def _tensor(photo: Photo) -> Tensor:
    return torch.from_numpy(photo.transpose(2, 0, 1)[None] / 255)


def _score(verification: xfr_plugin.Verification) -> NDArray[np.float64]:
    return np.array(verification.score)


def _of_one(attribution: Attribution, tensors: list[Tensor]) -> Call:
    """A call of one attribution object, which all threads share."""
    return lambda _: [side.numpy() for side in attribution.attribute(tuple(tensors))]


def _of_one_attributor(attributor: BiLRP, tensors: list[Tensor]) -> Call:
    return lambda _: [side.detach().numpy() for side in attributor(torch.cat(tensors))]


@contextmanager
def switching_often() -> Iterator[None]:
    """Let threads take turns fifty times as often as usual, and torch compute each call on one core."""
    interval, count = sys.getswitchinterval(), torch.get_num_threads()
    sys.setswitchinterval(1e-4)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(count)


def answers_of_threads(
    calls: Mapping[str, Call], recognizers: list[Recognizer], rounds: int
) -> list[tuple[str, Answer]]:
    """Answers of one thread for each recognizer, each making all calls in an order of its own."""
    start = threading.Barrier(len(recognizers))

    def work(number: int) -> list[tuple[str, Answer]]:
        order = [name for name in calls for _ in range(rounds)]
        random.Random(number).shuffle(order)
        start.wait()
        return [(name, calls[name](recognizers[number])) for name in order]

    with switching_often(), ThreadPoolExecutor(len(recognizers)) as pool:
        return [answer for found in pool.map(work, range(len(recognizers))) for answer in found]


def traces(network: nn.Module) -> list[object]:
    """What calls could leave behind in a network and in torch."""
    tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        *(nn.Module.__call__, nn.Module.__getattr__, len(modules._global_forward_hooks)),
        *(len(getattr(module, table)) for module in network.modules() for table in tables),
        *(sorted(module.__dict__) for module in network.modules()),
        *(id(value) for value in (*network.parameters(), *network.buffers())),
        *(value._version for value in (*network.parameters(), *network.buffers())),
        *(value.requires_grad for value in network.parameters()),
    ]


def check(calls: Mapping[str, Call], recognizers: list[Recognizer], rounds: int) -> None:
    serial = {name: call(recognizers[0]) for name, call in calls.items()}
    before, state = traces(recognizers[0]), torch.random.get_rng_state()
    filters = list(warnings.filters)
    for name, answer in answers_of_threads(calls, recognizers, rounds):
        for found, expected in zip(answer, serial[name], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=name)
    assert traces(recognizers[0]) == before
    assert torch.equal(torch.random.get_rng_state(), state), "the global random numbers were used"
    assert warnings.filters == filters
    for name, call in calls.items():  # and afterwards all is as before
        for found, expected in zip(call(recognizers[0]), serial[name], strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9, err_msg=name)


def test_four_threads_on_one_recognizer(recognizer: Recognizer, calls: dict[str, Call]) -> None:
    check({name: call for name, call in calls.items() if name != "compare"}, [recognizer] * 4, rounds=1)


@pytest.mark.slow
def test_eight_threads_on_one_recognizer(recognizer: Recognizer, calls: dict[str, Call]) -> None:
    check(calls, [recognizer] * 8, rounds=3)


@pytest.mark.slow
def test_eight_threads_on_a_recognizer_each(recognizer: Recognizer, calls: dict[str, Call]) -> None:
    several = [recognizer.with_network(recognizer.network) for _ in range(8)]
    check(calls, several, rounds=2)


def test_no_call_exchanges_the_filters_of_the_process(
    recognizer: Recognizer, calls: dict[str, Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads that do, as `warnings.catch_warnings` does, can leave the wrong ones for good."""
    for call in calls.values():
        call(recognizer)  # once: what is imported late may
    exchanged: list[str] = []
    for name, call in calls.items():
        with monkeypatch.context() as patched:
            patched.setattr(warnings.catch_warnings, "__enter__", lambda _, name=name: exchanged.append(name))
            patched.setattr(warnings.catch_warnings, "__exit__", lambda *_: None)
            call(recognizer)
    assert not exchanged


@pytest.mark.parametrize("method", ["lrp", "default", "gradcam", "fggb"])
def test_a_decision_beside_explanations(recognizer: Recognizer, calls: dict[str, Call], method: str) -> None:
    """A method that changed the network, or torch, for a moment would change the score of the other thread."""
    serial = calls["verify"](recognizer)
    done = threading.Event()

    def explain_on() -> None:
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            calls[method](recognizer)
        done.set()

    with switching_often(), ThreadPoolExecutor(3) as pool:
        explaining = [pool.submit(explain_on) for _ in range(2)]
        while not all(one.done() for one in explaining):
            np.testing.assert_allclose(calls["verify"](recognizer), serial, rtol=1e-9)
        for one in explaining:
            one.result()
    assert done.is_set()


def test_networks_outside_of_ours_are_left_alone(recognizer: Recognizer, calls: dict[str, Call]) -> None:
    """Tracing is no business of other modules of the process."""
    outside, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(1, 3, 8, 8)
    expected = outside(images)
    with switching_often(), ThreadPoolExecutor(2) as pool:
        explaining = [pool.submit(calls[name], recognizer) for name in ("lrp", "fggb", "gradcam") * 3]
        while not all(one.done() for one in explaining):
            assert torch.equal(outside(images), expected)
            assert outside.forward.__self__ is outside
        for one in explaining:
            one.result()


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
def test_a_fork_beside_busy_threads_answers(recognizer: Recognizer, calls: dict[str, Call]) -> None:
    names = ("verify", "lrp", "deeplift", "smoothgrad", "gradcam")
    serial = {name: calls[name](recognizer) for name in names}
    with switching_often(), ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(calls[name], recognizer) for name in names * 3]
        children = [_forked(lambda: _same(calls, serial, recognizer)) for _ in range(3)]
        for one in busy:
            one.result()
    assert [_exit_code(child, 60) for child in children] == [0, 0, 0]


@needs_fork
def test_a_fork_after_computing_on_several_cores_answers(recognizer: Recognizer) -> None:
    """Torch's own threads do not survive a fork, and a child would wait for them."""
    images, count = torch.rand(300, 3, 24, 20, dtype=torch.float64), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = recognizer.embed(images)
        child = _forked(lambda: torch.allclose(recognizer.embed(images), expected))
    finally:
        torch.set_num_threads(count)
    assert _exit_code(child, 60) == 0


def _same(calls: Mapping[str, Call], serial: Mapping[str, Answer], recognizer: Recognizer) -> bool:
    return all(
        np.allclose(found, expected, rtol=1e-6, atol=1e-9)
        for name, answer in serial.items()
        for found, expected in zip(calls[name](recognizer), answer, strict=True)
    )


def _forked(answer: Callable[[], bool]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks beside threads
        child = os.fork()
    if child:
        return child
    try:
        os._exit(0 if answer() else 1)
    finally:
        os._exit(2)


def _exit_code(child: int, seconds: float) -> int | None:
    """Exit code of a child, or None if it hangs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None


def test_warnings_are_ignored_in_one_thread_only() -> None:
    inside, done = threading.Event(), threading.Event()

    def ignore() -> None:
        with ignoring(FaceWarning):
            warnings.warn("not seen", FaceWarning, stacklevel=1)
            inside.set()
            assert done.wait(60)

    with ThreadPoolExecutor(1) as pool:
        ignored = pool.submit(ignore)
        assert inside.wait(60)
        with pytest.warns(FaceWarning, match="seen"):
            warnings.warn("seen", FaceWarning, stacklevel=1)
        done.set()
        ignored.result()
    with pytest.warns(FaceWarning, match="again"):
        warnings.warn("again", FaceWarning, stacklevel=1)
