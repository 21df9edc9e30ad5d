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


def trains(workload):
    """Whether a workload's pods are hosts whose experts are trained."""
    return "--train" in workload["spec"]["template"]["spec"]["containers"][0].get("args", [])


def selected(service, documents):
    """The workloads whose pods a service or a policy selects."""
    wanted = service["spec"].get("selector", service["spec"].get("podSelector", {}))
    wanted = wanted.get("matchLabels", wanted).items()
    return [
        document
        for document in documents.values()
        if "template" in document.get("spec", {})
        and wanted <= document["spec"]["template"]["metadata"]["labels"].items()
    ]


def check_training_host(workload, documents, complain):
    main = workload["spec"]["template"]["spec"]["containers"][0]
    folder = option(main["args"], "--snapshots")
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    kept = [mount["mountPath"] for mount in main["volumeMounts"] if mount["name"] in claims]
    if not folder or not any(folder[0].startswith(path + "/") for path in kept):
        complain("its snapshots are in no volume of its own")
    service = documents.get(("Service", workload["spec"]["serviceName"]), {"spec": {}})["spec"]
    if service.get("clusterIP") != "None" or not service.get("publishNotReadyAddresses"):
        complain("its pods have no names before they are ready; its service must be headless, and publish them")
    for (kind, name), document in documents.items():
        if kind in ("Service", "NetworkPolicy", "PodDisruptionBudget"):
            others = [other["metadata"]["name"] for other in selected(document, documents) if not trains(other)]
            if workload in selected(document, documents) and others:
                complain(f"the {kind} {name} selects its pods together with those of {', '.join(others)}")


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
    for key in ("--log-dir",):
        for folder in option(arguments, key):
            if not any(folder.startswith(path + "/") and name in kept for path, name in mounts.items()):
                complain(f"{folder} ({key}) is in no volume that stays")
    full = "full" in option(arguments, "--experts")
    hosts = {
        name: document for (kind, name), document in documents.items() if kind == "StatefulSet" and trains(document) == full
    }
    if full:
        # A replica is a pod with a name of its own.
        named = sorted(target for pool in option(arguments, "--pool") for target in pool.split("=", 1)[1].split(","))
        there = sorted(
            f"{name}-{index}.{host['spec']['serviceName']}:7401"
            for name, host in hosts.items()
            for index in range(host["spec"]["replicas"])
        )
        if named != there:
            complain(f"its hosts are {named}, and there are {there}")
    else:
        targets = re.findall(r"dns:///([\w-]+):(\d+)", " ".join(option(arguments, "--pool")))
        if {name for name, _ in targets} != set(hosts):
            complain(f"its pools are {sorted(n for n, _ in targets)}, and there are {sorted(hosts)}")
    role = "training-host" if full else "expert-host"
    component = job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
    allowed = [
        source.get("podSelector", {}).get("matchLabels", {}).get("app.kubernetes.io/component")
        for (kind, _), policy in documents.items()
        if kind == "NetworkPolicy"
        and policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component") == role
        for rule in policy["spec"].get("ingress", [])
        for source in rule["from"]
    ]
    if component not in allowed:
        complain(f"no network policy lets it reach the pods of {role}")


def check_pools(pools, documents, faults):
    targets = re.findall(r"dns:///([\w-]+):(\d+)", pools)
    there = {name for (kind, name), document in documents.items() if kind == "StatefulSet" and not trains(document)}
    if {name for name, _ in targets} != there:
        faults.append(f"the gateway's pools are {sorted(n for n, _ in targets)}, and there are {sorted(there)}")
    for pool, port in targets:
        service = documents.get(("Service", pool), {"spec": {"ports": []}})
        if service["spec"].get("clusterIP") != "None" or int(port) not in [p["port"] for p in service["spec"]["ports"]]:
            faults.append(f"{pool} has no headless service with port {port}")
        if any(trains(workload) for workload in selected(service, documents)):
            faults.append(f"{pool} has hosts that train: a gateway gets no answer from them")


def main(path):
    with open(path, encoding="utf-8") as file:
        documents = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(file) if d}
    faults = []
    settings = {}
    for (kind, name), document in documents.items():
        if kind in ("Deployment", "StatefulSet"):
            settings[name] = check_workload(document, documents, lambda text: faults.append(f"{kind} {name}: {text}"))
        if kind == "StatefulSet" and trains(document):
            check_training_host(document, documents, lambda text: faults.append(f"{kind} {name}: {text}"))
        if kind == "Job":
            check_trainer(document, documents, lambda text: faults.append(f"{kind} {name}: {text}"))
        if kind == "StatefulSet" and ("Service", document["spec"]["serviceName"]) not in documents:
            faults.append(f"{kind} {name}: has no service {document['spec']['serviceName']}")
        if kind == "HorizontalPodAutoscaler":
            target = document["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in documents:
                faults.append(f"{kind} {name}: scales {target['kind']} {target['name']}, which is missing")
    if "gateway" in settings:
        check_pools(settings["gateway"]["SWITCHYARD_POOL"], documents, faults)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
