"""The role uwsgi alone does what its README says."""

testinfra_hosts = ["ansible://role_uwsgi"]

#: What the program itself does with the file.
READ = """
import os, runpy, sys
os.execv = lambda program, words: print(*sorted(words))
runpy.run_path("/etc/uwsgi/shop.conf.py", run_name="__main__")
"""


def test_uwsgi(host):
    assert host.file("/etc/uwsgi/shop.conf.py").user == "root"
    command = host.run("python3 -c %s", READ)
    assert "--harakiri=30" in command.stdout and "--threads=4" in command.stdout and "--workers=2" in command.stdout
