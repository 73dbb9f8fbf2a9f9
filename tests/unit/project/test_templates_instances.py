"""The templates of the roles redis and memcached, rendered as Ansible does it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.flaskhost.apps.instances import instance
from rendering import render
from slot_units import slot

ENGINES = ["redis", "memcached"]


def unit(engine: str, kind: str = "cache") -> list[str]:
    text = render(engine, "instance.service.j2", item=instance("shop", kind, engine))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def settings(kind: str) -> dict[str, str]:
    text = render("redis", "redis.conf.j2", item=instance("shop", kind, "redis"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in lines}


def test_both_servers_have_the_same_sandbox() -> None:
    """Two roles that do not know each other, and so two files."""
    redis, memcached = unit("redis"), unit("memcached")
    only = {"redis": set(redis) - set(memcached), "memcached": set(memcached) - set(redis)}
    for lines in only.values():
        names = {line.partition("=")[0] for line in lines if not line.startswith("  --")}
        assert names <= {
            "Description", "Documentation", "PartOf", "Type", "ExecStart", "TimeoutStartSec", "TimeoutStopSec",
            "Engine", "Config", "State", "SystemCallFilter", "JobRunningTimeoutSec",
        }  # fmt: skip
    assert {line for line in only["memcached"] if "SystemCall" in line} == {"SystemCallFilter=setrlimit prlimit64"}
    assert not {line for line in only["redis"] if "SystemCall" in line}


@pytest.mark.parametrize("engine", ENGINES)
def test_an_instance_is_the_apps_and_nobody_elses(engine: str) -> None:
    lines = unit(engine)
    for line in (
        "User=shop_cache", "Group=shop", "RuntimeDirectory=flask-shop_cache", "RuntimeDirectoryMode=0750",
        "PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "MemoryMax=96M", "MemorySwapMax=0",
    ):  # fmt: skip
        assert line in lines, line


#: What an instance cannot do. The scenarios measure the score of all lines together, which hides a missing one.
SANDBOX = """
ProtectSystem=strict ReadOnlyPaths=/run ReadWritePaths=/run/flask-shop_cache NoExecPaths=/ ExecPaths=/usr
ProtectHome=yes PrivateTmp=yes PrivateDevices=yes DevicePolicy=closed PrivateNetwork=yes IPAddressDeny=any
PrivateIPC=yes PrivateUsers=yes ProtectProc=invisible ProcSubset=pid ProtectClock=yes ProtectControlGroups=yes
ProtectHostname=yes ProtectKernelLogs=yes ProtectKernelModules=yes ProtectKernelTunables=yes NoNewPrivileges=yes
CapabilityBoundingSet= AmbientCapabilities= KeyringMode=private LockPersonality=yes MemoryDenyWriteExecute=yes
RemoveIPC=yes RestrictNamespaces=yes RestrictRealtime=yes RestrictSUIDSGID=yes RestrictAddressFamilies=AF_UNIX
SystemCallArchitectures=native SystemCallFilter=@system-service SystemCallErrorNumber=EPERM UMask=0077
TasksMax=64 LimitNOFILE=1024 LogRateLimitIntervalSec=30s LogRateLimitBurst=200
""".split()


@pytest.mark.parametrize("engine", ENGINES)
def test_the_sandbox_is_whole(engine: str) -> None:
    lines = unit(engine)
    assert sorted({*SANDBOX} - {*lines}) == []
    assert "SystemCallFilter=~@privileged @resources" in lines
    assert "InaccessiblePaths=-/srv -/var/backups -/var/log" in lines


@pytest.mark.parametrize("engine", ENGINES)
def test_a_killed_instance_comes_back_however_often(engine: str) -> None:
    lines = unit(engine)
    for line in ("Restart=always", "RestartSec=1", "StartLimitIntervalSec=0", "WantedBy=multi-user.target"):
        assert line in lines, line


def test_systemd_starts_what_the_settings_name() -> None:
    assert "ExecStart=/usr/bin/redis-server /etc/flaskhost/flask-shop_cache.conf" in unit("redis")
    # The unit is of this kind, so Redis has to report its start, and it stays in the foreground.
    assert "Type=notify" in unit("redis")
    found = settings("cache")
    assert (found["supervised"], found["daemonize"], found["logfile"]) == ("systemd", "no", '""')
    assert "TimeoutStartSec=300" in unit("redis"), "a large file takes a while"
    assert "TimeoutStopSec=60" in unit("redis"), "a queue writes its last jobs"


def test_memcached_has_its_settings_on_its_command() -> None:
    lines = unit("memcached")
    assert "Type=exec" in lines
    command = " ".join(line.removesuffix("\\") for line in lines if line.startswith(("ExecStart=", "  --"))).split()
    assert command == [
        "ExecStart=/usr/bin/memcached", "--unix-socket=/run/flask-shop_cache/cache.sock", "--unix-mask=0660",
        "--memory-limit=64", "--conn-limit=512", "--threads=2",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["cache", "queue"])
def test_an_instance_takes_no_more_than_its_share(kind: str) -> None:
    found = settings(kind)
    assert found["unixsocket"] == instance("shop", kind, "redis")["socket"]
    # A single value could otherwise take 512 MB, and more than the unit has.
    assert (found["maxmemory"], found["maxclients"], found["proto-max-bulk-len"]) == ("64mb", "512", "32mb")
    assert found["save"] == '""', "a snapshot would take as much memory once more"
    assert found.get("auto-aof-rewrite-min-size") == ("16mb" if kind == "queue" else None)


def test_the_smallest_instance_takes_values() -> None:
    text = render("redis", "redis.conf.j2", item=instance("shop", "cache", "redis", 1))
    assert "proto-max-bulk-len 1mb" in text.splitlines()


@pytest.mark.parametrize("engine", ENGINES)
def test_what_clients_make_a_server_log_is_in_the_journal_of_the_app(engine: str) -> None:
    """redis.log() of a script writes any text of any length, and so does Memcached after "verbosity 2"."""
    assert "LogNamespace=flask-shop" in unit(engine)
    alone = render(engine, "instance.service.j2", item={**instance("shop", "cache", engine), "journal": ""})
    assert "LogNamespace" not in alone


def test_redis_cannot_extend_its_own_stop() -> None:
    """It can extend the timeouts of a start and a stop, which have to end before the job's does."""
    found = dict(line.split("=", 1) for line in unit("redis", "queue") if "Timeout" in line)
    assert int(found["JobRunningTimeoutSec"]) > int(found["TimeoutStartSec"]) + int(found["TimeoutStopSec"])


@pytest.mark.parametrize("engine", ENGINES)
def test_slots_do_not_need_an_instance(engine: str) -> None:
    lines = unit(engine)
    assert "Before=flask-shop@blue.service flask-shop@green.service" in lines
    assert not [line for line in lines if line.startswith(("RequiredBy", "Requires", "BindsTo"))]
    assert "Restart=always" in lines


@pytest.mark.parametrize("engine", ENGINES)
def test_a_unit_says_how_to_remove_it(engine: str) -> None:
    section = unit(engine, "cache")[unit(engine, "cache").index("[X-Flaskhost]") + 1 :]
    assert section[:2] == [f"Engine={engine}", "User=shop_cache"]
    assert section[2:] == (["Config=/etc/flaskhost/flask-shop_cache.conf", "State="] if engine == "redis" else [])
    if engine == "redis":
        assert "State=/var/lib/flask-shop_queue" in unit(engine, "queue"), "its data is kept"


@pytest.mark.parametrize("engine", ENGINES)
def test_debians_own_service_runs_nothing(engine: str) -> None:
    lines = render(engine, "debian.conf.j2").splitlines()
    assert [line for line in lines if line.startswith("ExecStart=")] == ["ExecStart=", "ExecStart=+/bin/true"]
    assert f"PartOf={'redis-server' if engine == 'redis' else 'memcached'}.service" in unit(engine)


def test_a_queue_keeps_what_a_cache_drops() -> None:
    cache, queue = settings("cache"), settings("queue")
    assert (cache["appendonly"], cache["maxmemory-policy"], cache["dir"]) == (
        "no",
        "allkeys-lru",
        "/run/flask-shop_cache",
    )
    assert (queue["appendonly"], queue["maxmemory-policy"], queue["dir"]) == (
        "yes",
        "noeviction",
        "/var/lib/flask-shop_queue",
    )
    assert queue["appendfsync"] == "everysec"
    assert [line for line in unit("redis", "queue") if line.startswith("StateDirectory")] == [
        "StateDirectory=flask-shop_queue", "StateDirectoryMode=0700",
    ]  # fmt: skip
    assert not [line for line in unit("redis") if line.startswith("StateDirectory")]


@pytest.mark.parametrize("kind", ["cache", "queue"])
def test_clients_are_no_administrators(kind: str) -> None:
    found: dict[str, Any] = settings(kind)
    assert (found["port"], found["unixsocketperm"]) == ("0", "660")
    assert {found[f"enable-{name}"] for name in ("debug-command", "module-command", "protected-configs")} == {"no"}
    rules = found["user"].split()
    assert rules.index("-@admin") < rules.index("-@dangerous") < rules.index("+info")
    # Redis 7.0 does not start with a subcommand that it does not know.
    assert [rule for rule in rules if "|" in rule] == [
        "-client|kill", "-client|pause", "-client|unpause", "-script|debug",
    ]  # fmt: skip
    assert rules.index("+client") < rules.index("-client|kill")


def test_the_profile_of_the_slots_names_the_folders_only_of_its_own_app() -> None:
    plain = render("slots", "apparmor.j2", item=slot())
    found = render("slots", "apparmor.j2", item=slot(instance_folders=["/run/flask-shop_cache"]))
    assert set(found.splitlines()) - set(plain.splitlines()) == {"  /run/flask-shop_cache/{,**} rw,"}
