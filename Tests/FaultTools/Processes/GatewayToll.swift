// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Synchronization

/// What a fault cost a gateway's process.
package struct GatewayToll: Sendable, Codable, Hashable {
    /// Resident memory just before the fault, in bytes.
    package var residentBefore = 0
    /// The most resident memory while it lasted, in bytes; nil where the process did not survive it.
    package var residentPeak: Int?
    /// Resident memory once the load has run without the fault again, in bytes; nil where there is none.
    package var residentAfter: Int?
    /// Processors in use before the fault, on average.
    package var quietProcessors = 0.0
    /// Processors in use while it lasted; nil where the process did not survive it.
    package var processors: Double?

    /// How far the peak exceeds the size before, in bytes.
    package var growth: Int { max(0, (self.residentPeak ?? 0) - self.residentBefore) }
}

/// Reads what a process uses before, during and after a fault.
final class TollMeter: Sendable {
    private struct State {
        var toll = GatewayToll()
        var quiet: (time: ContinuousClock.Instant, seconds: Double)?
        var fault: (time: ContinuousClock.Instant, seconds: Double)?
    }

    private let process: KeptProcess
    private let state = Mutex(State())

    init(_ process: KeptProcess) { self.process = process }

    /// The load runs, undisturbed.
    func beginQuiet() {
        guard let seconds = self.process.processorSeconds else { return }
        self.state.withLock { $0.quiet = (.now, seconds) }
    }

    /// The fault begins.
    func beginFault() {
        guard let seconds = self.process.processorSeconds, let bytes = self.process.residentBytes else { return }
        self.process.forgetPeak()
        self.state.withLock { state in
            state.fault = (.now, seconds)
            state.toll.residentBefore = bytes
            if let quiet = state.quiet { state.toll.quietProcessors = Self.share(since: quiet, seconds) }
        }
    }

    /// The fault has ended.
    func endFault() {
        guard let seconds = self.process.processorSeconds else { return }
        let peak = self.process.peakResidentBytes
        self.state.withLock { state in
            state.toll.residentPeak = peak
            state.toll.processors = state.fault.map { Self.share(since: $0, seconds) }
        }
    }

    /// The load has run without the fault again.
    func end() {
        let bytes = self.process.residentBytes
        self.state.withLock { $0.toll.residentAfter = bytes }
    }

    /// What was read; nil where the process had already gone.
    var toll: GatewayToll? { self.state.withLock { $0.fault == nil ? nil : $0.toll } }

    private static func share(since begin: (time: ContinuousClock.Instant, seconds: Double), _ now: Double) -> Double {
        (now - begin.seconds) / max(begin.time.duration(to: .now).seconds, 0.001)
    }
}

extension KeptProcess {
    /// The processor time so far in seconds, while the process runs.
    package var processorSeconds: Double? {
        guard let identifier = self.identifier,
            let text = try? String(contentsOfFile: "/proc/\(identifier)/stat", encoding: .utf8)
        else { return nil }
        // Behind the name, which may hold anything: the state is field 3, utime 14, stime 15.
        let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return nil }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }

    /// The most resident memory since ``forgetPeak()`` in bytes, while the process runs.
    package var peakResidentBytes: Int? {
        guard let identifier = self.identifier,
            let text = try? String(contentsOfFile: "/proc/\(identifier)/status", encoding: .utf8)
        else { return nil }
        let line = text.split(separator: "\n").first { $0.hasPrefix("VmHWM:") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }.map { $0 << 10 }
    }

    /// Makes the peak the present size.
    package func forgetPeak() {
        guard let identifier = self.identifier else { return }
        try? "5".write(toFile: "/proc/\(identifier)/clear_refs", atomically: false, encoding: .utf8)
    }
}
