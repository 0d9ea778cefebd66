"""Requests as the command line makes them."""

from __future__ import annotations

from amphora_mkimage import cli, request, settings


def make(*argv: str, warnings: list[str] | None = None, **environ: str) -> request.Request:
    base = () if "-i" in argv or "AMP_BASEOS" in environ else ("-i", "debian-minimal")
    if "rhel" in argv:
        environ = {"DIB_LOCAL_IMAGE": __file__} | environ
    values = settings.resolve(vars(cli.build_parser().parse_args([*base, *argv])), environ)
    return request.make(values, environ, [].append if warnings is None else warnings.append)
