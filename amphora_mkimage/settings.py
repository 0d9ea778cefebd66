"""The one table of settings: parser, environment, help, completion, man page and summary are made from it.

Flags and variables are those of Octavia's ``diskimage-create.sh``, as it is today and was before; see
``docs/compatibility.md`` for each difference. A setting's value comes from its flag, else from the first of its
variables that is set and not empty, else from its default.
"""

from __future__ import annotations

from amphora_mkimage import kernel_arguments, proxies
from amphora_mkimage.setting import Setting, Value, Variable, find, parse_bool

ARCHITECTURES = ("amd64", "x86_64", "i386", "armhf", "arm64", "aarch64", "ppc64le")
BASES = (
    "ubuntu",
    "ubuntu-minimal",
    "debian",
    "debian-minimal",
    "fedora",
    "centos",
    "rocky",
    "rhel",
)
#: Octavia's script takes either for the other.
SAME_BASES = {"centos-minimal": "centos"}
BACKENDS = ("haproxy",)
GUESTS = ("auto", "namespace", "appliance")
IMAGE_TYPES = ("qcow2", "raw", "vhd", "tar")


def _env(*names: str) -> tuple[Variable, ...]:
    return tuple(Variable(name) for name in names)


_ELEMENTS = "diskimage-builder elements are not there yet"

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "arch",
        "architecture of the image, through qemu-user where the host is another (i386: Debian only)",
        ("-a", "--arch"),
        _env("AMP_ARCH"),
        "ARCH",
        "amd64",
        ARCHITECTURES,
    ),
    Setting(
        "backend",
        "load balancer in the image",
        ("-b", "--backend"),
        (Variable("AMP_BACKEND", words={"haproxy-octavia": "haproxy"}),),
        "NAME",
        "haproxy",
        BACKENDS,
    ),
    Setting(
        "cache_dir",
        "where downloads and bootstrapped bases are kept",
        ("-c", "--cache-dir"),
        _env("AMP_CACHEDIR"),
        "DIR",
        "~/.cache/image-create",
        noun="the cache directory",
    ),
    Setting(
        "release",
        "release of the base system, by name or number (default: its current stable)",
        ("-d", "--release"),
        _env("AMP_DIB_RELEASE", "DIB_RELEASE"),
        "RELEASE",
    ),
    Setting(
        "mandatory_access_control",
        "enforce SELinux where the base has it; Debian's and Ubuntu's AppArmor always enforces",
        ("-e", "--enforce-mac"),
        _env("AMP_ENABLE_FULL_MAC_SECURITY"),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "no_tmpfs",
        "build on disk, under the working directory, not in memory",
        ("-f", "--no-tmpfs"),
        (
            Variable("AMP_DISABLE_TMP_FS", words={"--no-tmpfs": True}),
            Variable("DIB_NO_TMPFS", beside=True),
        ),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "agent_ref",
        "branch, tag or commit of the amphora agent and of octavia-lib (default: the released octavia)",
        ("-g", "--agent-ref"),
        (Variable("DIB_REPOREF_amphora_agent", beside=True),),
        "REF",
    ),
    Setting(
        "base_os",
        "base system",
        ("-i", "--base-os"),
        (Variable("AMP_BASEOS", words={"rocky-container": "rocky"}),),
        "NAME",
        "ubuntu",
        BASES,
        parse=lambda text: SAME_BASES.get(text, text),
    ),
    Setting(
        "kernel_package",
        "kernel package (default: the base's kernel for virtual machines)",
        ("-k", "--kernel"),
        _env("AMP_KERNEL", "DIB_UBUNTU_KERNEL"),
        "PACKAGE",
    ),
    Setting(
        "kernel_args",
        "add an argument to the kernel's command line; may be given several times",
        ("--kernel-arg",),
        (),
        "ARG",
        repeated=True,
    ),
    Setting("log_file", "keep the full log in FILE", ("-l", "--log-file"), (), "FILE"),
    Setting(
        "cpu_pinning",
        "keep the load balancer's CPUs free of everything else (isolcpus, tuned)",
        ("-m", "--cpu-pinning"),
        _env("AMP_ENABLE_CPUPINNING"),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "no_ssh",
        "leave the SSH server out",
        ("-n", "--no-ssh"),
        (Variable("AMP_DISABLE_SSHD"), Variable("DIB_OCTAVIA_AMP_USE_SSH", inverted=True, beside=True)),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "output",
        "output file; each image type gets its own suffix",
        ("-o", "--output"),
        _env("AMP_OUTPUTFILENAME"),
        "FILE",
        "amphora-x64-haproxy",
        noun="the output",
    ),
    Setting(
        "agent_packages",
        "install the agent from the distribution's packages",
        ("-p", "--agent-from-packages"),
        (
            Variable("AMP_PACKAGE_INSTALL"),
            Variable("DIB_INSTALLTYPE_amphora_agent", beside=True, words={"package": True, "source": False}),
        ),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "no_agent",
        "leave the amphora agent out; Octavia cannot use such an image",
        ("--no-agent",),
        (),
        default=False,
    ),
    Setting(
        "octavia",
        "oldest release of Octavia whose controllers the image must serve, as 2025.1 or 16.0 (default: the agent's)",
        ("--octavia",),
        (),
        "RELEASE",
    ),
    Setting(
        "root_password",
        "set the root password; visible to other users of this host while it runs: prefer --root-password-file",
        ("-r", "--root-password"),
        _env("AMP_ROOTPW"),
        "PASSWORD",
        secret=True,
    ),
    Setting(
        "root_password_file",
        "read the root password from the first line of FILE, or of standard input with -",
        ("--root-password-file",),
        (),
        "FILE",
    ),
    Setting(
        "root_password_hash",
        "set the root password by its crypt(5) hash",
        ("--root-password-hash",),
        (),
        "HASH",
        secret=True,
    ),
    Setting("size", "size of the disk in GiB", ("-s", "--size"), _env("AMP_IMAGESIZE"), "GIB", "5"),
    Setting(
        "types",
        f"image types, one or several separated by commas: {', '.join(IMAGE_TYPES)}",
        ("-t", "--type"),
        _env("AMP_IMAGETYPE"),
        "TYPE[,TYPE]",
        "qcow2",
    ),
    Setting(
        "working_dir",
        "where the build works",
        ("-w", "--working-dir"),
        _env("AMP_WORKING_DIR"),
        "DIR",
        ".",
        noun="the working directory",
    ),
    Setting("trace", "show every command as it runs", ("-x", "--trace"), (), default=False),
    Setting(
        "fips",
        "FIPS mode, where the base supports it",
        ("-y", "--fips"),
        _env("AMP_ENABLE_FIPS"),
        parse=parse_bool,
        default=False,
    ),
    Setting(
        "dry_run",
        "print the plan (base, stages, packages, outputs, what is cached) and stop",
        ("--dry-run",),
        (),
        default=False,
    ),
    Setting(
        "json",
        "print the plan, or how the build ended, as one JSON object on standard output",
        ("--json",),
        (),
        default=False,
    ),
    Setting(
        "mirror", "URL of a mirror of the base system", (), _env("BASE_OS_MIRROR", "DIB_DISTRIBUTION_MIRROR"), "URL"
    ),
    Setting(
        "security_mirror",
        "URL of the archive that has Debian's security suites (default: debian-security beside the mirror)",
        (),
        _env("DIB_DEBIAN_SECURITY_MIRROR"),
        "URL",
    ),
    Setting(
        "security_subpath",
        "what follows the name of Debian's security suite",
        (),
        _env("DIB_DEBIAN_SECURITY_SUBPATH"),
        "PATH",
    ),
    Setting(
        "apt_sources",
        "all suites to take, in place of the release's; lines of the form NAME:deb URL SUITE COMPONENT...",
        (),
        _env("DIB_APT_SOURCES_CONF"),
        "LINES",
    ),
    Setting(
        "dated_mirror",
        "the mirror is of a date on purpose: accept indexes that have expired; signatures still count",
        ("--dated-mirror",),
        (),
        default=False,
    ),
    Setting(
        "keyring", "keyring that signs the mirror (default: the distribution's)", (), _env("DIB_APT_KEYRING"), "FILE"
    ),
    Setting(
        "image_mirror",
        "directory, by URL or path, that has the base image and its checksums (default: the distribution's)",
        (),
        _env("DIB_CLOUD_IMAGES"),
        "URL",
    ),
    Setting(
        "image_keyring",
        "keyring that signs the base image's checksums (default: the distribution's key)",
        (),
        _env("DIB_CLOUD_IMAGES_KEYRING"),
        "FILE",
    ),
    Setting(
        "insecure",
        "accept a base image without a signature or checksum; never one with a wrong one",
        ("--insecure",),
        (),
        default=False,
    ),
    Setting(
        "agent_repository",
        "repository of the amphora agent, by URL or path of a clone (default: OpenDev's); master, without -g",
        (),
        _env("DIB_REPOLOCATION_amphora_agent"),
        "URL",
    ),
    Setting(
        "lib_repository",
        "repository of octavia-lib, by URL or path of a clone (default: OpenDev's); with -g",
        (),
        _env("DIB_REPOLOCATION_octavia_lib"),
        "URL",
    ),
    Setting(
        "lib_ref",
        "branch, tag or commit of octavia-lib (default: the agent's); with -g",
        (),
        _env("DIB_REPOREF_octavia_lib"),
        "REF",
    ),
    Setting(
        "constraints",
        "upper-constraints.txt, by URL or path (default: OpenStack's of the branch); with -g",
        (),
        _env("DIB_REPOLOCATION_upper_constraints"),
        "URL",
    ),
    Setting(
        "default_cmdline",
        "kernel arguments in place of diskimage-builder's defaults; what an amphora needs stays",
        (),
        _env("DIB_BOOTLOADER_DEFAULT_CMDLINE"),
        "ARGS",
        " ".join(kernel_arguments.DEFAULTS),
    ),
    Setting("datasources", "cloud-init data sources", (), _env("CLOUD_INIT_DATASOURCES"), "LIST", "ConfigDrive"),
    Setting(
        "nftables",
        "install nftables, which SR-IOV virtual IPs need",
        (),
        _env("DIB_OCTAVIA_AMP_USE_NFTABLES"),
        "BOOL",
        True,
        parse=parse_bool,
    ),
    Setting(
        "overwrite",
        "replace an existing image; by default it is renamed with its date",
        (),
        _env("OVERWRITE_OLD_IMAGE"),
        "BOOL",
        False,
        parse=parse_bool,
    ),
    Setting(
        "guest",
        "what the image is built in; auto: a namespace, or else libguestfs' appliance, as this host allows",
        ("--guest",),
        (),
        "KIND",
        "auto",
        GUESTS,
    ),
    Setting("http_proxy", "proxy for http", (), _env(*proxies.HTTP[:2]), "URL"),
    Setting("https_proxy", "proxy for https", (), _env(*proxies.HTTPS[:2]), "URL"),
    Setting("all_proxy", "proxy for either, where it has none of its own", (), _env(*proxies.HTTP[2:]), "URL"),
    Setting(
        "no_proxy",
        "hosts that are reached without a proxy: names, addresses, networks, ports, *",
        (),
        _env(*proxies.EXEMPT),
        "LIST",
    ),
    Setting(
        "elements",
        "replace the element list",
        (),
        _env("DIB_ELEMENTS"),
        "LIST",
        later=_ELEMENTS,
    ),
    Setting(
        "first_elements",
        "elements that the list begins with; the script's default, `base vm`, is accepted",
        (),
        (Variable("AMP_element_sequence", words={"base vm": False}),),
        "LIST",
        later=_ELEMENTS,
    ),
    Setting("local_elements", "elements to add", (), _env("DIB_LOCAL_ELEMENTS"), "LIST", later=_ELEMENTS),
    Setting(
        "local_elements_path", "where those elements are", (), _env("DIB_LOCAL_ELEMENTS_PATH"), "PATH", later=_ELEMENTS
    ),
    Setting(
        "local_image",
        "a base image of one's own, by path, or by URL with #sha256=HEX after it",
        (),
        _env("DIB_LOCAL_IMAGE"),
        "FILE",
    ),
    Setting("dib_repo_path", "diskimage-builder's checkout", (), _env("DIB_REPO_PATH"), "DIR", unused=True),
    Setting(
        "elements_repo_path", "tripleo-image-elements' checkout", (), _env("ELEMENTS_REPO_PATH"), "DIR", unused=True
    ),
)

BY_NAME = {setting.name: setting for setting in SETTINGS}


def resolve(arguments: dict[str, object], environ: dict[str, str]) -> dict[str, Value]:
    """Give every setting its value: flag, else variable, else default.

    :param arguments: what the command line said; absent or None where it said nothing
    :param environ: the environment
    :raises BadValueError: a value is not readable, or not one of the accepted ones
    """
    return {setting.name: find(setting, arguments.get(setting.name), environ) for setting in SETTINGS}
