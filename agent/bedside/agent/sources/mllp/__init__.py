"""HL7 v2 over MLLP: a listener, the beds that it knows, and their sessions by ADT."""
