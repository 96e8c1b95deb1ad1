"""What stands in the pages for readers: fenced blocks, commands, links and names of files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.paths import ROOT

# A fence without a language is taken for shell: what is neither a command nor a snippet is marked as text.
SHELL = ("", "sh", "bash", "shell", "console")
LANGUAGES = (*SHELL, "python", "json", "text")
PROGRAMS = ("python", "make", "accelerate", "torchrun", "tensorboard", "git", "pip", "source")

_FENCE = re.compile(r"^ *(?P<marks>```+|~~~+) *(?P<language>[^\s`]*)[^\n]*\n(?P<text>.*?)^ *(?P=marks) *$", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ +(.+)$", re.M)


def pages() -> list[Path]:
    """The pages whose commands are checked."""
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Dataset/README.md")]
    return [*named, *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Fence:
    """A fenced block; ``before`` is the paragraph in front of it."""

    page: str
    language: str
    text: str = field(repr=False)
    before: str = field(repr=False)


@dataclass(frozen=True)
class Command:
    """A command of a page, in words."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def fences(page: Path) -> list[Fence]:
    """All fenced blocks of a page, whatever their marks and language."""
    text, name = page.read_text(encoding="utf-8"), _name(page)
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n\n")[2]
        found.append(Fence(name, match["language"].lower(), match["text"], before))
    return found


def commands(page: Path) -> list[Command]:
    """The commands in a page's shell fences: every line less its comment; in a console's, only lines with a prompt."""
    return [Command(_name(page), words) for block in fences(page) for words in _commands_in(block)]


def _commands_in(block: Fence) -> Iterator[tuple[str, ...]]:
    if block.language not in SHELL:
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        line = line.strip()
        if block.language == "console" and not line.startswith("$ "):
            continue
        words: list[str] = []
        for word in [*shlex.split(line.removeprefix("$ "), comments=True), "&&"]:
            if word not in ("&&", ";", "|", "&"):
                words.append(word)
            elif words:
                yield tuple(words)
                words = []


def inline(page: Path) -> list[str]:
    """What stands in backticks outside of fences, on one line each."""
    return [" ".join(text.split()) for text in _INLINE.findall(_prose(page))]


def links(page: Path) -> list[str]:
    """The targets of links and pictures within the repository."""
    return [target for target in _LINK.findall(_prose(page)) if "://" not in target]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have."""
    texts = _HEADING.findall(_prose(page))
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in texts}


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def unfenced_commands(page: Path) -> list[str]:
    """Commands that stand in an indented block, which is no fence."""
    return re.findall(r"^(?: {4,}|\t)(?:\$ )?((?:python3? (?:-m )?[\w.]+|make [\w-]+$).*)", _prose(page), re.M)


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
