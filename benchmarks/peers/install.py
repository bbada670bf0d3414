"""Make the peers' environment: ``python benchmarks/peers/install.py FOLDER``.

A .pth file shows it the packages of the Python that runs this. So all implementations share one
torch: there is no second copy of 5 GB, and another build cannot make a difference in time. The
peers are installed without their dependencies, so that they shadow none of the project's packages.
FOLDER/installed.json says what could not be installed, and why; the benchmark goes on without it.
"""

import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
PEERS = ("learn2learn", "higher", "torchopt")
_BUILD = ("cython", "setuptools", "wheel")
# torchmeta's way of stepping is restated in benchmarks/restated.py.
NOT_TRIED = {"torchmeta": "torchmeta 1.8.0 needs torch < 1.10"}


def call(*command: str, cwd: Path | None = None) -> None:
    """Run a command. If it fails, raise a RuntimeError with the last line of its errors."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, encoding="utf-8")
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        errors = [line.strip() for line in said if "rror" in line]
        raise RuntimeError((errors or said)[-1])


def install(python: str, requirement: str) -> None:
    """Install one pinned package without its dependencies."""
    call(python, "-m", "pip", "install", "--quiet", "--no-deps", requirement)


def install_learn2learn(python: str, requirement: str) -> None:
    """Build learn2learn from its source, with C files made anew, and install it."""
    with tempfile.TemporaryDirectory() as folder:
        call(
            python,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-binary",
            ":all:",
            "--dest",
            folder,
            requirement,
        )
        call("tar", "xf", *(str(path) for path in Path(folder).glob("*.tar.gz")), cwd=Path(folder))
        source = next(path for path in Path(folder).iterdir() if path.is_dir())
        files = sorted((source / "learn2learn").rglob("*.pyx"))
        for file in files:
            file.with_suffix(".c").unlink(missing_ok=True)
        call(python, "-m", "cython", "-3", *map(str, files))
        call(
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            str(source),
        )


def main(folder: Path) -> None:
    """Make the environment and ``installed.json``."""
    venv.create(folder, with_pip=True, clear=True)
    python = str(folder / "bin" / "python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    pth = folder / "lib" / version / "site-packages" / "project.pth"
    pth.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    lines = [line.strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    problems: dict[str, str] = {}
    for name in [*_BUILD, *(name for name in pins if name not in _BUILD)]:
        step = install_learn2learn if name == "learn2learn" else install
        try:
            step(python, f"{name}=={pins[name]}")
        except RuntimeError as error:
            problems[name] = str(error)
    installed: dict[str, dict[str, str]] = {
        name: {"missing": why} for name, why in NOT_TRIED.items()
    }
    for name in PEERS:
        try:
            call(python, "-c", f"import {name}")
            installed[name] = {"version": pins[name]}
        except RuntimeError as error:
            installed[name] = {"missing": problems.get(name, str(error))}
        print(f"{name}: {installed[name]}")
    (folder / "installed.json").write_text(json.dumps(installed, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
