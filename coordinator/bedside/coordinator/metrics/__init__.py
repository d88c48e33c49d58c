"""What Prometheus may ask of a coordinator: nothing of a patient, and no label that names a device."""
