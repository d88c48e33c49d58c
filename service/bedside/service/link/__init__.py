"""The gRPC shell that device, trustee and coordinator share; it knows none of their services."""
