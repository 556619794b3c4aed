"""The second shell: the service behind FastAPI and uvicorn, in worker processes that answer in batches."""

from xfr_plugin.asgi.app import make_app
from xfr_plugin.asgi.batching import Batcher, LocalLane, Post
from xfr_plugin.asgi.tokens import Tokens
from xfr_plugin.asgi.worker import ProcessLane

__all__ = ["Batcher", "LocalLane", "Post", "ProcessLane", "Tokens", "make_app"]
