"""The files in `deploy/`: they fit together, and nobody but the machine itself is let in."""

from __future__ import annotations

import shlex
from configparser import RawConfigParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))


def start_of(unit: Path) -> list[str]:
    parser = RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names are case-sensitive
    parser.read(unit)
    return shlex.split(parser["Service"]["ExecStart"])


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def server_in(workspace: str) -> dict[str, Any]:
    [entry] = yaml.safe_load((DEPLOY / workspace).read_text())["load_from"]
    found: dict[str, Any] = entry["grpc_server"]
    return found


def compose() -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())[
        "services"
    ]
    return services


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_listens_on_the_loopback_alone(unit: Path) -> None:
    command = start_of(unit)
    if "-p" in command:
        assert option(command, "-h") == "127.0.0.1"
    assert {"0.0.0.0", "::"}.isdisjoint(command)


def test_the_units_find_each_other() -> None:
    server = start_of(DEPLOY / "learning-code-server.service")
    where = server_in("workspace.yaml")
    assert (where["host"], str(where["port"])) == (option(server, "-h"), option(server, "-p"))
    for name in ("daemon", "webserver"):
        workspace = option(start_of(DEPLOY / f"learning-{name}.service"), "-w")
        assert workspace == "/opt/learning-assets/deploy/workspace.yaml"


def test_the_containers_find_each_other() -> None:
    services = compose()
    server = shlex.split(services["code-server"]["command"])
    where = server_in("workspace.compose.yaml")
    assert where["host"] in services
    assert str(where["port"]) == option(server, "-p")
    for name in ("daemon", "webserver"):
        workspace = option(shlex.split(services[name]["command"]), "-w")
        assert workspace == "/opt/learning-assets/deploy/workspace.compose.yaml"


def test_compose_publishes_the_ui_alone_and_on_the_loopback() -> None:
    published = {
        name: service["ports"] for name, service in compose().items() if "ports" in service
    }
    assert published == {"webserver": ["127.0.0.1:3000:3000"]}


SETTINGS = (
    *("DATABASE_URL", "DAGSTER_URL", "STRANDS_URL", "PLAN", "META_LEARNERS", "ALERT_URL"),
    *("OWNERS", "KEEP_RUNS_DAYS"),
)


@pytest.mark.parametrize("name", [f"LEARNING_{name}" for name in SETTINGS])
def test_every_setting_reaches_the_services(name: str) -> None:
    assert all(name in compose()[each]["environment"] for each in ("code-server", "daemon"))
    for example in ("compose.env.example", "learning.env.example"):
        assert f"{name}=" in (DEPLOY / example).read_text()


def test_the_services_are_as_patient_as_learning_ui() -> None:
    for name in ("DAGSTER_EVENT_BATCH_SIZE=500", "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS=300"):
        for made in ("Dockerfile", "learning.env.example"):
            assert name in (DEPLOY / made).read_text()


def test_the_code_servers_load_what_there_is() -> None:
    commands = [
        start_of(DEPLOY / "learning-code-server.service"),
        shlex.split(compose()["code-server"]["command"]),
    ]
    modules = [option(command, "-m") for command in commands]
    assert modules == ["learning_assets.defs.location"] * 2
    assert find_spec(modules[0]) is not None
