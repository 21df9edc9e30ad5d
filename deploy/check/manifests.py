# SPDX-License-Identifier: Apache-2.0
"""Checks what no schema covers in a built overlay: that its parts refer to each other and that times are consistent.

    python manifests.py BUILT.yaml

Prints one line per fault, and exits with status 1 if there are any.
"""

import re
import sys

import yaml


def containers(workload):
    spec = workload["spec"]["template"]["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def variables(container):
    """Names in order, with the names that each value refers to: a reference must come after its target."""
    for entry in container.get("env", []):
        yield entry["name"], re.findall(r"(?<!\$)\$\((\w+)\)", entry.get("value", ""))


def check_containers(workload, documents, complain):
    spec = workload["spec"]["template"]["spec"]
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    volumes = {volume["name"] for volume in spec.get("volumes", [])} | claims
    for volume in spec.get("volumes", []):
        for kind, reference in [
            ("ConfigMap", volume.get("configMap", {}).get("name")),
            ("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName")),
        ]:
            if reference and (kind, reference) not in documents:
                complain(f"volume {volume['name']} is of the {kind} {reference}, which is missing")
    for container in containers(workload):
        known = set()
        for name, references in variables(container):
            for reference in references:
                if reference not in known:
                    complain(f"{container['name']}: {name} refers to $({reference}), which is not set before it")
            known.add(name)
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                complain(f"{container['name']}: mounts {mount['name']}, which is no volume of it")
        for entry in container.get("env", []):
            reference = entry.get("valueFrom", {}).get("configMapKeyRef")
            if reference and ("ConfigMap", reference["name"]) not in documents:
                complain(f"{container['name']}: {entry['name']} is of the config map {reference['name']}, which is missing")
        security = container.get("securityContext", {})
        if not security.get("readOnlyRootFilesystem") or security.get("capabilities", {}).get("drop") != ["ALL"]:
            complain(f"{container['name']}: may write to its root, or has capabilities")


def check_workload(workload, documents, complain):
    spec = workload["spec"]["template"]["spec"]
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selector = workload["spec"]["selector"]["matchLabels"]
    if not selector.items() <= labels.items():
        complain("selects other pods than its own")
    check_containers(workload, documents, complain)
    main = spec["containers"][0]
    settings = {entry["name"]: entry.get("value") for entry in main["env"]}
    sleep = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needed = int(settings["SWITCHYARD_DRAIN_SECONDS"]) + 5 + sleep
    if spec["terminationGracePeriodSeconds"] < needed:
        complain(f"terminationGracePeriodSeconds is {spec['terminationGracePeriodSeconds']}, and draining takes {needed}")
    ports = {port["name"]: port["containerPort"] for port in main["ports"]}
    if int(settings["SWITCHYARD_ADMIN_LISTEN"].rsplit(":", 1)[1]) != ports["admin"]:
        complain("the probes' port is not the one of SWITCHYARD_ADMIN_LISTEN")
    for probe, path in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]:
        if main[probe]["httpGet"] != {"path": path, "port": "admin"}:
            complain(f"{probe} does not ask {path} of the admin port")
    plain = settings.get("SWITCHYARD_PLAINTEXT") == "true"
    if not plain and "SWITCHYARD_TLS_CERTIFICATE" not in settings:
        complain("would not start: neither certificates nor SWITCHYARD_PLAINTEXT")
    return settings


def option(arguments, name):
    """The values of an option among arguments."""
    return [value for key, value in zip(arguments, arguments[1:]) if key == name]


def check_trainer(job, documents, complain):
    check_containers(job, documents, complain)
    spec = job["spec"]["template"]["spec"]
    main = spec["containers"][0]
    arguments = main["args"]
    if spec["restartPolicy"] != "OnFailure" or "--resume-if-saved" not in arguments:
        complain("does not go on after its last save when it is started again")
    run = option(arguments, "--out")[0]
    mounts = {mount["mountPath"]: mount["name"] for mount in main["volumeMounts"]}
    kept = {volume["name"] for volume in spec["volumes"] if "persistentVolumeClaim" in volume}
    if not any(run.startswith(path + "/") and name in kept for path, name in mounts.items()):
        complain(f"{run} is in no volume that stays")
    if int(option(arguments, "--admin-listen")[0].rsplit(":", 1)[1]) not in [p["containerPort"] for p in main["ports"]]:
        complain("the admin port is not one of its ports")
    targets = re.findall(r"dns:///([\w-]+):(\d+)", " ".join(option(arguments, "--pool")))
    pools = {name for kind, name in documents if kind == "StatefulSet"}
    if {name for name, _ in targets} != pools:
        complain(f"its pools are {sorted(n for n, _ in targets)}, and there are {sorted(pools)}")
    component = job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
    allowed = [
        source.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
        for (kind, _), policy in documents.items()
        if kind == "NetworkPolicy"
        and policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component") == "expert-host"
        for rule in policy["spec"].get("ingress", [])
        for source in rule["from"]
    ]
    if component not in allowed:
        complain("no network policy lets it reach the expert hosts")


def main(path):
    with open(path, encoding="utf-8") as file:
        documents = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(file) if d}
    faults = []
    settings = {}
    for (kind, name), document in documents.items():
        if kind in ("Deployment", "StatefulSet"):
            settings[name] = check_workload(document, documents, lambda text: faults.append(f"{kind} {name}: {text}"))
        if kind == "Job":
            check_trainer(document, documents, lambda text: faults.append(f"{kind} {name}: {text}"))
        if kind == "StatefulSet" and ("Service", document["spec"]["serviceName"]) not in documents:
            faults.append(f"{kind} {name}: has no service {document['spec']['serviceName']}")
        if kind == "HorizontalPodAutoscaler":
            target = document["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in documents:
                faults.append(f"{kind} {name}: scales {target['kind']} {target['name']}, which is missing")
    targets = re.findall(r"dns:///([\w-]+):(\d+)", settings["gateway"]["SWITCHYARD_POOL"])
    pools = {name for kind, name in documents if kind == "StatefulSet"}
    if {name for name, _ in targets} != pools:
        faults.append(f"the gateway's pools are {sorted(n for n, _ in targets)}, and there are {sorted(pools)}")
    for pool, port in targets:
        service = documents.get(("Service", pool), {"spec": {"ports": []}})["spec"]
        if service.get("clusterIP") != "None" or int(port) not in [p["port"] for p in service["ports"]]:
            faults.append(f"{pool} has no headless service with port {port}")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
