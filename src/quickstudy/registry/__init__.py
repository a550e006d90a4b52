"""What MLflow remembers: runs, models, versions and aliases. The only importer of mlflow, and only where it is needed.

Without ``MLFLOW_TRACKING_URI`` the store is ``mlruns/mlflow.db`` with the artifacts in ``mlruns/artifacts``.
"""

from quickstudy.registry.lines import compare_remote, signers
from quickstudy.registry.live import following
from quickstudy.registry.models import Version, aliases, newest_with, resolve, version
from quickstudy.registry.promotions import (
    Moving,
    Plan,
    accept_breaks,
    approved,
    broken_ledger,
    check_ledger,
    log_gate,
    moved,
    plan,
    promote,
    read_ledger,
    restore_aliases,
    unjudged,
)
from quickstudy.registry.runs import Registration, end_abandoned, model_key, register, registered, stage_metrics
from quickstudy.registry.store import ALIASES, NAME, Unreachable, prepare, reachable, tracking_uri
from quickstudy.secrets import redacted

__all__ = [
    "ALIASES",
    "NAME",
    "Moving",
    "Plan",
    "Registration",
    "Unreachable",
    "Version",
    "accept_breaks",
    "aliases",
    "approved",
    "broken_ledger",
    "check_ledger",
    "compare_remote",
    "end_abandoned",
    "following",
    "log_gate",
    "model_key",
    "moved",
    "newest_with",
    "plan",
    "prepare",
    "promote",
    "reachable",
    "read_ledger",
    "redacted",
    "register",
    "registered",
    "resolve",
    "restore_aliases",
    "signers",
    "stage_metrics",
    "tracking_uri",
    "unjudged",
    "version",
]
