"""A gRPC client of TorchServe's inference service, from its published message definitions."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "org.pytorch.serve.grpc.inference"


def _messages() -> tuple[Any, Any]:
    """Classes of `PredictionsRequest` (name 1, version 2, input map 3) and `PredictionResponse` (bytes 1)."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="inference.proto", package=_PACKAGE, syntax="proto3")
    request = file.message_type.add(name="PredictionsRequest")
    for number, name in ((1, "model_name"), (2, "model_version")):
        request.field.add(name=name, number=number, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry = request.nested_type.add(name="InputEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL)
    request.field.add(
        name="input",
        number=3,
        type=kinds.TYPE_MESSAGE,
        label=kinds.LABEL_REPEATED,
        type_name=f".{_PACKAGE}.PredictionsRequest.InputEntry",
    )
    response = file.message_type.add(name="PredictionResponse")
    response.field.add(name="prediction", number=1, type=kinds.TYPE_BYTES, label=kinds.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = (f"{_PACKAGE}.PredictionsRequest", f"{_PACKAGE}.PredictionResponse")
    first, second = (message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names)
    return first, second


def predict(target: str, token: str, model: str, fields: dict[str, bytes]) -> bytes:
    """Call `Predictions`; returns the bytes of the prediction."""
    request, response = _messages()
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(
            f"/{_PACKAGE}.InferenceAPIsService/Predictions",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        metadata = (("protocol", "gRPC"), ("authorization", f"Bearer {token}"))
        message = request(model_name=model, input=fields)
        prediction: bytes = call(message, metadata=metadata, timeout=60).prediction
        return prediction
