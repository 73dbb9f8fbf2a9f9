# Flaskhost: what to run. `make` alone lists it.

PYTHON ?= python3
RELEASE ?= trixie
# The scenarios on a whole machine, one after the other.
MACHINE ?= vm strict
# Two at a time, the longest first. NIGHTLY runs them in full, and the others.
SCENARIO ?= deploy acme default tenants failures
# What make test leaves out, part by part: .github/workflows/nightly.yml runs each on a machine of its own.
NIGHTLY ?= deploy acme tenants failures faults gallery caches guestbook sample-app-browser servers cluster roles hardening database mutants "vm RELEASE=bookworm" "vm RELEASE=trixie"

export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Ansible ignores the configuration file of a folder that everybody may write to, unless it is named.
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible needs UTF-8, whatever the machine's language settings.
export LC_ALL := C.UTF-8
# Bytecode in one place, and none among the sources. Without any, a start of ansible-playbook costs twice as much.
export PYTHONPYCACHEPREFIX := $(CURDIR)/.cache/pycache

TESTBED := $(PYTHON) scripts/testbed.py
CERTBOT := roles/certbot/files
LOCK := uv pip compile --quiet --universal --generate-hashes --upgrade --python-version 3.11 \
  --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help venv lock testbed demo demo-down lint unit sample-app-test sample-app-browser molecule acme deploy failures faults gallery caches guestbook cluster roles servers tenants hardening database vm mutants test nightly bench bench-deploy bench-serve docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: ## make .venv from requirements.txt (nothing happens while the lock is the same)
	@command -v $(PYTHON) >/dev/null || { echo "ERROR: there is no $(PYTHON) here. Cure: apt-get install python3" >&2; exit 1; }
	@$(PYTHON) scripts/venv.py .venv requirements.txt --require-hashes

lock: venv ## renew requirements.txt from pyproject.toml, and the roles' lists of packages with their hashes
	$(LOCK) --output-file requirements.txt pyproject.toml
	$(LOCK) --output-file roles/python/files/requirements.txt roles/python/files/requirements.in
	$(LOCK) --output-file sample_app/requirements.txt sample_app/pyproject.toml
	@for group in test browser; do \
	  $(LOCK) --group sample_app/pyproject.toml:$$group --output-file sample_app/requirements-$$group.txt \
	    sample_app/pyproject.toml || exit 1; \
	done
	@for list in roles/*/files/server.in; do \
	  echo "$$list"; \
	  $(LOCK) --output-file "$${list%.in}.txt" "$$list" || exit 1; \
	done
	$(LOCK) --output-file $(CERTBOT)/requirements.txt $(CERTBOT)/requirements.in
	@# Of each plugin what certbot's own list lacks, in certbot's version.
	@for list in $(CERTBOT)/dns/*.txt; do \
	  echo "$$list"; \
	  sed -n "s/^certbot==/certbot-dns-$$(basename "$$list" .txt)==/p" $(CERTBOT)/requirements.in \
	    | $(LOCK) --no-annotate --constraints $(CERTBOT)/requirements.txt \
	        $$(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' $(CERTBOT)/requirements.txt) \
	        --output-file "$$list" - >/dev/null || exit 1; \
	done
	@$(MAKE) --no-print-directory venv

testbed: venv ## make what test hosts need: Docker engine, images, SSH key
	@$(TESTBED) ready bookworm trixie

demo: venv ## a bare Debian host, set up by site.yml over SSH, serving two apps (RELEASE=bookworm for Debian 12)
	@$(TESTBED) up --release $(RELEASE)
	ansible-playbook site.yml
	@$(TESTBED) summary

demo-down: ## remove the demo, its image and key; says which installed packages stay
	@$(TESTBED) down

lint: venv ## ansible-lint, yamllint, ruff, mypy
	ruff check
	ruff format --check
	@mkdir -p .cache/types/ansible/module_utils
	@ln -sfn ../../../../plugins/module_utils/flaskhost .cache/types/ansible/module_utils/flaskhost
	mypy
	mypy plugins/action/*.py plugins/filter/*.py
	mypy plugins/modules/*.py
	yamllint --strict .
	ansible-lint

docs: venv ## write the tables of options into the roles' READMEs and docs/apps.md
	python scripts/docs.py

unit: venv ## unit tests of plugins/, roles' contracts and wiring (no host)
	pytest -n 2 --dist loadfile tests/unit

sample-app-test: venv ## the sample app's own tests, with PostgreSQL and Redis; fails below 95 % coverage
	@$(PYTHON) scripts/venv.py .cache/venvs/sample_app sample_app/requirements-test.txt --uv .venv/bin/uv
	@cd sample_app && $(PYTHON) ../scripts/with_services.py ../.cache/venvs/sample_app/bin/python -m pytest --cov=guestbook

sample-app-browser: venv ## the sample app in Chromium: by keyboard, without JavaScript, with axe-core
	@$(PYTHON) scripts/venv.py .cache/venvs/sample_app_browser sample_app/requirements-browser.txt --uv .venv/bin/uv
	@cd sample_app && $(PYTHON) ../scripts/with_services.py --browser sh -c \
	  'npm ci --prefix browser --ignore-scripts --no-audit --no-fund && ../.cache/venvs/sample_app_browser/bin/python -m pytest browser'

molecule: venv ## the Molecule scenarios (SCENARIO=default for one)
	@$(TESTBED) ready --direct bookworm trixie
	@$(PYTHON) scripts/scenarios.py $(SCENARIO)

# All tests of a scenario, also those that make test leaves out, on both of Debian's releases.
acme deploy failures faults gallery caches guestbook cluster roles servers tenants: export FLASKHOST_NIGHTLY := 1
acme: venv ## the whole scenario acme: certificates
deploy: venv ## the whole scenario deploy, with ten kills of each kind
failures: venv ## the whole scenario failures: killed runs and refused input
faults: venv ## the whole scenario faults: what breaks on a host that serves
gallery: venv ## the scenario gallery: twelve apps of different kinds on one host, and one more
servers: venv ## the scenario servers: each application server, and switches from one to another
tenants: venv ## the whole scenario tenants: a hostile app
caches: venv ## the scenario caches: Redis and Memcached of an app, its workers, and a neighbor
guestbook: venv ## the scenario guestbook: the sample app, guessed passwords, without Redis, its worker and timer
cluster: venv ## the scenario cluster: two web hosts, two app hosts and a database host, under load
acme deploy failures faults gallery caches guestbook servers cluster tenants:
	@$(MAKE) --no-print-directory molecule SCENARIO=$@

roles: venv ## each role alone, undone as its README says and applied again, on one release after the other
	@for release in bookworm trixie; do \
	  FLASKHOST_ROLES_RELEASE=$$release $(MAKE) --no-print-directory molecule SCENARIO=roles || exit 1; \
	done

hardening: venv ## the way in, bans, floods and the audit, with a third host that attacks (some 45 minutes)
	@$(MAKE) --no-print-directory molecule SCENARIO=hardening

database: venv ## data that is lost and comes back, the drill, an upgrade, a host of its own (some 30 minutes)
	@$(MAKE) --no-print-directory molecule SCENARIO="backup database_host"

vm: export MOLECULE_GLOB := molecule/machine/*/molecule.yml
vm: export RELEASE := $(RELEASE)
vm: venv ## whole machines on QEMU: site.yml, reboot, strict; slow where emulated (RELEASE=bookworm, MACHINE=strict for one)
	@for machine in $(MACHINE); do molecule test --no-command-borders -s $$machine || exit 1; done

mutants: venv ## change one thing at a time in the code, 120 times, and see whether a unit test fails (some 30 minutes)
	@python scripts/mutants.py

test: venv ## lint, unit tests, the sample app's tests, the Molecule scenarios; not what make nightly adds
	@$(PYTHON) scripts/stages.py lint+unit+sample-app-test molecule

nightly: venv ## everything that make test leaves out, one part after the other (many hours where the processor is emulated)
	@$(PYTHON) scripts/stages.py --keep-going $(NIGHTLY)

bench: venv ## seconds of a first and of a second run of site.yml on a bare host
	benchmarks/provision --release $(RELEASE)

bench-deploy: venv ## deploys and rollbacks under load: requests lost, latency, seconds
	benchmarks/deploy --release $(RELEASE)

bench-serve: venv ## CPU time of requests, latency and memory, beside the usual servers and settings (some 20 minutes)
	benchmarks/serve --release $(RELEASE)

clean: ## remove .venv and what the tests have cached (make demo-down removes the hosts)
	rm -rf .venv .cache/venvs .cache/pycache .cache/collections .ruff_cache .ansible
	find . -name __pycache__ -type d -not -path './.cache/*' -prune -exec rm -rf {} +
	@rmdir .cache 2>/dev/null || echo "Kept .cache: make demo-down removes the test hosts and says which installed packages stay"
