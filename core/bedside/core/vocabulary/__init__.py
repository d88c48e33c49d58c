"""What hospital devices mean: MDC codes, UCUM units, sentinels; from a reading as sent to a value, or a reason."""
