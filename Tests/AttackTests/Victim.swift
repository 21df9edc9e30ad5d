// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import NIOCore
import PeerTools
import RPCCore
import RPCTransport
import Synchronization
import Testing

/// What an attacker found out.
struct Finding: Sendable {
    /// How many frames (or requests) it could send, into the buffers of both systems for a part.
    var frames: Int
    /// How it ended, in a few words.
    var ending: String
    /// The attacker's port, where what the server took of its connection matters.
    var port: Int?
}

/// What an attack cost the server.
struct Toll: Sendable {
    /// Growth of the resident set's peak over its size before, in KiB.
    var growthKiB = 0
    /// Processor time in seconds.
    var cpuSeconds = 0.0
    /// The slowest call of a client that meant well, in milliseconds; a busy machine makes it slower.
    var worstMilliseconds = 0.0
    /// The most processor time that the server took while one such call waited, in seconds.
    var worstCPUSeconds = 0.0
    /// Frames of the attacker that the server had taken when it ended the connection.
    var takenFrames: Int?
    /// Bytes of the attacker that the server had taken.
    var takenBytes: Int?
    /// How many calls that client made.
    var calls = 0
    /// What it complained about.
    var failures: [String] = []
}

/// Blocking work, off the threads of Swift's tasks.
func onThread<Result: Sendable>(_ work: @escaping @Sendable () throws -> Result) async throws -> Result {
    try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global().async { continuation.resume(with: Swift.Result(catching: work)) }
    }
}

/// Attacks the interop server in a process of its own while a client that means well calls it over another connection.
///
/// Fails where that client sees an error, the server computes for two seconds before it gets an answer, or the server's
/// memory grows over a limit. All of it is what the server did, and not how long it took on a machine with other work.
@discardableResult
func attack(
    _ name: String,
    flags: [String] = [],
    growthLimitMiB: Int = 32,
    _ body: @escaping @Sendable (Int) throws -> Finding
) async throws -> Toll {
    let arguments = ["server", "--announce-process", "--log-connections"] + flags
    let log = ConnectionLog()
    let (finding, toll) = try await PeerProcess.serve(
        Peers.built("switchyard-interop"),
        arguments,
        readyPrefix: "listening on ",
        onLine: { log.note($0) },
        body: { line in
            let numbers = line.split(separator: " ").compactMap { Int($0) }
            try #require(numbers.count == 2, "the server said: \(line)")
            var (finding, toll) = try await measured(port: numbers[0], process: numbers[1], body)
            if let port = finding.port {
                let taken = try await log.taken(from: port)
                toll.takenFrames = taken.frames
                toll.takenBytes = taken.bytes
                finding.frames = taken.frames
            }
            return (finding, toll)
        }
    )
    AttackReport.add(name, finding, toll)
    #expect(toll.failures.isEmpty, "\(name): \(toll.failures.prefix(3))")
    #expect(toll.calls > 0)
    #expect(toll.worstCPUSeconds < 2, "\(name): the server computed \(toll.worstCPUSeconds) s before it answered")
    #expect(toll.growthKiB < growthLimitMiB << 10, "\(name): the server grew by \(toll.growthKiB) KiB")
    return toll
}

/// What the server logs of connections that have ended.
final class ConnectionLog: Sendable {
    private let ended = Mutex<[Int: (frames: Int, bytes: Int)]>([:])

    /// Takes a line of the server's output.
    func note(_ line: String) {
        guard line.contains("connection ended"), let peer = line.firstMatch(of: /peer=[0-9.]+:([0-9]+)/),
            let frames = line.firstMatch(of: /frames=([0-9]+)/), let bytes = line.firstMatch(of: /bytes=([0-9]+)/),
            let port = Int(peer.1), let frameCount = Int(frames.1), let byteCount = Int(bytes.1)
        else { return }
        self.ended.withLock { $0[port] = (frameCount, byteCount) }
    }

    /// Waits until a client's connection has ended.
    ///
    /// - Parameter port: The client's port.
    /// - Returns: What the server had taken of it.
    /// - Throws: `PeerError` where the connection does not end.
    func taken(from port: Int) async throws -> (frames: Int, bytes: Int) {
        let deadline = ContinuousClock.now + .seconds(120)
        while ContinuousClock.now < deadline {
            if let taken = self.ended.withLock({ $0[port] }) { return taken }
            try await Task.sleep(for: .milliseconds(5))
        }
        throw PeerError(description: "the server never said that the connection from port \(port) ended")
    }
}

private func measured(
    port: Int,
    process: Int,
    _ body: @escaping @Sendable (Int) throws -> Finding
) async throws -> (Finding, Toll) {
    let channel = RPCChannel(
        target: ("127.0.0.1", port),
        configuration: RPCChannelConfiguration(reconnect: ReconnectPolicy(initial: .milliseconds(10))),
        logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
    )
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await channel.run() }
        defer { channel.shutdown() }
        // What a first call builds up is no attack's doing.
        for _ in 0..<20 { _ = try await channel.unary(emptyCall, Payload(ByteBuffer()), options: patient) }
        ProcessFigures.forgetPeak(process)
        let before = ProcessFigures(process)
        let isOver = Atomic(false)
        async let watching = watch(channel, process) { isOver.load(ordering: .relaxed) }
        let finding: Result<Finding, any Error>
        do { finding = .success(try await onThread { try body(port) }) } catch { finding = .failure(error) }
        isOver.store(true, ordering: .relaxed)
        var toll = await watching
        let after = ProcessFigures(process)
        toll.growthKiB = after.peakKiB - before.residentKiB
        toll.cpuSeconds = after.cpuSeconds - before.cpuSeconds
        channel.shutdown()
        try await tasks.waitForAll()
        return (try finding.get(), toll)
    }
}

private let emptyCall = Method(service: "grpc.testing.TestService", name: "EmptyCall")
private var patient: CallOptions { CallOptions(deadline: .now + .seconds(120), waitForReady: true) }

/// Calls until it is told to stop, one call at a time.
private func watch(_ channel: RPCChannel, _ process: Int, until isOver: @Sendable () -> Bool) async -> Toll {
    var toll = Toll()
    repeat {
        let start = ContinuousClock.now
        let computed = ProcessFigures(process).cpuSeconds
        do {
            _ = try await channel.unary(emptyCall, Payload(ByteBuffer()), options: patient)
        } catch {
            toll.failures.append("\(error)")
        }
        let taken = (ContinuousClock.now - start) / .milliseconds(1)
        toll.worstMilliseconds = max(toll.worstMilliseconds, taken)
        toll.worstCPUSeconds = max(toll.worstCPUSeconds, ProcessFigures(process).cpuSeconds - computed)
        toll.calls += 1
        // A client with a little to do, not a second flood.
        try? await Task.sleep(for: .milliseconds(2))
    } while !isOver() && toll.failures.count < 10
    return toll
}

/// What the system says of a process.
struct ProcessFigures {
    /// Memory in use now, in KiB.
    var residentKiB = 0
    /// The most memory that was in use since ``forgetPeak(_:)``, in KiB.
    var peakKiB = 0
    /// Processor time so far, in seconds.
    var cpuSeconds = 0.0

    init(_ process: Int) {
        let status = (try? String(contentsOfFile: "/proc/\(process)/status", encoding: .utf8)) ?? ""
        for line in status.split(separator: "\n") {
            let number = line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) } ?? 0
            if line.hasPrefix("VmRSS:") { self.residentKiB = number }
            if line.hasPrefix("VmHWM:") { self.peakKiB = number }
        }
        let stat = (try? String(contentsOfFile: "/proc/\(process)/stat", encoding: .utf8)) ?? ""
        // Behind the name, which may hold anything: the state is field 3, utime 14, stime 15.
        let fields = stat.split(separator: ")").last?.split(separator: " ").map(String.init) ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return }
        self.cpuSeconds = (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// Makes the process's peak its present size.
    static func forgetPeak(_ process: Int) {
        try? "5".write(toFile: "/proc/\(process)/clear_refs", atomically: false, encoding: .utf8)
    }
}

/// The table that is written where `SWITCHYARD_ATTACK_REPORT` names a file.
enum AttackReport {
    private static let rows = Mutex<[String]>([])

    static func add(_ name: String, _ finding: Finding, _ toll: Toll) {
        guard let path = ProcessInfo.processInfo.environment["SWITCHYARD_ATTACK_REPORT"] else { return }
        let growth = String(format: "%.1f MiB", Double(toll.growthKiB) / 1_024)
        let times = String(format: "%.2f s | %.0f ms", toll.cpuSeconds, toll.worstMilliseconds)
        let row = "| \(name) | \(finding.frames) | \(finding.ending) | \(growth) | \(times) |"
        let text = Self.rows.withLock { rows in
            rows.append(row)
            return rows.joined(separator: "\n")
        }
        let head = "| Attack | frames | how it ended | memory | processor | slowest call |\n|---|---|---|---|---|---|\n"
        try? (head + text + "\n").write(toFile: path, atomically: true, encoding: .utf8)
    }
}
