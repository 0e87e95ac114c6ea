"""What clients were told, and each promise that was broken."""

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from benchmarks.soak.content import Content
from benchmarks.soak.fleet import Team

SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


@dataclass(frozen=True)
class Told:
    """A file whose id a client was told."""

    file_id: str
    team: Team
    filename: str
    size_bytes: int
    sha256: str
    is_text: bool
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file_id} ({self.filename}, {self.size_bytes} bytes, {', '.join(self.targets)})"


@dataclass
class Ledger:
    """Each file is live, deleted, or doubted, when its delete was not answered."""

    live: dict[str, Told] = field(default_factory=dict)
    doubted: dict[str, Told] = field(default_factory=dict)
    deleted: dict[str, Told] = field(default_factory=dict)
    # The names of uploads without an answer that settles it: the file may exist.
    unanswered: set[str] = field(default_factory=set)
    # Broken promises, each in a sentence.
    lost: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    wrong_bytes: list[str] = field(default_factory=list)
    _numbers: Iterable[int] = field(default_factory=itertools.count)
    live_bytes: int = 0

    def begin_upload(self, content: Content) -> str:
        """A name that no other file of this run has."""
        filename = f"soak-{next(self._numbers)}{content.suffix}"
        self.unanswered.add(filename)
        return filename

    def tell(self, told: Told) -> None:
        """A client has been given this id."""
        self.unanswered.discard(told.filename)
        self.live[told.file_id] = told
        self.live_bytes += told.size_bytes

    def begin_delete(self, told: Told) -> None:
        """A client asks for its delete; until that is answered nobody else does."""
        if self.live.pop(told.file_id, None):
            self.live_bytes -= told.size_bytes
        self.doubted.pop(told.file_id, None)

    def check_live(self, told: Told, what: str) -> None:
        """Nobody may be told that a file does not exist before somebody has asked for its delete."""
        if told.file_id in self.live:
            self.lost.append(f"{told}: {what}")

    def check_answer(self, told: Told, model_name: str, text: str) -> None:
        """The simulated model says which bytes it was given."""
        if (seen := SHA256.findall(text)) != [told.sha256]:
            self.wrong_bytes.append(f"{told}: {model_name} saw {seen or text[:200]}, not {told.sha256}")

    def check_content(self, told: Told, where: str, sha256: str) -> None:
        """What is read back is what was sent."""
        if sha256 != told.sha256:
            self.wrong_bytes.append(f"{told}: {where} gave {sha256}, not {told.sha256}")


def drawn(random: Random, files: dict[str, Told]) -> Told | None:
    """Any of these files, if there is one."""
    return random.choice(list(files.values())) if files else None
