"""The explanation service: typed requests in, decisions with reasons out; plain Python, behind any server."""

from xfr_plugin.service.answers import Answer, Reply, json_schemas, reply_from_json
from xfr_plugin.service.deployment import Deployment, Limits, read_deployment
from xfr_plugin.service.errors import ErrorBody, ServiceError
from xfr_plugin.service.requests import FaceInput, Gallery, Request, parse_request
from xfr_plugin.service.selftest import SelfTestError, self_test
from xfr_plugin.service.service import ExplanationService

__all__ = [
    "Answer",
    "Deployment",
    "ErrorBody",
    "ExplanationService",
    "FaceInput",
    "Gallery",
    "Limits",
    "Reply",
    "Request",
    "SelfTestError",
    "ServiceError",
    "json_schemas",
    "parse_request",
    "read_deployment",
    "reply_from_json",
    "self_test",
]
