"""Parameter randomisation: what is changed, in which order, and what is left alone."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.protocol_toys import SIZE, a_pair, value_of, values_of
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import Tensor, nn

from xfr_plugin.attr.registry import METHODS, Method
from xfr_plugin.errors import InputError
from xfr_plugin.evaluation.chance_baselines import CHANCE_BASELINES
from xfr_plugin.evaluation.protocol import EvaluationPair, PairMaps, Setting
from xfr_plugin.evaluation.protocols._shared import explained, generator_for
from xfr_plugin.evaluation.protocols.randomisation import Randomisation, layers_from_output, randomise
from xfr_plugin.faces.regions import template_regions
from xfr_plugin.recognition import Recognizer, load_recognizer


def _maps(method: Method, recognizer: Recognizer) -> PairMaps:
    return explained(method.build(recognizer, 0.2), a_pair().images(recognizer))


@pytest.mark.parametrize("noise", ["shuffle", "normal"])
def test_it_is_what_plain_code_gives_and_changes_nothing(recognizer: Recognizer, noise: str) -> None:
    method, pair, setting = METHODS["xssab"], a_pair(), Setting(recognizer, 0.2)
    maps, before = _maps(method, recognizer), copy.deepcopy(recognizer.state_dict())
    protocol = Randomisation(depths=(1.0, 0.4), noise=noise)
    measured = list(protocol.judge(pair, maps, method, setting))
    assert all(torch.equal(value, before[name]) for name, value in recognizer.state_dict().items())

    changed, rng = copy.deepcopy(recognizer), generator_for(setting, pair, "randomisation")
    probe, reference = pair.images(recognizer)
    layers = [getattr(changed.network, name) for name in ("fc", "bn2", "conv2", "bn1", "conv1")]
    for percent, part in ((40, layers[:2]), (100, layers[2:])):
        for layer in part:
            for parameter in layer.parameters():
                values = parameter.detach().numpy()
                if noise == "shuffle":
                    new = rng.permutation(values.ravel()).reshape(values.shape)
                else:
                    new = rng.normal(values.mean(), values.std(), values.shape)
                parameter.data = torch.from_numpy(new)
        _measure_anew(changed, torch.cat([probe, reference]), 5 if percent == 100 else 2)
        found = method.build(changed, 0.2).attribute((probe, reference))[0][0].sum(dim=0).float().numpy()
        face = pair.probe_regions.face
        smooth = [gaussian_filter(side.astype(float), 0.04 * SIZE[0]) for side in (maps[0], found)]
        expected = spearmanr(smooth[0][face], smooth[1][face]).statistic
        assert values_of(measured, "rank_correlation")[percent] == pytest.approx(expected, abs=1e-6)
    assert value_of(measured, "remaining") == pytest.approx(abs(expected), abs=1e-6)


@torch.no_grad()
def _measure_anew(recognizer: Recognizer, images: Tensor, randomised: int) -> None:
    """The statistics of the randomised BatchNorms, layer by layer, of all channels together."""
    net, x = recognizer.network, recognizer.preprocess(images)
    for conv, norm, count in ((net.conv1, net.bn1, 4), (net.conv2, net.bn2, 2)):
        x = conv(x)
        if randomised >= count:
            norm.running_mean[:] = float(np.mean(x.numpy()))
            norm.running_var[:] = float(np.var(x.numpy()))
        x = torch.relu(norm(x))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["xssab", "amortised"])
def test_a_real_network_stays_alive_at_every_depth(faces_root: Path, name: str) -> None:
    """A network that was trained for the recognizer goes on with the randomised one."""
    recognizer = load_recognizer("xfr_compact128")
    files = sorted((faces_root / "lfw112").rglob("*.jpg"))[:2]
    faces = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1) for file in files]
    regions = template_regions()
    pair = EvaluationPair("two", faces[0], faces[1], False, regions, regions)
    method, setting = METHODS[name], Setting(recognizer, recognizer.threshold)
    maps = explained(method.build(recognizer, setting.threshold), pair.images(recognizer))
    measured = list(Randomisation().judge(pair, maps, method, setting))
    assert all(abs(value) < 0.9 for value in values_of(measured, "rank_correlation").values())


def test_maps_of_the_network_go_and_maps_of_nothing_stay(recognizer: Recognizer) -> None:
    setting, protocol = Setting(recognizer, 0.2), Randomisation()
    for name in ("xssab", "occlusion"):  # of gradients, and of a black box
        measured = list(protocol.judge(a_pair(), _maps(METHODS[name], recognizer), METHODS[name], setting))
        assert value_of(measured, "remaining") < 0.6
        assert list(values_of(measured, "magnitude_correlation")) == [10, 50, 100]
    baseline = CHANCE_BASELINES["chance_centre"]
    measured = list(protocol.judge(a_pair(), _maps(baseline, recognizer), baseline, setting))
    assert value_of(measured, "remaining") == pytest.approx(1)


def test_two_draws_differ_and_one_is_the_same(recognizer: Recognizer) -> None:
    method, setting = METHODS["xssab"], Setting(recognizer, 0.2)
    maps, protocol = _maps(method, recognizer), Randomisation(depths=(1.0,))
    first, again = (list(protocol.judge(a_pair(), maps, method, setting)) for _ in range(2))
    assert first == again
    assert first != list(protocol.judge(a_pair(name="other"), maps, method, setting))


class Crossed(nn.Module):
    """Defined in another order than called."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 3), nn.Linear(5, 4)
        self.functional = functional

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.linear(x, self.first.weight) if self.functional else self.first(x)
        result: Tensor = self.last(hidden)
        return result


def test_layers_are_ordered_by_their_calls_or_else_by_definition() -> None:
    network, loose = Crossed(False), Crossed(True)
    assert layers_from_output(network, torch.zeros(1, 5)) == [network.last, network.first]
    assert layers_from_output(loose, torch.zeros(1, 5)) == [loose.first, loose.last]
    assert not network.first._forward_hooks
    with pytest.raises(InputError, match="no parameters"):
        layers_from_output(nn.ReLU(), torch.zeros(1, 5))


def test_shuffling_keeps_the_values_and_drawing_their_spread() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(60, 50)
    before = layer.weight.detach().clone()
    randomise(layer, "shuffle", np.random.default_rng(0))
    assert not torch.equal(layer.weight, before)
    assert torch.equal(layer.weight.detach().flatten().sort().values, before.flatten().sort().values)
    randomise(layer, "normal", np.random.default_rng(0))
    assert float(layer.weight.detach().std()) == pytest.approx(float(before.std()), rel=0.1)


def test_options_are_checked() -> None:
    for options in ({"depths": ()}, {"depths": (0.0,)}, {"noise": "pink"}, {"smoothing": 1.0}):
        with pytest.raises(InputError):
            Randomisation(**options)
    assert Randomisation().settings() == {"depths": [0.1, 0.5, 1.0], "noise": "shuffle", "smoothing": 0.04}
