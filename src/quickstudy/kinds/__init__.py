"""The kinds of task. A kind is one folder here: targets, episodes, head, score and what is shown of it."""
