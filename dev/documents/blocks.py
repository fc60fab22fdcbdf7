"""Finds fenced blocks in pages."""

import re

FENCE = re.compile(r"^(```+|~~~+)\s*(\S*)")


def blocks_of(page, is_wanted, begin=""):
    """The lines of a page with those outside of the wanted blocks emptied, and the number of these blocks.

    Each line stays where it is in the page, so that a program that reads them names the right one. `begin` takes the
    place of the line that opens a block.
    """
    lines, blocks, inside = [], 0, None
    for line in page.read_text().splitlines():
        # A block in a list is indented.
        mark = FENCE.match(line.strip())
        opens = mark is not None and inside is None and is_wanted(mark[2])
        if mark:
            inside = None if inside is not None else mark[2]
            blocks += opens
        wanted = inside is not None and not mark and is_wanted(inside)
        lines.append(begin if opens else line if wanted else "")
    return lines, blocks


def infos_of(page):
    """The numbers and the info strings of the lines that open a block."""
    inside = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if mark := FENCE.match(line.strip()):
            inside = not inside
            if inside:
                yield number, mark[2]
