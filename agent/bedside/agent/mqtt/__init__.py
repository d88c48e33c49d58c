"""A client of an MQTT 5 broker, for the source and the sink of this kind."""
