# Two commands do everything on a fresh machine: `make image ARGS="-i debian-minimal"` and `make test`.

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
VENV := .venv
# The distribution's Python, because libguestfs' binding (python3-guestfs) is built for it; another python3 may come first in PATH.
PYTHON := /usr/bin/python3
ARGS ?=

.PHONY: image test slow lint benchmark docs system-packages clean

image: $(VENV)/.installed
	$(VENV)/bin/amphora-mkimage $(ARGS)

test: $(VENV)/.tests
	$(VENV)/bin/tox run

slow: $(VENV)/.tests
	$(VENV)/bin/tox run -e slow

lint: $(VENV)/.tests
	$(VENV)/bin/tox run -e lint

benchmark: $(VENV)/.installed
	$(VENV)/bin/python benchmarks/run.py

docs: $(VENV)/.installed
	$(VENV)/bin/python -m amphora_mkimage.manpage --write

# Lines of bindep.txt without a comment; a package that is there already costs nothing.
system-packages:
	@packages=$$(sed -n 's/^\([a-z0-9][^ #]*\).*/\1/p' bindep.txt); \
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
