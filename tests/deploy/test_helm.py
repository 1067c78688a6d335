"""The chart: valid manifests without rights, probes where the processes answer, settings that exist, no secret."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.config import file as config_file
from pipeline.config.policy import Policy
from pipeline.config.tree import Config
from pipeline.health import MAX_STALL_S
from pipeline.respond.ladder import Ladder, ladder_of
from pipeline.runners.parts import config_version
from pipeline.runners.topology import TOPOLOGIES, settings_of
from tests.deploy.chart import CHART, EVERYTHING, by_helm, notes, rendered, values
from tests.deploy.commands import running
from tests.deploy.go_template import Renderer

CUSTOM: Final = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}  # no schema of these is to be had
OLDEST, NEWEST = "1.27", "1.34"
SCHEMA: Final[dict[str, Any]] = json.loads((CHART / "values.schema.json").read_text())
DEFINITIONS: Final = SCHEMA["definitions"]
WAYS: Final = pytest.mark.parametrize("changes", [{}, EVERYTHING], ids=["as it comes", "everything on"])


def pods(changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Pod specs by the name of what makes them."""
    return {
        each["metadata"]["name"].removeprefix("keywatch-"): template_of(each)["spec"]
        for each in rendered(changes)
        if each["kind"] in ("StatefulSet", "Deployment", "Job", "CronJob")
    }


def template_of(each: dict[str, Any]) -> dict[str, Any]:
    """The pods that it makes; those of a CronJob are made by its jobs."""
    spec = each["spec"]["jobTemplate"]["spec"] if each["kind"] == "CronJob" else each["spec"]
    template: dict[str, Any] = spec["template"]
    return template


def of_kind(kind: str, changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in rendered(changes) if each["kind"] == kind]


@WAYS
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_manifest(changes: dict[str, Any], version: str) -> None:
    found = rendered(changes)
    assert len(found) > 20
    for each in found:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, version, strict=True)


@WAYS
def test_no_two_objects_have_one_name_and_all_carry_the_releases_labels(changes: dict[str, Any]) -> None:
    found = rendered(changes)
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(names)) == len(names)
    for each in found:
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "keywatch"
        assert re.fullmatch(r"[a-z0-9-]{1,63}", each["metadata"]["name"])


def test_a_release_of_another_name_is_found_by_its_own() -> None:
    names = {each["metadata"]["name"] for each in rendered({}, release="prod")}
    assert "prod-keywatch-worker-keys" in names
    assert all(name.startswith("prod-keywatch") for name in names)


@WAYS
def test_pods_run_as_nobody_with_a_read_only_root_and_nothing_to_gain(changes: dict[str, Any]) -> None:
    for name, pod in pods(changes).items():
        who = pod["securityContext"]
        assert who["runAsNonRoot"] is True, name
        assert who["runAsUser"] == who["runAsGroup"] == who["fsGroup"] == 10_001, (
            "whose `compiled` is, or it is refused"
        )
        assert who["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            own = container["securityContext"]
            assert own["readOnlyRootFilesystem"] is True
            assert own["allowPrivilegeEscalation"] is False
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_a_cluster_that_gives_users_of_its_own_is_asked_for_none() -> None:
    """OpenShift's restricted-v2 refuses pods that ask for a user outside the namespace's range."""
    none = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    for name, spec in pods({**EVERYTHING, "podSecurityContext": none}).items():
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}, name


def test_every_pod_goes_to_the_nodes_that_values_name_jobs_too() -> None:
    """A migration that no node takes would hold every upgrade up."""
    where: dict[str, Any] = {
        "nodeSelector": {"pool": "keywatch"},
        "tolerations": [{"key": "only", "operator": "Equal", "value": "keywatch", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}},
    }
    for name, spec in pods({**EVERYTHING, **where}).items():
        assert {each: spec.get(each) for each in where} == where, name


@pytest.mark.parametrize("component", ["worker", "responder", "console", "intake", "privacy", "drill", "migrate"])
def test_what_a_component_says_of_its_own_place_and_account_holds_for_it_alone(component: str) -> None:
    own: dict[str, Any] = {
        "nodeSelector": {"pool": "own"}, "tolerations": [{"key": "own"}], "affinity": {"podAffinity": {}},
        "priorityClassName": "own", "serviceAccount": {"name": "own"},
    }  # fmt: skip
    usual: dict[str, Any] = {
        "nodeSelector": {"pool": "all"}, "tolerations": [{"key": "all"}], "affinity": {"nodeAffinity": {}},
        "priorityClassName": "all", "serviceAccount": {"name": "all"},
    }  # fmt: skip
    changes = {**EVERYTHING, **usual, "responder": {}}
    for name, pod in pods({**changes, component: {**changes.get(component, {}), **own}}).items():
        at = own if name.partition("-")[0] == component else usual
        assert pod["serviceAccountName"] == at["serviceAccount"]["name"], name
        assert all(pod[each] == at[each] for each in at if each != "serviceAccount"), name
    assert "ServiceAccount" not in {
        each["kind"] for each in rendered({**changes, component: {**changes.get(component, {}), **own}})
    }, "who brings his own wants none made"


def test_a_cloud_s_rights_can_be_given_to_the_responder_alone() -> None:
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/keywatch"}
    found = rendered({"responder": {"serviceAccount": {"annotations": role}}})
    accounts = {
        each["metadata"]["name"]: each["metadata"].get("annotations")
        for each in found
        if each["kind"] == "ServiceAccount"
    }
    assert accounts == {"keywatch": None, "keywatch-responder": role}
    used = {
        name: pod.get("serviceAccountName")
        for name, pod in pods({"responder": {"serviceAccount": {"annotations": role}}}).items()
    }
    assert [name for name, account in used.items() if account == "keywatch-responder"] == ["responder"]
    assert used["migrate"] is None, "the chart's account is not there yet when it runs"


def test_a_topology_may_have_resources_of_its_own() -> None:
    small = {"requests": {"cpu": "50m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}
    found = pods({"worker": {"topologies": {"lifecycle": {"resources": small}}}})
    assert found["worker-lifecycle"]["containers"][0]["resources"] == small
    assert found["worker-keys"]["containers"][0]["resources"] == values({})["worker"]["resources"]


def test_replicas_are_spread_over_nodes_and_zones_each_component_by_itself() -> None:
    for name in ("worker-keys", "responder"):
        spread = pods({})[name]["topologySpreadConstraints"]
        assert {each["topologyKey"] for each in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert {each["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] for each in spread} == {name}
    mine = {
        "maxSkew": 1,
        "topologyKey": "rack",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"a": "b"}},
    }
    found = pods({"worker": {"topologySpreadConstraints": [mine]}})
    assert found["worker-keys"]["topologySpreadConstraints"] == [mine]
    assert len(found["responder"]["topologySpreadConstraints"]) == 2
    assert "topologySpreadConstraints" not in found["migrate"]


@pytest.mark.parametrize(("component", "port"), [("console", 8090), ("intake", 8085)])
def test_what_people_and_gateways_reach_from_outside_ends_tls_and_is_never_the_metrics_port(
    component: str, port: int
) -> None:
    host = f"{component}.example.com"
    door = {"enabled": True, "host": host, "tlsSecretName": "tls", "className": "public", "annotations": {"a": "b"}}
    route = {"enabled": True, "host": host, "parentRefs": [{"name": "gateway", "namespace": "edge"}]}
    found = rendered({component: {"enabled": True, "ingress": door, "httpRoute": route}})
    [ingress] = [each for each in found if each["kind"] == "Ingress"]
    [rule] = ingress["spec"]["rules"]
    assert ingress["spec"]["tls"] == [{"hosts": [host], "secretName": "tls"}]
    assert (rule["host"], ingress["spec"]["ingressClassName"]) == (host, "public")
    [path] = rule["http"]["paths"]
    [service] = [
        each for each in found if each["kind"] == "Service" and each["metadata"]["name"] == f"keywatch-{component}"
    ]
    assert path["backend"]["service"] == {"name": service["metadata"]["name"], "port": {"name": "http"}}
    assert {each["name"]: each["port"] for each in service["spec"]["ports"]}["http"] == port
    [http] = [each for each in found if each["kind"] == "HTTPRoute"]
    assert http["spec"]["rules"] == [{"backendRefs": [{"name": service["metadata"]["name"], "port": port}]}]
    assert (http["spec"]["hostnames"], http["spec"]["parentRefs"]) == ([host], route["parentRefs"])
    assert not {"Ingress", "HTTPRoute"} & {each["kind"] for each in rendered({component: {"enabled": True}})}


def test_links_lead_to_the_console_as_it_is_reached() -> None:
    def link(changes: dict[str, Any]) -> str:
        env = {each["name"]: each.get("value") for each in pods(changes)["responder"]["containers"][0]["env"]}
        return str(env["KEYWATCH_RESPOND__NIGHT__CONSOLE_URL"]).removesuffix("/incidents/{incident_id}")

    door = {"console": {"ingress": {"enabled": True, "host": "watch.example"}}}
    route = {"console": {"httpRoute": {"enabled": True, "host": "route.example", "parentRefs": [{"name": "edge"}]}}}
    assert link({}) == "http://localhost:8090"
    assert (link(door), link(route)) == ("https://watch.example", "https://route.example")
    assert link({**door, "dashboards": {"consoleUrl": "https://other.example/keys"}}) == "https://other.example/keys"


def test_what_answers_http_goes_on_answering_until_proxies_know_that_it_ends() -> None:
    """A pod that ends and its removal from Services are told at the same time; the proxies hear of it later."""
    for name, pod in pods(EVERYTHING).items():
        (container,) = pod["containers"]
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])
        assert (hook == ["sleep", "5"]) == (name in ("console", "intake")), name
        if name.startswith(("worker", "responder", "console", "intake")):
            assert pod["terminationGracePeriodSeconds"] >= Config().worker.stop_s + float(hook[1]), name


def test_a_budget_of_disruptions_holds_up_no_drain_for_ever() -> None:
    for each in of_kind("PodDisruptionBudget", EVERYTHING):
        assert each["spec"]["maxUnavailable"] == 1, "of one replica it lets that one go"
        assert each["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "nor do pods that never get ready"


def test_a_new_version_of_the_chart_alone_starts_no_pod_anew() -> None:
    for each in rendered(EVERYTHING):
        if each["kind"] in ("StatefulSet", "Deployment"):
            assert "helm.sh/chart" in each["metadata"]["labels"]
            assert "helm.sh/chart" not in template_of(each)["metadata"]["labels"]


def test_for_maintenance_no_worker_runs_and_a_pod_of_their_rights_waits_for_commands(tmp_path: Path) -> None:
    """`keywatch state export` and `import` want all workers stopped, and their user's rights, which no person has."""
    changes = {**EVERYTHING, "maintenance": {"enabled": True}}
    found = rendered(changes)
    for each in found:
        if each["kind"] not in CUSTOM:
            kubernetes_validate.validate(each, NEWEST, strict=True)
    assert {each["spec"]["replicas"] for each in found if each["kind"] == "StatefulSet"} == {0}
    assert "ScaledObject" not in {each["kind"] for each in found}, "it would start them again"
    [pod, worker] = [pods(changes)[name] for name in ("maintenance", "worker-keys")]
    (container,) = pod["containers"]
    assert container["command"] == ["sleep", "infinity"]
    loaded, theirs = (
        config_file.load(None, {**_environment(each, tmp_path), "KEYWATCH_CONFIG": ""}).kafka for each in (pod, worker)
    )
    assert (loaded.username, loaded.instance_id) == (theirs.username, "")
    assert [each for each in pod["volumes"] if each["name"] in ("config", "secrets")] == [
        each for each in worker["volumes"] if each["name"] in ("config", "secrets")
    ]
    assert {"name": "state", "mountPath": "/state"} in container["volumeMounts"]
    [policy] = [
        each["spec"] for each in found
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "keywatch-maintenance"
    ]  # fmt: skip
    assert (policy["ingress"], len(policy["egress"])) == ([], 3)
    assert "maintenance" not in str(rendered(EVERYTHING))


def test_an_image_can_be_named_by_its_bytes() -> None:
    digest = "sha256:" + "0" * 64
    images = {pod["containers"][0]["image"] for pod in pods({**EVERYTHING, "image": {"digest": digest}}).values()}
    assert images == {f"keywatch@{digest}"}


def test_labels_annotations_environment_and_volumes_of_one_component_add_to_those_of_all() -> None:
    changes = {
        "commonLabels": {"cost": "security"}, "podLabels": {"a": "all", "b": "all"},
        "env": [{"name": "TZ", "value": "UTC"}],
        "podAnnotations": {"x": "all"}, "extraVolumes": [{"name": "geo", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "geo", "mountPath": "/geo"}],
        "responder": {
            "podLabels": {"b": "own"}, "podAnnotations": {"y": "own"},
            "env": [{"name": "HTTPS_PROXY", "value": "http://p:1"}],
            "extraVolumes": [{"name": "own", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "own", "mountPath": "/own"}],
        },
    }  # fmt: skip
    assert all(each["metadata"]["labels"]["cost"] == "security" for each in rendered(changes))
    found = {each["metadata"]["name"]: each for each in of_kind("Deployment", changes)}
    of = {name: template_of(found[f"keywatch-{name}"]) for name in ("responder", "console")}
    told = {name: (each["metadata"]["labels"], each["metadata"]["annotations"]) for name, each in of.items()}
    assert [told["responder"][0][name] for name in ("cost", "a", "b")] == ["security", "all", "own"]
    assert [told["console"][0][name] for name in ("cost", "a", "b")] == ["security", "all", "all"]
    assert (told["responder"][1]["x"], told["responder"][1]["y"]) == ("all", "own")
    assert "y" not in told["console"][1]
    env = {name: [each["name"] for each in spec["spec"]["containers"][0]["env"]] for name, spec in of.items()}
    assert env["responder"][-2:] == ["TZ", "HTTPS_PROXY"]
    assert env["console"][-1] == "TZ"
    paths = {
        name: {each["mountPath"] for each in spec["spec"]["containers"][0]["volumeMounts"]} for name, spec in of.items()
    }
    assert {"/geo", "/own"} <= paths["responder"]
    assert "/own" not in paths["console"]


def test_probes_ask_where_the_processes_answer_and_for_their_progress() -> None:
    config = Config()
    ports = {
        "worker-keys": config.worker.metrics_port, "worker-sources": config.sources.metrics_port,
        "worker-lifecycle": config.lifecycle.metrics_port, "responder": config.respond.metrics_port,
        "intake": config.intake.metrics_port, "console": config.console.metrics_port,
    }  # fmt: skip
    found = pods(EVERYTHING)
    assert found.keys() == ports.keys() | {"migrate", "privacy", "drill"}
    for name, port in ports.items():
        (container,) = found[name]["containers"]
        named = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert named["metrics"] == port, name
        asked = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")}
        assert asked["startupProbe"] == asked["readinessProbe"] == {"path": "/readyz", "port": "metrics"}
        assert asked["livenessProbe"] == {"path": "/livez", "port": "metrics"}
        live = container["livenessProbe"]
        assert live["periodSeconds"] * live["failureThreshold"] > MAX_STALL_S, "the process judges itself first"


def test_a_worker_may_take_its_time_to_stop_and_to_start() -> None:
    spec = pods({})["worker-keys"]
    assert spec["terminationGracePeriodSeconds"] > Config().worker.stop_s
    probe = spec["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 600


@WAYS
def test_every_container_runs_a_command_that_exists(changes: dict[str, Any]) -> None:
    for pod in pods(changes).values():
        words = pod["containers"][0]["args"]
        command, said = running(words)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in said if word.startswith("--")} <= known, words


@WAYS
def test_every_setting_that_a_container_is_given_exists_and_loads_with_its_files(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    configs = {each["metadata"]["name"]: each["data"] for each in of_kind("ConfigMap", changes)}
    for name, pod in pods(changes).items():
        environ = _environment(pod, tmp_path)
        volume = next((each for each in pod["volumes"] if each["name"] == "config"), None)
        file = None
        if volume:
            file = tmp_path / f"{name}.toml"
            text = configs[volume["configMap"]["name"]]["keywatch.toml"]
            file.write_text(text.replace("/run/secrets/keywatch", str(tmp_path)))
            assert environ.pop("KEYWATCH_CONFIG") == "/etc/keywatch/keywatch.toml"
        loaded = config_file.load(file, environ)
        assert loaded.kafka.partitions == values(changes)["kafka"]["partitions"]
        assert loaded.kafka.declare_topics is False


def _environment(pod: dict[str, Any], folder: Path) -> dict[str, str]:
    """As the container sees it, with the mounted secrets in `folder`."""
    (container,) = pod["containers"]
    (secrets,) = [each for each in pod["volumes"] if each["name"] == "secrets"]
    for source in secrets["projected"]["sources"]:
        for item in source["secret"]["items"]:
            (folder / item["path"]).write_text("a-secret-of-the-test-long-enough")
    names = {"metadata.name": "keywatch-worker-keys-0"}
    return {
        each["name"]: each.get("value", "").replace("/run/secrets/keywatch", str(folder))
        or names[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container["env"]
    }


def test_a_pods_name_is_its_member_of_the_group_and_the_only_one_of_it(tmp_path: Path) -> None:
    found = pods({})
    for topology in TOPOLOGIES:
        env = {each["name"]: each for each in found[f"worker-{topology}"]["containers"][0]["env"]}
        assert env["KEYWATCH_KAFKA__INSTANCE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    loaded = config_file.load(None, _environment(found["worker-keys"], tmp_path) | {"KEYWATCH_CONFIG": ""})
    assert loaded.kafka.instance_id == "keywatch-worker-keys-0"
    assert all("INSTANCE_ID" not in str(pod) for name, pod in found.items() if not name.startswith("worker"))


@WAYS
def test_secrets_are_named_and_never_told(changes: dict[str, Any]) -> None:
    found = rendered(changes)
    assert "Secret" not in {each["kind"] for each in found}
    for pod in pods(changes).values():
        files = {
            f"/run/secrets/keywatch/{item['path']}"
            for volume in pod["volumes"] if volume["name"] == "secrets"
            for source in volume["projected"]["sources"] for item in source["secret"]["items"]
        }  # fmt: skip
        for each in pod["containers"][0]["env"]:
            if re.search(r"PASSWORD|TOKEN|SECRET|PEPPER", each["name"]):
                assert each["name"].endswith("_FILE")
                assert each["value"] in files


def test_topologies_read_the_topics_and_groups_of_the_configuration() -> None:
    told = values({})["worker"]["topologies"]
    assert set(told) == set(TOPOLOGIES)
    for topology, of in told.items():
        settings = settings_of(Config(), topology)
        assert (of["group"], of["topic"], of["port"]) == (
            settings.kafka.group, settings.topics.requests, settings.worker.metrics_port,
        )  # fmt: skip


def test_keda_scales_the_workers_of_each_topology_on_its_lag_from_its_replicas_up_to_the_partitions() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in of_kind("ScaledObject", EVERYTHING)}
    sets = {each["metadata"]["name"]: each["spec"] for each in of_kind("StatefulSet", EVERYTHING)}
    assert found.keys() == sets.keys()
    told = values({})
    for topology, of in told["worker"]["topologies"].items():
        name = f"keywatch-worker-{topology}"
        spec = found[name]
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (of["replicas"], told["kafka"]["partitions"])
        assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name}
        assert "replicas" not in sets[name], "two would set it"
        (trigger,) = spec["triggers"]
        settings = settings_of(Config(), topology)
        asked = trigger["metadata"]
        assert (asked["topic"], asked["consumerGroup"]) == (settings.topics.requests, settings.kafka.group)
        assert trigger["authenticationRef"] == {"name": "kafka-auth"}
    assert not of_kind("ScaledObject", {})


def test_every_selector_finds_the_pods_it_means() -> None:
    found = rendered(EVERYTHING)
    labels = [
        template_of(each)["metadata"]["labels"]
        for each in found
        if each["kind"] in ("StatefulSet", "Deployment", "CronJob", "Job")
    ]
    wanted = {
        (each["kind"], each["metadata"]["name"]): _chosen(each)
        for each in found
        if each["kind"] in ("Service", "NetworkPolicy", "PodDisruptionBudget")
    }
    assert len(wanted) == 21
    for name, selector in wanted.items():
        assert sum(selector.items() <= each.items() for each in labels) == 1, name


def _chosen(each: dict[str, Any]) -> dict[str, str]:
    spec = each["spec"]
    chosen: dict[str, str] = (
        spec["podSelector"]["matchLabels"] if each["kind"] == "NetworkPolicy"
        else spec["selector"].get("matchLabels", spec["selector"])
    )  # fmt: skip
    return chosen


def test_a_policy_lets_each_out_to_the_ports_that_are_listed_for_it_and_obeys_the_given_peers() -> None:
    found = {each["metadata"]["name"]: each["spec"] for each in of_kind("NetworkPolicy", EVERYTHING)}
    out = {name: [rule["ports"][0]["port"] for rule in spec["egress"]] for name, spec in found.items()}
    assert out.pop("keywatch-responder") == [53, 9092, 8123, 443, 8001]
    assert out.pop("keywatch-intake") == [53, 9092, 8123, 8081, 443]
    assert out.pop("keywatch-privacy") == out.pop("keywatch-migrate") == [53, 8123]
    assert out.pop("keywatch-drill") == [53, 9092, 443]
    for spec in found.values():  # a policy sees the pod's port, on OpenShift 5353
        ways = [(port["port"], port["protocol"]) for port in spec["egress"][0]["ports"]]
        assert ways == [(53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")]
    kong = EVERYTHING["networkPolicy"]["egress"]["responder"][1]
    assert found["keywatch-responder"]["egress"][4] == {"ports": [{"port": 8001}], "to": kong["to"]}
    assert all(ports == [53, 9092, 8123] for ports in out.values())
    kafka = found["keywatch-worker-keys"]["egress"][1]
    assert kafka["to"] == EVERYTHING["networkPolicy"]["kafkaTo"]
    assert found["keywatch-worker-keys"]["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["metricsFrom"]
    for name in ("keywatch-intake", "keywatch-console"):
        assert found[name]["ingress"][1]["ports"] == [{"port": "http"}]


def test_prometheus_finds_each_service_under_the_job_that_the_rules_ask_for() -> None:
    (monitor,) = of_kind("ServiceMonitor", EVERYTHING)
    label = monitor["spec"]["jobLabel"]
    jobs = {each["metadata"]["labels"][label] for each in of_kind("Service", EVERYTHING)}
    asked = set(re.findall(r'job="([\w-]+)"', (CHART / "files" / "rules.yml").read_text()))
    assert asked <= jobs
    for service in of_kind("Service", EVERYTHING):
        assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        assert "metrics" in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_charts_rules_are_those_that_promtool_tests() -> None:
    original = CHART.parents[1] / "prometheus" / "rules.yml"
    assert (CHART / "files" / "rules.yml").read_text() == original.read_text(), f"cp {original} {CHART}/files/"
    (rule,) = of_kind("PrometheusRule", EVERYTHING)
    assert rule["spec"] == yaml.safe_load(original.read_text())


def test_each_alert_leads_to_its_section_of_the_runbook_where_people_read_it() -> None:
    changes = {**EVERYTHING, "prometheusRule": {"enabled": True, "runbookUrl": "https://wiki.example/RUNBOOK.md"}}
    [rules] = of_kind("PrometheusRule", changes)
    for rule in rules["spec"]["groups"][0]["rules"]:
        found = rule["annotations"]["runbook_url"]
        assert found == f"https://wiki.example/RUNBOOK.md#{rule['alert'].lower()}"


def test_where_no_responder_is_wanted_none_is_missed() -> None:
    def asked(enabled: bool) -> str:
        [rules] = of_kind("PrometheusRule", {**EVERYTHING, "responder": {"enabled": enabled}})
        [down] = [each for each in rules["spec"]["groups"][0]["rules"] if each.get("alert") == "KeywatchDown"]
        return str(down["expr"])

    assert asked(True) == asked(False) + ' or absent(up{job="keywatch-respond"})'


def test_dashboards_reach_grafanas_sidecar_whole() -> None:
    found = [each for each in of_kind("ConfigMap", {}) if "grafana_dashboard" in each["metadata"]["labels"]]
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").iterdir()}
    assert {name: json.loads(text) for each in found for name, text in each["data"].items()} == files
    assert not any(path.is_symlink() for path in CHART.rglob("*")), "a packed chart has no way out of its folder"


def test_the_dashboards_links_lead_to_the_console_that_values_name() -> None:
    moved = of_kind("ConfigMap", {"dashboards": {"consoleUrl": "https://watch.example"}})
    texts = [text for each in moved for name, text in each["data"].items() if name == "keywatch-fleet.json"]
    (fleet,) = map(json.loads, texts)
    (console,) = [each for each in fleet["templating"]["list"] if each["name"] == "console"]
    assert console["query"] == console["current"]["value"] == "https://watch.example"
    assert "localhost:8090" not in json.dumps(fleet)


def test_tables_are_brought_up_to_date_before_anything_starts() -> None:
    (job,) = of_kind("Job", {})
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]
    assert "config" not in {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}, "not there yet"
    [way_out] = [each for each in of_kind("NetworkPolicy", {}) if each["metadata"]["name"] == job["metadata"]["name"]]
    hook = way_out["metadata"]["annotations"]
    assert hook["helm.sh/hook"] == job["metadata"]["annotations"]["helm.sh/hook"]
    assert int(hook["helm.sh/hook-weight"]) < 0, "before the job, whose weight is 0"


def test_addresses_are_cut_once_a_day_by_a_user_that_can_do_nothing_else() -> None:
    (job,) = of_kind("CronJob", {})
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    assert re.fullmatch(r"\d+ \d+ \* \* \*", job["spec"]["schedule"])
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    (container,) = template_of(job)["spec"]["containers"]
    assert container["args"] == ["privacy", "truncate"]
    assert {"name": "KEYWATCH_CLICKHOUSE__USERNAME", "value": "keywatch_privacy"} in container["env"]
    assert not of_kind("CronJob", {"privacy": {"enabled": False}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"worker": {"replica": 3}}, {"kafka": {"partitions": 0}}, {"image": {"pullPolicy": "Sometimes"}},
        {"clickhouse": {"url": "clickhouse:8123"}}, {"worker": {"secrets": [{"file": "x", "value": "hunter2"}]}},
        {"worker": {"graceS": 5}}, {"privacy": {"schedule": "daily"}},
        {"networkPolicy": {"kafkaTo": [{"ip": "10.0.0.1"}]}}, {"unknown": 1},
        {"networkPolicy": {"egress": {"responder": [{"to": []}]}}}, {"networkPolicy": {"egress": {"grafana": []}}},
        {"console": {"replicas": 2}}, {"drill": {"enabled": True}}, {"kafka": {"security": "TLS"}},
        {"console": {"ingress": {"enabled": True}}}, {"intake": {"ingress": {"enabled": True, "host": "https://a.example"}}},
        {"console": {"httpRoute": {"enabled": True, "host": "a.example"}}}, {"image": {"digest": "latest"}},
        {"responder": {"strategy": {"type": "OnDelete"}}}, {"worker": {"serviceAccount": {"role": "x"}}},
        {"topologySpreadConstraints": [{"topologyKey": "zone"}]}, {"podSecurityContext": {"runAsNonRoot": False}},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_are_wrong_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        values(wrong)


def _closed(tree: dict[str, Any], schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all maps of `values.yaml` but those whose keys are the user's own (labels, node selectors and such)."""
    yield path
    for name, value in tree.items():
        inner = schema["properties"][name]
        inner = DEFINITIONS[inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        if isinstance(value, dict) and inner.get("additionalProperties") is False:
            yield from _closed(value, inner, (*path, name))


def test_a_misspelt_key_is_refused_by_its_name_wherever_it_stands() -> None:
    paths = list(_closed(values({}), SCHEMA))
    assert len(paths) > 30
    for path in paths:
        wrong: dict[str, Any] = {"misspelt": 1}
        for name in reversed(path):
            wrong = {name: wrong}
        with pytest.raises(jsonschema.ValidationError, match="'misspelt' was unexpected"):
            values(wrong)


def test_every_value_has_a_type_and_the_chart_may_be_a_part_of_another() -> None:
    """Helm hands `global` to a chart within a chart, and then holds it to its schema."""
    assert values({"global": {"imageRegistry": "registry.example.com"}})
    assert SCHEMA["properties"].keys() - {"global"} == values({}).keys()


def test_the_notes_name_commands_and_services_that_are_there() -> None:
    said = notes({})
    assert "svc/keywatch-console 8090" in said
    assert "keywatch-worker-keys-0 -- keywatch doctor" in said
    assert "{{" not in said
    assert "LOOK" not in said


def test_the_notes_say_how_the_console_is_reached_and_what_would_be_shut_out() -> None:
    door = {"console": {"ingress": {"enabled": True, "host": "watch.example"}}}
    assert "https://watch.example" in notes(door)
    assert "port-forward" not in notes(door)
    moved = {"kafka": {"brokers": "kafka:9093"}, "clickhouse": {"url": "https://clickhouse:8443"}}
    assert notes(moved).count("LOOK") == 2, "a policy would let nobody out to these"
    assert "LOOK" not in notes({**moved, "networkPolicy": {"kafkaPort": 9093, "clickhousePort": 8443}})
    assert "LOOK" not in notes({**moved, "networkPolicy": {"enabled": False}})
    assert "NO WORKER RUNS" in notes({"maintenance": {"enabled": True}})


def test_what_the_runbook_sets_is_a_value_of_the_chart() -> None:
    told = re.findall(r"--set ([\w.]+)=(\w+)", (CHART.parents[1] / "RUNBOOK.md").read_text())
    assert {name for name, _ in told} == {"maintenance.enabled", "responder.strategy.type"}
    for name, value in told:
        change: Any = yaml.safe_load(value)
        for part in reversed(name.split(".")):
            change = {part: change}
        assert rendered(change) != rendered({}), name


def test_the_renderer_refuses_what_it_does_not_know() -> None:
    with pytest.raises(AssertionError, match="fromYaml"):
        Renderer({"x": "{{ fromYaml .Values }}"}).render("x", {"Values": ""})
    with pytest.raises((AssertionError, IndexError)):
        Renderer({"x": "{{ if .a }}never closed"})


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("a {{- /* gone */ -}} b", "ab"),
        ("{{ range $k, $v := .m }}{{ $k }}={{ $v }};{{ end }}", "x=1;y=2;"),
        ("{{ range .none }}x{{ else }}none{{ end }}", "none"),
        ("{{ if .zero }}a{{ else if .m }}b{{ else }}c{{ end }}", "b"),
        ("{{ with .m }}{{ .x }}{{ end }}", "1"),
        ('{{ $a := "1" }}{{ if .m }}{{ $a = "2" }}{{ end }}{{ $a }}', "2"),
        ('{{ .m.x | quote }}{{ "a" | default "b" }}{{ "" | default "b" }}', '"1"ab'),
        ('{{ "$x {{ not ours }}" }}', "$x {{ not ours }}"),
    ],
)
def test_the_renderer_says_what_go_says(template: str, text: str) -> None:
    root = {"m": {"x": 1, "y": 2}, "none": [], "zero": 0}
    assert Renderer({"t": template}).render("t", root) == text


@WAYS
def test_helm_itself_renders_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    helm = shutil.which("helm")
    if helm is None:
        pytest.skip("Helm is not installed: no registry that CI may use has it")
    ours = {(each["kind"], each["metadata"]["name"]): each for each in rendered(changes)}
    theirs = {(each["kind"], each["metadata"]["name"]): each for each in by_helm(helm, changes, tmp_path)}
    assert ours == theirs


def test_the_console_shows_the_policy_that_the_responder_judges_by() -> None:
    changed = "[respond.policy]\nmode = 'enforce'\nadapter = 'keys'\n"
    for changes in ({}, {"policy": changed}):
        of = configurations(changes)
        [one, other] = [
            ladder_of(config_file.build({"respond": of[name]["respond"]}).respond)
            for name in ("keywatch-responder", "keywatch-console")
        ]
        assert one.version == other.version != Ladder(Policy(), ()).version


def test_every_process_trusts_the_authority_of_clickhouse_that_values_name(tmp_path: Path) -> None:
    for name, pod in pods(EVERYTHING).items():
        environ = _environment(pod, tmp_path)
        file = Path(config_file.load(None, environ | {"KEYWATCH_CONFIG": ""}).clickhouse.ca_file)
        assert file.parent == tmp_path, name
        assert file.exists(), "the Secret's file is mounted there"
    assert "CLICKHOUSE__CA_FILE" not in str(pods({}))


def test_only_who_reads_a_changed_configuration_is_started_anew() -> None:
    def marks(changes: dict[str, Any]) -> dict[str, str]:
        return {
            each["metadata"]["name"].removeprefix("keywatch-"): template_of(each)["metadata"]["annotations"][
                "checksum/config"
            ]
            for each in rendered({**EVERYTHING, **changes})
            if each["kind"] in ("StatefulSet", "Deployment", "CronJob")
        }

    def changed(changes: dict[str, Any]) -> set[str]:
        after = marks(changes)
        return {name for name, mark in marks({}).items() if after[name] != mark}

    everybody = set(marks({}))
    assert len(everybody) == 8
    assert changed({"console": {**EVERYTHING["console"], "config": "[console]\n"}}) == {"console"}
    assert changed({"responder": {"config": "[respond]\n"}}) == {"responder"}
    assert changed({"intake": {"enabled": True, "config": "[intake]\n"}}) == {"intake"}
    assert changed({"worker": {"config": "[budget]\n"}}) == {each for each in everybody if each.startswith("worker")}
    assert changed({"config": "[geo]\n"}) == everybody - {"console"}
    assert changed({"policy": "[respond.policy]\nmode = 'enforce'\n"}) == {"responder", "console"}


def test_a_policy_changes_nothing_of_what_a_worker_judges_by() -> None:
    """Why no worker needs a new start for one: its version of the configuration is the same."""
    other = config_file.build({"respond": tomllib.loads(values({})["policy"])["respond"] | {"group": "other"}})
    assert other.respond != Config().respond
    assert config_version(other) == config_version(Config())


def configurations(changes: dict[str, Any]) -> dict[str, Any]:
    """What each ConfigMap's keywatch.toml says."""
    return {
        each["metadata"]["name"]: tomllib.loads(each["data"]["keywatch.toml"])
        for each in of_kind("ConfigMap", changes)
        if "keywatch.toml" in each["data"]
    }


def test_whom_the_responder_tells_is_its_own_configuration_since_only_it_has_the_secrets() -> None:
    changes = EVERYTHING | {
        "responder": {"config": "[[respond.endpoints]]\nname = 'soc'\nsecret_file = '/run/secrets/soc'\n"}
    }
    of = configurations(changes)
    assert [name for name, tree in of.items() if "endpoints" in tree.get("respond", {})] == ["keywatch-responder"]
    mounted = {
        name: [each["configMap"]["name"] for each in pod["volumes"] if each["name"] == "config"]
        for name, pod in pods(changes).items()
    }
    assert [name for name, maps in mounted.items() if maps == ["keywatch-responder"]] == ["responder"]


def test_with_sasl_each_component_signs_in_as_its_own_user_of_acls_sh_by_its_own_secret(tmp_path: Path) -> None:
    script = (CHART.parents[1] / "kafka" / "acls.sh").read_text()
    users = dict(re.findall(r"\$\{([A-Z]+):=(keywatch-\w+)\}", script))
    roles = {"worker-keys": "WORKER", "worker-sources": "WORKER", "worker-lifecycle": "WORKER", "intake": "INTAKE",
             "responder": "RESPONDER", "console": "CONSOLE", "drill": "ONCALL"}  # fmt: skip
    keys = set()
    for name, pod in pods(EVERYTHING).items():
        env = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
        (secrets,) = [each["projected"]["sources"] for each in pod["volumes"] if each["name"] == "secrets"]
        files = {
            item["path"]: (each["secret"]["name"], item["key"]) for each in secrets for item in each["secret"]["items"]
        }
        assert ("KEYWATCH_KAFKA__USERNAME" in env) == ("kafka_password" in files) == (name in roles), name
        if name in roles:
            kafka = config_file.load(None, _environment(pod, tmp_path) | {"KEYWATCH_CONFIG": ""}).kafka
            assert (kafka.security, kafka.username) == ("SASL_SSL", users[roles[name]])
            assert files["kafka_ca"] == ("kafka-ca", "ca.crt")
            keys.add((kafka.username, files["kafka_password"]))
    assert len(keys) == len({secret for _, secret in keys}) == 5
    assert "kafka_password" not in str(pods({})), "without SASL nobody needs one"


@pytest.mark.parametrize("security", ["SSL", "SASL_SSL"])
def test_where_brokers_ask_for_a_certificate_each_component_shows_its_own_or_that_of_all(
    security: str, tmp_path: Path
) -> None:
    strimzi = {"secretName": "keywatch-mtls", "cert": "user.crt", "key": "user.key"}
    own = {"responder": {"kafkaUser": {"certSecret": "responder-mtls"}}}
    of_kafka = {"security": security, "ca": {"secretName": "kafka-ca"}, "clientCert": strimzi}
    for name, pod in pods({**EVERYTHING, **own, "kafka": of_kafka}).items():
        (sources,) = [each["projected"]["sources"] for each in pod["volumes"] if each["name"] == "secrets"]
        files = {
            item["path"]: (each["secret"]["name"], item["key"]) for each in sources for item in each["secret"]["items"]
        }
        kafka = config_file.load(None, _environment(pod, tmp_path) | {"KEYWATCH_CONFIG": ""}).kafka
        assert bool(kafka.cert_file) == (name not in ("migrate", "privacy")), "who goes to Kafka"
        if kafka.cert_file:
            secret = "responder-mtls" if name == "responder" else "keywatch-mtls"
            assert files[Path(kafka.cert_file).name] == (secret, "user.crt")
            assert files[Path(kafka.key_file).name] == (secret, "user.key")
        assert all("subPath" not in each for each in pod["containers"][0]["volumeMounts"]), "these are never renewed"
    assert "kafka_cert" not in str(pods({}))


def test_what_is_mounted_besides_is_there_for_every_process_that_reads_the_configuration() -> None:
    for name, pod in pods(EVERYTHING).items():
        mounted = {each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
        assert ("/geo" in mounted) == (name != "migrate"), name


def test_replicas_of_the_console_share_a_session_key_from_a_secret(tmp_path: Path) -> None:
    pod = pods(EVERYTHING)["console"]
    loaded = config_file.load(None, _environment(pod, tmp_path) | {"KEYWATCH_CONFIG": ""})
    assert loaded.console.session_key
    assert "SESSION_KEY" not in str(pods({})["console"])


def test_messages_of_the_responder_link_to_the_console_that_values_name(tmp_path: Path) -> None:
    environ = _environment(pods({"dashboards": {"consoleUrl": "https://watch.example"}})["responder"], tmp_path)
    night = config_file.load(None, environ | {"KEYWATCH_CONFIG": ""}).respond.night
    assert night.console_url == "https://watch.example/incidents/{incident_id}"


def test_a_drill_is_daily_asks_the_gateway_and_tells_its_decoy_to_nobody(tmp_path: Path) -> None:
    [job] = [each for each in of_kind("CronJob", EVERYTHING) if each["metadata"]["name"] == "keywatch-drill"]
    assert re.fullmatch(r"\d+ \d+ \* \* \*", job["spec"]["schedule"])
    pod = template_of(job)["spec"]
    assert pod["containers"][0]["args"] == ["drill", "run"]
    drill = config_file.load(None, _environment(pod, tmp_path) | {"KEYWATCH_CONFIG": ""}).respond.drill
    assert (drill.url, drill.key_id) == ("https://api.example.com/v1/me", "key_decoy")
    assert drill.key
