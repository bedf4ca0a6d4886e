"""Which API server is asked, found as kubectl and the Kubernetes provider find it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client
from lightkube.resources.core_v1 import Namespace

from canary_service.cluster.connection import address, connect
from canary_service.cluster.errors import ClusterError

SECRET = "hunter2"  # noqa: S105 - it must not show in any message


def config(name: str, server: str | None = None, **changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any YAML
    """Return a kubeconfig with one cluster, user and context of this name."""
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server or f"https://{name}.example"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {"token": SECRET}}],
    } | changes


def write(path: Path, content: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def server_of(client: Client) -> str:
    return client.config.cluster.server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave nothing of the machine's own configuration."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


def test_the_home_folder_is_the_last_resort(home: Path) -> None:
    write(home / ".kube/config", config("home"))

    assert server_of(connect({})) == "https://home.example"


def test_the_environment_goes_over_the_home_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".kube/config", config("home"))
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "given", config("environment")))

    assert server_of(connect({})) == "https://environment.example"


@pytest.mark.parametrize("form", ["path", "path from home", "YAML", "JSON"])
def test_the_providers_configuration_goes_over_the_environment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", write(tmp_path / "given", config("environment")))
    content = config("provider")
    write(home / "provider", content)
    given = {
        "path": str(home / "provider"),
        "path from home": "~/provider",
        "YAML": yaml.safe_dump(content),
        "JSON": json.dumps(content | {"preferences": {"long": "x" * 5000}}),
    }

    assert server_of(connect({"kubeconfig": given[form]})) == "https://provider.example"


def test_context_and_cluster_of_the_providers_configuration_are_used(home: Path) -> None:
    both = config("one")
    for kind in ("clusters", "contexts", "users"):
        both[kind] += config("two")[kind]
    write(home / ".kube/config", both)

    assert server_of(connect({})) == "https://one.example"
    assert server_of(connect({"context": "two"})) == "https://two.example"
    assert server_of(connect({"cluster": "two"})) == "https://two.example"
    assert connect({"cluster": "two"}).config.context_name == "one"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("https://one.example", "https://ONE.example:443/"),
        ("http://one.example/cluster", "http://one.example:80/cluster/"),
        ("https://localhost:6443", "https://127.0.0.1:6443"),
        ("https://[::1]:6443", "https://127.0.0.1:6443"),
    ],
)
def test_an_address_is_the_same_however_it_is_written(one: str, other: str) -> None:
    assert address({"kubeconfig": yaml.safe_dump(config("a", one))}) == address(
        {"kubeconfig": yaml.safe_dump(config("b", other))}
    )


@pytest.mark.parametrize("other", ["http://one.example", "https://one.example:6443", "https://one.example/cluster"])
def test_another_scheme_port_or_path_is_another_address(other: str) -> None:
    assert address({"kubeconfig": yaml.safe_dump(config("a", "https://one.example"))}) != address(
        {"kubeconfig": yaml.safe_dump(config("a", other))}
    )


def test_of_several_files_the_first_that_has_a_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = config("a") | {"current-context": ""}
    second = config("b")
    second["clusters"] += [{"name": "a", "cluster": {"server": "https://other.example"}}]
    paths = [
        write(tmp_path / "first", first),
        str(tmp_path / "missing"),
        "",
        write(tmp_path / "empty", ""),
        write(tmp_path / "second", second),
    ]
    monkeypatch.setenv("KUBECONFIG", ":".join(paths))

    assert server_of(connect({})) == "https://b.example"
    assert server_of(connect({"context": "a"})) == "https://a.example"


def test_a_relative_path_counts_from_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = config("one"), config("two")
    two["users"][0]["user"] = {"tokenFile": "token"}
    write(tmp_path / "folder/token", SECRET)
    write(tmp_path / "folder/two", two)
    write(tmp_path / "one", one)
    monkeypatch.setenv("KUBECONFIG", "one:folder/two")

    user = connect({"context": "two"}).config.user

    assert user
    assert user.token_file == str(tmp_path / "folder/token")


def test_a_user_is_not_needed(home: Path) -> None:
    anonymous = config("open", contexts=[{"name": "open", "context": {"cluster": "open"}}], users=[])
    write(home / ".kube/config", anonymous)

    assert server_of(connect({})) == "https://open.example"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no kubeconfig at ~/.kube/config"),
        ("just words", "is not a kubeconfig"),
        (f"token: {SECRET}: x\n", "not YAML"),
        ("[1, 2]", "is not a kubeconfig"),
        ({}, "No current context"),
        (config("one", clusters=[]), "has no 'one'"),
        (config("one", users=[]), "has no 'one'"),
        (config("one", clusters=None), "has no 'one'"),
        (config("one", contexts=[{"name": "one", "context": None}]), "Expected"),
        (config("one", **{"current-context": "two"}), "Context 'two' not found"),
        (config("one", users=[{"name": "one", "user": {"client-certificate": "gone", "client-key": "gone"}}]), "gone"),
    ],
)
@pytest.mark.parametrize("origin", ["file", "content"])
def test_what_is_wrong_with_it_is_told_in_one_line_without_secrets(
    home: Path, content: object, reason: str, origin: str
) -> None:
    provider = {}
    if content is not None and origin == "file":
        write(home / ".kube/config", content)
    elif content is not None:
        provider["kubeconfig"] = content if isinstance(content, str) else yaml.safe_dump(content)

    with pytest.raises(ClusterError) as caught:
        connect(provider)

    message = str(caught.value)
    assert message.startswith("no cluster to talk to: ")
    assert reason in message
    assert "\n" not in message
    assert SECRET not in message


@pytest.mark.parametrize("override", ["context", "cluster"])
def test_an_override_that_does_not_exist_is_an_error_that_names_it(home: Path, override: str) -> None:
    write(home / ".kube/config", config("one"))

    with pytest.raises(ClusterError, match="'two'"):
        connect({override: "two"})


@pytest.fixture
def api_server() -> Iterator[str]:
    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'{"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": []}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Empty)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_proxy_stands_between_a_program_and_its_own_machine(
    home: Path, api_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(home / ".kube/config", config("local", api_server))
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    for variable in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)

    assert list(connect({}).list(Namespace)) == []
