"""Run by a Python that has one release of octavia: render Octavia's own sample objects by its own templates.

    render_samples.py samples.json HAPROXY_VERSION DIRECTORY

Leaves a file for each sample, by its number, and prints octavia's version. What a sample of octavia names below
/var/lib/octavia is looked for in DIRECTORY.
"""

from __future__ import annotations

import json
import sys
import types
from importlib import resources
from pathlib import Path
from typing import Any

try:
    import pkg_resources  # noqa: F401 (releases until 17.0.0 read a certificate with it)
except ModuleNotFoundError:  # setuptools has it no more
    STAND_IN = types.ModuleType("pkg_resources")
    vars(STAND_IN)["resource_string"] = lambda package, name: resources.files(package).joinpath(name).read_bytes()
    sys.modules["pkg_resources"] = STAND_IN

from octavia.common.jinja.haproxy.combined_listeners import jinja_cfg
from octavia.tests.unit.common.sample_configs import sample_configs_combined as samples
from octavia.version import version_info


def certificates(listener: Any, wanted: dict[str, object], directory: str) -> dict[object, object]:
    """Name the files of a listener's and its pools' certificates, as the controller does."""
    names: dict[object, object] = {
        listener.client_ca_tls_certificate_id: "client_ca.pem",
        listener.client_crl_container_id: "client_ca.crl",
    }
    if wanted.get("pool_cert"):
        here = f"{directory}/certs"
        files = {"client_cert": f"{here}/pool.pem", "ca_cert": f"{here}/pool_ca.pem", "crl": f"{here}/pool_ca.crl"}
        names.update({pool.id: files for pool in listener.pools})
    return names


def sample(wanted: dict[str, Any]) -> Any:
    """Return one of Octavia's sample listeners; as Octavia makes them, every monitor has a version."""
    if "http_version" not in wanted:
        return samples.sample_listener_tuple(**wanted)
    version, make = wanted.pop("http_version"), samples.sample_health_monitor_tuple
    samples.sample_health_monitor_tuple = lambda **more: make(**more)._replace(http_version=version)
    try:
        return samples.sample_listener_tuple(**wanted)
    finally:
        samples.sample_health_monitor_tuple = make


def allocated(balancer: Any) -> Any:
    """Return a load balancer whose amphorae are in use; those of the samples are not, and so nobody's peers."""
    return balancer._replace(amphorae=[amphora._replace(status="ALLOCATED") for amphora in balancer.amphorae])


def main(table: str, haproxy: str, directory: str) -> None:
    """Render each."""
    templater = jinja_cfg.JinjaTemplater(
        base_amp_path=directory, base_crt_dir=f"{directory}/certs", log_http="/dev/log", log_server="/dev/log"
    )
    for number, wanted in enumerate(json.loads(Path(table).read_text()).values()):
        listener = sample(wanted)
        listener = listener._replace(load_balancer=allocated(listener.load_balancer))
        tls = certificates(listener, wanted, directory)
        text = templater.build_config(samples.sample_amphora_tuple(), [listener], tls, haproxy.split("."), {})
        Path(directory, f"{number}.cfg").write_text(text.replace("/var/lib/octavia", directory))
    sys.stdout.write(version_info.version_string())


main(*sys.argv[1:])
