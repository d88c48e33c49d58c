"""Results appended to CSV files."""
