"""Archives hold all that they need, and nothing that could be unpickled; configuration is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from xfr_plugin.attr import EvidenceModel, load_evidence
from xfr_plugin.attr.amortised.model import evidence_file, save_evidence
from xfr_plugin.base import run_folder
from xfr_plugin.base.checksums import checksum_file
from xfr_plugin.base.run_folder import lock_folder
from xfr_plugin.base.weights import sha256_of
from xfr_plugin.cli.xfr import app
from xfr_plugin.errors import ChecksumError, InputError, ResultError
from xfr_plugin.recognition import load_recognizer
from xfr_plugin.service import Deployment
from xfr_plugin.service.serving import open_service, settings_of

pytest.importorskip("ts", reason="TorchServe is not installed")

from xfr_plugin.torchserve import ArchivePlan, Workers, process, start_server, write_model_store
from xfr_plugin.torchserve.archive import check_archive, stage
from xfr_plugin.torchserve.configuration import read_properties, server_properties
from xfr_plugin.torchserve.vendoring import given_packages, needed_packages

_CHECK = """
import sys
sys.path[:] = [{staged!r}, {given!r}, *[path for path in sys.path if 'site-packages' not in path]]
import xfr_plugin
assert xfr_plugin.__file__.startswith({staged!r}), xfr_plugin.__file__
from xfr_plugin.service import metrics, serving
service = serving.open_service(serving.settings_of(None, {staged!r}))
print('served', service.versions.package)
"""


def links(folder: Path) -> Path:
    """A folder with what TorchServe and torch bring, and nothing else of this environment."""
    folder.mkdir()
    for name in given_packages():
        distribution = metadata.distribution(name)
        for file in distribution.files or []:
            top = file.parts[0]
            source = Path(str(distribution.locate_file(top)))
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


@pytest.mark.slow
def test_a_vendored_archive_serves_with_what_torchserve_brings(tmp_path: Path) -> None:
    """Loads the models and passes the self-test in a Python that sees no other packages."""
    staged = tmp_path / "staged"
    stage(ArchivePlan(vendor=True), staged)
    given = links(tmp_path / "given")
    code = _CHECK.format(staged=str(staged), given=str(given))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("served")


def test_what_is_vendored() -> None:
    needed = set(needed_packages())
    assert {"captum", "lazy-loader", "pydantic", "safetensors", "scikit-image", "zennit"} <= needed
    assert needed.isdisjoint({"torch", "torchvision", "torchserve", "numpy", "pillow", "xfr-plugin"})


@pytest.mark.parametrize("name", ["weights.pt", "a/b.pkl", "data"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.mar"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("fine.py", "pass")
    check_archive(path)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"\x80\x04\x95\x00")
    with pytest.raises(ResultError, match="pickle"):
        check_archive(path)


@pytest.mark.real_data
def test_a_weight_file_is_packaged_with_its_card(tmp_path: Path, xfr_data: Path) -> None:
    plan = ArchivePlan(
        deployment=Deployment(recognizer=str(xfr_data / "weights" / "mobilefacenet_ms1m.pt"), threshold=0.3),
        vendor=False,
    )
    settings = stage(plan, tmp_path / "staged")
    assert settings.recognizer == "recognizer.safetensors"
    assert (tmp_path / "staged" / "recognizer.safetensors").is_file()
    assert not list((tmp_path / "staged").rglob("*.pt"))


def test_the_configuration_is_closed(tmp_path: Path) -> None:
    write_model_store(tmp_path, "xfr", Deployment(), Workers())
    properties = read_properties(tmp_path / "config.properties")
    assert properties == server_properties("xfr", Deployment())
    assert properties["disable_token_authorization"] == "false"
    assert properties["allowed_urls"] == "none"
    assert properties["enable_model_api"] == "false"
    addresses = [value for name, value in properties.items() if name.endswith("_address")]
    assert all("127.0.0.1" in address for address in addresses)


def test_a_store_without_an_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="xfr package"):
        start_server(tmp_path, tmp_path / "run")
    write_model_store(tmp_path, "xfr", Deployment(), Workers())
    with pytest.raises(InputError, match=r"xfr\.mar"):
        start_server(tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False)])
def test_to_be_open_to_others_warns(tmp_path: Path, host: str, warns: bool) -> None:
    said = CliRunner().invoke(app, ["serve", "--host", host, "--model-store", str(tmp_path)])
    assert said.exit_code == 2, "there is no archive"
    assert ("is open to others" in said.stderr) == warns


def stored(folder: Path) -> Path:
    """A model store with an archive of nothing, and its checksum; the archive."""
    write_model_store(folder, "xfr", Deployment(), Workers())
    archive = folder / "xfr.mar"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.py", "pass")
    checksum_file(archive).write_text(f"{sha256_of(archive)}  xfr.mar\n")
    return archive


def test_an_archive_that_was_changed_is_not_started(tmp_path: Path) -> None:
    archive = stored(tmp_path / "store")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("b.py", "pass")
    with pytest.raises(ChecksumError, match="not the archive that was packaged"):
        start_server(tmp_path / "store", tmp_path / "run")
    checksum_file(archive).unlink()
    with pytest.raises(InputError, match="xfr package"):
        start_server(tmp_path / "store", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_second_server_touches_nothing_of_the_first(tmp_path: Path) -> None:
    stored(tmp_path / "store")
    lock = lock_folder(tmp_path / "run")
    token = tmp_path / "run" / "key_file.json"
    token.write_text("{}")
    with pytest.raises(InputError, match="another server runs"):
        start_server(tmp_path / "store", tmp_path / "run")
    os.close(lock)
    assert token.exists()


def test_a_temporary_folder_without_room_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "store")
    monkeypatch.setattr(run_folder.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="TMPDIR"):
        start_server(tmp_path / "store", tmp_path / "run")


def test_answers_fit_into_what_the_server_passes_on() -> None:
    properties = server_properties("xfr", Deployment())
    assert int(properties["max_response_size"]) > Deployment().limits.answer_bytes


def test_logs_have_an_end() -> None:
    text = Path(process.__file__).with_name("log4j2.xml").read_text(encoding="utf-8")
    assert text.count("<RollingFile ") == text.count("<SizeBasedTriggeringPolicy ") == 3
    assert "<File " not in text


def test_an_evidence_network_of_ones_own_is_packaged_and_used(tmp_path: Path) -> None:
    """Under another name, for the recognizer that ships; a network of another recognizer is refused."""
    shipped = evidence_file(load_recognizer("xfr_compact128"))
    assert shipped is not None
    own = tmp_path / "mine.safetensors"
    model = load_evidence(shipped)
    save_evidence(EvidenceModel(model.network, model.card.model_copy(update={"figures": {"mine": 1.0}})), own)
    deployment = stage(
        ArchivePlan(deployment=Deployment(evidence=str(own)), vendor=False), tmp_path / "staged"
    )
    assert deployment.evidence == "evidence.safetensors"
    section = {"handler": deployment.model_dump(mode="json", exclude_defaults=True)}
    service = open_service(settings_of(section, str(tmp_path / "staged")))
    assert service.method == "amortised"
    assert service.versions.evidence_sha256 == sha256_of(own)
    other = save_as_of_another(model, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="trained for recognizer 'another'"):
        stage(ArchivePlan(deployment=Deployment(evidence=str(other)), vendor=False), tmp_path / "refused")


def save_as_of_another(model: EvidenceModel, path: Path) -> Path:
    changed = {"recognizer": "another", "recognizer_sha256": "0" * 64}
    save_evidence(EvidenceModel(model.network, model.card.model_copy(update=changed)), path)
    return path


def test_entries_that_are_given_twice_are_refused(tmp_path: Path) -> None:
    """Java would take the last without a word."""
    file = tmp_path / "config.properties"
    file.write_text("# a comment\nload_models=a.mar\n load_models = b.mar\n")
    with pytest.raises(InputError, match="load_models is given twice"):
        read_properties(file)
