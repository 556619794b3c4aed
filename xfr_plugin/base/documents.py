"""What is read from JSON and written to it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Document"]


class Document(BaseModel):
    """Checked when it is made, never changed, and with no fields but those that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")
