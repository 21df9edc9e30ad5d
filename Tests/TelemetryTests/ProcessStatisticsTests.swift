// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import Telemetry

@Suite("What the system reports about a process")
struct ProcessStatisticsTests {
    @Test("the fields follow proc(5), whatever the program's name")
    func stat() {
        let text =
            "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 7 0 12345 104857600 2560 "
            + "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0\n"
        var statistics = ProcessStatistics()
        statistics.read(stat: text, ticksPerSecond: 100, pageBytes: 4096)
        #expect(statistics.cpuSeconds == 3)
        #expect(statistics.threads == 7)
        #expect(statistics.startTimeSeconds == 123.45)
        #expect(statistics.virtualBytes == 104_857_600)
        #expect(statistics.residentBytes == 2560 * 4096)
    }

    @Test("missing values are left out", arguments: ["", "4711 (a", "4711 (a) S", "4711 (a) S x y z"])
    func missing(text: String) {
        var statistics = ProcessStatistics()
        statistics.read(stat: text, ticksPerSecond: 100, pageBytes: 4096)
        #expect(statistics == ProcessStatistics())
        var snapshot = MetricSnapshot()
        snapshot.set(statistics)
        #expect(snapshot.samples.isEmpty)
    }

    @Test("the system's start and the limit of open files are found")
    func others() {
        #expect(ProcessStatistics.bootTime(inStat: "cpu 1 2\nbtime 1700000000\nprocesses 1\n") == 1_700_000_000)
        #expect(ProcessStatistics.bootTime(inStat: "cpu 1 2\n") == nil)
        let limits =
            "Limit   Soft Limit  Hard Limit  Units\nMax open files            1024                 4096   files\n"
        #expect(ProcessStatistics.descriptorLimit(inLimits: limits) == 1024)
        #expect(ProcessStatistics.descriptorLimit(inLimits: "Max open files  unlimited  unlimited  files\n") == nil)
    }

    #if os(Linux)
    @Test("this process is one")
    func current() throws {
        var snapshot = MetricSnapshot()
        snapshot.setProcess()
        let resident = try #require(snapshot.value("process_resident_memory_bytes"))
        #expect(resident > 1_048_576)
        let start = try #require(snapshot.value("process_start_time_seconds"))
        let now = Date().timeIntervalSince1970
        let isToday = start <= now + 1 && start > now - 86_400
        #expect(isToday)
        for name in [
            "process_cpu_seconds_total", "process_virtual_memory_bytes", "process_open_fds", "process_max_fds",
            "process_threads",
        ] {
            let value = try #require(snapshot.value(name))
            #expect(value > 0, "\(name)")
        }
    }
    #endif
}
