// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import ServiceKit

@Suite("Threads that the system allows")
struct ThreadAllowanceTests {
    @Test("threads that may be had are no error, and are ended again")
    func enough() throws {
        for _ in 0..<3 { try ThreadAllowance.require(8, for: "test") }
    }

    @Test("a refusal names who needs how many, what there is, the limits, and what to do")
    func refusal() {
        let limits = ThreadAllowance.limits(
            perUser: 8,
            controlGroups: [("/sys/fs/cgroup/a/pids.max", 100), ("/sys/fs/cgroup/pids.max", 40)]
        )
        let text = "\(ThreadAllowance.Refused(name: "switchyard up", needed: 12, given: 5, limits: limits))"
        #expect(text.contains("switchyard up needs 12 more threads") && text.contains("gives 5"))
        #expect(text.contains("ulimit -u is 8, for all threads of this user; /sys/fs/cgroup/pids.max is 40"))
        #expect(text.contains("TasksMax="))
        let unknown = ThreadAllowance.Refused(name: "x", needed: 1, given: 0, limits: [])
        #expect("\(unknown)".contains("memory or a limit of the system"))
    }

    @Test("limits of control groups of both versions are found, at every level")
    func controlGroups() {
        let files = [
            "/sys/fs/cgroup/system.slice/switchyard.service/pids.max": "64\n",
            "/sys/fs/cgroup/system.slice/pids.max": "max\n", "/sys/fs/cgroup/pids/docker/pids.max": "12\n",
        ]
        let found = ThreadAllowance.controlGroups(
            "12:cpu,cpuacct:/x\n8:pids:/docker/abc\nnonsense\n0::/system.slice/switchyard.service\n",
            read: { files[$0] }
        )
        #expect(
            found.map(\.file) == [
                "/sys/fs/cgroup/pids/docker/pids.max", "/sys/fs/cgroup/system.slice/switchyard.service/pids.max",
            ]
        )
        #expect(found.map(\.limit) == [12, 64])
        #expect(ThreadAllowance.controlGroups("", read: { _ in "1" }).isEmpty)
    }

    @Test(
        "the limit of a user",
        arguments: [("Max processes             63422                63422  processes", 63422)] as [(String, UInt64)]
    )
    func perUser(line: String, limit: UInt64) {
        #expect(ThreadAllowance.userLimit("Limit     Soft Limit\nMax cpu time  1 2\n\(line)\n") == limit)
        #expect(ThreadAllowance.userLimit("Max processes             unlimited            unlimited ") == nil)
        #expect(ThreadAllowance.userLimit("") == nil)
    }
}
