"""Evidence by interventions on both faces of a pair."""

from xfr_plugin.attr.counterfactual.attribution import Counterfactual

__all__ = ["Counterfactual"]
