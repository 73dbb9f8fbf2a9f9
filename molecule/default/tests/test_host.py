"""The host itself: what the tests stand on."""

from testinfra.host import Host


def test_it_is_reached_as_a_server_is(host: Host) -> None:
    """By SSH as an unprivileged user, who becomes root by sudo."""
    assert host.check_output("id --user") == "0"
    assert host.check_output("echo $SUDO_USER") == "debian"
    assert host.backend.NAME == "ansible"


def test_systemd_has_started_everything(host: Host) -> None:
    """A unit that failed shows here by name."""
    assert host.check_output("systemctl --failed --no-legend") == ""
