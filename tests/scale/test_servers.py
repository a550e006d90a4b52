"""A team's servers on PostgreSQL: the same commands and the same results, by two addresses in the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.scale.conftest import Team


def called(root: Path, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).parent / "quickstudy"), *arguments]
    environment = {**os.environ, **environment, "COLUMNS": "160"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)


def test_models_are_registered_promoted_and_traced_by_the_servers_alone(with_flows: Path, team: Team) -> None:
    def quickstudy(*arguments: str) -> str:
        done = called(with_flows, team.environment(), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(database: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(f"postgresql://{team.database}/{database}") as connection:
            return connection.execute(query).fetchall()

    assert "models:/quickstudy/1 @champion" in quickstudy("run")
    assert "Everything is up to date; nothing was trained or registered." in quickstudy("run")

    text = (with_flows / "params.yaml").read_text()
    (with_flows / "params.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    (with_flows / "answer").write_text("PROMOTE")
    assert "models:/quickstudy/2 @champion" in quickstudy("run")

    history = json.loads(quickstudy("history", "--json"))
    assert history["aliases"] == {"champion": 2, "previous": 1} and history["breaks"] == []
    moves = [line["verb"] for line in history["lines"] if line["kind"] == "intent"]
    assert moves == ["register", "register", "promote"]  # the champion, the challenger, the challenger as champion
    assert "models:/quickstudy/2" in quickstudy("lineage", "champion")  # the files beside its run come from there too

    assert not (with_flows / "mlruns/mlflow.db").exists()
    assert rows("prefect", "SELECT state_type FROM flow_run") == [("COMPLETED",)] * 2
    assert rows("mlflow", "SELECT count(*) FROM model_versions WHERE name = 'quickstudy'") == [(2,)]


def test_who_has_no_password_is_told_and_who_has_one_is_let_in(with_flows: Path, team: Team) -> None:
    nobody = team.environment() | {"MLFLOW_TRACKING_PASSWORD": "guess", "PREFECT_API_AUTH_STRING": "admin:guess"}
    for verb in (["history"], ["worker", "gpu"]):
        done = called(with_flows, nobody, *verb)
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "401" in done.stderr
    no_prefect = team.environment() | {"PREFECT_API_AUTH_STRING": "admin:guess"}
    done = called(with_flows, no_prefect, "run")
    assert done.returncode == 2 and "Prefect's server refuses the login" in done.stderr, done.stderr
    assert "guess" not in done.stdout + done.stderr
    done = called(with_flows, team.environment(), "worker", "nosuch")
    assert done.returncode == 2 and "there is no pool nosuch" in done.stderr
