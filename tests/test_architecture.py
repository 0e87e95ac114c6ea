"""The rules of the house (design.md §1, §2), read from the source: imports, purity, names, page budget."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Imports run downwards only. What stands in one line are strangers to each other; a room may import itself.
LAYERS = [
    "cli",
    "cli_processes cli_admin cli_accounts cli_files cli_batches cli_suspects cli_import cli_sql",
    "cli_gateway cli_upload",
    "cli_database",
    "demo doctor",
    "serve",
    "server",
    "main",
    "routes worker edge console",
    "health openapi",
    "chat batches",
    "files",
    "access configuration deployments",
    "entries",
    "providers db",
    "formats logs printing",
    "gateway hangup processes ids seals errors settings",
    "yaml_file",
]
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms.split()}
# Libraries with a home: the modules that may import them, as patterns. The demo is a client like any other.
HOMES = {
    "httpx httpx_aiohttp aiohttp boto3 obstore": r"providers\..*|main|files\.stores|demo|sandbox\..*",
    "sqlalchemy asyncpg alembic": r"db\..*|(\w+\.)+queries",
    "starlette": r"(?!providers|formats|db|.*\.(queries|fanout|spool|outcomes|references|lines)$).*",
}
LIBRARIES = {name: re.compile(modules) for names, modules in HOMES.items() for name in names.split()}
SANDBOX_USERS = {"cli_processes", "configuration", "demo"}
SIBLING_PROVIDERS = {("azure", "openai"), ("vertex", "gemini")}
PROVIDER_PARTS = {
    "protocol",
    "registry",
    "wrapped",
    "wrappers",
    "limits",
    "absent",
    "http",
    "translated",
    "objects",
    "buckets",
    "checksums",
    "aws",
}
PURE = re.compile(r"formats(\..*)?|ids|seals|files\.references|batches\.lines")
IMPURE = {"asyncio", "io", "os", "pathlib", "shutil", "socket", "subprocess", "tempfile", "threading", "time"}
NEVER = {"service", "manager", "handler", "helper", "helpers", "util", "utils", "common", "base", "models"}
MAX_FUNCTION_LINES = 40


def _max_lines(name):
    return 600 if name.startswith(("providers.", "formats.")) else 300


def _name(path):
    """`files.upload` of app/files/upload.py, `files` of its package."""
    return ".".join(path.relative_to(ROOT / "app").with_suffix("").parts).removesuffix(".__init__")


TREES = {_name(path): ast.parse(path.read_text()) for path in (ROOT / "app").rglob("*.py")}
MODULES = {name: tree for name, tree in TREES.items() if name != "__init__"}
modules = pytest.mark.parametrize("name", sorted(MODULES))


def _imports(name):
    """What a module imports when it runs: `starlette.requests`, `app.files.queries`."""
    pending, found = [MODULES[name]], set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: relative imports hide the room"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one.removeprefix("app.") in MODULES else node.module for one in full}
        is_for_types = isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        pending += node.orelse if is_for_types else ast.iter_child_nodes(node)
    return found


def _ours(name):
    return {module.removeprefix("app.") for module in _imports(name) if module.startswith("app.")}


@modules
def test_imports_run_downwards_only(name):
    room = name.partition(".")[0]
    for other in _ours(name):
        target = other.partition(".")[0]
        if "sandbox" in (room, target):
            assert room == target or (target == "sandbox" and name in SANDBOX_USERS), f"{name} imports {other}"
        else:
            assert room == target or LEVELS[room] < LEVELS[target], f"{name} imports {other}"


@modules
def test_libraries_stay_in_their_homes(name):
    for library in {module.partition(".")[0] for module in _imports(name)} & set(LIBRARIES):
        assert LIBRARIES[library].fullmatch(name), f"{name} imports {library}"


@modules
def test_providers_do_not_import_each_other(name):
    room, _, provider = name.partition(".")
    if room == "providers" and provider not in PROVIDER_PARTS:
        siblings = {other.partition(".")[2] for other in _ours(name) if other.startswith("providers.")}
        for sibling in siblings - PROVIDER_PARTS:
            assert (provider, sibling) in SIBLING_PROVIDERS, f"{provider} imports {sibling}"


@modules
def test_pure_modules_do_no_io(name):
    if PURE.fullmatch(name):
        assert not _imports(name) & IMPURE
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in ast.walk(MODULES[name]))


@modules
def test_names_explain_themselves(name):
    classes = [node.name for node in ast.walk(MODULES[name]) if isinstance(node, ast.ClassDef)]
    words = {word.lower() for one in classes for word in re.findall(r"[A-Z]?[a-z]+", one)}
    assert not (words | set(re.split(r"[._]", name))) & NEVER


@modules
def test_files_and_functions_fit_a_page(name):
    tree = MODULES[name]
    assert max((node.end_lineno for node in tree.body), default=0) <= _max_lines(name), f"{name} is too long"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_FUNCTION_LINES, f"{name}.{node.name} has {lines} lines"
