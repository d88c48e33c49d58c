"""What one message of a broker says, by a description in the configuration."""
