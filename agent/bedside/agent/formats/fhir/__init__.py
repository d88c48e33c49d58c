"""FHIR R4 resources, as JSON and XML."""
