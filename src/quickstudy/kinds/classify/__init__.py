"""TODO classify."""
