# SPDX-License-Identifier: Apache-2.0
"""Everything in deploy/ that a program can check is checked by that program."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from node import metrics
from tests.deploy.tools import DEPLOY, ROOT, find, run

UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
NODES = ["staffetta.service", "staffetta@.service", "staffetta-doctor.service", "staffetta-backup.service"]
PANELS = json.loads((DEPLOY / "grafana.json").read_text())["panels"]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units with a program that exists, as `verify` wants it, and the template as one instance."""
    for path in (*DEPLOY.glob("*.service"), *DEPLOY.glob("*.timer")):
        name = path.name.replace("@.", "@lantern.")
        (tmp_path / name).write_text(path.read_text().replace("/opt/staffetta/bin/staffetta", "/bin/true"))
    return tmp_path


@pytest.mark.parametrize("name", [*UNITS, "staffetta-backup.timer", "staffetta-doctor.timer"])
def test_systemd_finds_nothing_wrong_with_a_unit(units: Path, name: str) -> None:
    path = units / name.replace("@.", "@lantern.")
    done = run("systemd-analyze", "verify", "--man=no", str(path))
    complaints = [line for line in done.stderr.splitlines() if "staffetta" in line]
    assert complaints == [] and done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NODES)
def test_a_unit_is_exposed_by_2_at_most(units: Path, name: str) -> None:
    path = units / name.replace("@.", "@lantern.")
    done = run("systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(path))
    assert done.returncode == 0, done.stdout[-400:] + done.stderr


def test_the_rules_fire_when_they_should_and_only_then() -> None:
    folder = DEPLOY / "prometheus"
    for command in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts.test.yaml")):
        done = run(find("promtool"), *command, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr


def _names(text: str) -> set[str]:
    return set(re.findall(r"staffetta_[a-z_]+", text))


def test_rules_and_dashboard_use_only_metrics_that_exist() -> None:
    known: set[str] = set()
    for family in metrics.REGISTRY.collect():
        known |= {family.name, f"{family.name}_total", f"{family.name}_bucket", f"{family.name}_count"}
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    used = set().union(*(_names(rule["expr"]) for rule in rules))
    used |= set().union(*(_names(target["expr"]) for panel in PANELS for target in panel.get("targets", [])))
    assert used <= known, used - known


def test_every_metric_is_in_the_list_for_operators_with_its_own_words() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", (DEPLOY / "METRICS.md").read_text(), re.MULTILINE))
    known = {}
    for family in metrics.REGISTRY.collect():
        known[family.name + ("_total" if family.type == "counter" else "")] = family.documentation
    assert listed == known


def test_each_rule_has_a_page_for_three_in_the_morning() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"][0]["rules"]
    pages = re.findall(r"^## (\w+)$", (DEPLOY / "OPERATIONS.md").read_text(), re.MULTILINE)
    assert pages == [rule["alert"] for rule in rules], "in the same order"
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"deploy/OPERATIONS.md#{rule['alert'].lower()}"


def test_the_dashboard_has_every_metric_once_and_fits_its_grid() -> None:
    board = json.loads((DEPLOY / "grafana.json").read_text())
    assert board["schemaVersion"] >= 36 and board["uid"] == "staffetta"
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    places = set()
    for panel in PANELS:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & places, panel["title"]
        places |= cells


def test_the_image_is_linted_and_installs_by_the_script_that_is_tested() -> None:
    done = run(
        str(Path(sys.executable).parent / "hadolint"), "--failure-threshold", "style", str(DEPLOY / "Dockerfile")
    )
    assert done.returncode == 0, done.stdout
    text = (DEPLOY / "Dockerfile").read_text()
    assert "deploy/install.sh" in text and re.search(r"^USER 10001$", text, re.MULTILINE)


def test_the_compose_file_gives_no_container_more_than_it_needs() -> None:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    services = loaded["services"]
    assert set(services) == {"node", "database", "front"}
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert (service.get("privileged") is None and "ports" not in service) or name == "front"
        text = json.dumps(service.get("environment", {}))
        assert "PASSWORD" not in text.replace("PASSWORD_FILE", ""), "secrets are files"
    assert services["node"]["read_only"] and services["node"]["user"] == "10001:10001"
    assert loaded["networks"]["inside"]["internal"] and services["database"]["networks"] == ["inside"]
    named = {volume.split(":")[0] for s in services.values() for volume in s.get("volumes", []) if volume[0] != "."}
    assert named == set(loaded["volumes"])
    assert services["node"]["build"]["dockerfile"] == "deploy/Dockerfile"


def test_the_guide_counts_right_what_a_first_evening_takes() -> None:
    text = (DEPLOY / "README.md").read_text()
    names = ("Install", "TLS", "Join another agency")
    parts = [re.search(rf"^## {name}\n(.*?)(?=^##)", text, re.M | re.S) for name in names]
    lines = "".join(part[1] for part in parts if part).splitlines()
    words = sum(len(line.split()) for line in lines if not line.startswith("    "))
    typed = sum(len(line.strip()) for line in lines if line.startswith("    "))
    pace = r"reads (\d+) words and types (\d+) characters: at 200 words and 120 characters a minute ([\d.]+) "
    said = re.search(pace, text)
    assert said and said.groups() == (str(words), str(typed), f"{words / 200 + typed / 120:.1f}")
    assert words / 200 + typed / 120 < 10


def test_no_file_of_deploy_names_an_index_or_this_machine() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert "index-url" not in text and str(ROOT) not in text, path.name
