"""Results put or posted to servers: FHIR and webhooks."""
