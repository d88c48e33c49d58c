"""Large immutable bytes as files named by their digest, and uploads on their way to becoming such files."""

from bedside.coordinator.blobs.files import BlobStore
from bedside.coordinator.blobs.staging import Incoming, Staging

__all__ = ["BlobStore", "Incoming", "Staging"]
