"""What we take from Captum, its private helpers too, in one place: what to look at when a new Captum comes.

In a notebook without ipywidgets tqdm, which Captum imports, warns that it will show bars of text. They do as well.
"""

from tqdm.std import TqdmWarning

from xfr_plugin.base.quiet import ignoring

with ignoring(TqdmWarning):
    from captum._utils.common import _format_additional_forward_args, _format_output, _select_targets
    from captum._utils.gradient import compute_gradients, compute_layer_gradients_and_eval
    from captum._utils.models.model import Model
    from captum._utils.progress import NullProgress, progress
    from captum.attr import (
        Attribution,
        GradientAttribution,
        InputXGradient,
        IntegratedGradients,
        KernelShap,
        LayerActivation,
        LayerAttribution,
        LayerGradCam,
        Lime,
        NoiseTunnel,
        Occlusion,
        PerturbationAttribution,
        Saliency,
    )
    from captum.attr._core.lime import get_exp_kernel_similarity_function
    from captum.log import log_usage

__all__ = [
    "Attribution",
    "GradientAttribution",
    "InputXGradient",
    "IntegratedGradients",
    "KernelShap",
    "LayerActivation",
    "LayerAttribution",
    "LayerGradCam",
    "Lime",
    "Model",
    "NoiseTunnel",
    "NullProgress",
    "Occlusion",
    "PerturbationAttribution",
    "Saliency",
    "_format_additional_forward_args",
    "_format_output",
    "_select_targets",
    "compute_gradients",
    "compute_layer_gradients_and_eval",
    "get_exp_kernel_similarity_function",
    "log_usage",
    "progress",
]
