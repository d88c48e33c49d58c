"""What `bedside doctor` looks at on a device."""

from bedside.agent.doctor.part import PART

__all__ = ["PART"]
