// SPDX-License-Identifier: Apache-2.0

import SwitchyardTypes
import Testing

@Suite("Connection places")
struct ConnectionPlacesTests {
    /// Connections with their idle times, and the places that they have.
    private struct Listener {
        var places: ConnectionPlaces
        var idle: [Int: UInt64?] = [:]
        var next = 0

        init(total: Int, share: Int, probes: Int = 0) {
            self.places = ConnectionPlaces(limits: .init(total: total, share: share, probes: probes))
        }

        mutating func arrive(_ peer: String, idleSince: UInt64?) -> (
            id: Int, place: ConnectionPlaces.Place, leaves: Int?
        ) {
            self.next += 1
            let idle = self.idle
            let (place, leaves) = self.places.arrived(self.next, from: peer) { idle[$0] ?? nil }
            if place != .none { self.idle[self.next] = .some(idleSince) }
            if let leaves { self.idle[leaves] = nil }
            return (self.next, place, leaves)
        }
    }

    @Test("a thousand idle connections of one peer keep no other peer out: its idlest leaves for each newcomer")
    func idleFlood() {
        var listener = Listener(total: 100, share: 75)
        for index in 0..<1_000 {
            let (_, place, leaves) = listener.arrive("flood", idleSince: UInt64(index))
            #expect(place == .regular)
            #expect(leaves == (index < 75 ? nil : index - 74))
        }
        for index in 0..<25 {
            let (_, place, leaves) = listener.arrive("client \(index)", idleSince: 0)
            #expect(place == .regular && leaves == nil)
        }
        // Full: the flood loses its idlest, although clients have been idle for longer.
        let (_, place, leaves) = listener.arrive("late", idleSince: 5_000)
        #expect(place == .regular && leaves == 926)
        #expect(listener.places.checkInvariants() == nil)
    }

    @Test("busy connections stay; a newcomer gets a place for probes, and a regular one when there is one")
    func busy() {
        var listener = Listener(total: 4, share: 3, probes: 2)
        let first = listener.arrive("a", idleSince: nil).id
        for _ in 0..<2 { #expect(listener.arrive("a", idleSince: nil).place == .regular) }
        // Its share is taken.
        #expect(listener.arrive("a", idleSince: nil).place == .probe)
        #expect(listener.arrive("b", idleSince: nil).place == .regular)
        let probe = listener.arrive("c", idleSince: 7)
        #expect(probe.place == .probe)
        let tooEarly = listener.places.promoted(probe.id)
        #expect(!tooEarly)
        // Of the places for probes the idlest leaves too.
        let later = listener.arrive("c", idleSince: 9)
        #expect(later.place == .probe && later.leaves == probe.id)
        listener.places.left(first)
        for _ in 0..<2 {
            let isRegular = listener.places.promoted(later.id)
            #expect(isRegular)
        }
        listener.idle[later.id] = nil
        #expect(listener.arrive("d", idleSince: nil).place == .probe)
        #expect(listener.arrive("e", idleSince: nil).place == .none)
        #expect(listener.places.checkInvariants() == nil)
    }

    @Test("a name has its share too, from however many peers it comes")
    func names() {
        var listener = Listener(total: 10, share: 2)
        let first = listener.arrive("a", idleSince: 3).id
        let second = listener.arrive("b", idleSince: 1).id
        let third = listener.arrive("c", idleSince: nil).id
        let idle = listener.idle
        for id in [first, second, first] {
            let (mayStay, leaves) = listener.places.identified(id, as: "token t") { idle[$0] ?? nil }
            #expect(mayStay && leaves == nil)
        }
        let (mayStay, leaves) = listener.places.identified(third, as: "token t") { idle[$0] ?? nil }
        #expect(mayStay && leaves == second)
        let fourth = listener.arrive("d", idleSince: nil).id
        let refused = listener.places.identified(fourth, as: "token t") { _ in nil }
        #expect(!refused.mayStay && refused.leaves == nil)
        #expect(listener.places.checkInvariants() == nil)
    }

    @Test("the rules hold whatever comes and goes", arguments: [1, 2, 3, 4] as [UInt64])
    func holds(seed: UInt64) {
        var numbers = Numbers(state: seed)
        var listener = Listener(total: 12, share: Int.random(in: 1...12, using: &numbers), probes: 3)
        for step in 0..<20_000 {
            let known = listener.idle.keys.sorted()
            switch Int.random(in: 0..<6, using: &numbers) {
            case 0, 1:
                let isIdle = Int.random(in: 0..<3, using: &numbers) == 0
                let peer = "\(Int.random(in: 0..<6, using: &numbers))"
                let before = listener.places.count
                let (_, place, leaves) = listener.arrive(peer, idleSince: isIdle ? UInt64(step) : nil)
                #expect(listener.places.count == before + (place == .none ? 0 : 1) - (leaves == nil ? 0 : 1))
            case 2:
                guard let id = known.randomElement(using: &numbers) else { break }
                listener.places.left(id)
                listener.idle[id] = nil
            case 3:
                guard let id = known.randomElement(using: &numbers) else { break }
                let idle = listener.idle
                let name = "\(Int.random(in: 0..<3, using: &numbers))"
                let (mayStay, leaves) = listener.places.identified(id, as: name) { idle[$0] ?? nil }
                if let leaves {
                    #expect(mayStay && leaves != id && idle[leaves] != .some(nil))
                    listener.idle[leaves] = nil
                }
            case 4:
                guard let id = known.randomElement(using: &numbers) else { break }
                listener.idle[id] = .some(Bool.random(using: &numbers) ? UInt64(step) : nil)
            default:
                guard let id = known.randomElement(using: &numbers) else { break }
                _ = listener.places.promoted(id)
            }
            #expect(listener.places.checkInvariants() == nil)
        }
    }

    @Test(
        "an IPv6 host is its network of 64 bits",
        arguments: [
            ("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::9", "2001:db8:1:2::/64"), ("2001:db8::9", "2001:db8:0:0::/64"), ("::1", "0:0:0:0::/64"),
            ("fe80::1%eth0", "fe80:0:0:0::/64"), ("local", "local"), ("", ""),
        ]
    )
    func peers(address: String, peer: String) { #expect(ConnectionPlaces.peer(of: address) == peer) }

    private struct Numbers: RandomNumberGenerator {
        var state: UInt64

        mutating func next() -> UInt64 {
            self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return self.state ^ (self.state >> 29)
        }
    }
}
