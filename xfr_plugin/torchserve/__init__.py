"""Building a TorchServe archive of the service, and running it."""

from xfr_plugin.torchserve.archive import ArchivePlan, build_archive, packaged_deployment
from xfr_plugin.torchserve.configuration import Workers, write_model_store
from xfr_plugin.torchserve.process import Server, start_server

__all__ = [
    "ArchivePlan",
    "Server",
    "Workers",
    "build_archive",
    "packaged_deployment",
    "start_server",
    "write_model_store",
]
