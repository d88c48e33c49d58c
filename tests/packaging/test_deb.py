"""A package is built here from the lock: the trustee's, the smallest, and its bytes are the same every time."""

import email
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from built_debs import EPOCH_S, REPOSITORY, TOOLS, Deb, build, interpreter
from locks import read_lock
from parts import LOCKS

TARGET = "bookworm-amd64"
LOCK = LOCKS / f"trustee-{TARGET}.txt"
SITE = "opt/bedside/trustee/lib/python3.11/site-packages"
ALLOWED_LIBRARIES = {
    "ld-linux-x86-64.so.2": "libc6",
    "libc.so.6": "libc6",
    "libdl.so.2": "libc6",
    "libgcc_s.so.1": "libgcc-s1",
    "libm.so.6": "libc6",
    "libpthread.so.0": "libc6",
    "librt.so.1": "libc6",
    "libstdc++.so.6": "libstdc++6",
    "libz.so.1": "zlib1g",
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed")
    folder = tmp_path_factory.mktemp("debs")
    build(folder / "first", "trustee", TARGET)
    return folder


@pytest.fixture(scope="session")
def deb(folder):
    (path,) = (folder / "first").glob("bedside-trustee_*.deb")
    return Deb(path, folder / "trustee")


@pytest.fixture(scope="session")
def common(folder):
    (path,) = (folder / "first").glob("bedside-common_*.deb")
    return Deb(path, folder / "common")


def test_the_same_tree_gives_the_same_bytes(folder):
    build(
        folder / "second",
        "trustee",
        TARGET,
        mask=0o077,
        TZ="Asia/Kathmandu",
        LC_ALL="C",
        PYTHONHASHSEED="7",
        HOME=str(folder),
    )
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / name).iterdir()}
        for name in ("first", "second")
    ]
    assert len(digests[0]) == 3
    assert digests[0] == digests[1]


def test_dpkg_is_told_what_the_package_is_and_needs(deb, common):
    version = deb.fields["Version"]
    assert version.endswith("-1~deb12")
    assert (deb.fields["Package"], deb.fields["Architecture"]) == ("bedside-trustee", "amd64")
    depends = deb.fields["Depends"].split(", ")
    assert {"python3 (>= 3.11)", "python3 (<< 3.12)", f"bedside-common (>= {common.fields['Version']})"} <= set(depends)
    assert common.fields["Architecture"] == "all"
    description = (deb.control / "control").read_text().partition("\nDescription: ")[2].splitlines()
    assert len(description) > 1
    assert all(line.startswith(" ") and len(line) <= 80 for line in description[1:])
    size_kib = sum(path.stat().st_size for path in deb.files()) / 1024
    assert size_kib < int(deb.fields["Installed-Size"]) < size_kib + 4_000
    sums = dict(reversed(line.split("  ")) for line in (deb.control / "md5sums").read_text().splitlines())
    names = {str(path.relative_to(deb.root)) for path in deb.files() if path.relative_to(deb.root).parts[0] != "etc"}
    assert set(sums) == names


def test_everything_is_roots_and_dates_from_the_commit(deb, common):
    for mode, owner, *_, name in [*deb.listing, *common.listing]:
        program = "/bin/" in name and not name.endswith("/")
        expected = {"d": "drwxr-xr-x", "l": "lrwxrwxrwx", "-": "-rwxr-xr-x" if program else "-rw-r--r--"}[mode[0]]
        assert (owner, mode) == ("root/root", expected), name
    assert {int(path.stat().st_mtime) for path in deb.files()} == {EPOCH_S}


def test_no_path_of_the_building_machine_is_in_it(deb, folder):
    places = [str(place).encode() for place in (REPOSITORY, folder, Path.home() / ".cache", "/tmp/tmp")]
    named = [path for path in deb.files() if any(place in path.read_bytes() for place in places)]
    assert named == []
    links = {path.name: os.readlink(path) for path in deb.root.rglob("*") if path.is_symlink()}
    assert links == {"python": "python3", "python3": "/usr/bin/python3.11"}


def test_configuration_belongs_to_the_administrator(deb):
    assert (deb.control / "conffiles").read_text().split() == ["/etc/default/bedside-trustee"]


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_filled_in_and_sound(deb, name):
    script = deb.control / name
    text = script.read_text()
    assert not re.search(r"@\w*@", text)
    assert "bedside-trustee" in text or "/opt/bedside/trustee" in text
    assert os.access(script, os.X_OK)
    assert subprocess.run(["/bin/sh", "-n", script]).returncode == 0


def test_a_trustees_package_has_only_what_a_trustee_needs(deb):
    site = deb.root / SITE
    assert {path.name for path in (site / "bedside").iterdir()} == {"core", "proto", "service", "trustee"}
    present = {path.name for path in site.iterdir()}
    assert present & {"onnxruntime", "bleak", "dbus_fast", "sqlite_utils", "serial", "pip", "bin"} == set()
    assert not list(site.rglob("tests"))
    locked = {f"{entry.name}-{entry.version}" for entry in read_lock(LOCK)}
    installed = {
        name.removesuffix(".dist-info").replace("_", "-").lower() for name in present if name.endswith(".dist-info")
    }
    assert {name for name in installed if not name.startswith("bedside-")} == locked


def test_every_module_of_a_trustee_imports_in_its_environment_alone(deb):
    python = interpreter("3.11")
    if python is None:
        pytest.skip("Python 3.11 is not installed")
    environ = {"PYTHONPATH": str(deb.root / SITE), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    parts = ["bedside.proto", "bedside.core", "bedside.service", "bedside.trustee"]
    command = [python, "-S", REPOSITORY / ".ci" / "import_all.py", *parts]
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+ modules import\n", done.stdout)


def test_libraries_that_wheels_do_not_bring_are_dependencies(deb):
    if shutil.which("readelf") is None:
        pytest.skip("readelf is not installed")
    libraries = [path for path in deb.files() if ".so" in path.name]
    bundled = {path.name for path in libraries}
    done = subprocess.run(["readelf", "-d", *libraries], capture_output=True, text=True, check=True)
    needed = set(re.findall(r"\(NEEDED\) .*\[(.+)\]", done.stdout)) - bundled
    assert needed <= ALLOWED_LIBRARIES.keys()
    assert {ALLOWED_LIBRARIES[name] for name in needed} <= set(re.split(r"[, ]+", deb.fields["Depends"]))


def test_unit_user_and_folders_lie_where_systemd_looks(deb):
    for place in (
        "usr/lib/systemd/system/bedside-trustee.service",
        "usr/lib/sysusers.d/bedside-trustee.conf",
        "usr/lib/tmpfiles.d/bedside-trustee.conf",
    ):
        assert (deb.root / place).is_file(), place
    unit = (deb.root / "usr/lib/systemd/system/bedside-trustee.service").read_text()
    program = re.search(r"^ExecStart=(\S+)", unit, re.MULTILINE)[1].lstrip("/")
    assert os.access(deb.root / program, os.X_OK)
    assert (deb.root / program).read_text().startswith("#!/opt/bedside/trustee/bin/python3 -I\n")


def test_the_bill_of_materials_names_each_wheel_by_its_hash(deb):
    text = (deb.root / "usr/share/doc/bedside-trustee/sbom.cdx.json").read_text()
    assert text == deb.path.with_suffix(".cdx.json").read_text()
    bill = json.loads(text)
    found = {(it["name"], it["version"], it["hashes"][0]["content"], it["purl"]) for it in bill["components"]}
    assert found == {
        (entry.name, entry.version, entry.sha256, f"pkg:pypi/{entry.name}@{entry.version}") for entry in read_lock(LOCK)
    }
    assert all(it["licenses"] for it in bill["components"])
    assert bill["metadata"]["component"]["version"] == deb.fields["Version"]


def test_the_bill_of_materials_is_one_by_its_schema(deb):
    code = (
        "import sys\nfrom cyclonedx.schema import SchemaVersion\n"
        "from cyclonedx.validation.json import JsonStrictValidator\n"
        "error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())\n"
        "sys.exit(str(error) if error else 0)\n"
    )
    bill = deb.path.with_suffix(".cdx.json").read_text()
    done = subprocess.run([TOOLS / "bin" / "python", "-c", code], input=bill, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_licences_of_what_is_bundled_are_told(deb):
    doc = deb.root / "usr/share/doc/bedside-trustee"
    paragraphs = [email.message_from_string(text) for text in (doc / "copyright").read_text().split("\n\n")]
    assert paragraphs[0]["Format"] == "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    bundled = [paragraph for paragraph in paragraphs if (paragraph["Files"] or "").startswith("opt/")]
    assert len(bundled) == len(read_lock(LOCK))
    assert all(list(deb.root.glob(paragraph["Files"])) for paragraph in bundled)
    for text in re.findall(r"^ (/opt/\S+)$", (doc / "copyright").read_text(), re.MULTILINE):
        assert (deb.root / text.lstrip("/")).is_file()
    changes = gzip.decompress((doc / "changelog.Debian.gz").read_bytes()).decode()
    assert changes.startswith(f"bedside ({deb.fields['Version']}) bookworm; urgency=medium\n")


def test_what_is_nobodys_alone_is_in_common(common):
    for place in (
        "usr/bin/bedside",
        "usr/share/bash-completion/completions/bedside",
        "usr/share/fish/vendor_completions.d/bedside.fish",
        "usr/share/man/man1/bedside.1.gz",
        "usr/share/zsh/vendor-completions/_bedside",
    ):
        assert (common.root / place).is_file(), place
    assert not (common.control / "conffiles").exists()
    page = gzip.decompress((common.root / "usr/share/man/man1/bedside.1.gz").read_bytes()).decode()
    assert "\\fBbedside agent\\fR" in page
    assert "Of the package bedside\\-trustee." in page
