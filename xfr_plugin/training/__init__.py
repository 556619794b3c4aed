"""Training: a small resumable engine, augmentation, and the trainings of the embedded models."""

from xfr_plugin.training.config import EngineConfig, load_config
from xfr_plugin.training.engine import Outcome, Task, train
from xfr_plugin.training.manifest import Manifest, build_manifest

__all__ = ["EngineConfig", "Manifest", "Outcome", "Task", "build_manifest", "load_config", "train"]
