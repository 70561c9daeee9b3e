"""Run every attack of the tests and count them by class, for the table in docs/trust.md.

    python benchmarks/attacks.py                     # print the table
    python benchmarks/attacks.py --effort 10         # ten times as many random ones
    python benchmarks/attacks.py --effort 10 --write # and put it into docs/trust.md

An attack is a test with ``@pytest.mark.attack("its class, as the row shall be called")``. A test
that tries several things says how many: ``record_property("tried", n)``. A new class needs no more
than a test with a new name. Exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "trust.md"
BEGIN, END = "<!-- attacks: python benchmarks/attacks.py --write -->", "<!-- end of attacks -->"


class Count:
    """A plugin of pytest that adds up what each class of attack tried, and what failed."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}  # test -> class
        self.tried: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if (mark := item.get_closest_marker("attack")) is not None:
                self.kinds[item.nodeid] = str(mark.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        kind = self.kinds.get(report.nodeid)
        if kind is None or report.skipped:
            return
        self.failed.setdefault(kind, 0)
        self.tried.setdefault(kind, 0)
        if report.when == "call":
            self.tried[kind] += int(dict(report.user_properties).get("tried", 1))  # type: ignore[call-overload]
        self.failed[kind] += report.failed

    def table(self) -> str:
        rows = [f"| {kind} | {self.tried[kind]:,} | {self.failed[kind]} |" for kind in self.tried]
        total = f"| all | {sum(self.tried.values()):,} | {sum(self.failed.values())} |"
        return "\n".join(["| attack | tried | failed |", "|---|--:|--:|", *sorted(rows), total])


def write(table: str) -> None:
    """Put the table between the marks in docs/trust.md."""
    text = PAGE.read_text(encoding="utf-8")
    block = f"{BEGIN}\n\n{table}\n\n{END}"
    found = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    if not found.search(text):
        raise SystemExit(f"{PAGE} lacks the lines {BEGIN} and {END}")
    PAGE.write_text(found.sub(lambda _: block, text), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--effort", type=int, default=1, help="times as many random attacks")
    parser.add_argument("--write", action="store_true", help="put the table into docs/trust.md")
    parser.add_argument("tests", nargs="*", default=[str(ROOT / "tests")], help="files of tests")
    asked = parser.parse_args()
    os.environ["DCLIP_ATTACKS"] = str(max(1, asked.effort))
    count = Count()
    options = [
        "-m",
        "attack",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--rootdir={ROOT}",
        "--timeout=3600",
        "-n0",  # the counting plugin sees the tests of this process alone
    ]
    code = pytest.main([*options, *asked.tests], plugins=[count])
    if not count.tried:
        print("no attack was run", file=sys.stderr)
        return 1
    print(count.table())
    if asked.write:
        write(count.table())
    return int(code != 0 or any(count.failed.values()))


if __name__ == "__main__":
    sys.exit(main())
