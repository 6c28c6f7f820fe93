"""Two reads of one console, compared. Nothing here knows Tempest or a cloud."""

import re

#: How much of a read is looked for in an earlier one. Consoles repeat themselves, in shorter pieces
#: than this.
ANCHOR = 512


class Shrank(AssertionError):
    """A later read has less of the log than an earlier one."""


def check_continues(before, after, most):
    """Checks that ``after`` has all of ``before``, as far as a read reaches.

    A read is the whole log or, of one that is longer, its last ``most`` bytes.

    :param str before: what was read earlier
    :param str after: what was read later
    :param int most: how many bytes a read has at the most
    :raises Shrank: if something is missing that was there
    """
    if after.startswith(before):
        return
    # Nova replaces what is no text, so that a read may have some characters less than bytes.
    full = len(after.encode()) >= most - ANCHOR
    if not full:
        raise Shrank(_difference(before, after))
    # It starts later than the earlier read did, somewhere within it, if the guest has not printed
    # more than a read in the meantime.
    anchor = after[:ANCHOR]
    at = before.find(anchor)
    if at < 0:
        # They may share less than that: the end of the one is the beginning of the other.
        end = before[-ANCHOR:]
        if any(after.startswith(end[cut:]) for cut in range(len(end))):
            return
    while at >= 0:
        if after.startswith(before[at:]):
            return
        at = before.find(anchor, at + 1)
    raise Shrank(_difference(before, after))


def check_lines(text, pattern):
    """Checks that numbered lines follow each other.

    :param str text: a console
    :param str pattern: a regular expression whose first group is a line's number
    :returns: how many lines there are
    :raises Shrank: if one is missing, stands twice, or in the wrong place
    """
    last = None
    count = 0
    for found in re.finditer(pattern, text, re.MULTILINE):
        number = int(found.group(1))
        if last is not None and number != last + 1:
            raise Shrank(f"line {number} of the guest comes after line {last}")
        last = number
        count += 1
    return count


def _difference(before, after):
    common = 0
    for one, other in zip(before, after):
        if one != other:
            break
        common += 1
    return (
        f"the console had {len(before)} characters, and has {len(after)} now; the first {common} "
        f"are the same, then there was {before[common:common + 60]!r}, "
        f"and there is {after[common:common + 60]!r}"
    )
