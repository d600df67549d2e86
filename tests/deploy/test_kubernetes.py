"""The Kubernetes manifests: whole, shut in, and of one mind with the service."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from app.main import create_app
from app.settings import Settings
from tests.deploy.test_deploy import DOCKERFILE, known_settings, longest_stop_s

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
EXAMPLES = FOLDER / "examples"
VALIDATE = ROOT / ".venv-deploy/bin/kubernetes-validate"


def of(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


POD = of("deployment")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SETTINGS = of("configmap")["data"]


def test_every_setting_is_one():
    """And every value is one that the service takes."""
    assert {*SETTINGS, *(given["name"] for given in CONTAINER["env"])} <= known_settings()
    Settings.from_env(SETTINGS)


def test_probes_ask_what_the_service_answers():
    """What restarts the service never asks for the store: that would not bring the store back."""
    paths = create_app(Settings()).openapi()["paths"]
    probes = {
        kind: CONTAINER[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")
    }

    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    assert {probe["path"] for probe in probes.values()} <= paths.keys()
    assert {probe["port"] for probe in probes.values()} == {"http"}


def test_it_is_given_the_time_it_takes_to_stop():
    """The pause before SIGTERM and the longest stop end before SIGKILL comes."""
    pause_s = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    stop_s = longest_stop_s(Settings.from_env(SETTINGS))

    assert pause_s + stop_s < POD["terminationGracePeriodSeconds"]


def test_the_pod_is_shut_in():
    """No root, no capability, nothing writable but /tmp, no account of the cluster's."""
    inside = CONTAINER["securityContext"]
    writable = [m["mountPath"] for m in CONTAINER["volumeMounts"] if not m.get("readOnly")]

    assert POD["securityContext"]["runAsNonRoot"]
    assert f"USER {POD['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text()
    assert inside["readOnlyRootFilesystem"]
    assert inside["allowPrivilegeEscalation"] is False
    assert inside["capabilities"] == {"drop": ["ALL"]}
    assert writable == ["/tmp"]
    assert re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE) == [
        m["mountPath"] for m in CONTAINER["volumeMounts"] if m["name"] == "data"
    ]
    assert POD["automountServiceAccountToken"] is False
    assert POD["enableServiceLinks"] is False


def test_secrets_stand_where_settings_look_for_them():
    """Mounted from the secret, and told by path alone."""
    mounts = {m["name"]: m["mountPath"] for m in CONTAINER["volumeMounts"]}
    (volume,) = [v["secret"] for v in POD["volumes"] if "secret" in v]
    example = yaml.safe_load((EXAMPLES / "secret.yaml").read_text())
    paths = {f"{mounts['secrets']}/{item['path']}" for item in volume["items"]}

    assert example["metadata"]["name"] == volume["secretName"]
    assert {item["key"] for item in volume["items"]} <= example["stringData"].keys()
    assert {v for k, v in SETTINGS.items() if k.endswith("_FILE")} == paths


def test_all_parts_speak_of_the_same_pods():
    """Service, budget, policy and autoscaler select what the deployment makes."""
    labels = of("deployment")["spec"]["template"]["metadata"]["labels"]
    (port,) = of("service")["spec"]["ports"]

    assert of("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert of("service")["spec"]["selector"] == labels
    assert of("poddisruptionbudget")["spec"]["selector"]["matchLabels"] == labels
    assert of("networkpolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert of("horizontalpodautoscaler")["spec"]["scaleTargetRef"]["name"] == "ktserve"
    assert port["targetPort"] in [p["name"] for p in CONTAINER["ports"]]
    assert "replicas" not in of("deployment")["spec"]


@pytest.mark.skipif(not VALIDATE.exists(), reason="make manifests has not installed the validator")
@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_manifests_keep_to_the_schemas_of_kubernetes(version):
    """As `make manifests` asks it: no field is unknown, none is missing, each is of its type."""
    files = [*sorted(FOLDER.glob("*.yaml")), EXAMPLES / "secret.yaml"]

    done = subprocess.run(
        [VALIDATE, "--strict", "-k", version, *files], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
