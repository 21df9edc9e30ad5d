// SPDX-License-Identifier: Apache-2.0

import Foundation
import Synchronization
import Testing

@testable import ServiceKit

@Suite("Threads that compute")
struct ComputeThreadTests {
    /// The calling thread's nice value: field 19 of `/proc/thread-self/stat`, where the name in parentheses may hold spaces.
    private static func niceness() -> Int? {
        guard let line = try? String(contentsOfFile: "/proc/thread-self/stat", encoding: .utf8),
            let end = line.lastIndex(of: ")")
        else { return nil }
        let fields = line[line.index(after: end)...].split(separator: " ")
        return fields.count > 16 ? Int(fields[16]) : nil
    }

    @Test("A thread that gives way is nicer than the one beside it")
    func givesWay() async throws {
        let found = Mutex<[Int?]>([])
        try await ComputeThread.run(name: "plain") { found.withLock { $0.append(Self.niceness()) } }
        try await ComputeThread.run(name: "background", givesWay: true) {
            found.withLock { $0.append(Self.niceness()) }
        }
        let values = found.withLock { $0 }
        let plain = try #require(values[0])
        let background = try #require(values[1])
        #expect(background == max(plain, 10))
    }
}
