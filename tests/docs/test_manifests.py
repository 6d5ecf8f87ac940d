"""Are the manifests what Kubernetes takes, and what svsync is: routes, ports, settings, account?"""

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from tests.api import DOCUMENT
from tests.docs.test_docs import ROOT, text_of

from svsync import __version__
from svsync.cli.main import build_parser
from svsync.cli.opening import compiled
from svsync.config import load as loading
from svsync.config.model import ROWS, Settings

HERE = ROOT / "config/kubernetes"
KUBERNETES = "1.31"
BASES = sorted(path.parent for path in HERE.glob("*/kustomization.yaml"))
FILES = sorted(
    path for path in HERE.glob("*/*.yaml") if path.name not in ("kustomization.yaml", "svsync.yaml")
)
SECRETS = "/run/secrets/svsync"
OF_THE_CLIENT = {"SVSYNC_URL"}
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def objects(kind: str) -> Iterator[Mapping[str, Any]]:
    return (found for path in FILES if (found := read(path))["kind"] == kind)


def pods() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The pod of each Deployment and CronJob, with its file."""
    for path in FILES:
        found = read(path)
        if found["kind"] == "Deployment":
            yield path, found["spec"]["template"]["spec"]
        if found["kind"] == "CronJob":
            yield path, found["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def containers(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", []), *pod["containers"]]


def ours() -> list[tuple[Path, Mapping[str, Any], dict[str, Any]]]:
    """Each container of svsync, with its file and pod."""
    found = [
        (path, pod, container)
        for path, pod in pods()
        for container in containers(pod)
        if container["image"] == "svsync"
    ]
    assert {path.parent for path, _, _ in found} == set(BASES)
    return found


OURS = ours()
named = pytest.mark.parametrize(
    ("path", "pod", "container"), OURS, ids=[str(path.relative_to(HERE)) for path, _, _ in OURS]
)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What the Secret `svsync` has, for a configuration that names it."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name, text in {
        "database-url": "postgresql://svsync@db.internal/svsync",
        "redis-url": "rediss://cache.internal:6379/0",
        "kms-login": "hvs.token",
        "vault-approle": '{"role_id": "r", "secret_id": "s"}',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder


def settings_of(
    path: Path, container: Mapping[str, Any], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """What a container reads, its secrets in a folder of the test."""
    monkeypatch.setattr(loading, "DEFAULT_FILES", ())
    environ = {"SVSYNC_STATE_DIR": "/var/lib/svsync"}  # as in the image
    for one in container.get("env", []):
        environ[one["name"]] = one["value"].replace("/run/secrets", str(secrets.parent / "secrets"))
        environ[one["name"]] = environ[one["name"]].replace("secrets/svsync", "secrets")
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    if "/etc/svsync" not in mounts:
        return loading.load(None, environ)
    file = secrets.parent / "svsync.yaml"
    text = (path.parent / "svsync.yaml").read_text("utf-8").replace(SECRETS, str(secrets))
    file.write_text(text.replace("/run/secrets", str(secrets.parent)))
    return loading.load(str(file), environ)


# --- what Kubernetes says -----------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HERE)))
def test_each_file_is_an_object_without_an_unknown_field(path: Path) -> None:
    kubernetes_validate.validate(read(path), KUBERNETES, strict=True)


@pytest.mark.parametrize("base", BASES, ids=lambda path: path.name)
def test_each_base_names_all_of_its_files_and_the_image_of_this_version(base: Path) -> None:
    base_file = read(base / "kustomization.yaml")
    generated = [file for one in base_file.get("configMapGenerator", []) for file in one["files"]]
    listed = {*base_file["resources"], *generated, "kustomization.yaml"}
    assert listed == {path.name for path in base.iterdir()}
    assert base_file["images"] == [{"name": "svsync", "newTag": __version__}]


@needs_kubectl
@pytest.mark.parametrize("base", BASES, ids=lambda path: path.name)
def test_each_base_is_built_and_what_is_built_is_taken(base: Path) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", base], capture_output=True, text=True, check=False
    )
    assert (built.returncode, built.stderr) == (0, "")
    found = list(yaml.safe_load_all(built.stdout))
    for one in found:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    maps = {one["metadata"]["name"] for one in found if one["kind"] == "ConfigMap"}
    assert all(f"name: {name}\n" in built.stdout.partition("volumes:")[2] for name in maps)
    assert f"image: svsync:{__version__}" in built.stdout


# --- what svsync is -----------------------------------------------------------------


@named
def test_pod_may_do_no_more_than_it_must(
    path: Path, pod: Mapping[str, Any], container: Mapping[str, Any]
) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    user = text_of("Dockerfile").partition("\nUSER ")[2].partition(":")[0]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert {str(context[key]) for key in ("runAsUser", "runAsGroup", "fsGroup")} == {user}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container["resources"]["limits"]


@named
def test_secrets_are_mounted_as_svsync_takes_them(
    path: Path, pod: Mapping[str, Any], container: Mapping[str, Any]
) -> None:
    """Owned by root, and read by the group; a file that others may read is refused."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    for volume in mounted.values():
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
    assert mounted[SECRETS]["secret"]["secretName"] == "svsync"
    written = {path for path, volume in mounted.items() if "emptyDir" in volume}
    assert written == {"/var/lib/svsync", "/tmp"}


@named
def test_container_runs_a_command_with_a_configuration_that_svsync_takes(
    path: Path,
    pod: Mapping[str, Any],
    container: Mapping[str, Any],
    secrets: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = build_parser().parse_args(container["args"])
    settings = settings_of(path, container, secrets, monkeypatch)
    assert [spec.id for spec, _ in compiled(settings)] == [one.id for one in settings.backends]
    assert settings.kms_provider != "local", "a key in a folder that goes with the pod"
    assert settings.database_url is not None
    if args.backend:
        assert args.backend in {backend.id for backend in settings.backends}
    variables = {row.variable for row in ROWS.values()}
    assert {one["name"] for one in container.get("env", [])} <= variables


def test_variables_of_others_are_those_of_the_client() -> None:
    for _, pod in pods():
        for container in containers(pod):
            if container["image"] != "svsync":
                assert {one["name"] for one in container["env"]} <= OF_THE_CLIENT


def test_sidecar_has_no_file_for_one_without_backends_would_pause_those_of_the_service(
    secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(path, pod, container)] = [one for one in OURS if one[0].parent.name == "sidecar"]
    assert "--config" not in container["args"]
    assert not any("configMap" in volume for volume in pod["volumes"])
    settings = settings_of(path, container, secrets, monkeypatch)
    assert (settings.source, settings.backends) == (None, ())
    assert settings.bind_address.startswith("127.0.0.1:")
    assert not any(
        mount["mountPath"].startswith("/run/secrets")
        for other in pod["containers"]
        for mount in other.get("volumeMounts", [])
    )


def test_cycles_and_service_read_the_same_but_for_where_a_service_listens() -> None:
    service, cycle = (read(HERE / name / "svsync.yaml") for name in ("service", "run-once"))
    listening = {"base_url", "tls_cert_file", "tls_key_file", "metrics_address"}
    assert {key: value for key, value in service.items() if key not in listening} == cycle


@named
def test_probes_ask_routes_and_commands_that_there_are(
    path: Path, pod: Mapping[str, Any], container: Mapping[str, Any]
) -> None:
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", [])}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(name, {})
        if "httpGet" in probe:
            assert probe["httpGet"]["path"] in DOCUMENT["paths"]
            assert str(ports[probe["httpGet"]["port"]]) == ROWS["bind_address"].default[-4:]
            assert probe["httpGet"]["scheme"] == "HTTPS"
        if "exec" in probe:
            program, *words = probe["exec"]["command"]
            assert program == "svsync"
            build_parser().parse_args(words)
        if name == "livenessProbe" and probe:
            assert "ready" not in str(probe), "no start anew brings a database back"


def test_service_is_three_replicas_that_are_let_end_and_are_not_all_taken_at_once() -> None:
    [deployment] = [one for one in objects("Deployment") if one["metadata"]["name"] == "svsync"]
    pod = deployment["spec"]["template"]["spec"]
    assert deployment["spec"]["replicas"] == 3
    [container] = pod["containers"]
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = int(ROWS["shutdown_grace"].read_default())
    assert pod["terminationGracePeriodSeconds"] >= waits + grace + 5 + 5
    [budget] = objects("PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_all_that_choose_pods_choose_those_of_the_service() -> None:
    [deployment] = [one for one in objects("Deployment") if one["metadata"]["name"] == "svsync"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    [budget], [service] = objects("PodDisruptionBudget"), objects("Service")
    [policy] = objects("NetworkPolicy")
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert budget["spec"]["selector"]["matchLabels"] == labels
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    for spread in deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]:
        assert spread["labelSelector"]["matchLabels"] == labels


def test_policy_of_the_network_lets_metrics_out_to_prometheus_alone_and_nobody_to_metadata() -> (
    None
):
    [policy] = objects("NetworkPolicy")
    [deployment] = [one for one in objects("Deployment") if one["metadata"]["name"] == "svsync"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    let_in = {
        port["port"]: str(rule["from"])
        for rule in policy["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert set(let_in) == {port["name"] for port in container["ports"]}
    assert "monitoring" in let_in["metrics"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    metrics = read(HERE / "service/svsync.yaml")["metrics_address"]
    assert metrics == f"0.0.0.0:{ports['metrics']}"
    blocks = [
        to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]
    assert any("169.254.0.0/16" in block["except"] for block in blocks)


def test_page_names_each_key_of_the_secret() -> None:
    used = {
        name
        for path in HERE.rglob("*.yaml")
        for name in re.findall(rf"file:{SECRETS}/([a-z-]+)", path.read_text("utf-8"))
    }
    told = set(re.findall(r"--from-file=([a-z-]+)=", text_of("docs/how-to/kubernetes.md")))
    assert used == told
