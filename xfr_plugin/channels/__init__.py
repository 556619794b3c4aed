"""Channel maps: where on the face each channel of an embedding lives."""

from xfr_plugin.channels.decoded import channel_atlas, decoded_changes, normalised_maps, sized_maps
from xfr_plugin.channels.dwelling import Dwelling, dwelling
from xfr_plugin.channels.regions import ChannelInRegion, ChannelRegions, channel_regions, region_shares

__all__ = [
    "ChannelInRegion",
    "ChannelRegions",
    "Dwelling",
    "channel_atlas",
    "channel_regions",
    "decoded_changes",
    "dwelling",
    "normalised_maps",
    "region_shares",
    "sized_maps",
]
