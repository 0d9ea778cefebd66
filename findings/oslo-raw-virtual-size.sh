#!/bin/sh
# oslo.utils: the virtual size of a raw disk is how far the inspector has read.
#
# A guess: detect_file_format(path).virtual_size is the disk's size for every format, so for a raw file the file's size.
# What happens: detection stops at the first format that matches. A raw disk with a GPT "matches" after a few chunks, and
# virtual_size is the count of bytes read until then: 262144 for a disk of 5 GiB. Fed to its end by InspectWrapper it is right.
# Where it bites: whoever takes min_disk for a Glance image from it uploads raw images that claim to fit any flavor.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q --disable-pip-version-check 'oslo.utils[image-inspection]==10.2.0'
truncate -s 5G "$place/disk.raw"
printf 'label: gpt\nsize=100MiB\nsize=+\n' | sfdisk -q "$place/disk.raw"
cat > "$place/try.py" <<'PY'
import importlib.metadata, os, sys
from oslo_utils.imageutils import format_inspector

path = sys.argv[1]
found = format_inspector.detect_file_format(path)
size = os.stat(path).st_size
print("oslo.utils", importlib.metadata.version("oslo.utils"))
print(f"size of the file {size}, format {found}, virtual_size {found.virtual_size}")
sys.exit(0 if (str(found), found.virtual_size) == ("gpt", 262144) and size == 5 << 30 else 1)
PY
"$place/venv/bin/python" "$place/try.py" "$place/disk.raw"
