"""The role gunicorn alone does what its README says."""

testinfra_hosts = ["ansible://role_gunicorn"]

#: What gunicorn itself does with the file.
READ = "import runpy; print(runpy.run_path('/etc/gunicorn/shop.conf.py')['workers'])"


def test_gunicorn(host):
    assert host.file("/etc/gunicorn/shop.conf.py").user == "root"
    assert host.check_output("python3 -c %s", READ) == "2"
