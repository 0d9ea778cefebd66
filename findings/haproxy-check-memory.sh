#!/bin/sh
# haproxy -c takes as much memory as a start: it touches the whole TLS session cache.
#
# A guess: -c parses the file, loads certificates and ends; what tune.ssl.cachesize reserves is shared memory that costs nothing until
# sessions come.
# What happens: the cache is allocated, and each of its blocks is written to, by -c as by a start: 3,040,000 entries are 730 MB, 20,000
# (the default) nothing that can be seen. In the file of a process that is running, a check needs all of it once more.
# Where it bites: service units whose ExecStartPre= or ExecReload= is `haproxy -c` (Octavia's agent writes such a unit, and its controller
# such a cache size, on flavors with memory for it), control groups with a limit, CI containers that check production's files.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
# Debian 12's packages; what else they need (glibc, OpenSSL, PCRE2, systemd) is in every Debian 12.
apt-get download -q haproxy=2.6.12-1+deb12u4 liblua5.3-0=5.3.6-2 > download.log 2>&1 || { cat download.log; exit 2; }
for package in *.deb; do dpkg-deb -x "$package" tree; done
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=x -keyout key.pem -out cert.pem 2> openssl.log
cat key.pem >> cert.pem
cat > check.py <<'PY'
import os, resource, subprocess, sys

os.environ["LD_LIBRARY_PATH"] = f"{os.getcwd()}/tree/usr/lib/x86_64-linux-gnu"
with open("haproxy.cfg", "w") as file:
    file.write(f"global\n tune.ssl.cachesize {sys.argv[1]}\ndefaults\n mode http\n timeout client 1s\n timeout connect 1s\n"
               " timeout server 1s\nfrontend f\n bind 127.0.0.1:18443 ssl crt cert.pem\n")
subprocess.run(["tree/usr/sbin/haproxy", "-c", "-f", "haproxy.cfg"], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
PY
LD_LIBRARY_PATH=tree/usr/lib/x86_64-linux-gnu tree/usr/sbin/haproxy -v | head -1
small=$(python3 check.py 20000)
large=$(python3 check.py 3040000)
echo "haproxy -c, tune.ssl.cachesize 20000: $small MiB; 3040000: $large MiB"
[ "$small" -lt 100 ]
[ "$large" -gt 600 ]
