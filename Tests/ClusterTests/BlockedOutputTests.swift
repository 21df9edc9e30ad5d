// SPDX-License-Identifier: Apache-2.0

import CommandKit
import Foundation
import Subprocess
import Synchronization
import SystemPackage
import Testing

@testable import switchyard

/// Processes whose standard error or output is a full pipe that nobody reads.
@Suite("Output that nobody reads", .serialized)
struct BlockedOutputTests {
    /// Longer than anything here takes: only a hang runs into it.
    private static let patience = Duration.seconds(240)

    /// A pipe without room.
    private struct FullPipe {
        let reader: FileDescriptor
        let writer: FileDescriptor

        init() throws {
            (self.reader, self.writer) = try BlockedOutputTests.pipe()
            let flags = fcntl(self.writer.rawValue, F_GETFL)
            _ = fcntl(self.writer.rawValue, F_SETFL, flags | O_NONBLOCK)
            let block = [UInt8](repeating: UInt8(ascii: "."), count: 4096)
            while (try? block.withUnsafeBytes { try self.writer.write($0) }) != nil {}
            _ = fcntl(self.writer.rawValue, F_SETFL, flags)
        }

        /// Reads until a text came, or every writer is gone.
        ///
        /// - Returns: What came after the filling.
        func read(until text: String) throws -> String {
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while true {
                let count = try buffer.withUnsafeMutableBytes { try self.reader.read(into: $0) }
                guard count > 0 else { break }
                bytes += buffer[..<count].drop { bytes.isEmpty && $0 == UInt8(ascii: ".") }
                if String(decoding: bytes, as: UTF8.self).contains(text) { break }
            }
            return String(decoding: bytes, as: UTF8.self)
        }
    }

    /// A pipe that no other process inherits.
    private static func pipe() throws -> (FileDescriptor, FileDescriptor) {
        let (reader, writer) = try FileDescriptor.pipe()
        for end in [reader, writer] { _ = fcntl(end.rawValue, F_SETFD, FD_CLOEXEC) }
        return (reader, writer)
    }

    /// Runs a program with these streams while a body looks on; the body gets its process.
    private func run(
        _ arguments: [String],
        environment: [String: String] = [:],
        output: FileDescriptor?,
        error: FileDescriptor,
        _ body: @escaping @Sendable (Int32) async throws -> Void
    ) async throws -> TerminationStatus {
        let variables = environment.map { (Environment.Key(stringLiteral: $0.key), String?.some($0.value)) }
        let null = try FileDescriptor.open("/dev/null", .writeOnly)
        return
            try await Subprocess.run(
                .path(FilePath(TestCluster.executable)),
                arguments: Arguments(arguments),
                environment: .inherit.updating(Dictionary(variables) { first, _ in first }),
                workingDirectory: FilePath(TestCluster.root),
                input: .inputWriter,
                output: .fileDescriptor(output ?? null, closeAfterSpawningProcess: output == nil),
                error: .fileDescriptor(error, closeAfterSpawningProcess: false)
            ) { execution in
                let process = execution.processIdentifier.value
                // A test that fails must not wait for the process for ever.
                let limit = Task {
                    try await Task.sleep(for: Self.patience)
                    kill(process, SIGKILL)
                }
                defer { limit.cancel() }
                do {
                    try await body(process)
                } catch {
                    kill(process, SIGKILL)
                    throw error
                }
            }
            .terminationStatus
    }

    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("blocked-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(folder)
    }

    private static func waitUntil<Value>(_ what: String, _ condition: () throws -> Value?) async throws -> Value {
        let deadline = ContinuousClock.now.advanced(by: Self.patience)
        while true {
            if let value = try condition() { return value }
            guard ContinuousClock.now < deadline else { throw ChildProcessError(description: "never: \(what)") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    @Test("a host starts, answers and drains on SIGTERM; its lines come once they are read")
    func host() async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        let pipe = try FullPipe()
        let file = "\(workspace.folder)/address"
        let status = try await self.run(
            [
                "expert-host", "--shard", "\(workspace.folder)/pool-0", "--listen", "127.0.0.1:0", "--admin-listen",
                "off", "--threads", "1", "--address-file", file, "--log-level", "trace",
            ],
            output: nil,
            error: pipe.writer
        ) { process in
            let address = try await Self.waitUntil("the host listens") {
                try? String(contentsOfFile: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
            }
            let health = try await Commands.run(TestCluster.executable, ["health", "--endpoint", address])
            #expect(health.status == 0, "\(health.errors)")
            // What waited comes once there is a reader, from the first line on.
            let text = try pipe.read(until: "serving experts")
            #expect(text.contains("info     expert-host: serving experts"), "\(text)")
            kill(process, SIGTERM)
        }
        #expect(status == .exited(0))
        try pipe.writer.close()
        #expect(try pipe.read(until: "stopped calls=").contains("draining"))
        try pipe.reader.close()
    }

    @Test("a host that is stopped while its standard error is full ends all the same")
    func stopped() async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        let pipe = try FullPipe()
        let file = "\(workspace.folder)/address"
        let status = try await self.run(
            [
                "expert-host", "--shard", "\(workspace.folder)/pool-0", "--listen", "127.0.0.1:0", "--admin-listen",
                "off", "--threads", "1", "--address-file", file, "--log-format", "json",
            ],
            output: nil,
            error: pipe.writer
        ) { process in
            _ = try await Self.waitUntil("the host listens") { try? String(contentsOfFile: file, encoding: .utf8) }
            kill(process, SIGTERM)
        }
        #expect(status == .exited(0))
        try pipe.writer.close()
        try pipe.reader.close()
    }

    @Test("a host whose standard error has no reader at all serves and drains")
    func closedPipe() async throws {
        let workspace = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: nil)
        defer { workspace.discard() }
        let (reader, writer) = try Self.pipe()
        try reader.close()
        defer { try? writer.close() }
        let file = "\(workspace.folder)/address"
        let status = try await self.run(
            [
                "expert-host", "--shard", "\(workspace.folder)/pool-0", "--listen", "127.0.0.1:0", "--admin-listen",
                "off", "--threads", "1", "--address-file", file,
            ],
            output: nil,
            error: writer
        ) { process in
            let address = try await Self.waitUntil("the host listens") {
                try? String(contentsOfFile: file, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
            }
            let health = try await Commands.run(TestCluster.executable, ["health", "--endpoint", address])
            #expect(health.status == 0, "\(health.errors)")
            kill(process, SIGTERM)
        }
        #expect(status == .exited(0))
    }

    @Test("`up` and `demo` obey SIGTERM and leave no process, with both streams full", arguments: ["up", "demo"])
    func cluster(command: String) async throws {
        try await self.inFolder { folder in
            let pipe = try FullPipe()
            var arguments = [command, "--pools", "1"]
            if command == "up" {
                arguments += [TestCluster.miniature, "--listen", "127.0.0.1:0", "--log-level", "trace"]
            }
            let children = Mutex<[Int32]>([])
            let status = try await self.run(
                arguments,
                environment: ["TMPDIR": folder],
                output: pipe.writer,
                error: pipe.writer
            ) { process in
                let found = try await Self.waitUntil("both processes run") {
                    let found = ProcessTree.children(of: process)
                    return found.count >= 2 ? found : nil
                }
                children.withLock { $0 = found }
                kill(process, SIGTERM)
            }
            // A demo that was stopped has shown nothing: status 1.
            #expect(status == .exited(command == "up" ? 0 : 1))
            #expect(!children.withLock { $0 }.contains(where: ProcessTree.isRunning))
            try pipe.writer.close()
            try pipe.reader.close()
        }
    }

    @Test("`up` whose reader has left still stops in order")
    func readerLeft() async throws {
        try await self.inFolder { folder in
            let (reader, writer) = try Self.pipe()
            let status = try await self.run(
                ["up", TestCluster.miniature, "--pools", "1", "--listen", "127.0.0.1:0"],
                environment: ["TMPDIR": folder],
                output: writer,
                error: writer
            ) { process in
                _ = try await Self.waitUntil("both processes run") {
                    ProcessTree.children(of: process).count >= 2 ? true : nil
                }
                try reader.close()
                kill(process, SIGTERM)
            }
            // Not by SIGPIPE at the line that says that it stops.
            #expect(status == .exited(0))
            try writer.close()
        }
    }

    @Test("a command whose progress nobody reads ends on a signal", arguments: [SIGTERM, SIGINT, SIGHUP])
    func pull(number: Int32) async throws {
        // A server that takes connections and never answers.
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let port = withUnsafeMutablePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { raw in
                #expect(bind(listener, raw, size) == 0 && listen(listener, 8) == 0)
                #expect(getsockname(listener, raw, &size) == 0)
            }
            return UInt16(bigEndian: pointer.pointee.sin_port)
        }
        try await self.inFolder { folder in
            let pipe = try FullPipe()
            let status = try await self.run(
                ["pull", "a/b", "--plaintext", "--endpoint", "http://127.0.0.1:\(port)"],
                environment: ["HF_HOME": folder],
                output: nil,
                error: pipe.writer
            ) { process in
                var client = sockaddr()
                var length = socklen_t(MemoryLayout<sockaddr>.size)
                // It has connected, so it handles signals itself.
                let connection = accept(listener, &client, &length)
                #expect(connection >= 0)
                kill(process, number)
            }
            #expect(status == .exited(128 + number))
            try pipe.writer.close()
            try pipe.reader.close()
        }
    }

    @Test("an answer that nobody reads does not keep the command from ending on a signal")
    func stream() async throws {
        let pipe = try FullPipe()
        let status = try await self.run(
            ["generate", "--local", TestCluster.miniature, "--stream", "--beams", "1", "my <extra_id_0> for a horse!"],
            output: pipe.writer,
            error: pipe.writer
        ) { process in
            _ = try await Self.waitUntil("it waits for the reader") {
                ProcessTree.waitsForReader(process) ? true : nil
            }
            kill(process, SIGTERM)
        }
        #expect(status == .signaled(SIGTERM))
        try pipe.writer.close()
        try pipe.reader.close()
    }
}

/// What the system says of processes.
enum ProcessTree {
    /// The processes whose parent is one process.
    static func children(of parent: Int32) -> [Int32] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap { Int32($0) }
            .filter { process in
                let fields = Self.fields(of: process)
                return fields.count > 1 && Int32(fields[1]) == parent
            }
    }

    /// A process's children, their children, and so on.
    static func descendants(of parent: Int32) -> [Int32] {
        Self.children(of: parent).flatMap { [$0] + Self.descendants(of: $0) }
    }

    /// Whether a process runs; a zombie does not.
    static func isRunning(_ process: Int32) -> Bool {
        Self.fields(of: process).first.map { $0 != "Z" && $0 != "X" } ?? false
    }

    /// After the name, which may hold anything: the state, then the parent.
    private static func fields(of process: Int32) -> [Substring] {
        let stat = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        return stat.split(separator: ")").last?.split(separator: " ") ?? []
    }

    /// Whether a thread of a process writes to its standard output and waits for the reader.
    ///
    /// Source: proc(5), `/proc/[pid]/syscall`, which names the call by the machine's number (x86-64 1, AArch64 64).
    static func waitsForReader(_ process: Int32) -> Bool {
        let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? []
        return threads.contains { thread in
            let folder = "/proc/\(process)/task/\(thread)"
            let call = (try? String(contentsOfFile: "\(folder)/syscall", encoding: .utf8)) ?? ""
            let place = (try? String(contentsOfFile: "\(folder)/wchan", encoding: .utf8)) ?? ""
            return call.hasPrefix("1 0x1 ") || call.hasPrefix("64 0x1 ") || place.contains("pipe_write")
        }
    }
}
