"""
Run a command of the Makefile that takes long, and show how long it takes. It needs nothing but Python.

``python demo/step.py "What it does" "a command for the shell"``. What the command writes is shown if it fails.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

__all__ = ["main"]


def main(what: str, command: str) -> int:
    """
    Run a command. On a terminal the seconds are counted; elsewhere there is a line at the start and one at the end.

    :return: exit code.
    """
    began_at = time.monotonic()
    counts = sys.stdout.isatty()
    if not counts:
        print(f"{what} ...", flush=True)
    with tempfile.TemporaryFile() as output:
        # The shell leads no process group of its own, so Ctrl-C ends it, too.
        process = subprocess.Popen(command, shell=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S602
        try:
            while True:
                seconds = time.monotonic() - began_at
                if counts:
                    print(f"\r{what} ... {seconds:.0f} s", end="", flush=True)
                try:
                    code = process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except KeyboardInterrupt:
            process.wait()
            print("\nInterrupted.")
            return 130
        end = "done" if code == 0 else "failed"
        print(f"{chr(10) if counts else ''}... {end} after {time.monotonic() - began_at:.0f} s")
        if code:
            output.seek(0)
            print(output.read().decode(errors="replace"), end="")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
