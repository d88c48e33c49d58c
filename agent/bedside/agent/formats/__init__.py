"""What hospital devices and systems send, as bytes: pure parsers and writers, without a socket, a file or a clock."""
