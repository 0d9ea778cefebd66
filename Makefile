# Two commands do everything on a fresh machine: `make image ARGS="-i debian-minimal"` and `make test`.

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VENV := .venv
# The distribution's Python, because libguestfs' binding (python3-guestfs) is built for it; another python3 may come first in PATH.
PYTHON := /usr/bin/python3
ARGS ?=

.PHONY: image test say-what-test-does test-all slow lint benchmark docs system-packages clean

image: $(VENV)/.installed
	$(VENV)/bin/amphora-mkimage $(ARGS)

define TEST_PLAN
make test: about 7 minutes on two idle cores, set-up and downloads (some 250 MB) included:
  1. what it needs: packages of bindep.txt, a virtual environment in .venv      1 to 3 min
  2. style and types                                                            1 min
  3. unit tests, one process for each core                                      2 min
  4. one real build (debian-minimal), its tar verified, its disk booted,
     driven as by Octavia's controller; with KVM this takes seconds             3 min
  5. its management network as 31 config drives describe it, in namespaces      1 min
Everything else that is not slow: make test-all (another 40 minutes).
endef

test: say-what-test-does $(VENV)/.tests
	$(VENV)/bin/tox run

say-what-test-does:
	$(info $(TEST_PLAN))

test-all: $(VENV)/.tests
	$(VENV)/bin/tox run -e all

slow: $(VENV)/.tests
	$(VENV)/bin/tox run -e slow

lint: $(VENV)/.tests
	$(VENV)/bin/tox run -e lint

benchmark: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/run.py

docs: $(VENV)/.installed
	$(VENV)/bin/python -m amphora_mkimage.manpage --write
	$(VENV)/bin/python -m amphora_mkimage.tables

# Lines of bindep.txt without a comment, and without those that this release does not have; a package that is there already
# costs nothing.
system-packages:
	@release=$$(. /etc/os-release; echo "$$ID-$$VERSION_CODENAME"); \
	packages=$$(sed -n "/!platform:$$release\\>/d; "'s/^\([a-z0-9][^ #]*\).*/\1/p' bindep.txt); \
	missing=$$(dpkg-query -W -f='$${Package} $${db:Status-Status}\n' $$packages 2>/dev/null \
	    | awk '$$2 == "installed" {print $$1}' | sort > .installed-packages~; \
	    echo $$packages | tr ' ' '\n' | sort | comm -23 - .installed-packages~; rm -f .installed-packages~); \
	if [ -n "$$missing" ]; then \
	    echo "installing:" $$missing; \
	    $(SUDO) apt-get update -q && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; \
	fi

$(VENV)/.installed: pyproject.toml | system-packages
	$(PYTHON) -m venv --system-site-packages $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'tox>=4'
	touch $@

clean:
	rm -rf $(VENV) .tox .mypy_cache .ruff_cache .pytest_cache *.egg-info
