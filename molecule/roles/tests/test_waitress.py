"""The role waitress alone does what its README says."""

testinfra_hosts = ["ansible://role_waitress"]


def test_waitress(host):
    settings = host.file("/etc/waitress/shop.conf.py")
    assert settings.user == "root"
    assert '"threads": 4,' in settings.content_string
    assert (
        host.check_output("python3 -m py_compile /etc/waitress/shop.conf.py && rm -r /etc/waitress/__pycache__") == ""
    )
