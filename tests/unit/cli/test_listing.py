"""Lists and `inspect`, from the command line to what they print."""

import json
import re
import sys

import pytest
import yaml
from click.shell_completion import ShellComplete

from tests.unit.cli.conftest import Command
from tests.unit.container.images import add_image
from woodlot.cli import completion
from woodlot.cli.app import cli
from woodlot.store.store import Store


def test_containers_by_dockers_fields(world: Store, run: Command) -> None:
    template = "{{.ID}}|{{.Names}}|{{.Image}}|{{.Command}}|{{.Status}}|{{.State}}|{{.Ports}}|{{.RunningFor}}"
    ports = "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"
    assert run.ok("ps", "-a", "--format", template) == [
        f'aaaaaaaaaaaa|web|busybox:1.35|"sh -c echo é"|Up 3 minutes (unhealthy)|running|{ports}|5 minutes ago',
        'bbbbbbbbbbbb|db|busybox:1.35|"sh -c echo é"|Exited (3) 2 hours ago|exited||2 hours ago',
        'cccccccccccc|web-2|busybox:1.35|"sh -c echo é"|Created|created||About a minute ago',
    ]
    template = (
        '{{.Labels}}|{{.Label "tier"}}|{{.Networks}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Platform}}'
    )
    assert run.ok("ps", "--format", template) == [
        "empty=,tier=front|front|default,back||0|linux/amd64"
    ]
    assert run.ok("ps", "-f", "name=db", "-f", "status=exited", "--format", template) == [
        "tier=back|back||data,/srv/with-a-lo…|1|linux/amd64"
    ]
    whole = run.ok("ps", "--no-trunc", "--format", "{{.ID}}")
    assert whole == ["a" * 64]


def test_a_template_makes_a_table(world: Store, run: Command) -> None:
    assert run.ok("ps", "-a", "--format", r"table {{.ID}}\t{{.Names}}\t{{.status.state}}") == [
        "CONTAINER ID  NAMES  STATE",
        "aaaaaaaaaaaa  web    running",
        "bbbbbbbbbbbb  db     stopped",
        "cccccccccccc  web-2  created",
    ]
    assert run.ok("ps", "-f", "name=nobody", "--format", r"table {{.ID}}\t{{.RunningFor}}") == [
        "CONTAINER ID  CREATED"
    ]


def test_the_same_in_json_and_yaml(world: Store, run: Command) -> None:
    as_json = json.loads(run("list", "-a", "--format", "json").out)
    assert [one["name"] for one in as_json] == ["web", "db", "web-2"]
    assert yaml.safe_load(run("list", "-a", "--format", "yaml").out) == as_json
    [line] = run.ok("ps", "--format", "{{json .}}")
    shown = json.loads(line)
    assert shown["Names"] == "web"
    assert "Label" not in shown
    assert set(shown) >= {"Command", "CreatedAt", "ID", "Image", "Labels", "LocalVolumes", "Mounts"}
    assert set(shown) >= {"Networks", "Ports", "RunningFor", "Size", "State", "Status"}
    for command in (
        ["image"],
        ["volume"],
        ["network"],
        ["system", "kernel"],
        ["system", "template"],
    ):
        listed = json.loads(run(*command, "list", "--format", "json").out)
        assert yaml.safe_load(run(*command, "ls", "--format", "yaml").out) == listed


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ((), ["web"]),
        (("-a",), ["web", "db", "web-2"]),
        (("-l",), ["web-2"]),
        (("-n", "2"), ["web", "web-2"]),
        (("-n", "0"), []),
        (("--last", "9", "-f", "label=tier=back"), ["db"]),
        (("-a", "-f", "name=^/web$"), ["web"]),
        (("-a", "-f", "name=web"), ["web", "web-2"]),
        (("-a", "-f", "id=bb"), ["db"]),
        (("-f", "status=created", "-f", "status=exited"), ["db", "web-2"]),
        (("-f", "status=stopped"), ["db"]),
        (("-f", "exited=3"), ["db"]),
        (("-f", "exited=0"), []),
        (("-f", "health=unhealthy"), ["web"]),
        (("-a", "-f", "health=none"), ["db", "web-2"]),
        (("-a", "-f", "label=tier", "-f", "label=empty"), ["web", "web-2"]),
        (("-a", "-f", "label!=empty"), ["db"]),
        (("-a", "-f", "before=web"), ["db"]),
        (("-a", "-f", "since=bbb"), ["web", "web-2"]),
        (("-a", "-f", "volume=data"), ["db"]),
        (("-a", "-f", "volume=/srv"), ["db"]),
        (("-a", "-f", "network=back"), ["web"]),
        (("-a", "-f", "network=none"), ["db", "web-2"]),
        (("-a", "-f", "ancestor=busybox:1.35"), ["web", "db", "web-2"]),
        (("-a", "-f", "ancestor=alpine"), []),
        (("-f", "publish=8080"), ["web"]),
        (("-f", "publish=8000-9000/tcp"), ["web"]),
        (("-f", "publish=80"), []),
        (("-f", "expose=80"), ["web"]),
        (("-f", "expose=53/udp"), ["web"]),
        (("-f", "expose=53"), []),
    ],
)
def test_which_containers(
    world: Store, run: Command, args: tuple[str, ...], names: list[str]
) -> None:
    assert run.ok("ps", *args, "--format", "{{.Names}}") == names


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("ps", "-f", "colour=red"), "cannot be filtered by 'colour'"),
        (("ps", "-f", "red"), "give it as KEY=VALUE"),
        (("ps", "-f", "status=gone"), "--filter status cannot be 'gone'"),
        (("ps", "-f", "exited=soon"), "give an exit status"),
        (("ps", "-f", "publish=http"), "is no port"),
        (("ps", "--format", "jsn"), "none of table, json, yaml"),
        (("ps", "--format", "{{.ID"), "character 1: this action is not closed"),
        (("ps", "--format", "{{.Id}}"), "did you mean .ID?"),
        (("ps", "--format", "{{.status.state.x}}"), "has no fields"),
        (("inspect", "web", "-f", "{{.Stat}}"), "did you mean .State?"),
        (("image", "ls", "-f", "dangling=x"), "true or false"),
        (("volume", "ls", "-f", "status=x"), "filters are dangling, driver, label, name"),
        (("network", "ls", "-f", "type=x"), "one of builtin, custom"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_a_usage_error(
    world: Store, run: Command, args: tuple[str, ...], message: str
) -> None:
    ran = run(*args)
    assert (ran.status, ran.out) == (64, "")
    assert message in ran.err


def test_a_container_to_compare_with_must_be_there(world: Store, run: Command) -> None:
    ran = run("ps", "-f", "before=nobody")
    assert (ran.status, ran.err.splitlines()[0]) == (1, "error: no such container: nobody")


def test_ids_and_sizes(world: Store, run: Command) -> None:
    assert run.ok("ps", "-q", "--format", "{{.Names}}") == ["a" * 64]
    header, row = run.ok("ps", "-s")
    assert header.endswith("  SIZE")
    assert re.search(r"  [\d.]+ \w+ \(virtual [\d.]+ \w+\)$", row)
    assert run.ok("ps", "--no-trunc")[1].startswith("a" * 64 + "  web")


def test_inspect_by_dockers_structure(world: Store, run: Command) -> None:
    template = (
        "{{.Name}} {{.State.Status}} {{.State.Health.Status}} {{.State.Running}} {{.State.Pid}}"
        "{{range $name, $n := .NetworkSettings.Networks}} {{$name}}={{$n.IPAddress}}{{end}}"
        ' {{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}} {{.Config.Image}}'
    )
    assert run.ok("inspect", "web", "-f", template) == [
        "/web running unhealthy true 77 back= default=10.86.0.2 8080 busybox:1.35"
    ]
    template = (
        "{{.State.Status}} {{.State.ExitCode}}{{range .Mounts}} {{.Type}}:{{.Destination}}{{end}}"
    )
    assert run.ok("inspect", "bbb", "web-2", "--format", template) == [
        "exited 3 volume:/var/lib/a-database bind:/srv",
        "created 0",
    ]
    [line] = run.ok("inspect", "web", "--format", "{{json .}}")
    plain = json.loads(run("inspect", "web").out)
    assert [json.loads(line)] == plain
    assert json.loads(run("inspect", "web", "--format", "json").out) == plain
    assert yaml.safe_load(run("inspect", "web", "--format", "yaml").out) == plain
    assert run("inspect", "web", "--format", "table").status == 64


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ((), ["busybox:1.35", "reg.example:5000/team/app:2"]),
        (("-f", "label=tier=base"), ["busybox:1.35"]),
        (("-f", "label!=tier"), ["reg.example:5000/team/app:2"]),
        (("-f", "dangling=true"), []),
        (("-f", "dangling=false", "-f", "reference=busybox"), ["busybox:1.35"]),
        (("-f", "reference=busybox:1.*"), ["busybox:1.35"]),
        (("-f", "reference=*:2"), []),
        (("-f", "reference=reg.example:5000/*/app"), ["reg.example:5000/team/app:2"]),
        (("-f", "reference=team/*:2"), ["reg.example:5000/team/app:2"]),
        (("-f", "since=busybox:1.35"), ["reg.example:5000/team/app:2"]),
        (("-f", "before=reg.example:5000/team/app:2"), ["busybox:1.35"]),
    ],
)
def test_which_images(world: Store, run: Command, args: tuple[str, ...], names: list[str]) -> None:
    assert run.ok("images", "-q", *args) == names


def test_images(world: Store, run: Command) -> None:
    record = world.images.get("docker.io/library/busybox:1.35")
    assert record is not None
    digits = record.digest.removeprefix("sha256:")
    template = "{{.Repository}}:{{.Tag}} {{.ID}} {{.Containers}}"
    assert run.ok("images", "--format", template) == [
        f"busybox:1.35 {digits[:12]} 1",
        run.ok("images", "--format", template)[1],
    ]
    # By its id, whole, begun, and with its algorithm.
    for key in (digits[:6], digits, record.digest, f"sha256:{digits[:12]}"):
        inspected = run.ok("image", "inspect", key, "-f", "{{.RepoTags}} {{.Id}} {{.Os}}")
        assert inspected == [f"[busybox:1.35] {record.digest} linux"]
    assert run.ok("image", "ls", "--no-trunc")[1].endswith(record.digest)
    # Three digits are more often meant as a name.
    assert run("image", "inspect", digits[:3]).status == 1
    world.images.put(
        reference="docker.io/library/same:1", digest=record.digest, media_type="x", size=1
    )
    ran = run("image", "rm", digits[:12])
    assert (ran.status, "has several names" in ran.err) == (1, True)
    assert run.ok("image", "rm", "same:1") == ["docker.io/library/same:1"]
    ran = run("image", "rm", digits[:12])
    assert "is used by container web" in ran.err


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ((), ["data", "spare"]),
        (("-f", "dangling=true"), ["spare"]),
        (("-f", "dangling=false"), ["data"]),
        (("-f", "label=keep"), ["data"]),
        (("-f", "name=par"), ["spare"]),
        (("-f", "driver=local"), ["data", "spare"]),
        (("-f", "driver=nfs"), []),
    ],
)
def test_which_volumes(world: Store, run: Command, args: tuple[str, ...], names: list[str]) -> None:
    assert run.ok("volume", "ls", "-q", *args) == names


def test_volumes(world: Store, run: Command) -> None:
    template = r"table {{.Name}}\t{{.Driver}}\t{{.Links}}\t{{.Labels}}"
    assert run.ok("volume", "ls", "--format", template) == [
        "VOLUME NAME  DRIVER  LINKS  LABELS",
        "data         local   1      keep=",
        "spare        local   0",
    ]
    where = str(world.paths.volume("data") / "data")
    assert run.ok("volume", "inspect", "data", "-f", "{{.Mountpoint}}") == [where]


@pytest.mark.parametrize(
    ("args", "names"),
    [
        ((), ["default", "back"]),
        (("-f", "type=custom"), ["back"]),
        (("-f", "type=builtin"), ["default"]),
        (("-f", "driver=switch", "-f", "name=ck"), ["back"]),
        (("-f", "label=tier=back"), ["back"]),
        (("-f", "dangling=true"), []),
    ],
)
def test_which_networks(
    world: Store, run: Command, args: tuple[str, ...], names: list[str]
) -> None:
    assert run.ok("network", "ls", "-q", *args) == names


def test_networks(world: Store, run: Command) -> None:
    [short] = run.ok("network", "ls", "-f", "name=back", "--format", "{{.ID}}")
    [whole] = run.ok("network", "ls", "-f", f"id={short}", "--no-trunc", "--format", "{{.ID}}")
    assert (len(short), len(whole)) == (12, 64)
    template = "{{.Name}} {{(index .IPAM.Config 0).Subnet}} {{.subnet}} {{.Internal}}"
    assert run.ok("network", "inspect", short, "-f", template) == [
        "back 10.86.1.0/24 10.86.1.0/24 false"
    ]
    assert run.ok("ps", "-f", f"network={short}", "--format", "{{.Names}}") == ["web"]


def test_settings_and_versions(store: Store, run: Command) -> None:
    assert "container.memory=1g" in run.ok(
        "system", "property", "ls", "--format", "{{.name}}={{.value}}"
    )
    assert "vm.accel" in run.ok("system", "property", "list", "-q")
    assert run.ok("system", "version", "--format", "{{.python}}") == [sys.version.split()[0]]


def test_what_a_shell_completes(store: Store) -> None:
    def complete(*words: str) -> list[str]:
        shell = ShellComplete(cli, {}, completion.PROGRAM, completion.VARIABLE)
        return [item.value for item in shell.get_completions(list(words[:-1]), words[-1])]

    assert complete("ps", "--format", "") == ["table", "json", "yaml"]
    assert complete("inspect", "--format", "") == ["json", "yaml"]
    assert complete("ps", "-f", "e") == ["exited=", "expose="]
    assert complete("network", "ls", "--filter", "l") == ["label="]


def test_what_others_wrote_does_not_move_the_cursor(
    store: Store, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_image(store, "bad", {"Labels": {"x": "a\x1b[2J\x9b1mb"}})
    template = "{{.Config.Labels.x}}"
    assert run.ok("image", "inspect", "bad", "-f", template) == ["a\x1b[2J\x9b1mb"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run.ok("image", "inspect", "bad", "-f", template) == ["a�[2J�1mb"]
