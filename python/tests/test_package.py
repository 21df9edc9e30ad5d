# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: types, generated files, examples in texts, the wheel, the README's lines and the notebook."""

from __future__ import annotations

import doctest
import filecmp
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, List

import pytest

import switchyard
from switchyard import _text, fill, spans

from conftest import MODEL, ROOT

PACKAGE = ROOT / "python"
NOTEBOOK = PACKAGE / "examples" / "tour.ipynb"


def test_texts() -> None:
    assert doctest.testmod(_text).failed == 0
    assert spans("no sentinel") == {}
    assert spans("<extra_id_1> b<extra_id_0>a <extra_id_1>c<pad></s>") == {1: "b", 0: "a"}
    assert fill("<extra_id_0>-<extra_id_0>-<extra_id_5>", "<extra_id_0> x") == "x-x-<extra_id_5>"


def test_all_names_exist() -> None:
    assert sorted(switchyard.__all__) == switchyard.__all__
    assert all(getattr(switchyard, name).__doc__ for name in switchyard.__all__ if name not in ("Input", "Metadata", "Token"))


def test_the_version_is_the_programs(binary: str) -> None:
    printed = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == switchyard.__version__


def test_types(tmp_path: Path) -> None:
    mypy = [sys.executable, "-m", "mypy", "--cache-dir", os.environ.get("MYPY_CACHE_DIR", str(ROOT / ".build" / "mypy"))]
    checked = subprocess.run([*mypy, "--strict"], cwd=PACKAGE, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    # Users' mistakes are found: the package brings its types.
    program = tmp_path / "program.py"
    program.write_text(
        "from switchyard import AsyncSwitchyard, Switchyard\n"
        "def f(client: Switchyard, other: AsyncSwitchyard) -> None:\n"
        "    reveal_type(client.generate('x', max_new_tokens=3).text)\n"
        "    reveal_type(client.encode('x').hidden_states)\n"
        "    client.generate('x', max_new_token=3)\n"
        "    client.generate('x', priority='urgent')\n"
        "    client.encode('x', temperature=1.0)\n"
        "    other.generate('x').text\n"
    )
    environment = {**os.environ, "MYPYPATH": str(PACKAGE / "src")}
    found = subprocess.run([*mypy, "--strict", str(program)], cwd=tmp_path, env=environment, capture_output=True, text=True)
    lines = found.stdout.splitlines()
    assert 'Revealed type is "str"' in lines[0] or "builtins.str" in lines[0]
    assert "float32" in lines[1] or "floating" in lines[1]
    errors = sorted({int(line.split(":")[1]) for line in lines if ": error:" in line})
    assert errors == [5, 6, 7, 8], found.stdout


def test_the_generated_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    script = ROOT / "deploy" / "generate-python-protos.sh"
    subprocess.run([str(script), str(tmp_path)], check=True)
    expected, written = PACKAGE / "src/switchyard/v1", tmp_path / "switchyard/v1"
    names = sorted(path.name for path in expected.glob("*_pb2*.py*"))
    assert names == sorted(path.name for path in written.iterdir()) and len(names) == 8
    _, different, missing = filecmp.cmpfiles(expected, written, names, shallow=False)
    assert (different, missing) == ([], []), "run deploy/generate-python-protos.sh"


def readme_blocks(path: Path) -> List[str]:
    """The blocks of Python in a document."""
    return re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as `make wheel` builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["make", "--no-print-directory", "-C", str(ROOT), "wheel", f"WHEELS={folder}"], check=True)
    (built,) = folder.iterdir()
    return built


def test_the_wheel_has_all_files(wheel: Path) -> None:
    assert wheel.name == f"switchyard-{switchyard.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"switchyard-{switchyard.__version__}.dist-info/METADATA").decode()
    source = PACKAGE / "src"
    wanted = {str(path.relative_to(source)) for path in source.rglob("*") if path.suffix in (".py", ".pyi", ".typed")}
    assert wanted == {name for name in names if name.startswith("switchyard/")}
    assert "switchyard/py.typed" in wanted
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Requires-Python: >=3.9" in metadata and "License-Expression: Apache-2.0" in metadata
    required = {re.split("[<>=]", line)[0] for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.M)}
    assert required == {"grpcio", "protobuf", "numpy"}


def test_the_readmes_lines_in_an_empty_environment(wheel: Path, binary: str, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables["SWITCHYARD_BINARY"] = binary
    blocks = readme_blocks(ROOT / "README.md")
    assert len(blocks) == 1
    for block in [*blocks, readme_blocks(PACKAGE / "README.md")[0]]:
        # Each comment at the end of a line that prints says what it prints.
        expected = re.findall(r"^ *print\(.*?\)  +# (.*)$", block, re.M)
        run = subprocess.run(
            [str(python), "-W", "error", "-c", block], cwd=ROOT, env=variables, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        assert run.stdout.splitlines() == expected and expected, block


def test_the_other_examples_of_the_readme(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with switchyard.LocalCluster(MODEL) as cluster:
        for block in readme_blocks(PACKAGE / "README.md")[1:]:
            text = block.replace("gateway.example:7400", cluster.address).replace("127.0.0.1:7400", cluster.address)
            if "TLS(" in text:
                # It names files; test_security.py has the real ones.
                compile(text, "README.md", "exec")
            else:
                run = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=with_package())
                assert run.returncode == 0, f"{text}\n{run.stderr}"
                expected = re.findall(r"^ *print\(.*?\)  +# (.*)$", block, re.M)
                assert run.stdout.splitlines()[: len(expected)] == expected, text


def with_package() -> "dict[str, str]":
    return {**os.environ, "PYTHONPATH": str(Path(switchyard.__file__).parents[1])}


def outputs(cell: Any) -> List[str]:
    """What a cell printed, in one piece, and what it showed."""
    printed = "".join(output["text"] for output in cell.outputs if output.output_type == "stream")
    shown = [output.data.get("text/html") or output.data["text/plain"] for output in cell.outputs if "data" in output]
    return [*([printed] if printed else []), *shown]


def join_streams(cell: Any) -> None:
    """Makes one output of all that a cell printed, which comes in pieces by chance."""
    streams = [output for output in cell.outputs if output.output_type == "stream"]
    if streams:
        streams[0]["text"] = "".join(output["text"] for output in streams)
        cell.outputs = [streams[0], *(output for output in cell.outputs if output.output_type != "stream")]


def test_the_notebook(binary: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbclient
    import nbformat

    monkeypatch.setenv("SWITCHYARD_BINARY", binary)
    monkeypatch.setenv("PYTHONPATH", str(Path(switchyard.__file__).parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    committed = [outputs(cell) for cell in cells]
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=place).execute()
    for cell in cells:
        join_streams(cell)
        cell.metadata.pop("execution", None)
    if "UPDATE_NOTEBOOK" in os.environ:
        notebook.metadata.pop("language_info", None)
        nbformat.write(notebook, NOTEBOOK)  # type: ignore[no-untyped-call]
    else:
        assert [outputs(cell) for cell in cells] == committed
