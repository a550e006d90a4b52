"""Tagging: each example has any number of tags, and a query gets a set of the task's tags."""
