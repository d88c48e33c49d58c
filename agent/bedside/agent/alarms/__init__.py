"""Alarms: rules over predictions and records, judged in signal time, durable before anybody hears of them."""
