"""What deploy/ holds, tried without a cluster: Prefect fills the templates and its server takes them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.utilities.templating import apply_values, find_placeholders
from prefect.workers.base import BaseJobConfiguration

from tests.scale.conftest import Team

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
KINDS = ("kubernetes", "docker")


def template(kind: str) -> dict[str, Any]:
    return dict(json.loads((DEPLOY / f"{kind}.json").read_text(encoding="utf-8")))


def filled(kind: str, **variables: Any) -> dict[str, Any]:
    """The job of a run that sets these variables, as a worker makes it of the template."""
    properties = template(kind)["variables"]["properties"]
    defaults = BaseJobConfiguration._get_base_config_defaults(properties)
    return apply_values(template(kind)["job_configuration"], {"name": "run", **defaults, **variables})


def instructions(word: str) -> list[str]:
    """What follows a word of the container file, lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text(encoding="utf-8"))
    return re.findall(rf"^{word} (.+)$", text, re.MULTILINE)


@pytest.mark.parametrize("kind", KINDS)
def test_every_placeholder_is_a_variable_and_every_variable_is_used(kind: str) -> None:
    names = {placeholder.name for placeholder in find_placeholders(template(kind)["job_configuration"])}
    assert names == set(template(kind)["variables"]["properties"])


def test_a_kubernetes_job_is_whole_and_asks_for_gpus_only_where_told() -> None:
    manifest = filled("kubernetes", command="prefect flow-run execute")["job_manifest"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert not find_placeholders(manifest)
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never" and container["image"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert all(set(volume) - {"name"} and None not in volume.values() for volume in pod["volumes"])
    assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["quickstudy"]
    assert container["resources"]["limits"].keys() == {"memory"}

    gpu = filled("kubernetes", gpus=2, env_secret="team")["job_manifest"]["spec"]["template"]["spec"]["containers"][0]
    assert gpu["resources"]["limits"]["nvidia.com/gpu"] == 2 and gpu["envFrom"][0]["secretRef"]["name"] == "team"


def test_a_docker_container_asks_for_gpus_only_where_told() -> None:
    assert "device_requests" not in filled("docker")["container_create_kwargs"]
    devices = [{"driver": "nvidia", "count": -1, "capabilities": [["gpu"]]}]
    assert filled("docker", device_requests=devices)["container_create_kwargs"]["device_requests"] == devices


def test_the_templates_and_the_container_file_speak_of_the_same_machine() -> None:
    pod = filled("kubernetes")["job_manifest"]["spec"]["template"]["spec"]
    (created,) = (line for line in instructions("RUN") if "useradd" in line)
    assert f"--uid {pod['securityContext']['runAsUser']} " in created
    (cache,) = (line.split()[-1] for line in instructions("RUN") if "cache.dir" in line)
    assert [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] == [cache]
    assert [volume.split(":")[1] for volume in filled("docker")["volumes"]] == [cache]
    assert json.loads(instructions("CMD")[0]) == BaseJobConfiguration._base_flow_run_command().split()


def test_the_container_file_copies_what_is_there_and_what_its_context_lets_in() -> None:
    copied = {name for line in instructions("COPY") for name in line.split()[:-1]}
    assert copied and all((REPOSITORY / name).exists() for name in copied)
    lines = (DEPLOY / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == copied and "*" in lines


def test_prefects_server_takes_the_templates(team: Team) -> None:
    address = {PREFECT_API_URL: team.prefect, PREFECT_API_AUTH_STRING: f"admin:{team.password}"}
    with temporary_settings(address), get_client(sync_client=True) as client:
        for kind in KINDS:
            client.create_work_pool(WorkPoolCreate(name=kind, type=kind, base_job_template=template(kind)))
            assert client.read_work_pool(kind).base_job_template == template(kind)
