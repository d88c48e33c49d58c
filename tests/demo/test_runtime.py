from pathlib import Path

import pytest

from bedside.core.errors import ConfigError
from bedside.demo.runtime import find_memory_base, memory_folder


def mounts(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "mounts"
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_a_folder_on_tmpfs_is_taken(tmp_path: Path) -> None:
    table = mounts(tmp_path, "/dev/vda / ext4 rw 0 0", f"tmpfs {tmp_path} tmpfs rw 0 0")

    with memory_folder({"XDG_RUNTIME_DIR": str(tmp_path)}, table) as folder:
        assert folder.parent == tmp_path
        (folder / "key").write_bytes(b"x")

    assert not folder.exists()


def test_a_folder_on_disk_is_not_memory(tmp_path: Path) -> None:
    table = mounts(tmp_path, "/dev/vda / ext4 rw 0 0")

    with pytest.raises(ConfigError) as refused:
        find_memory_base({"XDG_RUNTIME_DIR": str(tmp_path)}, table)

    assert refused.value.code == "no-memory-folder"
    assert "tmpfs" in refused.value.remedy


def test_the_nearest_mount_decides(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    table = mounts(tmp_path, f"tmpfs {tmp_path} tmpfs rw 0 0", f"/dev/vda {inner} ext4 rw 0 0", "d / ext4 rw 0 0")

    with pytest.raises(ConfigError):
        find_memory_base({"XDG_RUNTIME_DIR": str(inner)}, table)
