// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import RPCTransport

@Suite("Machines of transport security")
struct SecurityMachineTests {
    private static func stamp(_ inode: UInt64) -> FileStamp {
        FileStamp(
            device: 1,
            inode: inode,
            byteCount: 1,
            modifiedSeconds: 0,
            modifiedNanoseconds: 0,
            changedSeconds: 0,
            changedNanoseconds: 0,
            mode: 0o600
        )
    }

    @Test("files are loaded once a change has been seen twice, and not again before the next change")
    func fileWatch() {
        let (one, two, three) = (Self.stamp(1), Self.stamp(2), Self.stamp(3))
        var watch = FileWatch(loaded: [one, one])
        #expect(watch.looked([one, one]) == .wait)
        #expect(watch.looked([two, one]) == .lookAgain)
        // The second file follows the first.
        #expect(watch.looked([two, two]) == .lookAgain)
        #expect(watch.looked([two, two]) == .load)
        #expect(watch.looked([two, two]) == .wait)
        // A file that disappears for a moment and returns the same has not changed.
        #expect(watch.looked([two, nil]) == .lookAgain)
        #expect(watch.looked([two, two]) == .wait)
        #expect(watch.looked([three, nil]) == .lookAgain)
        #expect(watch.looked([three, nil]) == .load)
        #expect(watch.looked([three, nil]) == .wait)
        #expect(watch.looked([one, one]) == .lookAgain)
        #expect(watch.looked([one, one]) == .load)
    }

    @Test("a file's stamp changes with its content, its permissions and its inode")
    func stamps() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("stamp-\(UUID().uuidString)").path
        defer { try? FileManager.default.removeItem(atPath: path) }
        #expect(FileStamp.of(path) == nil)
        try Data([1]).write(to: URL(fileURLWithPath: path))
        let first = FileStamp.of(path)
        #expect(first != nil)
        #expect(FileStamp.of(path) == first)
        try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: path)
        let second = FileStamp.of(path)
        #expect(second != first)
        try Data([2]).write(to: URL(fileURLWithPath: path), options: .atomic)
        #expect(FileStamp.of(path)?.inode != second?.inode)
    }

    @Test("a flood of refused clients makes few log lines, and the next line counts the suppressed ones")
    func logBudget() {
        let start = ContinuousClock.now
        var budget = LogBudget(burst: 3, interval: .seconds(10), now: start)
        #expect((0..<5).map { _ in budget.take(now: start) } == [0, 0, 0, nil, nil])
        #expect(budget.take(now: start + .seconds(9)) == nil)
        #expect(budget.take(now: start + .seconds(10)) == 3)
        #expect(budget.take(now: start + .seconds(11)) == nil)
        #expect(budget.take(now: start + .seconds(3_600)) == 1)
        #expect(budget.take(now: start + .seconds(3_600)) == 0)
    }

    @Test(
        "allow-lists compare DNS names case-insensitively, URIs exactly, and never match wildcards",
        arguments: [
            (["gateway.test"], true), (["GATEWAY.test"], true), (["test:gateway"], true), (["test:Gateway"], false),
            (["*.test"], false), (["other.test", "test:gateway"], true), ([], false), (["any.wild.test"], false),
        ]
    )
    func allowLists(list: [String], isListed: Bool) {
        let identity = PeerIdentity(dnsNames: ["Gateway.test", "*.wild.test", "*.test"], uris: ["test:gateway"])
        #expect(identity.isListed(in: list) == isListed)
    }

    @Test(
        "a wildcard covers one label, and only the first",
        arguments: [
            ("a.wild.test", true), ("A.Wild.Test", true), ("wild.test", false), ("a.b.wild.test", false),
            ("exact.test", true), ("sub.exact.test", false), ("test", false),
        ]
    )
    func serverNames(name: String, isCovered: Bool) {
        let identity = PeerIdentity(dnsNames: ["*.wild.test", "exact.test"], uris: ["test:exact"])
        #expect(identity.covers(serverName: name) == isCovered)
    }

    @Test(
        "loopback is only what certainly is this machine",
        arguments: [
            ("127.0.0.1", true), ("127.8.9.10", true), ("::1", true), ("localhost", true), ("LocalHost", true),
            ("a.localhost", true), ("::ffff:127.0.0.1", true), ("0.0.0.0", false), ("::", false),
            ("10.0.0.1", false), ("gateway", false), ("localhost.test", false), ("127.0.0.1.test", false),
            ("::ffff:10.0.0.1", false), ("", false),
        ]
    )
    func loopback(host: String, isLoopback: Bool) {
        #expect(LoopbackHost.contains(host) == isLoopback)
    }

    @Test("a server that refuses a client is retried later each time, although its connections come up")
    func refusedConnections() {
        let policy = ReconnectPolicy(initial: .seconds(1), multiplier: 2, jitter: 0, maximum: .seconds(8))
        var machine = SlotMachine(policy: policy)
        let start = ContinuousClock.now
        #expect(machine.started(now: start) == .connect)
        for wait in [1, 2, 4, 8, 8] {
            machine.connectionReady()
            #expect(machine.connectionRefused(chance: 0.5) == .wait(.seconds(wait)))
            #expect(machine.phase == .waiting)
            #expect(machine.waitEnded(now: start) == .connect)
        }
        machine.connectionReady()
        machine.stopped()
        #expect(machine.connectionRefused(chance: 0.5) == .none)
    }

    @Test("TLS is distinguished from HTTP/2 by its first bytes")
    func mismatch() {
        #expect(ProtocolMismatch.reason(firstBytes: 0x1603) == ProtocolMismatch.clientSpeaksTLS)
        #expect(ProtocolMismatch.reason(firstBytes: 0x1503) == ProtocolMismatch.serverSpeaksTLS)
        #expect(ProtocolMismatch.reason(firstBytes: 0x5052) == nil)
        #expect(ProtocolMismatch.reason(firstBytes: nil) == nil)
    }
}
