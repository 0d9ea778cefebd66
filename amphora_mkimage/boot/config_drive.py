"""The config drive: what Nova gives to an amphora, plus the reporter.

ISO 9660 made by xorriso (Debian: ``xorriso``), because that is what Nova makes (``config_drive_format``), so that a
kernel without isofs, or without the driver of the emulated CD-ROM, is found out here and not in the cloud. The format
is described in https://docs.openstack.org/nova/latest/user/metadata.html and
https://docs.cloud-init.io/en/latest/reference/datasources/configdrive.html.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from pathlib import Path

from amphora_mkimage.boot.management import Management
from amphora_mkimage.console import Console
from amphora_mkimage.process import run

LABEL = "config-2"
FILES = Path(__file__).with_name("files")
#: Where files/reporter.py expects haproxy's configuration.
HAPROXY_CONFIG = "/etc/haproxy/amphora-mkimage-boot.cfg"
#: Tells the reporter to try that configuration although the image has an agent, which starts haproxy itself.
OWN_CONFIG = "/etc/haproxy/amphora-mkimage-boot.own"

#: cloud-init's runcmd is how Octavia's user data restarts rsyslog; the reporter looks for the mark.
_CLOUD_CONFIG = """\
#cloud-config
runcmd:
  - [touch, /run/amphora-mkimage-runcmd]
"""


def write(path: Path, amphora_id: uuid.UUID, files: Mapping[str, str], network: Management, console: Console) -> None:
    """Make the config drive.

    :param path: the ISO image to make
    :param amphora_id: identifier of the instance
    :param files: text of the files to be put into the guest, by absolute path ("personality"; cloud-init writes them in
        its local stage with mode 0660, as it does with what Octavia sends)
    :param network: that the guest is in
    :raises HostError: xorriso is not installed
    """
    tree = path.with_suffix(".d")
    latest, content = tree / "openstack" / "latest", tree / "openstack" / "content"
    latest.mkdir(parents=True)
    content.mkdir()
    entries = []
    for number, (name, text) in enumerate(files.items()):
        (content / f"{number:04}").write_text(text)
        entries.append({"path": name, "content_path": f"/content/{number:04}"})
    meta_data = {"uuid": str(amphora_id), "name": "amphora", "hostname": "amphora", "files": entries}
    (latest / "meta_data.json").write_text(json.dumps(meta_data))
    (latest / "network_data.json").write_text(json.dumps(network.network_data()))
    (latest / "user_data").write_text(user_data())
    # The options are those with which Nova calls mkisofs (nova/virt/configdrive.py).
    options = ["-quiet", "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-J", "-r", "-V", LABEL]
    run(
        ["xorriso", "-as", "mkisofs", *options, "-o", str(path), str(tree)],
        console,
        what="cannot make the config drive",
        remedy="install the package xorriso",
    )


def user_data() -> str:
    """Make a boothook that starts the reporter, and a cloud-config that shows that runcmd works.

    A boothook because it is the earliest that user data can run, and needs none of the modules that an image may have
    taken out of its cloud.cfg.
    """
    message = MIMEMultipart()
    reporter = "#cloud-boothook\n" + (FILES / "reporter.py").read_text(encoding="utf-8")
    message.attach(MIMEText(reporter, "cloud-boothook", "utf-8"))
    message.attach(MIMEText(_CLOUD_CONFIG, "cloud-config", "us-ascii"))
    return message.as_string()
