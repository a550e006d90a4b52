"""A team's servers on PostgreSQL: the same commands and the same results, by two addresses in the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.scale.conftest import Team


def test_models_are_registered_promoted_and_traced_by_the_servers_alone(with_flows: Path, team: Team) -> None:
    def quickstudy(*arguments: str) -> str:
        servers = {"PREFECT_API_URL": team.prefect, "MLFLOW_TRACKING_URI": team.mlflow, "COLUMNS": "160"}
        command = [str(Path(sys.executable).parent / "quickstudy"), *arguments]
        done = subprocess.run(command, cwd=with_flows, env=os.environ | servers, capture_output=True, text=True)
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
