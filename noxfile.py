# /// script
# requires-python = ">=3.11"
# dependencies = ["nox[uv]>=2026.4.10"]
# ///
"""Every check of this repository, each in an environment of its own. `nox --list` says what there is.

The header above lets a plain `pip install nox` fetch uv for itself; uv builds environments in a fraction of pip's time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nox

ROOT = Path(__file__).resolve().parent
DIST = ROOT / "dist"
REPORTS = ROOT / "reports"
PACKAGES = ("dyn-numerics", "dyn-sensitivity", "dyn-models", "dyn-zoo", "dyn-bench")  # the lowest layer first
SOURCES = os.pathsep.join(str(ROOT / "packages" / package / "src") for package in PACKAGES)
REPRODUCTIONS = ("solver-interpolation", "moons", "density")

# The torch that the checks run on. It is pinned here and in no package: users must not be pinned.
TORCH = os.environ.get("DYN_TORCH", "2.13.0")

nox.needs_version = ">=2026.4.10"
nox.options.default_venv_backend = "uv"
# Otherwise a cell whose interpreter is missing counts as passed, and nobody hears of it.
nox.options.error_on_missing_interpreters = "CI" in os.environ


def pip_find_links() -> str:
    """Returns where pip is told to look for wheels, in uv's spelling; uv does not read pip's configuration."""
    links = os.environ.get("PIP_FIND_LINKS", "")
    if not links and (pip := shutil.which("pip")):
        found = subprocess.run([pip, "config", "get", "global.find-links"], capture_output=True, text=True, check=False)
        links = found.stdout
    return ",".join(links.split())


if "UV_FIND_LINKS" not in os.environ and (find_links := pip_find_links()):
    os.environ["UV_FIND_LINKS"] = find_links


def import_name(package: str) -> str:
    """Returns `dyn_numerics` for `dyn-numerics`."""
    return package.replace("-", "_")


def pyproject(package: str) -> dict[str, Any]:
    """Returns the package's declarations."""
    return nox.project.load_toml(f"packages/{package}/pyproject.toml")


def runtime_requirements() -> list[str]:
    """Returns what the packages need from outside this repository."""
    needs = {need for package in PACKAGES for need in pyproject(package)["project"]["dependencies"]}
    return sorted(need for need in needs if re.split(r"[^\w.-]", need)[0] not in PACKAGES)


def test_requirements(*packages: str) -> list[str]:
    """Returns what the tests of `packages` need besides the packages."""
    return sorted({need for p in packages for need in nox.project.dependency_groups(pyproject(p), "test")})


def install(session: nox.Session, *requirements: str, constraints: tuple[str, ...] = ()) -> None:
    """Installs `requirements`, with the wheels in `dist/` for the packages of this repository.

    Naming a wheel in a constraint brings it in only where something declares it, and only where its version satisfies
    the declared range. So a dependency that is not declared is not there, and a newer release on an index never wins.
    """
    wheels = [f"{p} @ {next(DIST.glob(f'{import_name(p)}-*.whl')).as_uri()}" for p in PACKAGES]
    file = Path(session.create_tmp(), "constraints.txt")
    file.write_text("\n".join([*wheels, *(constraints or (f"torch=={TORCH}",))]) + "\n", encoding="utf-8")
    session.install(*requirements, "--constraint", str(file))


def run_tests(session: nox.Session, *arguments: str, report: str) -> None:
    """Runs pytest and leaves a JUnit report."""
    session.run("pytest", *arguments, *session.posargs, f"--junitxml={REPORTS / report}.xml")


@nox.session(default=False)
def wheels(session: nox.Session) -> None:
    """Build the wheel and the source distribution of every package into dist/."""
    session.install("build", "hatchling")
    shutil.rmtree(DIST, ignore_errors=True)
    for package in PACKAGES:
        source = f"packages/{package}"
        session.run("python", "-m", "build", "--no-isolation", f"--outdir={DIST}", source, silent=True)


@nox.session(requires=["wheels"])
@nox.parametrize("package", [nox.param(p, id=p) for p in PACKAGES])
def tests(session: nox.Session, package: str) -> None:
    """Test one package, installed from its wheel with nothing but what it declares."""
    install(session, package, *test_requirements(package), "pytest-xdist>=3.6")
    session.env.setdefault("OMP_NUM_THREADS", "1")  # the processes share the cores
    side_by_side = ("--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal")
    run_tests(session, *side_by_side, f"packages/{package}/tests", report=f"tests-{package}")


@nox.session(default=False, requires=["wheels"])
def slow(session: nox.Session) -> None:
    """Run the tests that take minutes, of all packages together."""
    install(session, "dyn-bench", *test_requirements(*PACKAGES))
    run_tests(session, "-m", "slow", *(f"packages/{p}/tests" for p in PACKAGES), report="slow")


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style, spelling, package metadata and workflows; `-- --fix` repairs what can be."""
    session.install("check-jsonschema", "codespell", "ruff>=0.17,<0.18", "validate-pyproject[all]", "zizmor")
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix")
        session.run("ruff", "format")
    else:
        session.run("ruff", "check")
        session.run("ruff", "format", "--check")
    prose = [path.name for path in sorted(ROOT.glob("*.md"))]
    workflows = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(".github/workflows/*.yml"))]
    written = ("packages", "docs", ".ci", ".github", "noxfile.py", *prose)
    session.run("codespell", "--check-hidden", "--ignore-words-list=methoden", *written)
    session.run("validate-pyproject", *(f"packages/{package}/pyproject.toml" for package in PACKAGES))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("zizmor", "--offline", "--quiet", *workflows)


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Check the types of all packages and of the checks themselves with mypy --strict."""
    session.install(
        "griffe",
        "import-linter",
        "mypy>=2.4,<2.5",
        "nox",
        "sybil",
        "types-tqdm",
        *runtime_requirements(),
        f"torch=={TORCH}",
    )
    session.run("mypy", *(f"--package={import_name(package)}" for package in PACKAGES))
    session.run("mypy", "noxfile.py", *(str(path) for path in sorted(ROOT.glob(".ci/*.py"))))


@nox.session(reuse_venv=True)
def layers(session: nox.Session) -> None:
    """Check that no import points up a layer, into another package's private modules, or at an undeclared library."""
    session.install("import-linter>=2.16,<3")
    # Import-linter only parses what it checks, so nothing needs to be installed.
    session.run("lint-imports", "--no-cache", env={"PYTHONPATH": os.pathsep.join([str(ROOT / ".ci"), SOURCES])})


@nox.session(reuse_venv=True)
def api(session: nox.Session) -> None:
    """Compare the public names and signatures with packages/*/api.txt; `-- --update` records the new ones."""
    session.install("griffe>=2.4,<3")
    session.run("python", ".ci/public_api.py", *session.posargs, *(f"packages/{package}" for package in PACKAGES))


@nox.session(requires=["wheels"])
def snippets(session: nox.Session) -> None:
    """Run the examples in the README files, the documentation and the docstrings."""
    session.run("python", ".ci/markdown_pages.py")
    install(session, "dyn-bench", "sybil", *test_requirements(*PACKAGES))
    session.env["PYTHONPATH"] = str(ROOT / ".ci")
    pages = ["README.md", "docs", *(f"packages/{package}/README.md" for package in PACKAGES)]
    run_tests(session, "-p", "markdown_snippets", *pages, report="snippets-markdown")
    installed = ["--config-file=pytest.ini", "--doctest-modules", "--pyargs", *map(import_name, PACKAGES)]
    run_tests(session, *installed, report="snippets-docstrings")


@nox.session(requires=["wheels"])
def docs(session: nox.Session) -> None:
    """Build the documentation strictly, running its code; `-- --serve` shows it while it is written."""
    session.run("python", ".ci/reference_pages.py")
    install(session, "dyn-bench", "markdown-exec", "mkdocs-material>=9.8,<10", "mkdocstrings[python]", "ruff")
    session.run("mkdocs", *(["serve"] if "--serve" in session.posargs else ["build", "--strict"]))


@nox.session(default=False, requires=["wheels"])
@nox.parametrize("package", [nox.param(p, id=p) for p in PACKAGES])
def alone(session: nox.Session, package: str) -> None:
    """Import every module of one package, with nothing installed but its wheel and what it declares."""
    install(session, package)
    session.run("python", ".ci/import_all.py", import_name(package))


@nox.session(default=False, requires=["wheels", *(f"alone({package})" for package in PACKAGES)])
def build(session: nox.Session) -> None:
    """Build the distributions and check what is in them and what they say."""
    session.install("check-wheel-contents", "twine")
    session.run("twine", "check", "--strict", *map(str, sorted(DIST.iterdir())))
    session.run("check-wheel-contents", *map(str, sorted(DIST.glob("*.whl"))))


@nox.session(default=False, requires=["wheels"])
def demo(session: nox.Session) -> None:
    """Run the three reproductions and leave their figures and numbers in out/."""
    install(session, "dyn-bench")
    session.run("dyn-bench", "run", *REPRODUCTIONS, "--out", "out/")


@nox.session(default=False, requires=["wheels"])
def bench(session: nox.Session) -> None:
    """Run the command line beside its peers: `-- list`, `-- run overhead --out docs/results`."""
    install(session, "dyn-bench[peers]")
    session.run("dyn-bench", *(session.posargs or ["list"]))


@nox.session(default=False, requires=["wheels"])
@nox.parametrize(
    ("python", "torch"),
    [
        nox.param("3.11", "2.8.0", id="py3.11-torch2.8.0"),
        nox.param("3.12", "2.13.0", id="py3.12-torch2.13.0"),
        nox.param("3.13", "2.15.0", id="py3.13-torch2.15.0"),
    ],
)
def matrix(session: nox.Session, torch: str) -> None:
    """Test all packages together on one Python and one torch, from the oldest to the newest supported."""
    install(session, "dyn-bench", *test_requirements(*PACKAGES), constraints=(f"torch=={torch}",))
    try:
        run_tests(session, *(f"packages/{p}/tests" for p in PACKAGES), report=f"matrix-{session.python}-{torch}")
    finally:
        shutil.rmtree(session.virtualenv.location)  # with CUDA it holds 5 to 7 GB


@nox.session(default=False, requires=["wheels"])
def minimum(session: nox.Session) -> None:
    """Test all packages together on the lowest versions that they declare."""
    needs = Path(session.create_tmp(), "declared.txt")
    needs.write_text("\n".join(runtime_requirements()) + "\n", encoding="utf-8")
    # From the declarations, not from the wheels: `lowest-direct` takes what a wheel needs for indirect.
    compiled = session.run(
        *("uv", "pip", "compile", "--quiet", "--resolution=lowest-direct", "--no-header", "--no-annotate", str(needs)),
        silent=True,
        external=True,
    )
    lowest = tuple(str(compiled).split())
    (torch,) = (pin.partition("==")[2] for pin in lowest if pin.startswith("torch=="))
    install(session, "dyn-bench", *test_requirements(*PACKAGES), constraints=lowest)
    session.run("python", "-c", f"import torch; assert torch.__version__.split('+')[0] == {torch!r}, torch.__version__")
    run_tests(session, *(f"packages/{p}/tests" for p in PACKAGES), report="minimum")


@nox.session(default=False, venv_backend="none")
def gpu(session: nox.Session) -> None:
    """Run the tests that need CUDA, from the source, with the torch that is already installed."""
    # Under the header above nox itself runs in an environment of its own, first on PATH and without torch.
    own = Path(sys.executable).parent if os.environ.get("NOX_SCRIPT_MODE") == "none" else None
    path = os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != own)
    python = shutil.which("python3", path=path) or sys.executable
    arguments = ["-m", "gpu", *(f"packages/{package}/tests" for package in PACKAGES)]
    session.run(python, "-m", "pytest", *arguments, *session.posargs, env={"PYTHONPATH": SOURCES}, external=True)


if __name__ == "__main__":
    nox.main()
