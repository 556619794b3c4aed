"""Captum's private helpers, in one place: what to look at when a new Captum comes."""

from captum._utils.common import _format_additional_forward_args, _format_output, _select_targets
from captum._utils.gradient import compute_gradients, compute_layer_gradients_and_eval
from captum._utils.models.linear_model import SkLearnLinearModel
from captum._utils.progress import NullProgress, progress
from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR
from captum.attr._core.lime import get_exp_kernel_similarity_function
from captum.log import log_usage

__all__ = [
    "SUPPORTED_NON_LINEAR",
    "NullProgress",
    "SkLearnLinearModel",
    "_format_additional_forward_args",
    "_format_output",
    "_select_targets",
    "compute_gradients",
    "compute_layer_gradients_and_eval",
    "get_exp_kernel_similarity_function",
    "log_usage",
    "progress",
]
