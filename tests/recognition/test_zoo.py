"""From names, files and URLs to recognizers; damaged, wrong or dangerous weights are refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file

from xfr_plugin.base.weights import read_weights, sha256_of, write_weights
from xfr_plugin.errors import ChecksumError, InputError, LayoutError, UnknownNameError, WeightsError
from xfr_plugin.recognition import (
    Provenance,
    Recognizer,
    RecognizerCard,
    build_network,
    calibrate,
    list_recognizers,
    load_recognizer,
    save_recognizer,
    zoo_card,
)
from xfr_plugin.recognition.download import download_weights


@pytest.fixture
def faceid_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "mine.pt"
    torch.save(build_network("faceid").state_dict(), path)
    return path


def test_architecture_and_preprocessing_are_found_from_the_keys(faceid_file: Path) -> None:
    recognizer = load_recognizer(faceid_file, threshold=0.5)
    assert recognizer.name == "mine"
    assert recognizer.input_size == (160, 120)
    assert recognizer.mean[0, 0, 0, 0] == pytest.approx(128 / 255)
    assert recognizer.threshold == 0.5
    assert recognizer.provenance.sha256 == sha256_of(faceid_file)
    assert not any(p.requires_grad for p in recognizer.parameters())


def test_iresnet_of_the_published_layout_loads_with_its_preprocessing(tmp_path: Path) -> None:
    path = tmp_path / "backbone.pth"
    network = build_network("iresnet18")
    torch.save(network.state_dict(), path)
    recognizer = load_recognizer(path, threshold=0.3)
    assert recognizer.mean.flatten().tolist() == recognizer.std.flatten().tolist() == [0.5, 0.5, 0.5]
    images = torch.rand(1, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(recognizer.features(images), network.eval()(images * 2 - 1))


def test_settings_given_by_hand_win(faceid_file: Path) -> None:
    recognizer = load_recognizer(
        faceid_file, mean=0.1, std=(1, 2, 3), channel_order="BGR", input_size=(80, 60)
    )
    assert recognizer.input_size == (80, 60)
    assert recognizer.channel_order == "BGR"
    torch.testing.assert_close(recognizer.std.flatten(), torch.tensor([1.0, 2.0, 3.0]))


def test_saved_recognizer_comes_back_whole(tmp_path: Path) -> None:
    network = build_network("faceid")
    recognizer = Recognizer(network, input_size=(160, 120), mean=0.4, std=0.3)
    card = RecognizerCard(
        name="mine",
        architecture="faceid",
        input_size=(160, 120),
        mean=(0.4, 0.4, 0.4),
        std=(0.3, 0.3, 0.3),
        provenance=Provenance(source="here", licence="Apache-2.0"),
        calibration=calibrate([0.5, 0.6] * 500, [0.0, 0.1] * 500, "toy"),
        figures={"accuracy": 0.5},
    )
    path = tmp_path / "mine.safetensors"
    save_recognizer(recognizer, path, card)
    loaded = load_recognizer(path)
    images = torch.rand(2, 3, 160, 120)
    torch.testing.assert_close(loaded.embed(images), recognizer.embed(images))
    assert loaded.calibration == card.calibration
    assert loaded.provenance.licence == "Apache-2.0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.safetensors"]


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "harm"),))

    path = tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"weight": Harm()}))
    with pytest.raises(WeightsError):
        load_recognizer(path)
    buffer = io.BytesIO()
    torch.save({"weight": Harm()}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="not executed"):
        load_recognizer(path)
    assert not (tmp_path / "harm").exists()


def test_truncated_and_foreign_files(faceid_file: Path, tmp_path: Path) -> None:
    data = faceid_file.read_bytes()
    for name, content in [
        ("cut.pt", data[: len(data) // 2]),
        ("empty.pt", b""),
        ("text.pth", b"hello"),
        ("text.safetensors", b"hello"),
        ("zero.safetensors", b""),
    ]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=name):
            load_recognizer(path)
    with pytest.raises(WeightsError, match="no weight file"):
        load_recognizer(tmp_path / "none.pt")
    odd = tmp_path / "photo.jpg"
    odd.write_bytes(data)
    with pytest.raises(WeightsError, match="is no weight file"):
        load_recognizer(odd)


def test_a_checkpoint_that_holds_a_state_dict_is_unwrapped(tmp_path: Path) -> None:
    state = {f"module.{key}": value for key, value in build_network("faceid").state_dict().items()}
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": state, "epoch": 3}, path)
    assert load_recognizer(path).input_size == (160, 120)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="does not hold a state dict"):
        load_recognizer(path)


def test_weights_of_another_architecture_say_what_differs(faceid_file: Path, tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"255 keys missing.*choose the architecture"):
        load_recognizer(faceid_file, architecture="mobilefacenet")
    state, _ = read_weights(faceid_file)
    state["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    path = tmp_path / "wrong.safetensors"
    save_file(state, path)
    with pytest.raises(LayoutError, match=r"of another shape \(e\.g\. conv1\.weight\)"):
        load_recognizer(path, architecture="faceid")
    with pytest.raises(LayoutError, match="fit none of our architectures"):
        load_recognizer(path)


def test_damaged_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.safetensors"
    write_weights(path, build_network("faceid").state_dict(), {"recognizer": {"name": "x"}})
    with pytest.raises(WeightsError, match="damaged card: architecture"):
        load_recognizer(path)


def test_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert {"mobilefacenet_ms1m", "faceid_plain"} <= set(list_recognizers())
    with pytest.raises(UnknownNameError, match="did you mean 'mobilefacenet_ms1m'"):
        load_recognizer("mobilefacenet_ms1")
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    monkeypatch.setenv("XFR_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match="xfr download mobilefacenet_ms1m"):
        load_recognizer("mobilefacenet_ms1m")


def test_published_weights_are_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mobilefacenet_ms1m.pt").write_bytes(b"something else")
    monkeypatch.setenv("XFR_DATA", str(tmp_path))
    with pytest.raises(ChecksumError, match="damaged or not the published one"):
        load_recognizer("mobilefacenet_ms1m")


def test_urls_need_https_and_a_checksum() -> None:
    with pytest.raises(InputError, match="needs its checksum"):
        load_recognizer("https://example.org/net.safetensors")
    with pytest.raises(InputError, match="https"):
        download_weights("http://example.org/net.pt", "0" * 64)
    with pytest.raises(InputError, match="hexadecimal"):
        download_weights("https://example.org/net.pt", "123")


def test_download_keeps_only_what_was_published(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, faceid_file: Path
) -> None:
    """The real download code against a file address, since tests have no network."""
    monkeypatch.setenv("XFR_CACHE", str(tmp_path / "cache"))
    real = torch.hub.download_url_to_file

    def from_disk(_: str, *arguments: object, **options: object) -> None:
        real(faceid_file.as_uri(), *arguments, **options)

    monkeypatch.setattr(torch.hub, "download_url_to_file", from_disk)
    url = "https://example.org/mine.pt"
    with pytest.raises(ChecksumError, match="not the published file"):
        load_recognizer(f"{url}#sha256={'0' * 64}")
    assert not any((tmp_path / "cache").iterdir())
    digest = sha256_of(faceid_file)
    assert load_recognizer(f"{url}#sha256={digest}").input_size == (160, 120)

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    assert load_recognizer(f"{url}#sha256={digest}").input_size == (160, 120), "the cache serves it again"
    with pytest.raises(WeightsError, match="cannot download"):
        download_weights(url, "1" * 64)


def test_devices_that_are_not_here(faceid_file: Path) -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=device):
            load_recognizer(faceid_file, device=device)


@pytest.mark.real_data
def test_real_weights_load_under_their_name_and_from_their_file(xfr_data: Path) -> None:
    named = load_recognizer("mobilefacenet_ms1m")
    assert sum(p.numel() for p in named.parameters()) == 999_936
    found = load_recognizer(xfr_data / "weights" / "mobilefacenet_ms1m.pt")
    images = torch.rand(1, 3, 112, 112)
    torch.testing.assert_close(named.embed(images), found.embed(images))
    assert zoo_card("mobilefacenet_ms1m").weights is not None
    with pytest.raises(LayoutError):
        load_recognizer(xfr_data / "weights" / "mtcnn_onet.pt")
