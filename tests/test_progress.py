"""The progress bar, as a log file gets it."""

import re
import subprocess
import sys

HEAD = """
import time
from iwae import progress
"""


def lines(script: str) -> list[str]:
    """What a process that runs `script` writes to standard error."""
    command = [sys.executable, "-c", HEAD + script]
    return subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()


def test_the_last_state_is_shown():
    shown = lines("""
with progress.Bar(10, "train", bound="{value:.2f} nats") as bar:
    for step in range(1, 11):
        bar.update(step, bound=-step)
""")
    assert shown[0].startswith("train   0%")
    assert shown[-1].startswith("train 100%") and "-10.00 nats" in shown[-1]


def test_the_time_left_of_a_continued_bar_is_judged_by_what_this_process_did():
    """Half a second for five steps, and a hundred steps left: ten seconds, and more on a busy machine."""
    shown = lines("""
progress.SECONDS_WITHOUT_IT = 0.4
with progress.Bar(1000, "train", 895) as bar:
    bar.update(895)
    time.sleep(0.5)
    bar.update(900)
    raise SystemExit  # interrupted: the bar shows where it was
""")
    assert shown[1].startswith("train  89%")
    assert shown[-1].startswith("train  90%") and re.search("0:0[0-9]:[1-9]. left", shown[-1])


def test_one_slow_step_does_not_make_minutes_hours():
    """Ten quick steps and one of two seconds: 89 like them on average take half a minute, like the last one three."""
    shown = lines("""
progress.SECONDS_IN_A_FILE, progress.SECONDS_WITHOUT_IT = 0.0, 1.0
with progress.Bar(100, "train") as bar:
    for step in range(1, 12):
        time.sleep(2 if step == 11 else 0.1)
        bar.update(step)
    raise SystemExit
""")
    assert shown[-1].startswith("train  11%") and re.search("0:0[01]:.. left", shown[-1])


def test_what_is_forgotten_makes_no_estimate():
    """Five seconds in 100 of 1000 steps would say 47 for the others, which take four."""
    shown = lines("""
from types import SimpleNamespace
now = 0.0
progress.SECONDS_IN_A_FILE, progress.time = 0.0, SimpleNamespace(monotonic=lambda: now)
progress.SECONDS_WITHOUT_IT = 0.1
with progress.Bar(1000, "train") as bar:
    for step in range(1, 101):
        if step == 50:
            now += 5
            bar.forget()
        bar.update(step)
        now += 0.004
    raise SystemExit
""")
    assert "0:00:04 left" in shown[-1]


def test_the_first_update_which_compiles_makes_no_estimate():
    """A second for the first of 1000 steps would say a quarter of an hour; the others take seconds in all."""
    shown = lines("""
progress.SECONDS_IN_A_FILE, progress.SECONDS_WITHOUT_IT = 0.0, 0.5
with progress.Bar(1000, "train") as bar:
    time.sleep(1)
    for step in range(1, 300):
        bar.update(step)
        time.sleep(0.004)
    raise SystemExit
""")
    estimates = [line for line in shown if "left" in line]
    assert shown[1] not in estimates and shown[-1] in estimates
    assert all(re.search(" 0:00:.. left", line) for line in estimates)
