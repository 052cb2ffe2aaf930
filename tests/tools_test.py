"""The tools that tests/run itself rests on: they count and judge rightly."""

import importlib.machinery
import importlib.util
import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True


def tool(name):
    """A script of this folder as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(Path(__file__).parent / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


class Tally(unittest.TestCase):
    """tests/tally."""

    def test_it_counts_the_closing_lines_of_all_that_run_here(self):
        counts = tool("tally").tally([
            "ok   one thing",
            "FAIL another",
            "     | FAIL what another printed",
            "skip a third: no camera",
            "        FAIL [   0.1s] a test that nextest repeats in its summary",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 1s",
            "     Summary [   0.1s] 14 tests run: 12 passed (1 slow), 1 failed, 1 timed out, 3 skipped",
            "============ 5 passed, 1 skipped, 2 errors in 3.21s ============",
            "3 passed in 0.02s",
        ])
        self.assertEqual(counts, [33, 6, 7])


class Dependencies(unittest.TestCase):
    """tests/dependencies."""

    def test_licence_expressions_are_met_as_spdx_says(self):
        satisfied = tool("dependencies").satisfied
        allowed = {"MIT", "Apache-2.0", "IJG"}
        for expression in ("MIT", "MIT/GPL-2.0", "(MIT OR GPL-3.0) AND IJG", "GPL-2.0 AND MIT OR Apache-2.0",
                           "Apache-2.0 WITH LLVM-exception OR MIT"):
            self.assertTrue(satisfied(expression, allowed), expression)
        for expression in ("GPL-3.0", "MIT AND GPL-2.0", "(MIT OR Apache-2.0) AND Unicode-3.0",
                           "Apache-2.0 WITH LLVM-exception", "GPL-2.0 OR BSD-3-Clause"):
            self.assertFalse(satisfied(expression, allowed), expression)

    def test_a_double_version_needs_a_skip_and_a_skip_needs_a_double_version(self):
        duplicates = tool("dependencies").duplicates
        two = [{"name": "a", "version": "1.0.3"}, {"name": "a", "version": "2.0.0+x"}]
        self.assertEqual(len(list(duplicates(two, []))), 1)
        self.assertEqual(list(duplicates(two, [{"crate": "a@1.0"}])), [])
        self.assertEqual(list(duplicates(two, [{"crate": "a@2"}])), [])
        self.assertEqual(len(list(duplicates(two[:1], [{"crate": "a@1"}]))), 1)


if __name__ == "__main__":
    unittest.main()
