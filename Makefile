# Two commands on a fresh machine with Python 3.11+:   make demo   make test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test serve check bench soak install clean

demo: $(STAMP)            ## the whole story in one run: upload, chat, delete, on simulated providers
	$(BIN)/filemux demo $(FILE)

test: $(STAMP)            ## every test, against a real PostgreSQL and real ports
	$(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile $(ARGS)

serve: $(STAMP)           ## a gateway that keeps running, on the sandbox unless ARGS says otherwise
	$(BIN)/filemux serve $(or $(ARGS),--sandbox)

check: $(STAMP)           ## lint, formatting, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py

bench: $(STAMP)           ## one table of ratios; needs wrk (apt-get install wrk)
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(STAMP)            ## ten minutes of uploads, chats and deletes while gateways, providers and PostgreSQL fail
	$(BIN)/python -m benchmarks.soak $(ARGS)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,demo,test]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis
