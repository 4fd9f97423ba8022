"""A program that begins again: how, with what, and when not."""

import os
import subprocess
import sys

import pytest

from train.large_pages import ENVIRONMENT, NAME

PROGRAM = """
import os, sys
from train.large_pages import restart_with_large_pages
print("begun", os.getpid(), flush=True)
restart_with_large_pages("program")
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="glibc's")


def run(tmp_path, *command: str, **variables: str) -> list[str]:
    """The lines that the program prints."""
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {name: value for name, value in os.environ.items() if name != NAME}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *sys.path])
    result = subprocess.run(
        [sys.executable, *command],
        env=environment | variables,
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    return result.stdout.splitlines()


@linux
def test_begins_again_once_in_the_same_process_with_the_same_words(tmp_path) -> None:
    first, second, last = run(tmp_path, "-m", "program", "--name", "two words", "")
    assert first == second
    assert last == f"{ENVIRONMENT[NAME]} ['--name', 'two words', '']"


def test_what_the_user_has_set_stays(tmp_path) -> None:
    _, last = run(tmp_path, "-m", "program", **{NAME: "glibc.malloc.check=0"})
    assert last == "glibc.malloc.check=0 []"


def test_a_program_started_in_another_way_is_left_alone(tmp_path) -> None:
    _, last = run(tmp_path, "program.py", "word")
    assert last == "None ['word']"


@linux
def test_the_command_has_large_pages(tmp_path) -> None:
    code = "import runpy, sys; sys.argv = ['cifar', '--help']; "
    code += "runpy.run_module('train.cifar', run_name='__main__', alter_sys=True)"
    trace = "import os; os.execve = lambda *words: print('again', words[2]['GLIBC_TUNABLES'])\n"
    trace += "import sys; sys.orig_argv = ['python', '-m', 'train.cifar', '--help']\n"
    assert run(tmp_path, "-c", trace + code)[0] == f"again {ENVIRONMENT[NAME]}"
