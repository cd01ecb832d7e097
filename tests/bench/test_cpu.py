"""The CPU time of a process that has children: those that run and those that have ended."""

import subprocess
import sys

from bench import cpu

# Burns 0.1 s in a child that ends, starts a child that burns 0.1 s and stays, and prints a line.
PARENT = """
import subprocess, sys, time
BURN = "import time\\nwhile time.process_time() < 0.1: pass\\nprint(flush=True)\\n"
subprocess.run([sys.executable, "-c", BURN], stdout=subprocess.DEVNULL, check=True)
child = subprocess.Popen([sys.executable, "-c", BURN + "input()"], stdin=sys.stdin, stdout=subprocess.PIPE)
child.stdout.readline()
print(flush=True)
child.wait()
"""


def test_the_time_of_children_counts_while_they_run_and_after_they_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        while_one_runs = cpu.seconds({"parent": process.pid, "none": 2**22 + 1})
        process.stdin.write(b"\n")
        process.stdin.close()
        process.stdout.read()
        # The kernel counts ticks of 10 ms, separately for user and system time.
        assert 0.15 <= while_one_runs["parent"] < 2
        assert while_one_runs["none"] == 0
