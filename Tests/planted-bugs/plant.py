#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes a package of the pure machines and the simulator in which every planted bug is compiled in, each behind a number.

A bug is a text of a source file that occurs there once, and a text in its place. Both are compiled: the number that the
process is started with decides which of them runs. So fifty bugs need one build.

    plant.py OUT            write the package into the folder OUT
    plant.py --check        only check that every bug still fits its file
    plant.py --list         number, kind and description of each bug
"""

import json
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUGS = pathlib.Path(__file__).with_name("bugs.json")
MODULES = {
    "SwitchyardTypes": [],
    "BatchScheduling": ["SwitchyardTypes"],
    "RPCCore": [],
    "ExpertPooling": ["SwitchyardTypes", "RPCCore"],
    "PoolSimulation": ["SwitchyardTypes", "ExpertPooling", "BatchScheduling"],
    "HTTP2Session": ["CNGHTTP2", "NIOCore"],
    "FaultSimulation": [
        "SwitchyardTypes", "PoolSimulation", "BatchScheduling", "ExpertPooling", "RPCCore", "HTTP2Session", "NIOCore",
    ],
}


def planted(text, number, bug):
    """The text with both versions in it."""
    before, after = bug["original"], bug["changed"]
    if bug["kind"] == "expression":
        both = f"(PlantedBugs.number == {number} ? ({after}) : ({before}))"
    elif bug["kind"] == "condition":
        # In a list of conditions, where a pattern cannot stand inside an expression.
        both = f"PlantedBugs.number == {number} ? ({after}) : ({before})"
    elif bug["kind"] == "raw":
        # Both versions are in the text.
        both = after.replace("PLANTED", f"PlantedBugs.number == {number}")
    else:
        both = f"if PlantedBugs.number == {number} {{\n{after}\n}} else {{\n{before}\n}}"
    return text.replace(before, both)


def complaints(bugs):
    """What is wrong with the list."""
    found = []
    for number, bug in enumerate(bugs, 1):
        path = ROOT / bug["file"]
        if bug["kind"] not in ("expression", "condition", "statement", "raw"):
            found.append(f"bug {number}: kind is {bug['kind']!r}; use expression, condition, statement or raw")
        if not path.is_file():
            found.append(f"bug {number}: there is no {bug['file']}")
            continue
        count = path.read_text().count(bug["original"])
        if count != 1:
            found.append(f"bug {number} ({bug['what']}): its text occurs {count} times in {bug['file']}, not once")
        if bug["original"] == bug["changed"]:
            found.append(f"bug {number}: nothing is changed")
    return found


def manifest(checkouts):
    """The package's manifest."""
    lines = [
        "// swift-tools-version: 6.2",
        "import PackageDescription",
        "let settings: [SwiftSetting] = [",
        '    .swiftLanguageMode(.v6), .enableUpcomingFeature("ExistentialAny"),',
        '    .enableUpcomingFeature("InternalImportsByDefault"), .enableUpcomingFeature("MemberImportVisibility"),',
        '    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),',
        "]",
        'let nioCore = Target.Dependency.product(name: "NIOCore", package: "swift-nio")',
        "let package = Package(",
        '    name: "planted",',
        f'    dependencies: [.package(path: "{checkouts / "swift-nio"}")],',
        "    targets: [",
        '        .systemLibrary(name: "CNGHTTP2", pkgConfig: "libnghttp2"),',
        '        .target(name: "PlantedBugs", swiftSettings: settings),',
    ]
    for name, needs in MODULES.items():
        listed = ", ".join("nioCore" if need == "NIOCore" else f'"{need}"' for need in ["PlantedBugs"] + needs)
        lines.append(f'        .target(name: "{name}", dependencies: [{listed}], swiftSettings: settings),')
    lines.append(
        '        .executableTarget(name: "planted", dependencies: ["FaultSimulation", "PlantedBugs"],'
        " swiftSettings: settings),"
    )
    return "\n".join(lines + ["    ]", ")", ""])


def write(out, bugs):
    """Writes the package; files that have not changed keep their times."""
    files = {}
    for module in list(MODULES) + ["CNGHTTP2"]:
        for path in sorted((ROOT / "Sources" / module).rglob("*")):
            if path.is_file():
                files[str(path.relative_to(ROOT))] = path.read_text()
    for number, bug in enumerate(bugs, 1):
        text = planted(files[bug["file"]], number, bug)
        if "internal import PlantedBugs" not in text:
            head, rest = text.split("\n", 1)
            text = f"{head}\n\ninternal import PlantedBugs\n{rest}"
        files[bug["file"]] = text
    files["Sources/PlantedBugs/PlantedBugs.swift"] = (
        "public enum PlantedBugs { public nonisolated(unsafe) static var number = 0 }\n"
    )
    files["Sources/planted/main.swift"] = pathlib.Path(__file__).with_name("main.swift").read_text()
    files["Package.swift"] = manifest(ROOT / ".build" / "checkouts")
    sources = out / "Sources"
    if sources.is_dir():
        for path in sorted(sources.rglob("*")):
            if path.is_file() and str(path.relative_to(out)) not in files:
                path.unlink()
    for name, text in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def main():
    bugs = json.loads(BUGS.read_text())
    found = complaints(bugs)
    if found:
        sys.exit("\n".join(found))
    if sys.argv[1:] == ["--check"]:
        print(f"{len(bugs)} planted bugs fit their files")
    elif sys.argv[1:] == ["--list"]:
        for number, bug in enumerate(bugs, 1):
            print(f"{number}\t{bug['file'].split('/')[1]}\t{bug['what']}")
    elif len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        write(pathlib.Path(sys.argv[1]), bugs)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
