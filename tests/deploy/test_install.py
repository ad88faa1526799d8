# SPDX-License-Identifier: Apache-2.0
"""What is installed: the script's refusals, and a release. That it installs a node that runs: `test_guide.py`."""

from __future__ import annotations

import json
import re
import sys
import zipfile
from pathlib import Path

from tests.deploy.tools import DEPLOY, ROOT, run


def checkout(target: Path) -> Path:
    """What is committed or about to be, without what runs left behind."""
    listed = run("git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard").stdout.splitlines()
    for name in listed:
        source = ROOT / name
        if source.is_file() and not name.startswith("tests/"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())
            (target / name).chmod(source.stat().st_mode)
    return target


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    done = run("sh", str(DEPLOY / "install.sh"), str(tmp_path), str(tmp_path / "opt"))
    assert done.returncode == 1 and "Give the folder" in done.stderr and not (tmp_path / "opt").exists()
    assert run("sh", str(DEPLOY / "install.sh")).returncode == 2


def test_a_release_is_the_same_to_the_last_byte_and_lists_all_that_comes_with_it(tmp_path: Path) -> None:
    source = checkout(tmp_path / "source")
    for name, check in (("a", "--validate"), ("b", "--no-validate")):
        given = {"SOURCE_DATE_EPOCH": "1790000000", "PYTHON": sys.executable, "SBOM_CHECK": check}
        done = run(str(source / ".ci" / "release"), str(tmp_path / name), **given)
        assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert [name for name in made if not name.endswith(".whl")] == ["SHA256SUMS", "staffetta.cdx.json"]
    for name in made:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=tmp_path / "a").returncode == 0
    names = zipfile.ZipFile(next((tmp_path / "a").glob("*.whl"))).namelist()
    assert any(name.endswith("locale/ar.po") for name in names) and not any(name.startswith("tests") for name in names)
    # The script has the list checked against CycloneDX's own schema; here: it is the lock's, each with its hashes.
    listed = json.loads((tmp_path / "a" / "staffetta.cdx.json").read_text())
    assert listed["bomFormat"] == "CycloneDX" and listed["metadata"]["component"]["name"] == "staffetta"
    lock = (DEPLOY / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z,-]+\])?==(\S+)", lock, re.MULTILINE))
    assert {(part["name"], part["version"]) for part in listed["components"]} == locked
    hashes = {h["content"] for p in listed["components"] for r in p["externalReferences"] for h in r.get("hashes", [])}
    assert hashes == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", lock))
