"""The map of the sandbox, in its docstring."""

import re
from pathlib import Path

from app import sandbox


def test_every_module_is_on_the_map():
    named = set()
    for name, text in re.findall(r"^(\w+) {2,}(.+(?:\n +.+)*)", sandbox.__doc__, re.MULTILINE):
        named |= {name, *(name + part for part in re.findall(r"(?<= )_\w+", text))}
    modules = {path.stem for path in Path(sandbox.__file__).parent.glob("[!_]*.py")}
    assert named == modules
