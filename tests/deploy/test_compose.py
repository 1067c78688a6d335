"""compose.yaml: valid, nothing missing that it names, every command and setting exists, all provisioned at once."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import packages_distributions
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from detectors.cache_folder import find_folder
from pipeline.config import file as config_file
from pipeline.config.tree import Config
from pipeline.geo.provider import DEMO_DB, open_geo
from pipeline.respond.ladder import Ladder, ladder_of
from tests.deploy.commands import running

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
OURS: Final = {name: each for name, each in SERVICES.items() if each["image"] == "keywatch:local"}
ONCE: Final = {"migrate", "topics"}
NOT_IN_THE_IMAGE: Final = ("bench/", "demo/", "evaluation/", "sinks/chdb_engine.py")
"""Of pipeline/: what neither compose nor the chart runs, and needs extras of its own."""
EACH: Final = pytest.mark.parametrize("name", sorted(OURS))


def test_it_is_valid_by_the_compose_specification() -> None:
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(COMPOSE)


def test_one_start_brings_up_everything_but_invented_traffic() -> None:
    usual = {name for name, each in SERVICES.items() if "profiles" not in each}
    assert usual >= {
        "kafka", "topics", "clickhouse", "migrate", "worker", "sources", "lifecycle", "responder", "console", "intake",
        "privacy", "prometheus", "alertmanager", "grafana",
    }  # fmt: skip
    assert {name: each["profiles"] for name, each in SERVICES.items() if "profiles" in each} == {"traffic": ["traffic"]}


@EACH
def test_its_command_line_is_one_of_ours(name: str) -> None:
    running(OURS[name]["command"])


def _environment(name: str, folder: Path, given: dict[str, str]) -> dict[str, str]:
    """As compose makes it: variables of the shell put in, secrets as files of a folder."""
    found = {}
    for key, value in OURS[name]["environment"].items():
        text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda part: given.get(part[1], part[2]), value)
        if text.startswith("/run/secrets/"):
            assert Path(text).name in OURS[name]["secrets"], f"{name}: {text} is not mounted"
            (folder / Path(text).name).write_text("a-secret-of-the-test-long-enough")
            text = str(folder / Path(text).name)
        found[key] = text
    return found


@EACH
def test_every_setting_that_it_is_given_exists_and_loads(name: str, tmp_path: Path) -> None:
    environ = _environment(name, tmp_path, {})
    inside = environ.pop("KEYWATCH_CONFIG")
    (source,) = [volume.split(":")[0] for volume in OURS[name]["volumes"] if volume.split(":")[1] == inside]
    text = (DEPLOY / source).read_text()
    for secret in re.findall(r"/run/secrets/(\w+)", text):
        assert secret in OURS[name]["secrets"]
        (tmp_path / secret).write_text("a-secret-of-the-test-long-enough")
    file = tmp_path / "keywatch.toml"
    file.write_text(text.replace("/run/secrets/", f"{tmp_path}/"))
    loaded = config_file.load(file, environ)
    assert loaded.kafka.brokers == "kafka:9092"
    assert loaded.geo.country_db == ""


def test_the_traffic_profile_brings_the_geo_database_of_its_networks(tmp_path: Path) -> None:
    lines = (DEPLOY / "traffic.env").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given["COMPOSE_PROFILES"] == "traffic"
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"print(DEMO_DB)')\" {given['GEO_DB']}" in dockerfile, "the image has it under this name"
    environ = _environment("worker", tmp_path, given | {"GEO_DB": str(DEMO_DB)})
    environ.pop("KEYWATCH_CONFIG")
    assert open_geo(config_file.load(None, environ).geo).look_up("192.0.2.1").country


@EACH
def test_it_has_a_read_only_root_no_rights_and_a_health_of_its_own_port(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    config = Config()
    ports = {
        "sources": config.sources.metrics_port, "lifecycle": config.lifecycle.metrics_port,
        "responder": config.respond.metrics_port, "intake": config.intake.metrics_port, "console": config.console.port,
    }  # fmt: skip
    if name in ports:
        assert service["healthcheck"]["test"] == ["CMD", "healthy", f"http://127.0.0.1:{ports[name]}/livez"]
    elif name == "worker":
        assert "healthcheck" not in service
        assert f"http://127.0.0.1:{config.worker.metrics_port}/livez" in (DEPLOY / "Dockerfile").read_text()
    else:
        assert service["healthcheck"] == {"disable": True}


def test_whatever_others_wait_for_to_be_healthy_can_say_so() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other] or other == "worker", (name, other)
                assert SERVICES[other].get("healthcheck", {}).get("disable") is not True
            if how["condition"] == "service_completed_successfully":
                assert other in ONCE


def test_clickhouse_is_healthy_only_where_others_reach_it() -> None:
    """While its image makes users it answers on loopback alone: who waits for that to be healthy would find nobody."""
    assert SERVICES["clickhouse"]["healthcheck"]["test"][-1] == "http://clickhouse:8123/ping"


def test_health_checks_of_others_use_what_every_wget_has() -> None:
    """busybox has no long options but where it was built with them."""
    for name, service in SERVICES.items():
        test = service.get("healthcheck", {}).get("test", [])
        if "wget" in test:
            assert test[:4] == ["CMD", "wget", "-q", "-O-"], name


@pytest.mark.parametrize("script", ["up.sh", "secrets.sh"])
def test_what_people_start_on_their_own_machine_runs_with_what_macos_has(script: str) -> None:
    """A bash of 2007 (an empty list is unset to it) and BSD's tools (no long options)."""
    text = re.sub(r"#.*", "", (DEPLOY / script).read_text())
    assert not re.findall(r"\b(?:od|tr|mkdir|chmod|cat)\b[^|;&\n]* --\w", text)
    assert not re.findall(r'(?<!\+)"\$\{\w+\[@\]\}"', text)
    assert not re.findall(r"\b(?:mapfile|readarray|declare -A|local -n)\b|\$\{\w+(?:,,|\^\^)\}", text)


@pytest.fixture
def answering() -> Iterator[str]:
    """A server that answers /livez with 200 and anything else with 503."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/livez" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_the_images_health_check_tells_a_live_process_from_one_that_is_not(answering: str) -> None:
    def ask(url: str) -> int:
        return subprocess.run(
            [sys.executable, str(DEPLOY / "healthy"), url], capture_output=True, timeout=60
        ).returncode

    assert ask(f"{answering}/livez") == 0
    assert ask(f"{answering}/other") != 0
    assert ask("http://127.0.0.1:9/livez") != 0


def test_the_dockerfile_takes_only_what_is_let_into_it_and_everything_of_that() -> None:
    let_in = set(re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == let_in
    assert all((DEPLOY.parent / source).exists() for source in copied)


def test_one_command_makes_the_secrets_and_starts_all_with_or_without_traffic(tmp_path: Path) -> None:
    for name in ("up.sh", "secrets.sh", "traffic.env"):
        (tmp_path / name).write_bytes((DEPLOY / name).read_bytes())
        (tmp_path / name).chmod(0o755)
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/bash\necho "$*" >> "{tmp_path}/said"\n')
    docker.chmod(0o755)
    environ = {**os.environ, "PATH": f"{docker.parent}:{os.environ['PATH']}"}
    for options in ([], ["--traffic", "--detach"]):
        subprocess.run([str(tmp_path / "up.sh"), *options], check=True, timeout=60, env=environ)
    said = (tmp_path / "said").read_text().splitlines()
    assert said == ["compose up --build", "compose --env-file traffic.env up --build --detach"]
    assert {path.name for path in (tmp_path / "secrets").iterdir()} == COMPOSE["secrets"].keys()


def _imported(path: Path) -> set[str]:
    """Top-level names that a file imports when or after it is imported itself."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def _distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=;~! ]", each)[0].lower() for each in requirements}


def test_the_image_has_what_its_commands_and_formats_import() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    said = re.search(r"'\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert said
    extras = {name: _distributions(each) for name, each in project["optional-dependencies"].items()}
    given = _distributions(project["dependencies"]).union(*(extras[name] for name in said[1].split(",")))
    ours = given.union(*extras.values()) - {"keywatch"}
    of_import = packages_distributions()
    package = DEPLOY.parent / "pipeline"
    for path in package.rglob("*.py"):
        at = str(path.relative_to(package))
        if not at.startswith(NOT_IN_THE_IMAGE):
            needed = {each.lower() for name in _imported(path) for each in of_import.get(name, [])} & ours
            assert needed <= given, f"pipeline/{at} needs {needed - given}, which the image lacks"


def test_the_console_shows_the_policy_that_the_responder_judges_by() -> None:
    def ladder(name: str) -> Ladder:
        return ladder_of(config_file.build({"respond": tomllib.loads((DEPLOY / name).read_text())["respond"]}).respond)

    assert ladder("keywatch.toml").rules
    assert ladder("console.toml").version == ladder("keywatch.toml").version


def test_messages_of_the_responder_link_to_the_console_that_is_published() -> None:
    told = tomllib.loads((DEPLOY / "keywatch.toml").read_text())["respond"]["night"]["console_url"]
    [published] = SERVICES["console"]["ports"]
    assert told == f"http://localhost:{published.split(':')[1]}/incidents/{{incident_id}}"


def test_prometheus_asks_every_process_of_ours_that_stays() -> None:
    config = Config()
    ports = {
        "worker": config.worker.metrics_port, "sources": config.sources.metrics_port,
        "lifecycle": config.lifecycle.metrics_port, "responder": config.respond.metrics_port,
        "intake": config.intake.metrics_port, "console": config.console.metrics_port,
    }  # fmt: skip
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    asked = {each for job in jobs for of in job["static_configs"] for each in of["targets"]}
    assert asked == {f"{name}:{port}" for name, port in ports.items()}
    assert ports.keys() == OURS.keys() - ONCE - {"privacy", "traffic"}


def test_the_image_has_the_detectors_compiled_for_any_cpu_under_times_that_layers_keep() -> None:
    build, final = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[1:]
    steps = ["pip install", "touch --date=", "compileall", "keywatch warm-up", "chmod -R a+rX /opt/keywatch/compiled"]
    assert [build.index(step) for step in steps] == sorted(build.index(step) for step in steps)
    assert "NUMBA_CPU_NAME=generic" in build[: build.index("warm-up")]
    assert "NUMBA_CPU_NAME=generic" in final, "else the cache is of another CPU and all is compiled anew"
    used = set(re.findall(r"NUMBA_CACHE_DIR=(\S+)", build + final))
    assert len(used) == 1, "numba keeps the generated pass by its path, which is below the cache folder"
    assert f"mv {used.pop()} /opt/keywatch/compiled" in build
    assert 'ENTRYPOINT ["start"]' in final


class Container:
    """One with an image of one compiled version: `deploy/start`, and a keywatch that says what it was told."""

    def __init__(self, folder: Path, version: str) -> None:
        made, self.programs = folder / "compiled" / version, folder / "bin"
        for each in (made, self.programs):
            each.mkdir(parents=True)
        (made / "flow.nbi").write_text(version)
        os.utime(made / "flow.nbi", (1_000_000, 1_000_000))
        start = (DEPLOY / "start").read_text().replace("/opt/keywatch/compiled", str(made.parent))
        (self.programs / "start").write_text(start)
        (self.programs / "keywatch").write_text('#!/bin/sh\necho "$@"\n')
        for program in self.programs.iterdir():
            program.chmod(0o755)

    def start(self, cache: Path) -> str:
        """What it says on stderr."""
        environ = {"PATH": f"{self.programs}:{os.environ['PATH']}", "NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(
            ["start", "worker", "--topology", "keys"], env=environ, text=True, capture_output=True, timeout=60,
            executable=self.programs / "start",
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "worker --topology keys\n")
        return done.stderr


OLD, NEW = "0123456789abcdef", "fedcba9876543210"


def test_a_container_starts_with_a_copy_of_what_the_image_has_compiled_and_without_one_where_none_fits(
    tmp_path: Path,
) -> None:
    container, cache = Container(tmp_path, OLD), tmp_path / "cache"
    cache.mkdir()
    assert [container.start(cache) for _ in range(2)] == ["", ""]
    copied = cache / OLD / "flow.nbi"
    assert (copied.read_text(), copied.stat().st_mtime) == (OLD, 1_000_000)
    assert [each.name for each in cache.iterdir()] == [OLD]
    assert "compiled anew" in container.start(tmp_path / "absent")


@pytest.mark.parametrize("mode", [0o755, pytest.param(0o2777, marks=pytest.mark.skipif(
    os.geteuid() != 0, reason="of an emptyDir, which is root's"))])  # fmt: skip
def test_the_copy_is_taken_from_a_volume_as_compose_and_as_kubernetes_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    container, cache = Container(tmp_path, OLD), tmp_path / "cache"
    cache.mkdir()
    cache.chmod(mode)
    container.start(cache)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    assert find_folder(OLD) == (cache / OLD, [])


def test_composes_volume_is_the_images_user_and_closed_to_others() -> None:
    """Docker gives a new volume what the image has there: owner, and the mode that `install` gives, 0755."""
    image = (DEPLOY / "Dockerfile").read_text()
    assert "install --directory --owner keywatch --group keywatch /var/cache/keywatch" in image
    assert "--gid 10001 keywatch && useradd --uid 10001 --gid keywatch" in image
    assert "USER 10001:10001" in image
    assert all("compiled:/var/cache/keywatch" in each["volumes"] for each in OURS.values())


def test_an_upgrade_and_a_rollback_leave_nothing_of_the_other_in_the_volume_and_touch_nothing_else(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    for name in ("of-somebody", "0123456789abcdeX", ".copying.killed", ".copying.going-on"):
        (cache / name).mkdir(parents=True)
    os.utime(cache / ".copying.killed", (1_000_000, 1_000_000))
    others = {"of-somebody", "0123456789abcdeX", ".copying.going-on"}
    old, new = Container(tmp_path / "old", OLD), Container(tmp_path / "new", NEW)
    for container, version in ((old, OLD), (new, NEW), (new, NEW), (old, OLD)):
        assert container.start(cache) == ""
        assert {each.name for each in cache.iterdir()} == {version, *others}
        assert (cache / version / "flow.nbi").read_text() == version


def test_what_the_process_itself_compiles_for_another_cpu_stays_until_the_next_version(tmp_path: Path) -> None:
    container, cache, own = Container(tmp_path, OLD), tmp_path / "cache", "00000000000000aa"
    cache.mkdir()
    container.start(cache)
    (cache / own).mkdir()
    container.start(cache)
    assert {each.name for each in cache.iterdir()} == {OLD, own}
