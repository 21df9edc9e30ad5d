// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import Telemetry

@Suite("One connection of the admin port")
struct AdminConnectionTests {
    private static let start = ContinuousClock.now
    private static let get = AdminRequest(method: "GET", target: "/livez", keepsAlive: true)

    private static func machine(_ limits: AdminConnection.Limits = .init()) -> AdminConnection {
        AdminConnection(limits: limits, now: self.start)
    }

    @Test("requests are answered one after another, in order")
    func pipelined() {
        var machine = Self.machine()
        let metrics = AdminRequest(method: "GET", target: "/metrics", keepsAlive: true)
        #expect(machine.bytesArrived(200, now: Self.start) == .none)
        machine.headArrived(Self.get)
        #expect(machine.requestEnded(now: Self.start) == .answer(Self.get))
        machine.headArrived(metrics)
        #expect(machine.requestEnded(now: Self.start) == .none)
        #expect(machine.answered(now: Self.start) == .answer(metrics))
        #expect(!machine.endsWith(metrics))
        #expect(machine.answered(now: Self.start) == .none)
        #expect(machine.nextDue == Self.start.advanced(by: .seconds(75)))
    }

    @Test("a client with too many waiting requests is disconnected")
    func tooManyWaiting() {
        var machine = Self.machine()
        for index in 0..<9 {
            machine.headArrived(Self.get)
            #expect(machine.requestEnded(now: Self.start) == (index == 0 ? .answer(Self.get) : .none))
        }
        machine.headArrived(Self.get)
        #expect(machine.requestEnded(now: Self.start) == .close)
        #expect(machine.isClosed)
        #expect(machine.answered(now: Self.start) == .none)
    }

    @Test("the connection ends with the answer if the client or the service wants it to")
    func lastAnswers() {
        var machine = Self.machine()
        let last = AdminRequest(method: "GET", target: "/livez", keepsAlive: false)
        machine.headArrived(last)
        #expect(machine.requestEnded(now: Self.start) == .answer(last))
        #expect(machine.endsWith(last))
        #expect(machine.answered(now: Self.start) == .close)

        machine = Self.machine()
        machine.headArrived(Self.get)
        #expect(machine.requestEnded(now: Self.start) == .answer(Self.get))
        #expect(machine.beginDraining() == .none)
        #expect(machine.endsWith(Self.get))
        #expect(machine.answered(now: Self.start) == .close)

        machine = Self.machine()
        #expect(machine.beginDraining() == .close)
        #expect(machine.nextDue == nil)
    }

    @Test("a request over the limit is refused before it is parsed, and nothing after it is read")
    func tooLarge() {
        var machine = Self.machine()
        #expect(machine.bytesArrived(16 * 1024, now: Self.start) == .none)
        let refusal = AdminRequest(refused: .tooLarge)
        #expect(machine.bytesArrived(1, now: Self.start) == .answer(refusal))
        #expect(machine.endsWith(refusal))
        #expect(!machine.isParsing)
        #expect(machine.bytesArrived(1 << 20, now: Self.start) == .none)
        // The client may not have read the answer yet, so its input is discarded for a moment.
        #expect(machine.answered(now: Self.start) == .closeOutput)
        #expect(machine.bytesArrived(1 << 20, now: Self.start) == .none)
        #expect(!machine.isParsing)
        #expect(machine.timePassed(now: Self.start) == .none)
        #expect(machine.timePassed(now: Self.start.advanced(by: .seconds(1))) == .close)
        #expect(machine.bytesArrived(1, now: Self.start) == .close)
    }

    @Test("the count restarts with each request")
    func counted() {
        var machine = Self.machine()
        for _ in 0..<100 {
            #expect(machine.bytesArrived(16 * 1024, now: Self.start) == .none)
            machine.headArrived(Self.get)
            #expect(machine.requestEnded(now: Self.start) == .answer(Self.get))
            #expect(machine.answered(now: Self.start) == .none)
        }
    }

    @Test("unparsable input is refused; after an answer in progress it ends the connection")
    func malformed() {
        var machine = Self.machine()
        #expect(machine.bytesArrived(10, now: Self.start) == .none)
        #expect(machine.refused(.malformed, now: Self.start) == .answer(AdminRequest(refused: .malformed)))
        #expect(machine.answered(now: Self.start) == .closeOutput)

        machine = Self.machine()
        machine.headArrived(Self.get)
        #expect(machine.requestEnded(now: Self.start) == .answer(Self.get))
        #expect(machine.refused(.malformed, now: Self.start) == .close)
    }

    @Test("an idle connection, a request that trickles in and an unread answer all end")
    func times() {
        var machine = Self.machine()
        // One that has asked nothing yet has less time than one that may ask again.
        #expect(machine.timePassed(now: Self.start.advanced(by: .seconds(9))) == .none)
        #expect(machine.timePassed(now: Self.start.advanced(by: .seconds(10))) == .close)
        #expect(machine.nextDue == nil)

        machine = Self.machine()
        for second in 0..<10 {
            let now = Self.start.advanced(by: .seconds(second))
            #expect(machine.bytesArrived(1, now: now) == .none)
            #expect(machine.timePassed(now: now) == .none)
        }
        #expect(machine.timePassed(now: Self.start.advanced(by: .seconds(10))) == .close)

        machine = Self.machine()
        machine.headArrived(Self.get)
        #expect(machine.requestEnded(now: Self.start) == .answer(Self.get))
        #expect(machine.nextDue == Self.start.advanced(by: .seconds(10)))
        #expect(machine.timePassed(now: Self.start.advanced(by: .seconds(10))) == .close)
    }

    @Test(
        "paths are told apart, and methods",
        arguments: [
            ("GET", "/metrics", AdminRequest.Route.metrics), ("HEAD", "/metrics", .metrics),
            ("GET", "/metrics?name[]=x", .metrics), ("GET", "/livez", .live), ("GET", "/readyz#top", .ready),
            ("GET", "http://host:7410/readyz?verbose", .ready), ("GET", "HTTP://host/readyz", .unknownPath),
            ("GET", "http://host", .unknownPath), ("GET", "/", .unknownPath), ("GET", "", .unknownPath),
            ("GET", "*", .unknownPath), ("GET", "/metrics/", .unknownPath), ("GET", "/../metrics", .unknownPath),
            ("GET", "/METRICS", .unknownPath), ("POST", "/metrics", .wrongMethod), ("get", "/metrics", .wrongMethod),
            ("DELETE", "/readyz", .wrongMethod), ("POST", "/", .unknownPath), ("CONNECT", "host:80", .unknownPath),
        ]
    )
    func routes(method: String, target: String, route: AdminRequest.Route) {
        #expect(AdminRequest(method: method, target: target, keepsAlive: true).route == route)
    }

    @Test("pages answer what they are asked for")
    func pages() {
        let ready = AdminPages(
            metrics: { Array("x 1\n".utf8) },
            readiness: { Readiness(isReady: true, notes: ["but mind this"]) }
        )
        let unready = AdminPages(
            metrics: { [] },
            readiness: { Readiness(isReady: false, notes: ["one reason", "another"]) }
        )
        func text(_ pages: AdminPages, _ target: String, _ method: String = "GET") -> (Int, String) {
            let response = pages.answer(AdminRequest(method: method, target: target, keepsAlive: true))
            return (response.status, String(decoding: response.body, as: UTF8.self))
        }
        #expect(text(ready, "/metrics") == (200, "x 1\n"))
        #expect(text(ready, "/livez") == (200, "ok\n"))
        #expect(text(unready, "/livez") == (200, "ok\n"))
        #expect(text(ready, "/readyz") == (200, "ready\nbut mind this\n"))
        #expect(text(unready, "/readyz") == (503, "not ready\none reason\nanother\n"))
        #expect(text(ready, "/else").0 == 404)
        #expect(text(ready, "/metrics", "PUT").0 == 405)
        #expect(
            ready.answer(AdminRequest(method: "PUT", target: "/metrics", keepsAlive: true)).fields["allow"]
                == "GET, HEAD"
        )
        #expect(ready.answer(AdminRequest(refused: .tooLarge)).status == 431)
        #expect(ready.answer(AdminRequest(refused: .malformed)).status == 400)
    }
}
