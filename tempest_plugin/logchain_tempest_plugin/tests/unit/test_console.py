"""The comparison of reads itself: ``python -m unittest`` runs this without Tempest."""

import random
import unittest

from logchain_tempest_plugin.console import Shrank, check_continues, check_lines

PATTERN = r"^n (\d+)$"


def log(first, last):
    return "".join(f"n {number}\n" for number in range(first, last + 1))


class CheckContinues(unittest.TestCase):
    def test_every_two_reads_of_a_growing_log_fit(self):
        chance = random.Random(7)
        whole = log(1, 9000)
        for _ in range(300):
            most = chance.randrange(2000, 9000)
            one, other = sorted(chance.randrange(1, len(whole)) for _ in range(2))
            if other - one >= most:
                continue
            check_continues(whole[:one][-most:], whole[:other][-most:], most)

    def test_a_log_that_starts_anew_is_noticed(self):
        for after in ("", log(500, 600), log(2, 600)):
            with self.assertRaises(Shrank):
                check_continues(log(1, 500), after, 100 * 1024)

    def test_a_full_read_of_something_else_is_noticed(self):
        with self.assertRaises(Shrank):
            check_continues(log(1, 1000), log(5000, 9000), 5000)

    def test_one_line_that_is_missing_is_noticed(self):
        before = log(1, 2000)
        after = log(1, 1000) + log(1002, 3000)
        for most in (100 * 1024, len(after) - 100):
            with self.assertRaises(Shrank):
                check_continues(before, after[-most:], most)


class CheckLines(unittest.TestCase):
    def test_counts_lines_and_passes_over_others(self):
        text = "boot\n" + log(3, 5) + "kernel: words\n" + log(6, 7) + "n 8"
        self.assertEqual(6, check_lines(text, PATTERN))

    def test_notices_what_is_missing_double_or_misplaced(self):
        for text in (log(1, 3) + log(5, 6), log(1, 3) + log(3, 4), log(4, 5) + log(1, 3)):
            with self.assertRaises(Shrank):
                check_lines(text, PATTERN)


if __name__ == "__main__":
    unittest.main()
