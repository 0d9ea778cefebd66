"""The Python that the agent's programs run in: an environment of this image, with all that the agent imports.

What is imported is looked for as files, where that Python would look (site(3), PEP 405). Importing it would be running
it, and images are hostile; that the agent can be imported is proven by the build, and by ``boot``.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from amphora_mkimage.verify import scripts
from amphora_mkimage.verify.result import Finding, fail, passed, some
from amphora_mkimage.verify.subject import Subject

#: Modules of octavia that are the programs of an amphora.
_PROGRAMS = ("agent", "haproxy_vrrp_check", "health_checker", "interface", "prometheus_proxy")
#: What these import, besides each other and the standard library, and their projects where these are called otherwise.
_MODULES = {
    "cryptography": "",
    "distro": "",
    "flask": "",
    "gunicorn": "",
    "jinja2": "",
    "jsonschema": "",
    "keystoneauth1": "",
    "octavia_lib": "octavia-lib",
    "oslo_config": "oslo.config",
    "oslo_db": "oslo.db",
    "oslo_log": "oslo.log",
    "oslo_messaging": "oslo.messaging",
    "oslo_middleware": "oslo.middleware",
    "oslo_reports": "oslo.reports",
    "oslo_serialization": "oslo.serialization",
    "oslo_utils": "oslo.utils",
    "pyroute2": "",
    "stevedore": "",
    "webob": "",
    "werkzeug": "",
}


def octavia(subject: Subject) -> str:
    """Return the directory of the octavia that the agent imports, "" when it is not found."""
    path = subject.program("amphora-agent")
    python = scripts.interpreter(subject, path) if path else None
    real = subject.tree.resolve(python) if python else None
    if not python or real is None:
        return ""
    directories = _directories(subject, _prefix(python), _version(posixpath.basename(real[0])))
    places = [f"{directory}/octavia" for directory in directories]
    return next((place for place in places if subject.tree.is_directory(place)), "")


def _prefix(python: str) -> str:
    return python.rpartition("/bin/")[0] or "/usr"


def imports(subject: Subject) -> Iterator[Finding]:
    """Look for what the agent imports, where the interpreter that its first line names would look."""
    path = subject.program("amphora-agent")
    if path is None:
        yield fail("there is no amphora-agent")
        return
    python = scripts.interpreter(subject, path)
    if not python:
        yield fail(f"{path} has no interpreter in this image")
        return
    prefix = _prefix(python)
    real = subject.tree.resolve(python)
    assert real is not None
    version = _version(posixpath.basename(real[0]))
    directories = _directories(subject, prefix, version)
    if not directories:
        made = ", ".join(subject.tree.listdir(f"{prefix}/lib", "python3*")) or "none"
        yield fail(f"{prefix} is for {made}, and its interpreter is {real[0]}", "make the environment again")
        return
    if prefix != "/usr" and not subject.tree.is_file(f"{prefix}/pyvenv.cfg"):
        yield fail(f"{prefix}/pyvenv.cfg does not exist: its Python does not look into {prefix}")
    missing = [f"octavia.cmd.{name}" for name in _PROGRAMS if not _has(subject, directories, f"octavia/cmd/{name}")]
    missing += [project or name for name, project in _MODULES.items() if not _has(subject, directories, name)]
    if missing:
        yield fail(f"the agent's Python has no {some(missing)}: it does not start", f"install it under {prefix}")
    yield passed(f"{prefix}, {real[0]}")


def octavia_release(subject: Subject) -> str:
    """Return the version of octavia that the agent's Python has, by its metadata (PEP 376); "" without one."""
    path = subject.program("amphora-agent")
    python = scripts.interpreter(subject, path) if path else ""
    real = subject.tree.resolve(python) if python else None
    if not python or real is None:
        return ""
    prefix = python.rpartition("/bin/")[0] or "/usr"
    for directory in _directories(subject, prefix, _version(posixpath.basename(real[0]))):
        for name in subject.tree.listdir(directory, "octavia-*"):
            if match := re.fullmatch(r"octavia-(\d[\w.]*?)(?:-py3[.\d]*)?\.(?:dist|egg)-info", name):
                return match[1]
    return ""


def _version(name: str) -> str:
    """Tell "3.13" from an interpreter's real name, or ""."""
    match = re.search(r"python(3\.\d+)$", name)
    return match[1] if match else ""


def _directories(subject: Subject, prefix: str, version: str) -> list[str]:
    """List the directories with modules that a Python has; without a version, those of each that there may be."""
    names = [f"python{version}"] if version else list(subject.tree.listdir(f"{prefix}/lib", "python3*"))
    places = [f"{prefix}/{lib}/{name}/site-packages" for name in names for lib in ("lib", "lib64")]
    if prefix == "/usr":  # Debian has one directory for all versions
        places += ["/usr/lib/python3/dist-packages", *(f"/usr/local/lib/{name}/dist-packages" for name in names)]
    elif re.search(r"^include-system-site-packages\s*=\s*true", subject.tree.text(f"{prefix}/pyvenv.cfg"), re.M | re.I):
        return [*_directories(subject, "/usr", version), *(p for p in places if subject.tree.is_directory(p))]
    return [place for place in places if subject.tree.is_directory(place)]


def _has(subject: Subject, directories: list[str], module: str) -> bool:
    """Look for a module or package, given with slashes."""
    files = (f"{module}/__init__.py", f"{module}.py")
    return any(subject.tree.is_file(f"{directory}/{file}") for directory in directories for file in files)
