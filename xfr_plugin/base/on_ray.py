"""The jobs of a run on a Ray cluster, by Ray Data.

Jobs are loaded where the run was started; actors hold the model; results stream back, and are written where the run
was started. Ray hands at most a few jobs to each actor before their results are taken, starts actors that died anew,
and gives their jobs to others.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xfr_plugin.errors import InputError

if TYPE_CHECKING:
    from xfr_plugin.base.engines import AnyJob

__all__ = ["run_on_ray"]

Rows = dict[str, Any]

_LOADING = 2
"""Processes that load jobs."""


def run_on_ray(task: bytes, jobs: Sequence[AnyJob], workers: int | None) -> Iterator[tuple[AnyJob, Any]]:
    """Do jobs on the cluster that Ray is connected to, or on one that is started on this machine.

    Args:
        task: a pickled `Task`.
        jobs: to be done.
        workers: actors, each with a model; None for one each CPU of the cluster.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode
    except ImportError as error:
        raise InputError("the engine 'ray' needs Ray: pip install 'xfr-plugin[ray]'") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    ray.data.DataContext.get_current().enable_progress_bars = False
    here = OnNode(ray.get_runtime_context().get_node_id(), soft=False)
    count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    held = ray.put(task)  # it is kept until the end: an actor that starts anew needs it again
    rows = [{"number": number, "data": pickle.dumps(job)} for number, job in enumerate(jobs)]
    done = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(
            _load,
            batch_size=1,
            compute=ray.data.TaskPoolStrategy(
                size=_LOADING
            ),  # or each job might start a process, as no CPU is asked
            num_cpus=0,
            scheduling_strategy=here,
        )
        .map_batches(
            _Actor,
            fn_constructor_args=(held,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(count, len(jobs))),
            num_cpus=1,
        )
    )
    for row in done.iter_rows():
        yield jobs[row["number"]], pickle.loads(row["data"])


def _load(batch: Rows) -> Rows:
    """Load the one job of a batch."""
    return _one(batch["number"], pickle.dumps(pickle.loads(batch["data"][0]).load()))


class _Actor:
    """A worker on any machine."""

    def __init__(self, task: Any) -> None:
        import ray

        held = ray.get(task) if isinstance(task, ray.ObjectRef) else task
        self.worker = pickle.loads(held).worker()

    def __call__(self, batch: Rows) -> Rows:
        return _one(batch["number"], pickle.dumps(self.worker(pickle.loads(batch["data"][0]))))


def _one(number: Any, data: bytes) -> Rows:
    return {"number": number, "data": np.array([data], dtype=object)}
