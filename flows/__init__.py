"""Prefect's flows. Importing anything from here sets the project's settings first, as Prefect reads them at import."""

from quickstudy.system.environment import apply_environment

apply_environment()
