// SPDX-License-Identifier: Apache-2.0

import Testing

@Suite("Imports between targets")
struct ImportTests {
    @Test("sources import what the table allows, and nothing else")
    func sources() throws {
        var offences: [Offence] = []
        let files = try Repository.swiftSources.get()
        #expect(!files.isEmpty)
        for file in files {
            guard let target = file.target, let allowed = ImportTable.allowed[target] else {
                offences.append(Offence(path: file.path, line: 1, what: "the target is not in the table of imports"))
                continue
            }
            for (module, line) in ImportScanner.imports(of: file)
            where !allowed.contains(module) && !ImportTable.everywhere.contains(module) && module != target {
                offences.append(Offence(path: file.path, line: line, what: "\(target) may not import \(module)"))
            }
        }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("the manifest gives no target a dependency that the table does not allow")
    func manifest() throws {
        let targets = ManifestScanner.targets(in: try Repository.read("Package.swift"))
        #expect(!targets.isEmpty)
        var offences: [Offence] = []
        for target in targets {
            let excess = target.dependencies.subtracting(ImportTable.allowed[target.name] ?? [])
                .subtracting(ImportTable.everywhere)
            for module in excess.sorted() {
                let what = "the table does not let \(target.name) depend on \(module)"
                offences.append(Offence(path: "Package.swift", line: target.line, what: what))
            }
        }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("what a target imports is declared in the manifest, and not found by way of another target")
    func declared() throws {
        let declared = Dictionary(
            ManifestScanner.targets(in: try Repository.read("Package.swift")).map { ($0.name, $0.dependencies) },
            uniquingKeysWith: { first, _ in first }
        )
        var offences: [Offence] = []
        for file in try Repository.swiftSources.get() {
            guard let target = file.target, let dependencies = declared[target] else { continue }
            for (module, line) in ImportScanner.imports(of: file)
            where !dependencies.contains(module) && !ImportTable.toolchain.contains(module) && module != target {
                let what = "\(target) imports \(module), but Package.swift does not say that it depends on it"
                offences.append(Offence(path: file.path, line: line, what: what))
            }
        }
        #expect(offences.isEmpty, "\(report(offences))")
    }

    @Test("the serving program is linked with nothing that only the workshop needs")
    func serving() throws {
        let declared = Dictionary(
            ManifestScanner.targets(in: try Repository.read("Package.swift")).map { ($0.name, $0.dependencies) },
            uniquingKeysWith: { first, _ in first }
        )
        var below: Set<String> = []
        var open = ["switchyard"]
        while let target = open.popLast() {
            if below.insert(target).inserted { open += declared[target] ?? [] }
        }
        #expect(below.isSuperset(of: ["switchyard", "GatewayServing", "TensorKernels", "CKernels", "CNGHTTP2"]))
        let workshop: Set = ["COpenBLAS", "LossyExperts", "PoolSimulation", "FaultSimulation", "switchyard-bench"]
        #expect(below.isDisjoint(with: workshop), "\(below.intersection(workshop))")
    }

    @Test("the table itself has no circle")
    func acyclic() {
        // Takes away targets that need nothing of what is left, until none is left.
        var left = ImportTable.allowed.mapValues { $0.intersection(ImportTable.allowed.keys) }
        while !left.isEmpty {
            let free = Set(left.filter { $0.value.isEmpty }.keys)
            #expect(!free.isEmpty, "a circle among \(left.keys.sorted())")
            guard !free.isEmpty else { return }
            left = left.filter { !free.contains($0.key) }.mapValues { $0.subtracting(free) }
        }
    }
}

@Suite("Scanners of the repository tests")
struct ScannerTests {
    @Test(
        "imports are found in all their forms",
        arguments: [
            ("import NIOCore", ["NIOCore"]),
            ("public import NIOCore", ["NIOCore"]),
            ("  private import NIOCore // why", ["NIOCore"]),
            ("@preconcurrency internal import NIOCore", ["NIOCore"]),
            ("@_implementationOnly import NIOCore", ["NIOCore"]),
            ("import struct NIOCore.ByteBuffer", ["NIOCore"]),
            ("import Glibc; import Musl", ["Glibc", "Musl"]),
            ("// import NIOCore", []),
            ("/* a\nimport NIOCore\n*/import Musl", ["Musl"]),
            ("let text = \"import NIOCore\"", []),
            ("let text = \"\"\"\nimport NIOCore\n\"\"\"", []),
            ("let address = \"http://host\"; import NIOCore", ["NIOCore"]),
            ("let important = 1", []),
        ]
    )
    func imports(text: String, modules: [String]) {
        let file = SwiftFile(path: "Sources/T/F.swift", text: text)
        #expect(ImportScanner.imports(of: file).map(\.module) == modules)
    }

    @Test("the line of an import is the file's")
    func importLines() {
        let file = SwiftFile(path: "Sources/T/F.swift", text: "// header\n\nimport A\nimport B\n")
        #expect(ImportScanner.imports(of: file).map(\.line) == [3, 4])
        #expect(file.target == "T")
        #expect(file.text.lineCount == 4)
    }

    @Test("targets and their dependencies are read from a manifest")
    func manifest() {
        let text = """
            let nio = Target.Dependency.product(name: "NIOCore", package: "swift-nio")
            let package = Package(targets: [
                .systemLibrary(name: "C", pkgConfig: "c", providers: [.apt(["c-dev"])]),
                .target(name: "A", swiftSettings: swiftSettings),
                .executableTarget(
                    name: "b",
                    dependencies: [
                        "A", nio,
                    ],
                    swiftSettings: swiftSettings
                ),
                .testTarget(name: "ATests", dependencies: ["A", "b"]),
            ])
            """
        #expect(
            ManifestScanner.targets(in: text) == [
                DeclaredTarget(name: "C", line: 3, dependencies: []),
                DeclaredTarget(name: "A", line: 4, dependencies: []),
                DeclaredTarget(name: "b", line: 5, dependencies: ["A", "NIOCore"]),
            ]
        )
    }

    @Test(
        "words are found in code, and not in comments or strings",
        arguments: [
            ("let x = try! f()", true), ("let x = try!f()", true), ("let x = y as! Int", true),
            ("fatalError(\"no\")", true), ("// try! it", false), ("let x = \"try! it\"", false),
            ("let x = try f()", false), ("if canvas != other {", false), ("if bias!.isEmpty {", false),
            ("notfatalError()", false),
        ]
    )
    func forbiddenWords(text: String, isForbidden: Bool) {
        let offences = SourceRules.forbiddenWords(in: SwiftFile(path: "Sources/T/F.swift", text: text))
        #expect(offences.isEmpty != isForbidden)
    }

    @Test("an unchecked promise needs its reason close by")
    func safetyComments() {
        let bare = SwiftFile(path: "Sources/T/F.swift", text: "final class C: @unchecked Sendable {}")
        #expect(SourceRules.unexplainedPromises(in: bare).map(\.line) == [1])
        let explained = SwiftFile(
            path: "Sources/T/F.swift",
            text: "// Safety: the memory is never written.\nfinal class C: @unchecked Sendable {}"
        )
        #expect(SourceRules.unexplainedPromises(in: explained).isEmpty)
    }

    @Test("links are found outside code, with their lines")
    func links() {
        let text = """
            [one](a.md) and ![two](b/c.svg "title")
            ```
            [three](not-a-link.md)
            ```
            `[four](not-a-link.md)` [five](#part) <img src="d.png">
            """
        let links = MarkdownScanner.links(in: TextFile(path: "README.md", text: text))
        #expect(links.map(\.target) == ["a.md", "b/c.svg", "#part", "d.png"])
        #expect(links.map(\.line) == [1, 1, 5, 5])
    }

    @Test(
        "headings have the anchors that GitHub gives them",
        arguments: [
            ("## Try it", "try-it"), ("# `switchyard up`: a cluster", "switchyard-up-a-cluster"),
            ("### A [link](x.md)!", "a-link"), ("## One, two & three", "one-two--three"),
        ]
    )
    func anchors(heading: String, anchor: String) {
        #expect(MarkdownScanner.anchors(in: TextFile(path: "README.md", text: heading)) == [anchor])
    }
}
