"""Hooks in overlays' layers, and running them where no disk is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bladeroot.core.cluster import Blade
from bladeroot.core.firstboot import FIRST_BOOT_UNIT
from bladeroot.core.hooks import FIRST_BOOT_RECORD, HOOKS_DIRECTORY, HookFacts, When
from bladeroot.errors import ConfigError, HookError, OverlayError
from bladeroot.events import Event, Note, ignore
from bladeroot.ops import firstboot
from bladeroot.ops.firstboot import read_first_boot, run_first_boot
from bladeroot.ops.folder import init_cluster
from bladeroot.ops.hooks import LOG, find_hook_files, run_hook, run_hooks
from bladeroot.ops.overlays import OverlayBuilder, OverlayPlan
from tests.unit.ops.test_overlays import make_cluster, write_tree

SCRIPT = "#!/bin/sh\n"
FACTS = HookFacts(blade=Blade(name="web01", facts={"bay": "7"}), cluster="room", serial=7)


def write_hook(path: Path, text: str = SCRIPT, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    return tmp_path / "overlays"


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "snapshot",
        {
            "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "etc/group": "root:x:0:\n",
            "usr/lib/systemd/systemd": "",
            "usr/lib/systemd/system/multi-user.target": "",
            "usr/bin/bladeroot": "",
        },
    )


def plan(layers: Path, snapshot: Path | None, blade: str = "web01") -> OverlayPlan:
    cluster = make_cluster()
    return OverlayBuilder(cluster, layers, {}, "", snapshot).plan(cluster.blades[blade])


def listed(of: OverlayPlan) -> list[tuple[str, str]]:
    return [(f"{hook.when}/{hook.name}", hook.layer) for hook in of.hooks]


class TestLayers:
    def test_a_later_layer_replaces_and_an_empty_file_or_a_deletion_takes_away(
        self, layers: Path, snapshot: Path
    ) -> None:
        for name in ("10-all", "20-role", "30-not-web", "40-not-web01"):
            write_hook(layers / "cluster/hooks/post-install" / name)
        write_hook(layers / "role/web/hooks/post-install/20-role", f"{SCRIPT}echo web\n")
        write_hook(layers / "role/web/hooks/post-install/30-not-web", "", 0o644)
        gone = f"/{HOOKS_DIRECTORY}/post-install/40-not-web01"
        write_tree(layers, {"blade/web01/overlay.toml": f'delete = ["{gone}"]\n'})
        assert listed(plan(layers, snapshot)) == [
            ("post-install/10-all", "cluster"),
            ("post-install/20-role", "role/web"),
        ]
        assert plan(layers, snapshot).hooks[1].overrides == ("cluster",)
        assert len(plan(layers, snapshot, "cache01").hooks) == 4
        assert plan(layers, snapshot).notes == ()
        assert listed(plan(layers, None)) == listed(plan(layers, snapshot))

    def test_a_template_is_filled_in(self, layers: Path, snapshot: Path) -> None:
        write_hook(layers / "cluster/hooks/pre-install/10-say.j2", f"{SCRIPT}echo {{{{ blade.name }}}}\n")
        found = plan(layers, snapshot)
        assert listed(found) == [("pre-install/10-say", "cluster")]
        content = {entry.path: entry.content for entry in found.entries}
        assert content[f"{HOOKS_DIRECTORY}/pre-install/10-say"] == b"#!/bin/sh\necho web01\n"

    def test_what_is_beside_hooks_is_passed_over(self, layers: Path, snapshot: Path) -> None:
        write_tree(layers, {"cluster/hooks/README": "x", "cluster/hooks/first-boot/.gitkeep": ""})
        assert plan(layers, snapshot).hooks == ()

    @pytest.mark.parametrize(
        ("name", "text", "mode", "said"),
        [
            ("post-install/a", SCRIPT, 0o644, "not executable"),
            ("post-install/a", "echo\n", 0o755, "does not begin with #!"),
            ("post-install/a.orig~", SCRIPT, 0o755, "not a hook's name"),
            ("postinst/a", SCRIPT, 0o755, "no such kind of hook"),
            ("post-install/a/b", SCRIPT, 0o755, "a hook is a file"),
        ],
    )
    def test_bad_hooks_are_found_when_publishing(
        self, layers: Path, snapshot: Path, name: str, text: str, mode: int, said: str
    ) -> None:
        path = write_hook(layers / "role/web/hooks" / name, text, mode)
        with pytest.raises(OverlayError, match=said) as caught:
            plan(layers, snapshot)
        assert str(path) in str(caught.value) or str(path.parent) in str(caught.value)

    def test_a_file_among_the_kinds(self, layers: Path, snapshot: Path) -> None:
        write_hook(layers / "cluster/hooks/first-boot")
        with pytest.raises(OverlayError, match="hooks/first-boot: a folder of hooks"):
            plan(layers, snapshot)

    def test_only_blades_with_first_boot_hooks_get_the_unit(self, layers: Path, snapshot: Path) -> None:
        write_hook(layers / "role/web/hooks/first-boot/10-join")
        found = {entry.path for entry in plan(layers, snapshot).entries}
        assert f"etc/systemd/system/multi-user.target.wants/{FIRST_BOOT_UNIT}" in found
        assert not any(FIRST_BOOT_UNIT in entry.path for entry in plan(layers, snapshot, "cache01").entries)

    def test_a_snapshot_that_cannot_run_them_is_told_of(self, layers: Path, snapshot: Path) -> None:
        write_hook(layers / "role/web/hooks/first-boot/10-join")
        (snapshot / "usr/bin/bladeroot").unlink()
        found = plan(layers, snapshot)
        assert found.notes == ("first-boot hooks will not run: the snapshot has no /usr/bin/bladeroot",)
        assert not any(FIRST_BOOT_UNIT in entry.path for entry in found.entries)


class TestRunning:
    def test_they_run_in_order_and_what_they_say_is_kept(self, tmp_path: Path) -> None:
        for name in ("20-b", "100-c", "10-a"):
            write_hook(
                tmp_path / "pre-install" / name,
                f"{SCRIPT}echo $BLADEROOT_HOOK $BLADEROOT_FACT_BAY; echo >>{tmp_path}/ran {name}\n",
            )
        write_hook(tmp_path / "post-install/05-other", f"{SCRIPT}exit 1\n")
        heard: list[Event] = []
        log = tmp_path / "log"
        names = run_hooks(When.PRE_INSTALL, tmp_path, FACTS, heard.append, log=log)
        assert names == ("10-a", "100-c", "20-b")
        assert (tmp_path / "ran").read_text().split() == list(names)
        said = [event.text for event in heard if isinstance(event, Note)]
        assert "10-a: pre-install/10-a 7" in said
        assert [line for line in log.read_text().splitlines() if "---" not in line] == [
            f"pre-install/{name} 7" for name in names
        ]

    def test_none(self, tmp_path: Path) -> None:
        assert run_hooks(When.PRE_INSTALL, tmp_path, FACTS, ignore) == ()
        (tmp_path / "pre-install").write_text("a file")
        assert find_hook_files(When.PRE_INSTALL, tmp_path) == []

    def test_one_that_fails_is_one_line_and_ends_it(self, tmp_path: Path) -> None:
        write_hook(
            tmp_path / "pre-install/10-a", f"{SCRIPT}echo no such array; printf '\\033[2J' >&2; exit 3\n"
        )
        write_hook(tmp_path / "pre-install/20-b", f"{SCRIPT}touch {tmp_path}/ran\n")
        with pytest.raises(HookError) as caught:
            run_hooks(When.PRE_INSTALL, tmp_path, FACTS, ignore)
        assert str(caught.value) == "pre-install hook 10-a: exit code 3: no such array |  [2J"
        assert caught.value.exit_code == 52
        assert not (tmp_path / "ran").exists()

    def test_one_that_hangs(self, tmp_path: Path) -> None:
        hook = write_hook(tmp_path / "10-a", f"{SCRIPT}echo waiting; exec sleep 1000\n")
        with pytest.raises(HookError, match=r"hook 10-a: not done after 0\.3 s, and killed: waiting"):
            run_hook(When.FIRST_BOOT, hook, FACTS, ignore, timeout_s=0.3)

    def test_one_without_its_interpreter(self, tmp_path: Path) -> None:
        hook = write_hook(tmp_path / "10-a", "#!/no/such/bash\n")
        with pytest.raises(HookError, match="hook 10-a cannot be started: 10-a: No such file"):
            run_hook(When.FIRST_BOOT, hook, FACTS, ignore)


class TestFirstBoot:
    @pytest.fixture(autouse=True)
    def blade(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A blade's tree, with two hooks of which the second fails while /flag is there."""
        monkeypatch.setattr(firstboot, "find_booted_disk", self._fail_to_find)
        made = init_cluster(
            tmp_path / "cluster",
            name="room",
            blades=[Blade(name="web01", facts={"bay": "7"})],
            secret_key_path=tmp_path / "key",
        )
        self.folder = made.folder.path
        root = tmp_path / "root"
        write_tree(root, {"etc/bladeroot/installed.json": json.dumps({"blade": "web01", "serial": 3})})
        hooks = root / HOOKS_DIRECTORY / "first-boot"
        write_hook(hooks / "10-a", f"{SCRIPT}echo $BLADEROOT_BLADE $BLADEROOT_SERIAL >>{root}/ran\n")
        write_hook(hooks / "20-b", f"{SCRIPT}echo b >>{root}/ran; test ! -e {root}/flag\n")
        write_hook(hooks / "30-c", f"{SCRIPT}echo c >>{root}/ran\n")
        self.root = root
        return root

    @staticmethod
    def _fail_to_find() -> None:
        raise OSError

    def run(self, again: bool = False) -> firstboot.FirstBoot:
        return run_first_boot(ignore, root=self.root, folder=self.folder, again=again)

    def test_each_runs_until_it_has_ended_well_once(self) -> None:
        assert read_first_boot(self.root).pending == ("10-a", "20-b", "30-c")
        (self.root / "flag").touch()
        with pytest.raises(HookError, match="20-b: exit code 1"):
            self.run()
        state = read_first_boot(self.root)
        assert (state.done, state.pending, state.is_complete) == (("10-a",), ("20-b", "30-c"), False)
        assert "20-b: exit code 1" in state.error
        (self.root / "flag").unlink()
        assert self.run().is_complete
        assert self.run() == read_first_boot(self.root)
        assert (self.root / "ran").read_text().split() == ["web01", "3", "b", "b", "c"]
        assert read_first_boot(self.root).error == ""
        assert "first-boot/20-b" in (self.root / LOG).read_text()

    def test_again(self) -> None:
        self.run()
        assert self.run(again=True).done == ("10-a", "20-b", "30-c")
        assert (self.root / "ran").read_text().split().count("b") == 2

    def test_a_torn_record_is_no_record(self) -> None:
        (self.root / FIRST_BOOT_RECORD).write_text("{")
        assert read_first_boot(self.root).done == ()

    def test_a_machine_that_is_no_blade(self) -> None:
        (self.root / "etc/bladeroot/installed.json").unlink()
        with pytest.raises(ConfigError, match="does not say which blade this is"):
            self.run()
