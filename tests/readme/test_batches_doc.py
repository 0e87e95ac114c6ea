"""docs/batches.md: its tables are what the capabilities, the limits and the errors of the code say."""

import re

from app.batches.finish import NEVER_RAN
from app.batches.inline import MAX_INLINE_BYTES
from app.formats.batch_lines import ENDPOINTS, MAX_CUSTOM_ID, MAX_LINE_BYTES, MAX_LINES, MAX_MODELS
from app.providers.registry import REGISTRY
from tests.readme.markdown import ROOT, tables
from tests.readme.test_providers_doc import size

PAGE = ROOT / "docs" / "batches.md"
TRAVELS = {"file": "a file", "inline": "the body", "object": "an object"}


def test_what_each_provider_runs():
    def row(found):
        if found.batch_input == "none":
            return ["none", "", "", "", ""]
        limits = found.batch
        endpoints = (
            "all" if limits.endpoints == ENDPOINTS else ", ".join(f"`{one}`" for one in sorted(limits.endpoints))
        )
        return [
            TRAVELS[found.batch_input],
            endpoints,
            f"{limits.min_lines:,}",
            f"{limits.max_lines:,}",
            size(limits.max_bytes),
        ]

    documented = {name: cells for name, *cells in tables(PAGE, "What works where")[0][1:]}
    assert documented == {f"`{name}`": row(kind.capabilities) for name, kind in REGISTRY.items()}


def test_every_provider_that_runs_batches_says_how_they_end_and_are_found():
    running = [f"`{name}`" for name, kind in REGISTRY.items() if kind.capabilities.batch_input != "none"]
    assert [row[0] for row in tables(PAGE, "What works where")[1][1:]] == running


def test_all_endpoints_are_named():
    [named] = re.findall(r"^- \*All\* endpoints: .*?(?=^- )", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(/v1/[\w/]+)`", named)) == ENDPOINTS


def test_the_limits():
    documented = [value for _, value in tables(PAGE, "Lines")[0][1:]]
    assert documented == [
        f"{MAX_LINES:,}",
        size(MAX_LINE_BYTES),
        f"{MAX_MODELS}",
        f"{MAX_CUSTOM_ID} characters",
        size(MAX_INLINE_BYTES),
    ]


def test_each_code_is_one_that_the_gateway_says():
    sources = [*(ROOT / "app" / "batches").rglob("*.py"), *(ROOT / "app" / "files").glob("*.py")]
    said = "".join(path.read_text() for path in [*sources, ROOT / "app" / "formats" / "batch_lines.py"])
    *before, never_ran = tables(PAGE, "What goes wrong")
    for table in before:
        for code in re.findall(r"`(\w+)`", " ".join(row[0] for row in table)):
            assert f'"{code}"' in said, code
    assert [row[0] for row in never_ran[1:]] == [f"`{code}`" for code, _ in NEVER_RAN.values()]
