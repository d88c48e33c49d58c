"""HL7 v2 messages and their framing by MLLP, read and written."""
