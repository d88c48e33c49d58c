"""The coordinator: enrolment, fleet, rounds, aggregation, models. Trusted for liveness, never for privacy."""
