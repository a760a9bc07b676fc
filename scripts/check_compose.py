"""Checks what `docker compose config` does not know. Reads the settings' names on stdin, one a line.

usage: check_compose.py docker-compose.yml < names
"""

import os
import re
import sys

import yaml


def seconds(duration):
    """A compose duration such as 30s or 1m30s; the default of stop_grace_period is 10s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[u] for n, u in re.findall(r"(\d+)([hms])(?!s)", str(duration or "10s")))


def check(path, settings):
    with open(path) as file:
        compose = yaml.safe_load(file)
    here = os.path.dirname(os.path.abspath(path))
    services = compose["services"]
    gateways = {name: s for name, s in services.items() if "NODE_ID" in (s.get("environment") or {})}

    if len(gateways) < 2:
        yield "there should be several gateways (services with a NODE_ID)"
    node_ids = [s["environment"]["NODE_ID"] for s in gateways.values()]
    if len(set(node_ids)) != len(node_ids):
        yield "two gateways have the same NODE_ID"

    for name, service in gateways.items():
        environment = service["environment"]
        for key in environment:
            if key not in settings:
                yield f"{name}: {key} is not a setting of the gateway"
        drain = environment.get("DRAIN_SECONDS")
        if drain is None or seconds(service.get("stop_grace_period")) <= int(drain):
            yield f"{name}: stop_grace_period must be longer than DRAIN_SECONDS, and both given"

    for name, service in services.items():
        if "image" not in service and "build" not in service:
            yield f"{name}: neither image nor build"
        for other in service.get("depends_on") or []:
            if other not in services:
                yield f"{name}: depends on {other}, which is not there"
        build = service.get("build")
        if build and not os.path.isfile(os.path.join(here, build["context"], build["dockerfile"])):
            yield f"{name}: no {build['dockerfile']}"
        for volume in service.get("volumes") or []:
            source = volume.split(":")[0]
            if source.startswith("."):
                if not os.path.exists(os.path.join(here, source)):
                    yield f"{name}: no {source} to mount"
            elif source not in (compose.get("volumes") or {}):
                yield f"{name}: volume {source} is not declared"


def main():
    problems = list(check(sys.argv[1], set(sys.stdin.read().split())))
    for problem in problems:
        print(f"docker-compose.yml: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
