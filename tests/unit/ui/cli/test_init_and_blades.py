from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bladeroot.ops.folder import ClusterFolder
from tests.unit.ui.cli.conftest import Run


@pytest.fixture
def lab(run: Run, tmp_path: Path) -> Path:
    made = run("init", "lab", "--role", "spare", "--blades", "web[01-03]=web", "--blades", "db[1-2]=db")
    assert made.code == 0
    return tmp_path / "lab"


def test_init_says_what_it_made(run: Run, tmp_path: Path) -> None:
    facts = run("init", "--json", "lab", "--role", "web", "--name", "north").facts

    folder = ClusterFolder.open(tmp_path / "lab")
    assert facts["name"] == "north"
    assert facts["id"] == folder.cluster.id
    assert facts["roles"] == ["web"]
    assert facts["key_id"] == folder.trusted_keys()[0].key_id
    assert stat.S_IMODE(Path(facts["secret_key"]).stat().st_mode) == 0o600


def test_init_goes_where_the_cluster_is_looked_for(run: Run, tmp_path: Path) -> None:
    assert run("init").code == 0
    assert (tmp_path / "lab" / "cluster.toml").exists()
    again = run("init")
    assert (again.code, again.out) == (10, "")
    assert "is a cluster folder already" in again.err


def test_init_with_a_passphrase_and_a_key_of_its_own_place(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pass").write_text("secret\nmore\n")
    made = run("init", "lab", "--key", "op.key", "--passphrase-file", "pass", "--json")
    assert made.facts["secret_key"] == "op.key"
    assert "argon2id" in (tmp_path / "op.key").read_text()

    folder = ClusterFolder.open(tmp_path / "lab")
    key = folder.secret_key(lambda _prompt: "secret", tmp_path / "op.key")
    assert key.public_key == folder.trusted_keys()[0]
    monkeypatch.setenv("BLADEROOT_KEY", "op.key")
    assert run("init", "other").code == 14


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--blades", "web01"), 2, "names no role"),
        (("--blades", "web[01=web"), 11, "not a set of blades"),
        (("--blades", "web01=web", "--blades", "web[01-02]=db"), 11, "given twice: web01"),
        (("--blades", "web01=Web"), 10, "not a usable role"),
        (("--name", "My Lab"), 10, "not a usable name"),
        (("--passphrase-file", "nope"), 14, "cannot read the passphrase file nope"),
        (("--cluster", "elsewhere"), 2, "two directories are named"),
    ],
)
def test_init_refuses(run: Run, tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    ran = run("init", "lab", *words)

    assert (ran.code, said in ran.err, ran.err.count("\n")) == (code, True, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("lab")
def test_list(run: Run) -> None:
    assert run("blades", "list").out.splitlines()[:3] == [
        "NAME   ROLE  MACS  ADDRESS",
        "db1    db    -     -",
        "db2    db    -     -",
    ]
    names = [blade["name"] for blade in run("blades", "list", "@all!@db", "--json").facts]
    assert names == ["web01", "web02", "web03"]
    assert run("blades", "list", "web[03-04]").code == 11


@pytest.mark.usefixtures("lab")
def test_columns_show_when_they_tell_something(run: Run) -> None:
    run("blades", "set", "web01", "rack=r1", "fact.colour=blue")

    assert run("blades", "list").out.splitlines()[0].split() == [
        "NAME",
        "ROLE",
        "MACS",
        "ADDRESS",
        "RACK",
        "FACTS",
    ]


@pytest.mark.usefixtures("lab")
def test_add_a_range(run: Run) -> None:
    ran = run("blades", "add", "x[8-10]", "--role", "spare", "--address", "10.77.0.9/24", "--fact", "a=b")

    assert ran.out.splitlines() == [
        "+ x8  role=spare address=10.77.0.9/24",
        "+ x9  role=spare address=10.77.0.10/24",
        "+ x10  role=spare address=10.77.0.11/24",
    ]
    listed = run("blades", "list", "@spare", "--json").facts
    assert [(blade["name"], blade["facts"]) for blade in listed] == [
        ("x8", {"a": "b"}),
        ("x9", {"a": "b"}),
        ("x10", {"a": "b"}),
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("add", "x1", "--role", "web"),
        ("set", "@web", "rack=r1"),
        ("remove", "@web"),
        ("replace", "web01", "--mac", "525400000001"),
        ("import", "room.csv"),
    ],
    ids=lambda words: words[0],
)
def test_dry_run_shows_the_same_and_writes_nothing(run: Run, lab: Path, words: tuple[str, ...]) -> None:
    (lab.parent / "room.csv").write_text("name,role\nx1,web\n")
    before = (lab / "cluster.toml").read_bytes()

    dry = run("blades", *words, "--dry-run", "--json")
    assert (lab / "cluster.toml").read_bytes() == before
    wet = run("blades", *words, "--json")
    assert (lab / "cluster.toml").read_bytes() != before

    assert dry.facts == {**wet.facts, "dry_run": True}
    assert wet.facts["added"] or wet.facts["changed"] or wet.facts["removed"]


@pytest.mark.usefixtures("lab")
def test_replace(run: Run) -> None:
    run("blades", "set", "web01", "mac=525400000001", "uuid=" + "1" * 32, "address=10.0.0.1/24")
    ran = run("blades", "replace", "web01", "--mac", "52:54:00:00:00:02", "--mac", "52:54:00:00:00:03")

    assert ran.code == 0
    (blade,) = run("blades", "list", "web01", "--json").facts
    assert blade["macs"] == ["52:54:00:00:00:02", "52:54:00:00:00:03"]
    assert (blade["uuid"], blade["address"]) == (None, "10.0.0.1/24")


def test_replace_keeps_comments_and_says_what_comes_next(run: Run, lab: Path) -> None:
    run("blades", "set", "web01", "mac=525400000001")
    file = lab / "cluster.toml"
    text = file.read_text().replace(
        'macs = ["52:54:00:00:00:01"]', 'macs = ["52:54:00:00:00:01"]  # board 17, bought used'
    )
    file.write_text("# ours\n" + text)
    ran = run("blades", "replace", "web01", "--mac", "52:54:00:00:00:02", "--uuid", "1" * 32)

    assert "`bladeroot publish` makes it known to blades" in ran.err
    after = file.read_text()
    assert after.startswith("# ours\n")
    assert '["52:54:00:00:00:02"]  # board 17, bought used' in after
    assert "11111111-1111-1111-1111-111111111111" in after
    assert "publish" not in run("blades", "replace", "web01", "--mac", "525400000009", "--dry-run").err
    taken = run("blades", "replace", "web02", "--mac", "52:54:00:00:00:02")
    assert (taken.code, "is given to two blades" in taken.err) == (11, True)


@pytest.mark.usefixtures("lab")
def test_export_and_import(run: Run, tmp_path: Path) -> None:
    run("blades", "set", "@web", "address=10.0.0.1/24", "fact.n=1", "location=row 2, left")
    (tmp_path / "room.csv").write_text(run("blades", "export").out)
    run("init", "second", "--role", "web", "--role", "db")

    assert run("blades", "import", "room.csv", "--cluster", "second").code == 0
    assert run("blades", "import", "room.csv", "--cluster", "second").out == "nothing to change\n"
    assert (
        run("blades", "list", "--json", "--cluster", "second").facts == run("blades", "list", "--json").facts
    )
    assert run("blades", "export", "web01", "--format", "hosts").out == "10.0.0.1\tweb01\n"
    assert run("blades", "export", "--format", "json").facts == run("blades", "list", "--json").facts


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("add", "x1"), 2, "no role is given"),
        (("add", "x1", "--role", "wbe"), 11, "no role 'wbe'"),
        (("add", "X1", "--role", "web"), 10, "not a usable name: 'X1'"),
        (("add", "x[1-2]", "--role", "web", "--uuid", "1" * 32), 2, "--uuid is for a single blade"),
        (("add", "web01", "--role", "web"), 11, "already in cluster lab: web01"),
        (("set", "web01", "rack"), 2, "is not KEY=VALUE"),
        (("set", "@web", "mac=525400000001"), 11, "1 MAC addresses for 3 blades"),
        (("remove", "nope"), 11, "no blade nope"),
        (("replace", "nope", "--mac", "525400000001"), 11, "no blade 'nope'"),
        (("import", "nope.csv"), 10, "cannot read nope.csv"),
    ],
)
def test_what_is_refused_changes_nothing(
    run: Run, lab: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    before = (lab / "cluster.toml").read_bytes()

    ran = run("blades", *words)

    assert (ran.code, said in ran.err, ran.err.count("\n")) == (code, True, 1), ran.err
    assert (lab / "cluster.toml").read_bytes() == before


def test_a_broken_inventory_is_one_line_with_file_line_and_key(run: Run, lab: Path) -> None:
    file = lab / "cluster.toml"
    file.write_text(file.read_text() + '\n[blades.x1]\nmacs = ["foo"]\nrole = "web"\n')
    line = file.read_text().splitlines().index('macs = ["foo"]') + 1

    ran = run("blades", "list")

    assert ran.code == 10
    assert ran.err == (
        f"bladeroot: {file}:{line}: blades.x1.macs: not a MAC address: 'foo' "
        "(write it as 52:54:00:aa:bb:cc)\n"
    )
