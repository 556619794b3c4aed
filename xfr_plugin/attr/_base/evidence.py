"""Channel evidence, for those who look for it beside the methods that weigh by it."""

from xfr_plugin.channels.evidence import channel_evidence, channel_similarity

__all__ = ["channel_evidence", "channel_similarity"]
