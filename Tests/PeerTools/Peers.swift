// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Other people's programs that the tests call.
///
/// Where the environment says that this is a continuous-integration run, a test that needs one fails if it is missing;
/// elsewhere it is skipped.
public enum Peers {
    /// The repository's root.
    public static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

    /// The folder with the scripts and the sources of small clients.
    public static let folder = "\(Self.root)/Tests/Peers"

    /// Whether no peer may be missing.
    public static let areRequired = ProcessInfo.processInfo.environment["CI"] != nil

    /// A python that has the packages of `Tests/Peers/requirements.txt`; `make test` sets it up.
    public static let python = "python"

    /// The same python, if it also has the packages of `python/tests/requirements.txt`; `make test` installs them.
    public static let pythonTests = "python-tests"

    /// A python that has the packages of `Tests/Peers/requirements-triton.txt`; `make test` sets it up beside the other.
    public static let tritonPython = "python-triton"

    /// A python that has the packages of `Tests/Peers/requirements-lm-eval.txt`; `make lm-eval` sets it up.
    public static let evaluationPython = "python-lm-eval"

    /// A python that has the packages of `Tests/Peers/converter-requirements.txt`; `make converter` sets it up.
    public static let converter = "converter"

    /// Whether tests that need these programs are to run: all are here, or none may be missing.
    ///
    /// - Parameter tools: Names of programs; ``python``, ``pythonTests``, ``converter`` and the C++ clients (`cpp_...`) among them.
    /// - Returns: False where the tests are to be skipped.
    public static func mayRun(_ tools: String...) -> Bool {
        Self.areRequired || tools.allSatisfy { Self.find($0) != nil }
    }

    /// Where a program is.
    ///
    /// - Parameter tool: The program's name, or ``python`` or ``pythonTests``.
    /// - Returns: Its path.
    /// - Throws: ``PeerError`` that says how to get it.
    public static func path(_ tool: String) throws(PeerError) -> String {
        if let path = Self.find(tool) { return path }
        let hint =
            if tool == Self.python || tool == Self.pythonTests {
                "SWITCHYARD_TEST_PYTHON names no python with the peers' packages; run the tests with: make test"
            } else if tool == Self.tritonPython {
                "there is no python with tritonclient beside SWITCHYARD_TEST_PYTHON; run the tests with: make test"
            } else if tool == Self.evaluationPython {
                "there is no python with lm-evaluation-harness beside SWITCHYARD_TEST_PYTHON; install it with: make lm-eval"
            } else if tool == Self.converter {
                "SWITCHYARD_TEST_CONVERTER names no python with CTranslate2; install it with: make converter"
            } else if tool.hasPrefix("cpp_") {
                "\(tool) is not built; build it with: make peers-cpp"
            } else {
                "\(tool) is missing, and these tests need it; install it with: deploy/install-packages.sh test"
            }
        throw PeerError(description: hint)
    }

    /// Finds a program that the tests' build wrote beside the tests.
    ///
    /// - Parameter name: An executable target's name.
    /// - Returns: Its path.
    public static func built(_ name: String) -> String {
        let tests =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(fileURLWithPath: tests).deletingLastPathComponent().appendingPathComponent(name).path
    }

    private static func find(_ tool: String) -> String? {
        let environment = ProcessInfo.processInfo.environment
        if tool == Self.converter {
            return environment["SWITCHYARD_TEST_CONVERTER"].flatMap { Self.isExecutable($0) ? $0 : nil }
        }
        if tool == Self.python {
            return environment["SWITCHYARD_TEST_PYTHON"].flatMap { Self.isExecutable($0) ? $0 : nil }
        }
        let besides = [Self.tritonPython: "triton", Self.evaluationPython: "lmeval"]
        if let name = besides[tool] {
            // The environments lie side by side: `.venv`, `.venv-triton` and `.venv-lmeval`.
            guard let python = environment["SWITCHYARD_TEST_PYTHON"] else { return nil }
            let folder = URL(fileURLWithPath: python).deletingLastPathComponent().deletingLastPathComponent().path
            let beside = "\(folder)-\(name)/bin/python"
            return Self.isExecutable(beside) ? beside : nil
        }
        if tool == Self.pythonTests {
            guard let python = Self.find(Self.python) else { return nil }
            let folder = URL(fileURLWithPath: python).deletingLastPathComponent().path
            return ["pytest", "mypy"].allSatisfy { Self.isExecutable("\(folder)/\($0)") } ? python : nil
        }
        if tool.hasPrefix("cpp_") {
            let path = "\(Self.root)/.build/peers/\(tool)"
            return Self.isExecutable(path) ? path : nil
        }
        // Debian keeps servers in sbin, which is not on everyone's path.
        let folders = (environment["PATH"] ?? "").split(separator: ":").map(String.init) + ["/usr/sbin", "/usr/bin"]
        return folders.map { "\($0)/\(tool)" }.first { Self.isExecutable($0) }
    }

    private static func isExecutable(_ path: String) -> Bool { FileManager.default.isExecutableFile(atPath: path) }
}

/// A peer that is missing, or that did not do what it should.
public struct PeerError: Error, CustomStringConvertible {
    /// What is wrong and what to do about it.
    public var description: String

    /// Creates an error.
    ///
    /// - Parameter description: What is wrong and what to do about it.
    public init(description: String) {
        self.description = description
    }
}
