"""The handler that TorchServe calls: a thin shell on `xfr_plugin.service`, which does the work."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ts.context import Context
from ts.torch_handler.base_handler import BaseHandler

from xfr_plugin.errors import XfrError
from xfr_plugin.service import confinement, metrics, serving
from xfr_plugin.service.slow_lane import SlowLane

_log = logging.getLogger(__name__)


class XfrHandler(BaseHandler):  # type: ignore[misc]  # TorchServe is not typed
    """Verification and explanation; every item of a batch is dispatched by itself."""

    def initialize(self, context: Context) -> None:
        """Load the models and put them to the test; whoever fails it never becomes healthy.

        Raises:
            RuntimeError: the models cannot be loaded, or fail the self-test; TorchServe reports itself unhealthy.
        """
        try:
            settings = serving.settings_of(context.model_yaml_config, context.system_properties["model_dir"])
            torch.set_num_threads(settings.threads)
            confinement.confine(settings.limits)
            self.service = serving.open_service(settings)
            workers = (context.model_yaml_config or {}).get("minWorkers", 1)
            self.slow_lane = SlowLane(Path(context.system_properties["model_dir"]), workers)
        except XfrError as error:
            raise RuntimeError(f"the deployment does not work: {error}") from error
        self.context = context
        self.manifest = context.manifest
        self.initialized = True
        _log.info("self-test passed: %s", self.service.versions.model_dump_json())

    def handle(self, data: list[dict[str, Any]], context: Context) -> list[str]:
        """Answer a batch: one JSON text for each item, with its own status."""
        confinement.allow_batch(self.service.deployment.limits)
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        with self.slow_lane.batch():
            responses = serving.respond(self.service, data, headers, may_be_slow=self.slow_lane.enter)
        for index, response in enumerate(responses):
            context.set_response_status(response.status, serving.phrase(response.status), index)
            context.set_response_content_type(index, "application/json")
        metrics.record(context.metrics, responses)
        return [response.body for response in responses]
