"""What every format reads of a conversation in the same way: whose turn it is, what a model said, what is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from app.errors import Rejected
from app.formats.media import Media, media_of
from app.formats.openai import AssistantMessage, Chat, RefusalPart, TextPart, ToolMessage, UserMessage


def add(turns: list[dict[str, Any]], role: str, blocks: list[dict[str, Any]], *, key: str = "content") -> None:
    """Add to the turns: what follows one another in the same role is one turn, and nothing is none."""
    if not blocks:
        return
    if turns and turns[-1]["role"] == role:
        turns[-1][key] += blocks
    else:
        turns.append({"role": role, key: blocks})


def said(message: AssistantMessage, where: str) -> Iterator[str]:
    """The texts of a model's message, its refusal among them. Raises Rejected for anything else in it."""
    for index, part in enumerate(message.content):
        match part:
            case TextPart(text=text) | RefusalPart(refusal=text):
                yield text
            case _:
                here = f"{where}.content[{index}]"
                raise Rejected(f"{here}: an assistant's message holds text", param=here)
    if message.refusal:
        yield message.refusal


def shown(chat: Chat, message: UserMessage | ToolMessage, where: str) -> Iterator[str | Media]:
    """The texts and the media of a user's or a tool's message. Raises Rejected for what cannot be shown."""
    for index, part in enumerate(message.content):
        here = f"{where}.content[{index}]"
        match part:
            case TextPart(text=text):
                yield text
            case RefusalPart():
                raise Rejected(f"{here}: only an assistant refuses", param=here)
            case _:
                yield media_of(part, chat.files, here)
