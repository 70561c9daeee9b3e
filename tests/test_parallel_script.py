"""Worker processes of a script that has no main guard."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
from dclip.data.parallel import map_processes
print("once", flush=True)
print(list(map_processes(abs, [-1, -2, -3, -4, -5], 2)))
"""


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout == "once\n[1, 2, 3, 4, 5]\n", done.stderr
