"""Bodies of all kinds become the same requests, and each kind is answered in its own form."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from helpers.serving_faces import crops

from xfr_plugin.service import Answer, Deployment, ExplanationService, Limits, Request, reply_from_json
from xfr_plugin.service.serving import respond, settings_of
from xfr_plugin.service.wire import HEADER, Response, read_message


@pytest.fixture(scope="module")
def service() -> ExplanationService:
    return ExplanationService(Deployment(limits=Limits(json_bytes=400_000, instances=3)))


def text(index: int) -> str:
    return base64.b64encode(crops()[index]).decode()


def one(service: ExplanationService, fields: dict[str, Any], **headers: Any) -> Response:
    (response,) = respond(service, [fields], [headers])
    return response


def the_answer(response: Response) -> Answer:
    assert response.status == 200, response.body
    reply = reply_from_json(response.body)
    assert isinstance(reply, Answer)
    return reply


ROW = [0.1] * 128


def bodies() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The same question in every form: fields, and headers."""
    document = {"probe": text(0), "reference": text(1), "id": "q", "threshold": 0.3}
    rest = {"reference": text(1), "id": "q", "threshold": 0.3}
    form = {"probe": bytearray(crops()[0]), "reference": crops()[1], "id": b"q", "threshold": "0.3"}
    return {
        "json": ({"body": bytearray(json.dumps(document).encode())}, {}),
        "parsed json": ({"body": document}, {}),
        "json as text": ({"body": json.dumps(document)}, {}),
        "form": (form, {}),
        "form with json": ({"request": json.dumps(rest).encode(), "probe": crops()[0]}, {}),
        "raw": ({"body": bytearray(crops()[0])}, {"X-Xfr-Request": json.dumps(rest)}),
    }


@pytest.mark.parametrize("kind", sorted(bodies()))
@pytest.mark.parametrize("explain", [False, True])
def test_every_form_asks_the_same(service: ExplanationService, kind: str, explain: bool) -> None:
    fields, headers = bodies()[kind]
    answer = the_answer(one(service, fields, **headers, explain=str(explain)))
    expected = the_answer(one(service, {"body": {"probe": text(0), "reference": text(1), "threshold": 0.3}}))
    assert answer.id == "q"
    assert answer.decision.threshold == 0.3
    assert answer.decision.score == pytest.approx(expected.decision.score, abs=1e-5)
    assert (answer.explanation is not None) == explain


@pytest.mark.parametrize("given", ["true", b"True", "false"])
def test_a_field_asks_for_reasons(service: ExplanationService, given: str | bytes) -> None:
    """gRPC has no call for explanations."""
    fields = {"probe": crops()[0], "reference": crops()[1], "explain": given, "returns": b"words, overlay"}
    answer = the_answer(one(service, fields))
    assert (answer.explanation is not None) == (given != "false")
    if answer.explanation is not None:
        assert answer.explanation.words is not None
        assert answer.explanation.probe is not None
        assert answer.explanation.probe.overlay_png is not None
        assert answer.explanation.probe.regions is None


def test_kserve_v1(service: ExplanationService) -> None:
    good = {"id": "a", "probe": text(0), "reference": text(1)}
    body = {"instances": [good, {"probe": "???"}, {**good, "id": "c", "reference": text(2)}]}
    response = one(service, {"body": json.dumps(body).encode()}, explain="True")
    assert response.status == 200
    replies = json.loads(response.body)["explanations"]
    assert [reply["id"] for reply in replies] == ["a", None, "c"]
    assert replies[1]["status"] == 400
    assert replies[0]["explanation"]["method"] == "leave_one_out"
    failed = one(service, {"body": {"instances": [{"probe": "???"}]}})
    assert failed.status == 400
    assert json.loads(failed.body)["predictions"][0]["code"] == "malformed"
    assert one(service, {"body": {"instances": [good] * 4}}).status == 413


def tensor(
    name: str, values: list[Any], datatype: str = "BYTES", shape: list[int] | None = None
) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape or [len(values)], "data": values}


def test_kserve_v2(service: ExplanationService) -> None:
    body = {
        "id": "q",
        "inputs": [tensor("probe", [text(0), text(2)]), tensor("reference", [text(1), text(3)])],
        "parameters": {"threshold": 0.3, "returns": "regions, words,"},
    }
    response = one(service, {"body": json.dumps(body).encode()}, explain="True")
    assert response.status == 200
    document = json.loads(response.body)
    assert document["id"] == "q"
    outputs = {output["name"]: output for output in document["outputs"]}
    answers = [json.loads(answer) for answer in outputs["answer"]["data"]]
    assert outputs["score"]["data"] == [answer["decision"]["score"] for answer in answers]
    assert outputs["match"]["data"] == [answer["decision"]["match"] for answer in answers]
    assert answers[1]["explanation"]["probe"]["regions"]
    alone = the_answer(one(service, {"body": {"probe": text(2), "reference": text(3)}}))
    assert answers[1]["decision"]["score"] == pytest.approx(alone.decision.score, abs=1e-5)


def test_kserve_v2_with_embeddings_and_gallery(service: ExplanationService) -> None:
    rows = [[float(i == j) for j in range(128)] for i in range(3)]
    body = {
        "inputs": [
            tensor("probe", rows[1], "FP32", [1, 128]),
            tensor("gallery", [*rows[0], *rows[1], *rows[2]], "FP32", [3, 128]),
        ],
        "parameters": {"top": 2, "ids": ["a", "b", "c"]},
    }
    document = json.loads(one(service, {"body": body}).body)
    answer = json.loads(document["outputs"][0]["data"][0])
    assert answer["candidates"][0]["id"] == "b"
    assert len(answer["candidates"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": []},
        {"inputs": "probe"},
        {"inputs": [{"name": "image", "data": [], "shape": [0]}]},
        {"inputs": [tensor("probe", ["a"])]},
        {"inputs": [tensor("probe", [1.0] * 128, "FP32", [2, 128]), tensor("reference", ["a"])]},
        {"inputs": [tensor("probe", [1.0] * 128, "FP32", [0])], "parameters": {}},
        {"inputs": [tensor("probe", ROW, "FP32", [1, 10**30]), tensor("reference", ROW, "FP32")]},
        {"inputs": [tensor("probe", ROW, "FP32", [True, 128]), tensor("reference", ROW, "FP32")]},
        {"inputs": [tensor("probe", ROW, "FP32", [-1, -128]), tensor("reference", ROW, "FP32")]},
        {"inputs": [tensor("probe", ["QUJD"], shape=[5]), tensor("reference", ROW, "FP32")]},
        {
            "inputs": [
                tensor("probe", ROW, "FP32"),
                tensor("probe", ROW, "FP32"),
                tensor("reference", ROW, "FP32"),
            ]
        },
        {"inputs": [tensor("probe", ["a"]), tensor("reference", ["a"])], "parameters": [1]},
        {"instances": {}},
    ],
)
def test_wrong_kserve_bodies(service: ExplanationService, body: dict[str, Any]) -> None:
    response = one(service, {"body": body})
    assert response.status == 400
    assert json.loads(response.body)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"body": b""}, 400),
        ({"body": b"\x00\x01"}, 415),
        ({"body": b"{" + b" " * 500_000 + b"}"}, 413),
        ({"body": 3}, 400),
        ({"body": [1]}, 400),
        ({"body": b'{"instances": [[[[[}'}, 400),
        ({"body": b'{"instances":' + b"[" * 100_000}, 400),
        ({"probe": b"[" * 100_000, "reference": b"x"}, 400),
        ({"probe": crops()[0], "reference": crops()[1], "threshold": b"\xff"}, 400),
        ({"probe": crops()[0], "reference": crops()[1], "method": b"\xff\xfe"}, 400),
        ({"probe": crops()[0], "reference": crops()[1], "unknown": b"1"}, 400),
        ({"request": b"[]", "probe": crops()[0]}, 400),
        ({'{"probe":"' + "QUJD" * 50_000 + '"}': b""}, 400),
        ({"probe": crops()[0], "reference": crops()[1], "n" * 65: b"1"}, 400),
    ],
)
def test_wrong_bodies(service: ExplanationService, fields: dict[str, Any], status: int) -> None:
    response = one(service, fields)
    assert response.status == status
    assert json.loads(response.body)["status"] == status
    assert len(response.body) < 1000, "what was sent is not sent back"


@pytest.mark.parametrize(("name", "most"), [("probe", 3), ("gallery", 10_000)])
def test_tensors_of_tiny_rows_are_refused_before_they_are_made(
    service: ExplanationService, name: str, most: int
) -> None:
    """Two million lists of one number each are twelve seconds, and hundreds of megabytes."""
    count = 300_000
    inputs = [tensor("probe", ROW, "FP32"), tensor("gallery", [1] * count, "FP32", [count, 1])]
    body = {"inputs": inputs if name == "gallery" else [{**inputs[1], "name": "probe"}]}
    start = time.process_time()
    response = one(service, {"body": body})
    assert time.process_time() - start < 0.1
    assert (response.status, f"more than {most} of them" in response.body) == (413, True)


def test_a_header_is_utf_8_although_servers_read_each_byte_as_a_character(
    service: ExplanationService,
) -> None:
    rest = json.dumps({"reference": text(1), "id": "Zoë"}, ensure_ascii=False)
    response = one(service, {"body": crops()[0]}, **{HEADER: rest.encode().decode("latin-1")})
    assert json.loads(response.body)["id"] == "Zoë"


def test_documents_are_known_wherever_they_begin(service: ExplanationService) -> None:
    """After many blank lines, with the instances last, and as the text of a form."""
    rows = {"probe": ROW, "reference": ROW}
    late = {"parameters": {"note": "x" * 5000}, "instances": [rows]}
    for fields in (
        {"body": b"\n" * 100 + json.dumps(rows).encode()},
        {"body": json.dumps(late).encode()},
        {name: json.dumps(row) for name, row in rows.items()},
    ):
        assert one(service, fields).status == 200


def test_header_must_hold_an_object(service: ExplanationService) -> None:
    assert one(service, {"body": crops()[0]}, **{HEADER: "nonsense"}).status == 400
    message = read_message({"body": crops()[0]}, {HEADER: "[]"}, False, Limits())
    assert not isinstance(message.requests[0], Request)


def test_settings_come_from_the_archive(tmp_path: Any) -> None:
    (tmp_path / "recognizer.safetensors").write_bytes(b"")
    config = {"batchSize": 4, "handler": {"recognizer": "recognizer.safetensors", "threads": 2}}
    settings = settings_of(config, str(tmp_path))
    assert settings.recognizer == str(tmp_path / "recognizer.safetensors")
    assert settings.threads == 2
    assert settings_of(None, str(tmp_path)) == Deployment()


def test_marks_and_line_breaks_are_no_part_of_a_document(service: ExplanationService) -> None:
    """Editors write a byte order mark, and encoders break base64 into lines."""
    broken = "\r\n".join(text(0)[i : i + 76] for i in range(0, len(text(0)), 76))
    body = b"\xef\xbb\xbf" + json.dumps({"probe": broken, "reference": text(1)}).encode()
    expected = the_answer(one(service, {"body": {"probe": text(0), "reference": text(1)}}))
    assert the_answer(one(service, {"body": body})).decision == expected.decision
    form = {"request": b"\xef\xbb\xbf" + json.dumps({"reference": text(1)}).encode(), "probe": crops()[0]}
    assert the_answer(one(service, form)).decision == expected.decision
    instances = (
        b"\xef\xbb\xbf" + json.dumps({"instances": [{"probe": broken, "reference": text(1)}]}).encode()
    )
    assert one(service, {"body": instances}).status == 200


def twice() -> dict[str, tuple[dict[str, Any], str]]:
    """Fields of bodies in which something is given twice, and what."""
    face, row = text(0), json.dumps(ROW)
    pair = f'"probe": {row}, "reference": {row}'
    tensors = [
        {"name": name, "datatype": "FP32", "shape": [1, 128], "data": ROW} for name in ("probe", "reference")
    ]
    v2 = {"inputs": tensors, "id": "q"}
    return {
        "a face": ({"body": f'{{{pair}, "probe": "{face}"}}'}, "'probe'"),
        "an option, escaped": ({"body": f'{{{pair}, "fmr": 0.1, "\\u0066mr": 0.01}}'}, "'fmr'"),
        "within a face": ({"body": f'{{"reference": {row}, "probe": {{"face": 0, "face": 1}}}}'}, "'face'"),
        "within an instance": ({"body": f'{{"instances": [{{{pair}, "id": "a", "id": "b"}}]}}'}, "'id'"),
        "instances": ({"body": f'{{"instances": [], "instances": [{{{pair}}}]}}'}, "'instances'"),
        "instances and inputs": ({"body": json.dumps({"instances": [1], **v2})}, "both versions"),
        "parameters": ({"body": json.dumps({**v2, "parameters": {"id": "other"}})}, "id"),
        "a tensor": ({"body": json.dumps({**v2, "parameters": {"probe": ROW}})}, "probe"),
        "a field": ({"request": b'{"id": "a", "id": "b"}', "probe": row, "reference": row}, "'id'"),
        "a face of a form": ({"probe": b'{"face": 0, "face": 1}', "reference": row}, "'face'"),
        "field and request": ({"request": b'{"id": "a"}', "id": b"b", "probe": row, "reference": row}, "id"),
        "header and body": ({"body": crops()[0]}, "probe"),
    }


@pytest.mark.parametrize("kind", sorted(twice()))
def test_what_is_given_twice_is_refused(service: ExplanationService, kind: str) -> None:
    """A proxy may have looked at the other one."""
    fields, what = twice()[kind]
    if isinstance(fields.get("body"), str):
        fields = {"body": fields["body"].encode()}
    response = one(service, fields, **{HEADER: json.dumps({"probe": ROW, "reference": ROW})})
    assert response.status == 400
    assert what in response.body
    assert "twice" in response.body or "both" in response.body


def test_answers_in_which_a_key_is_given_twice_are_none() -> None:
    with pytest.raises(ValueError, match="'code' is given twice"):
        reply_from_json(
            '{"format": "xfr-error/1", "code": "busy", "code": "internal", "status": 500, "message": ""}'
        )
