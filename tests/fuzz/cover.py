"""Coverage-guided fuzzing of the registered parsers with atheris: `make fuzz`, or

    .venv/bin/python tests/fuzz/cover.py [--seconds S] [--keep FOLDER] [PARSER ...]

Each parser runs in a process of its own for S seconds. What is found is kept in `FOLDER/PARSER/crash-*`, and the corpus
in `FOLDER/PARSER/corpus`, from which the next run goes on. To see one again:

    .venv/bin/python tests/fuzz/cover.py PARSER FOLDER/PARSER/crash-...
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
MEMORY_MIB = 2_048
INPUT_S = 20


def main() -> int:
    """Run parsers in turn, or show one input again; 1 when something was found."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("names", nargs="*", metavar="PARSER", help="parsers [all], or one and the file of an input")
    asked.add_argument("--seconds", type=int, default=10, help="for each parser [10]")
    asked.add_argument("--keep", type=Path, default=Path("fuzz-out"), help="folder of what is kept [fuzz-out]")
    asked.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    told, rest = asked.parse_known_args()
    if told.child:
        return _cover(told.names[0], rest)
    from parsers import PARSERS

    if len(told.names) == 2 and told.names[1] not in PARSERS:
        return _again(told.names[0], Path(told.names[1]))
    unknown = [name for name in told.names if name not in PARSERS]
    if unknown:
        asked.error(f"there is no parser {unknown[0]!r}; the parsers are {', '.join(PARSERS)}")
    found = [name for name in told.names or PARSERS if not _run(name, told.seconds, told.keep)]
    print(f"found something in: {', '.join(found)}" if found else "nothing was found")
    return 1 if found else 0


def _again(name: str, file: Path) -> int:
    from hunt import complaint, fenced, restart_watch
    from parsers import PARSERS

    with fenced():
        restart_watch()
        said = complaint(PARSERS[name], file.read_bytes(), weigh=True)
    print(f"{name} {said or 'takes it as promised'}")
    return 1 if said else 0


def _run(name: str, seconds: int, keep: Path) -> bool:
    """Whether nothing was found."""
    from parsers import PARSERS

    corpus = keep / name / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(PARSERS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-timeout={INPUT_S}", f"-rss_limit_mb={MEMORY_MIB}", "-max_len=65536"]
    options += [f"-artifact_prefix={keep / name}/", "-print_final_stats=1", "-verbosity=0", str(corpus)]
    command = [sys.executable, str(HERE / "cover.py"), "--child", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    stats = dict(line.split(": ", 1) for line in done.stderr.splitlines() if line.startswith("stat::"))
    tried = stats.get("stat::number_of_executed_units", "?").strip()
    print(f"{name}: {tried} inputs, {len(list(corpus.iterdir()))} kept", flush=True)
    if done.returncode == 0:
        return True
    print(done.stderr[-3_000:])
    for crash in sorted(path for path in (keep / name).iterdir() if path.is_file()):
        print(f"  again: {sys.executable} {HERE / 'cover.py'} {name} {crash}")
    return False


def _cover(name: str, options: list[str]) -> int:
    import atheris

    os.environ.setdefault("PYTHONHASHSEED", "0")
    with atheris.instrument_imports(include=["bedside"], enable_loader_override=False):
        from hunt import complaint
        from mutation import mutate
        from parsers import PARSERS
    parser = PARSERS[name]

    def one_input(data: bytes) -> None:
        said = complaint(parser, data)
        if said:
            raise AssertionError(f"{name} {said}")

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        """By turns libFuzzer's own changes, which follow coverage closest, and ours, which keep the form."""
        rng = Random(seed)
        if seed % 2:
            return atheris.Mutate(data, max_size)
        return rng.choice((parser.form, mutate))(data, rng, parser.seeds)[:max_size]

    atheris.Setup([sys.argv[0], *options], one_input, custom_mutator=change)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
