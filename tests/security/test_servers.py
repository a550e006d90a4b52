"""Who reaches Prefect's and MLflow's servers: a page in a browser, another user of the machine, and who may."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from quickstudy.errors import QuickstudyError
from quickstudy.runs import servers
from quickstudy.system import environment, logins
from quickstudy.system.guard import Guard, Scope, hosts_of
from tests.toy.stack import QUICKSTUDY, Stack

pytestmark = pytest.mark.xdist_group("servers")

LOGIN = "ada:of-the-tests"


# ---- the guard


def asked(**headers: str) -> int:
    """What a guard at 127.0.0.1:4200 makes of a request that knows the password."""
    guard = Guard(lambda *_: None, hosts_of("127.0.0.1"), LOGIN)  # type: ignore[arg-type, return-value]
    basic = {"authorization": f"Basic {base64.b64encode(LOGIN.encode()).decode()}"}
    told = {"host": "127.0.0.1:4200", **basic, **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: Scope = {"type": "http", "method": "POST", "path": "/api/x", "server": ("127.0.0.1", 4200)}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in told.items()]
    return (guard.refusal(scope) or (200, ""))[0]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "localhost:4200"},
        {"host": "[::1]:4200"},
        {"host": "localhost:14200", "origin": "http://localhost:14200"},  # by a tunnel
        {"origin": "http://127.0.0.1:4200"},
        {"origin": "http://localhost:4200", "sec_fetch_site": "cross-site"},  # its page under the other name
        {"sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none", "sec_fetch_mode": "navigate"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"},  # a link
    ],
)
def test_the_guard_lets_programs_and_its_own_page_through(headers: dict[str, str]) -> None:
    assert asked(**headers) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:4200"},
        {"host": "127.0.0.1.evil.example:4200"},
        {"host": "evil@127.0.0.1:4200"},
        {"host": "127.0.0.1:4200/evil"},
        {"host": ""},
        {"host": "evil.example:4200", "origin": "http://evil.example:4200"},  # DNS rebinding
        {"origin": "https://evil.example"},
        {"origin": "http://evil.example:4200"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},  # another server of this machine's, perhaps another user's
        {"origin": "http://localhost"},
        {"origin": "http://localhost.evil.example:4200"},
        {"origin": "file://127.0.0.1:4200"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_the_guard_keeps_other_pages_out_though_they_know_the_password(headers: dict[str, str]) -> None:
    assert asked(**headers) == 403


@pytest.mark.parametrize(
    "authorization", ["", "Basic", "Basic x", "Bearer abc", "Basic " + base64.b64encode(b"ada:guess").decode(), LOGIN]
)
def test_the_guard_asks_for_the_password(authorization: str) -> None:
    assert asked(authorization=authorization) == 401


def test_a_header_that_is_there_twice_is_none() -> None:
    guard = Guard(lambda *_: None, hosts_of("127.0.0.1"), LOGIN, lambda _: False)  # type: ignore[arg-type, return-value]
    for twice in (b"host", b"origin"):
        values = {b"host": [b"127.0.0.1:4200"], b"origin": [b"http://127.0.0.1:4200"]}
        values[twice] = [b"evil.example", *values[twice]]
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "server": ("127.0.0.1", 4200)}
        scope["headers"] = [(name, value) for name, those in values.items() for value in those]
        assert guard.refusal(scope) is not None


def test_a_host_that_the_user_names_is_asked_under_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(host="mlflow.example.org", origin="https://mlflow.example.org") == 403
    monkeypatch.setenv("QUICKSTUDY_ALLOWED_HOSTS", "mlflow.example.org")
    assert asked(host="mlflow.example.org", origin="https://mlflow.example.org") == 200
    assert asked(host="127.0.0.1:4200", origin="https://mlflow.example.org") == 200  # a proxy that says its own name
    assert asked(host="mlflow.example.org", origin="https://evil.example") == 403
    assert asked(host="mlflow.example.org", origin="https://mlflow.example.org:9999") == 403


def test_no_page_shows_the_servers_in_a_frame() -> None:
    async def application(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    guard = Guard(application, hosts_of("127.0.0.1"), LOGIN, lambda _: False)
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "server": ("127.0.0.1", 4200)}
    scope["headers"] = [(b"host", b"127.0.0.1:4200")]
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    assert (b"x-frame-options", b"SAMEORIGIN") in sent[0]["headers"]


# ---- the password


def test_the_projects_password_is_for_its_user_alone(tmp_path: Path) -> None:
    login = logins.find_or_make(tmp_path)
    path = tmp_path / logins.LOGIN
    assert path.stat().st_mode & 0o777 == 0o600 and len(login) > 40 and login.startswith("quickstudy:")
    assert logins.find_or_make(tmp_path) == login == logins.read(tmp_path)
    path.chmod(0o644)
    with pytest.raises(QuickstudyError, match=r"login: others may have read this password.*Delete it"):
        logins.find_or_make(tmp_path)
    path.unlink()
    assert logins.find_or_make(tmp_path) != login
    path.unlink()
    (tmp_path / "theirs").write_text(login)
    (tmp_path / "theirs").chmod(0o600)
    path.symlink_to(tmp_path / "theirs")
    with pytest.raises(QuickstudyError, match="cannot be read"):
        logins.read(tmp_path)


SERVED = {"prefect": "http://127.0.0.1:4200/api", "mlflow": "http://127.0.0.1:5000", "login": "mlflow prefect"}


@pytest.mark.parametrize(
    ("given", "served", "wanted"),
    [
        # to its own servers the project's own; where it does not know of any, none
        ({"PREFECT_API_URL": SERVED["prefect"]}, SERVED, {"PREFECT_API_AUTH_STRING": "OWN"}),
        ({"PREFECT_API_URL": SERVED["prefect"] + "/"}, SERVED, {"PREFECT_API_AUTH_STRING": "OWN"}),
        ({"PREFECT_API_URL": SERVED["prefect"]}, {}, {"PREFECT_API_AUTH_STRING": None}),
        ({"PREFECT_API_URL": "http://evil.example/api"}, SERVED, {"PREFECT_API_AUTH_STRING": None}),
        ({"PREFECT_API_URL": "http://127.0.0.1:4201/api"}, SERVED, {"PREFECT_API_AUTH_STRING": None}),
        ({"MLFLOW_TRACKING_URI": SERVED["mlflow"]}, SERVED, {"MLFLOW_TRACKING_USERNAME": "quickstudy"}),
        ({"MLFLOW_TRACKING_URI": "http://evil.example"}, SERVED, {"MLFLOW_TRACKING_USERNAME": None}),
        ({"PREFECT_API_URL": SERVED["prefect"]}, SERVED | {"login": "mlflow"}, {"PREFECT_API_AUTH_STRING": None}),
        # what the user has set wins
        ({"PREFECT_API_URL": SERVED["prefect"], "PREFECT_API_AUTH_STRING": "a:b"}, SERVED, {}),
        ({"MLFLOW_TRACKING_URI": SERVED["mlflow"], "MLFLOW_TRACKING_TOKEN": "t"}, SERVED, {logins.MLFLOW[0]: None}),
        (
            {"PREFECT_API_URL": "https://them/api", "MLFLOW_TRACKING_URI": "https://them", "QUICKSTUDY_LOGIN": "a:b"},
            {},
            {"PREFECT_API_AUTH_STRING": "a:b", "MLFLOW_TRACKING_USERNAME": "a", "MLFLOW_TRACKING_PASSWORD": "b"},
        ),
        # of the server inside of a run that has started this process
        (
            {"PREFECT_API_URL": SERVED["prefect"], "PREFECT_API_AUTH_STRING": "quickstudy-run:x"},
            SERVED,
            {"PREFECT_API_AUTH_STRING": "OWN"},
        ),
    ],
)
def test_each_server_is_given_its_password_and_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    served: dict[str, str],
    wanted: dict[str, str | None],
) -> None:
    own = logins.find_or_make(tmp_path)
    monkeypatch.setattr(os, "environ", dict(given))
    logins.apply(tmp_path, served)
    for name, value in {**given, **wanted}.items():
        assert os.environ.get(name) == (own if value == "OWN" else value)


def test_a_run_without_a_server_has_a_password_for_the_one_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    logins.apply(None, {})
    first = os.environ["PREFECT_API_AUTH_STRING"]
    assert first == os.environ["PREFECT_SERVER_API_AUTH_STRING"] and len(first) > 40
    logins.apply(None, {})
    assert os.environ["PREFECT_API_AUTH_STRING"] == first
    assert logins.set_by_user("prefect", os.environ) is None  # `quickstudy up` does not take it for a person's
    monkeypatch.setattr(os, "environ", {})
    logins.apply(None, {})
    assert os.environ["PREFECT_API_AUTH_STRING"] != first


def test_beyond_this_machine_the_servers_need_a_password_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (logins.OWN, *logins.PREFECT, *logins.MLFLOW, "PREFECT_API_URL", "MLFLOW_TRACKING_URI")

    def allowed(host: str, **env: str) -> bool:
        monkeypatch.setattr(os, "environ", {k: v for k, v in os.environ.items() if k not in names} | env)
        environment.apply_environment(tmp_path)  # as each command does first
        try:
            servers.check_host(tmp_path, host)
        except QuickstudyError as error:
            assert "--host" in str(error) and "QUICKSTUDY_LOGIN" in str(error)
            return False
        return True

    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        assert allowed(host)
    for host in ("0.0.0.0", "::", "10.0.0.5", "server.example.org", "0"):
        assert not allowed(host)
        assert allowed(host, QUICKSTUDY_LOGIN="ada:secret")
    assert allowed("0.0.0.0", PREFECT_SERVER_API_AUTH_STRING="ada:secret")
    elsewhere = {
        "PREFECT_API_URL": "https://prefect.example.org/api",
        "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
    }
    assert allowed("0.0.0.0", **elsewhere)  # none is started
    assert not allowed("0.0.0.0", PREFECT_API_URL=elsewhere["PREFECT_API_URL"])
    with pytest.raises(QuickstudyError, match="QUICKSTUDY_LOGIN: is not a user and a password"):
        allowed("0.0.0.0", QUICKSTUDY_LOGIN="secret")


# ---- real servers


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """`quickstudy up` in a clone that trains there itself; its first retraining is done."""
    stack = Stack(tmp_path_factory.mktemp("machines"), every=2.0)
    stack.settings(runs={"train_on": "here"})
    stack.commit("trains here")
    try:
        stack.start(gpu=False)
        yield stack
    finally:
        stack.stop()


def address(stack: Stack, server: str) -> str:
    return stack.api.removesuffix("/api") if server == "prefect" else stack.mlflow


ROUTES = {
    "prefect": [
        ("POST", "/api/deployments/filter"),
        ("POST", "/api/deployments/{deployment}/create_flow_run"),
        ("POST", "/api/flow_runs/{run}/resume"),
        ("POST", "/api/flow_runs/{run}/set_state"),
        ("POST", "/api/flow_runs/filter"),
        ("PATCH", "/api/deployments/{deployment}"),
        ("PATCH", "/api/work_pools/cpu"),
        ("POST", "/api/automations/"),
        ("POST", "/api/block_documents/filter"),
        ("DELETE", "/api/deployments/{deployment}"),
        ("GET", "/api/deployments/{deployment}"),
        ("GET", "/api/csrf-token?client=x"),
        ("GET", "/api/admin/settings"),
        ("GET", "/api/health/../admin/settings"),
    ],
    "mlflow": [
        ("POST", "/api/2.0/mlflow/experiments/search"),
        ("POST", "/api/2.0/mlflow/experiments/create"),
        ("POST", "/ajax-api/2.0/mlflow/runs/search"),
        ("POST", "/api/2.0/mlflow/registered-models/alias"),
        ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/evil"),
        ("GET", "/get-artifact?path=x&run_id=y"),
        ("GET", "/graphql"),
        ("GET", "/"),
        ("GET", "/health/../"),
        ("GET", "/metrics"),
    ],
}


def call(url: str, method: str, headers: dict[str, str], body: bytes | None = b"{}") -> tuple[int, dict[str, str]]:
    asked = urllib.request.Request(url, None if method in ("GET", "OPTIONS") else body, headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=60) as got:
            return got.status, {name.lower(): value for name, value in got.headers.items()}
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}


def routes(stack: Stack, server: str) -> list[tuple[str, str]]:
    names = {
        "deployment": stack.get("/deployments/name/retrain/retrain")["id"],
        "run": "0" * 8 + "-0000" * 3 + "-" + "0" * 12,
    }
    return [(method, address(stack, server) + path.format(**names)) for method, path in ROUTES[server]]


def basic(login: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
def test_who_does_not_know_the_password_gets_nothing(stack: Stack, server: str) -> None:
    runs = len(stack.post("/flow_runs/filter", {"flows": {"name": {"any_": ["retrain"]}}}))
    for method, url in routes(stack, server):
        for headers in ({}, basic("quickstudy:guess"), basic(":"), {"Authorization": "Bearer x"}):
            code, _ = call(url, method, {"Content-Type": "application/json", **headers})
            assert code == 401, (method, url, headers, code)
    assert len(stack.post("/flow_runs/filter", {"flows": {"name": {"any_": ["retrain"]}}})) == runs
    health = "/api/health" if server == "prefect" else "/health"
    assert call(address(stack, server) + health, "GET", {})[0] == 200


@pytest.mark.parametrize("server", ["prefect", "mlflow"])
def test_a_page_from_elsewhere_gets_nothing_though_its_browser_knows_the_password(stack: Stack, server: str) -> None:
    foreign = [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    ]
    for headers in foreign:
        for method, url in routes(stack, server):
            for content in ("application/json", "text/plain"):  # the second needs no preflight
                code, told = call(url, method, {"Content-Type": content, **basic(stack.login()), **headers})
                assert code == 403 and "access-control-allow-origin" not in told, (method, url, headers, code)
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for headers in foreign[:3]:
        code, told = call(routes(stack, server)[0][1], "OPTIONS", {**asks, **headers})
        assert code == 403 and "access-control-allow-origin" not in told


def test_prefects_websockets_ask_for_the_password_and_answer_no_other_page(stack: Stack) -> None:
    for path in ("/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"):
        url = stack.api.replace("http", "ws", 1) + path
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, origin="https://evil.example", subprotocols=["prefect"]).close()  # type: ignore[arg-type, list-item]
        for token in (None, "quickstudy:guess"):
            with pytest.raises(ConnectionClosed), connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
                socket.send(json.dumps({"type": "auth", "token": token}))
                assert "auth_success" not in str(socket.recv(timeout=30))
        with connect(url, subprotocols=["prefect"]) as socket:  # type: ignore[list-item]
            socket.send(json.dumps({"type": "auth", "token": stack.login()}))
            assert "auth_success" in str(socket.recv(timeout=30))


def test_forged_requests_need_a_token_besides(stack: Stack) -> None:
    url = f"{stack.api}/deployments/filter"
    assert call(url, "POST", {"Content-Type": "application/json", **basic(stack.login())})[0] == 403
    assert len(stack.post("/deployments/filter", {})) == 5


def test_the_pages_load_and_ask_for_the_password(stack: Stack) -> None:
    prefect = address(stack, "prefect")
    own = {"Accept": "text/html", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
    assert call(f"{prefect}/v2/", "GET", own)[0] == 200
    with urllib.request.urlopen(f"{prefect}/ui-settings", timeout=60) as got:
        told = json.load(got)
    assert told["auth"] == "BASIC" and told["csrf_enabled"] and told["api_url"] == "/api"
    for name in ("127.0.0.1", "localhost"):  # as the page asks
        origin = prefect.replace("127.0.0.1", name)
        headers = {"Origin": origin, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
        assert call(f"{origin}/api/admin/version", "GET", {**headers, **basic(stack.login())})[0] == 200
        assert call(f"{origin}/api/admin/version", "GET", headers)[0] == 401
    code, told = call(f"{stack.mlflow}/", "GET", own)
    assert code == 401 and told["www-authenticate"].startswith("Basic")  # the browser asks the person
    assert call(f"{stack.mlflow}/", "GET", {**own, **basic(stack.login())})[0] == 200


def test_who_may_sees_and_does_everything_as_before(stack: Stack) -> None:
    run = stack.wait(lambda: stack.runs("retrain"), 120)[-1]["id"]
    assert stack.ended(run)[0] == "Completed", stack.log(run)  # a worker took it, MLflow took what it made
    assert "new version 1 @champion" in stack.summary(run)
    code, out, err = stack.quickstudy("runs")
    assert code == 0 and "completed" in out, err
    code, out, err = stack.quickstudy("prefect", "deployment", "ls")
    assert code == 0 and "retrain/retrain" in out, err
    done = subprocess.run(
        [QUICKSTUDY, "history"],
        cwd=stack.home,
        env=stack.environment("home") | {"MLFLOW_TRACKING_URI": stack.mlflow},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "@champion 1" in done.stdout, done.stderr
    assert ".prefect/login" in stack.said("home") and stack.login().partition(":")[2] not in stack.said("home")


def test_no_argument_of_any_process_holds_the_password(stack: Stack) -> None:
    password = stack.login().partition(":")[2].encode()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert any(b"flows.guarded" in command for command in commands)
    assert not any(password in command for command in commands)
    assert (stack.home / logins.LOGIN).stat().st_mode & 0o077 == 0
    assert password.decode() not in (stack.home / ".cache/up.json").read_text() + stack.logs()


def _readable(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_a_run_says_nothing_about_its_command_folder_or_environment(stack: Stack, tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    found = stack.get("/deployments/name/watch/watch")["id"]
    wanted = {"command": f"touch {evil}", "working_dir": str(tmp_path), "env": {"PYTHONSTARTUP": str(evil)}}
    for name, value in wanted.items():
        for path in (f"/deployments/{found}/create_flow_run", "/deployments/"):
            body: dict[str, Any] = {"job_variables": {name: value}}
            if path == "/deployments/":
                flow = stack.get("/deployments/name/watch/watch")["flow_id"]
                body |= {"name": "evil", "flow_id": flow, "work_pool_name": "cpu"}
            with pytest.raises(urllib.error.HTTPError, match="422"):
                stack.post(path, body)
    # Prefect takes them where a deployment that is there is changed; a run that its schedule starts then has them.
    assert stack.send("PATCH", f"/deployments/{found}", {"job_variables": wanted}) == 204
    assert stack.get(f"/deployments/{found}")["job_variables"] == wanted
    try:
        now = datetime.now(UTC)
        until = {"start_time": now.isoformat(), "end_time": (now + timedelta(hours=2)).isoformat(), "min_runs": 1}
        stack.post(f"/deployments/{found}/schedule", until)
        body = {"flow_runs": {"deployment_id": {"any_": [found]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
        run = stack.wait(lambda: stack.post("/flow_runs/filter", body), 60)[0]["id"]
        due = {"type": "SCHEDULED", "state_details": {"scheduled_time": now.isoformat()}}
        stack.post(f"/flow_runs/{run}/set_state", {"state": due, "force": True})
        assert stack.ended(run, 120)[0] == "Completed", stack.log(run)
    finally:
        assert stack.send("PATCH", f"/deployments/{found}", {"job_variables": {}}) == 204
    assert not evil.exists()


def test_a_pool_of_before_is_closed_when_it_is_deployed_again(stack: Stack) -> None:
    from prefect.workers.process import ProcessWorker

    own = stack.get("/work_pools/cpu")["base_job_template"]
    old = {"base_job_template": ProcessWorker.get_default_base_job_template()}
    assert stack.send("PATCH", "/work_pools/cpu", old) == 204
    assert stack.get("/work_pools/cpu")["base_job_template"] != own
    stack.deploy()
    assert stack.get("/work_pools/cpu")["base_job_template"] == own


def test_a_run_of_a_deployment_works_in_no_folder_that_its_caller_names(stack: Stack, tmp_path: Path) -> None:
    run = stack.run("watch/watch", project=str(tmp_path))
    name, message = stack.ended(run)
    assert name == "Failed" and "works in its own workspace" in message


@pytest.mark.parametrize("verb", [["up", "--host", "0.0.0.0"], ["up", "--host", "::"]])
def test_beyond_this_machine_without_a_password_is_one_line(project: Path, verb: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in (*logins.PREFECT, "PREFECT_HOME")}
    done = subprocess.run([QUICKSTUDY, *verb], cwd=project, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "QUICKSTUDY_LOGIN=user:password" in done.stderr
    assert not (project / ".prefect").exists() and not (project / ".cache/up.log").exists()


INSIDE = """
import sys, time
from flows import process
from prefect.client.orchestration import get_client

with get_client(sync_client=True) as client:
    print(client.api_url, len(client.read_deployments()), flush=True)
    sys.stdin.read()
"""


def test_the_server_inside_of_a_run_is_guarded_too(tmp_path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in (*logins.PREFECT, "PREFECT_API_URL")}
    run = subprocess.Popen(
        [sys.executable, "-c", INSIDE],
        cwd=Path(__file__).parents[2],
        env=env | {"PREFECT_HOME": str(tmp_path / "home")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert run.stdout is not None
        api, deployments = run.stdout.readline().split()
        api = api.rstrip("/")
        assert api.startswith("http://127.0.0.1:") and deployments == "0"  # the run itself is let in
        headers = {"Content-Type": "application/json"}
        for route in ("deployments/filter", "flow_runs/filter", "flows/", "csrf-token?client=x"):
            assert call(f"{api}/{route}", "POST", headers)[0] == 401
        foreign = {"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "http://localhost:1"}
        for more in foreign:
            code, told = call(f"{api}/deployments/filter", "POST", headers | more)
            assert code == 403 and "access-control-allow-origin" not in told
            assert call(f"{api}/health", "GET", more)[0] == 403
    finally:
        run.kill()
        run.communicate()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # and goes with it, also by a kill
        try:
            call(f"{api}/health", "GET", {})
        except OSError:
            break
        time.sleep(0.2)
    else:
        pytest.fail("the server inside of the run outlived it")
