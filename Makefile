NEEDED = import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit( \
	"Python is %d.%d; the course needs 3.10 to 3.13: make PYTHON=python3.12" % sys.version_info[:2])
FITS = $(shell $(1) -c '$(NEEDED)' 2>/dev/null && echo $(1))
PYTHON ?= $(firstword $(foreach minor,3 3.13 3.12 3.11 3.10,$(call FITS,python$(minor))) python3)

.PHONY: train sample explore test learn notebooks stubs site

train: .venv/learner
	.venv/bin/tiny-transformer train

sample: .venv/learner
	.venv/bin/tiny-transformer sample --run 09_capstone/pretrained --tokens 500

explore: .venv/learner
	.venv/bin/tiny-transformer explore

test: .venv/developer
	.venv/bin/pytest -n auto --dist loadfile --no-loadscope-reorder

learn: .venv/learner
	.venv/bin/tiny-transformer learn

notebooks: .venv/developer
	.venv/bin/python .ci/notebooks.py

stubs: .venv/learner
	.venv/bin/python -m tiny_transformer.setup.grading.reset

site: .venv/site
	.venv/bin/python .ci/site/build.py

.venv/learner: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(NEEDED)'
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -c constraints.txt -e .
	.venv/bin/python -m tiny_transformer.setup.links
	@touch $@

.venv/developer: .venv/learner
	.venv/bin/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/site: .venv/learner .ci/site/package-lock.json
	@command -v npm >/dev/null || { echo 'The site needs npm: install Node.js, then make site' >&2; exit 1; }
	.venv/bin/pip install --disable-pip-version-check -c constraints.txt -e '.[site]'
	npm ci --prefix .ci/site --ignore-scripts --no-audit --no-fund
	@touch $@
