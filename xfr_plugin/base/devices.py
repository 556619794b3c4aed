"""Where to compute."""

from __future__ import annotations

import torch

from xfr_plugin.errors import InputError

__all__ = ["check_device"]


def check_device(device: str | torch.device) -> torch.device:
    """Return the device if this machine has it.

    Raises:
        InputError: the name is no device, or the device is not here.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r} cannot be used here: {reason}") from error
    return found
