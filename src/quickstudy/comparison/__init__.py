"""Learners × encoders, trained alike and judged on the same episodes, so that a default is chosen by evidence."""
