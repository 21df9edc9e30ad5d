// SPDX-License-Identifier: Apache-2.0

import Foundation

#if canImport(Glibc)
import Glibc
#elseif canImport(Musl)
import Musl
#elseif canImport(Darwin)
import Darwin
#endif

/// What the system reports about this process in `/proc`; missing values are nil.
///
/// Source: proc(5).
struct ProcessStatistics: Sendable, Hashable {
    var cpuSeconds: Double?
    var residentBytes: UInt64?
    var virtualBytes: UInt64?
    var threads: UInt64?
    var startTimeSeconds: Double?
    var openDescriptors: UInt64?
    var maxDescriptors: UInt64?

    /// The current values of this process.
    static var current: ProcessStatistics {
        var statistics = ProcessStatistics()
        statistics.read(
            stat: Self.text("/proc/self/stat"),
            ticksPerSecond: Double(sysconf(Int32(_SC_CLK_TCK))),
            pageBytes: UInt64(clamping: sysconf(Int32(_SC_PAGESIZE)))
        )
        if let boot = Self.bootTime(inStat: Self.text("/proc/stat")), let start = statistics.startTimeSeconds {
            statistics.startTimeSeconds = boot + start
        } else {
            statistics.startTimeSeconds = nil
        }
        let descriptors = try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")
        statistics.openDescriptors = descriptors.map { UInt64($0.count) }
        statistics.maxDescriptors = Self.descriptorLimit(inLimits: Self.text("/proc/self/limits"))
        return statistics
    }

    /// Reads `/proc/self/stat`, whose times count from the system's start.
    mutating func read(stat: String, ticksPerSecond: Double, pageBytes: UInt64) {
        // The second field is the program's name in parentheses, which may hold anything but ends with the last one.
        guard ticksPerSecond > 0, let end = stat.lastIndex(of: ")") else { return }
        let fields = stat[stat.index(after: end)...].split(separator: " ")
        // Fields are numbered from 1 in the manual; the first one here is its third.
        func field(_ number: Int) -> UInt64? {
            fields.indices.contains(number - 3) ? UInt64(fields[number - 3].trimmingCharacters(in: .newlines)) : nil
        }
        if let user = field(14), let system = field(15) {
            self.cpuSeconds = (Double(user) + Double(system)) / ticksPerSecond
        }
        self.threads = field(20)
        self.startTimeSeconds = field(22).map { Double($0) / ticksPerSecond }
        self.virtualBytes = field(23)
        self.residentBytes = field(24).map { $0.multipliedReportingOverflow(by: pageBytes).partialValue }
    }

    /// When the system started, in seconds since 1970, from `/proc/stat`.
    static func bootTime(inStat text: String) -> Double? {
        for line in text.split(separator: "\n") where line.hasPrefix("btime ") {
            return Double(line.dropFirst(6))
        }
        return nil
    }

    /// The soft limit of open files from `/proc/self/limits`.
    static func descriptorLimit(inLimits text: String) -> UInt64? {
        let name = "Max open files"
        for line in text.split(separator: "\n") where line.hasPrefix(name) {
            return line.dropFirst(name.count).split(separator: " ").first.flatMap { UInt64($0) }
        }
        return nil
    }

    private static func text(_ path: String) -> String {
        (try? String(contentsOfFile: path, encoding: .utf8)) ?? ""
    }
}

extension MetricSnapshot {
    /// Adds what the system reports about this process.
    public mutating func setProcess() { self.set(.current) }

    mutating func set(_ process: ProcessStatistics) {
        if let value = process.cpuSeconds { self.set(MetricCatalog.service.cpuSecondsTotal, value) }
        if let value = process.residentBytes { self.set(MetricCatalog.service.residentMemoryBytes, value) }
        if let value = process.virtualBytes { self.set(MetricCatalog.service.virtualMemoryBytes, value) }
        if let value = process.openDescriptors { self.set(MetricCatalog.service.openFds, value) }
        if let value = process.maxDescriptors { self.set(MetricCatalog.service.maxFds, value) }
        if let value = process.threads { self.set(MetricCatalog.service.threads, value) }
        if let value = process.startTimeSeconds { self.set(MetricCatalog.service.startTimeSeconds, value) }
    }
}
