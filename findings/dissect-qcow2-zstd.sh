#!/bin/sh
# dissect.hypervisor: "zstandard module not available", while the package zstandard is installed.
#
# A guess: "pip install dissect.hypervisor zstandard" reads what qemu-img writes with compression_type=zstd; the error that comes
# without zstandard says so itself.
# What happens: only the package backports.zstd (compression.zstd's backport) is looked for. With zstandard the open fails and the
# message names the module that is there; with backports.zstd the same bytes come out.
# Where it bites: forensic tools and upload gates that read zstd-compressed images, as this project and others write them.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
for other in zstandard==0.25.0 backports.zstd==1.8.0; do
    python3 -m venv "$place/${other%%=*}"
    "$place/${other%%=*}/bin/pip" install -q --disable-pip-version-check dissect.hypervisor==3.21 "$other"
done
yes 'what compresses well' | head -c 4194304 > "$place/disk.raw"
qemu-img --version | head -1
qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd "$place/disk.raw" "$place/disk.qcow2"
cat > "$place/try.py" <<'PY'
import importlib.metadata, sys
from pathlib import Path
from dissect.hypervisor.disk import qcow2

try:
    disk = qcow2.QCow2(Path(sys.argv[1]))
    stream = disk.open() if hasattr(disk, "open") else disk
    told = "same bytes" if stream.read(4 << 20) == Path(sys.argv[2]).read_bytes() else "other bytes"
except Exception as error:
    told = f"{type(error).__name__}: {error}"
print("dissect.hypervisor", importlib.metadata.version("dissect.hypervisor"), "with", sys.argv[3], "->", told)
sys.exit(told != "same bytes")
PY
"$place/backports.zstd/bin/python" "$place/try.py" "$place/disk.qcow2" "$place/disk.raw" backports.zstd
told=$("$place/zstandard/bin/python" "$place/try.py" "$place/disk.qcow2" "$place/disk.raw" zstandard) && status=0 || status=$?
echo "$told"
[ "$status" = 1 ]
case $told in *"zstandard module not available") ;; *) exit 1 ;; esac
