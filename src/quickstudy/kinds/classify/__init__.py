"""Classification: each example has one class, and a query gets one of the task's classes."""
