"""What rounds cost in privacy: charges as the coordinator saw them, and two ways to add them up."""
