"""A worker process: the service within limits of memory and CPU time, at the end of a pipe.

Nothing that comes out of a worker is unpickled: it has read what strangers sent.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from xfr_plugin.asgi.batching import Done, LaneDiedError, Post, answer_posts
from xfr_plugin.errors import XfrError
from xfr_plugin.service.confinement import allow_batch, confine
from xfr_plugin.service.deployment import Deployment
from xfr_plugin.service.limits import MESSAGE_OVERHEAD
from xfr_plugin.service.serving import open_service

__all__ = ["ProcessLane"]

_STARTING_SECONDS = 300.0


class ProcessLane:
    """A worker process.

    Args:
        deployment: that it serves.
        folders: in which it looks for modules before all others.
    """

    def __init__(self, deployment: Deployment, folders: Sequence[str] = ()) -> None:
        self._deployment, self._folders = deployment, tuple(folders)
        self.process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> dict[str, Any]:
        """Start the process, and wait until it has passed its self-test; returns its versions.

        Raises:
            XfrError: the deployment does not work.
        """
        self.stop()
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self.process = context.Process(
            target=_work,
            args=(other, self._deployment.model_dump_json(), self._folders),
            daemon=True,
            name="xfr-worker",
        )
        self.process.start()
        other.close()
        if not self._pipe.poll(_STARTING_SECONDS):
            self.stop()
        try:
            found: dict[str, Any] = self._received()
        except (EOFError, OSError) as error:
            raise LaneDiedError from error
        if "error" in found:
            raise XfrError(f"the deployment does not work: {found['error']}")
        return found

    def ask(self, posts: Sequence[Post]) -> Done:
        """Answer a batch.

        Raises:
            LaneDiedError: the process ended, or was ended, or answers what is no answer.
        """
        try:
            return self._asked(posts)
        except Exception as error:
            # whatever it is: what is left in the pipe must not become another's answer
            assert self.process is not None
            self.process.join(1.0)
            raise LaneDiedError(late=self.process.exitcode == -signal.SIGPROF) from error

    def stop(self) -> None:
        """End the process; also while another thread waits for it."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        if self._pipe is not None:
            self._pipe.close()

    def _asked(self, posts: Sequence[Post]) -> Done:
        assert self._pipe is not None
        heads = [(p.content_type, p.rest, p.explain, p.since, p.may_be_slow) for p in posts]
        for sent in (json.dumps(heads).encode(), *(post.body for post in posts)):
            self._pipe.send_bytes(sent)
        told = self._received()
        return Done(
            [(status, self._bytes()) for status, _ in zip(told["statuses"], posts, strict=True)],
            [(metric, kind, number) for metric, kind, number in told["counts"]],
            told["times"],
        )

    def _received(self) -> Any:
        return json.loads(self._bytes())

    def _bytes(self) -> bytes:
        assert self._pipe is not None
        return self._pipe.recv_bytes(2 * (self._deployment.limits.answer_bytes + MESSAGE_OVERHEAD))


def _work(pipe: Connection, settings: str, folders: Sequence[str]) -> None:
    sys.path[:0] = folders
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent ends its workers, once they have answered
    import torch

    deployment = Deployment.model_validate_json(settings)
    torch.set_num_threads(deployment.threads)
    confine(deployment.limits)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that is none
    try:
        service = open_service(deployment)
    except XfrError as error:
        pipe.send_bytes(json.dumps({"error": str(error)}).encode())
        return
    pipe.send_bytes(service.versions.model_dump_json().encode())
    while True:
        try:
            told = json.loads(pipe.recv_bytes())
            posts = [Post(pipe.recv_bytes(), *head) for head in told]
        except (EOFError, OSError):  # the parent is gone
            return
        allow_batch(deployment.limits)
        done = answer_posts(service, posts)
        statuses = [status for status, _ in done.answers]
        told = {"statuses": statuses, "counts": done.counts, "times": done.times}
        pipe.send_bytes(json.dumps(told).encode())
        for _, body in done.answers:
            pipe.send_bytes(body)
