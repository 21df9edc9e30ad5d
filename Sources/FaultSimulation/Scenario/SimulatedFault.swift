// SPDX-License-Identifier: Apache-2.0

/// Something that goes wrong in a simulated cluster, at a time and for a time.
package struct SimulatedFault: Sendable, Equatable, CustomStringConvertible {
    /// A process of the cluster.
    package enum Target: Sendable, Hashable, CustomStringConvertible {
        /// A client.
        case client(Int)
        /// A gateway.
        case gateway(Int)
        /// An expert host.
        case host(Int)

        /// For people.
        package var description: String {
            switch self {
            case .client(let index): "client \(index)"
            case .gateway(let index): "gateway \(index)"
            case .host(let index): "host \(index)"
            }
        }
    }

    /// What a host that computes wrongly sends.
    package enum WrongAnswer: Sendable, Hashable, CaseIterable {
        /// Rows that are not finite, as the gateway sees.
        case notFinite
        /// Too few rows.
        case short
        /// Rows with a flipped bit, which look right.
        case plausible
    }

    /// What happens to a pool's list of addresses.
    package enum NameChange: Sendable, Hashable, CaseIterable {
        /// A host's address leaves the list and comes back.
        case leaves
        /// A host is listed at another address from then on.
        case moves
        /// A host is listed at two addresses for a time.
        case doubles
    }

    /// What goes wrong.
    package enum Kind: Sendable, Equatable {
        /// The process dies and is started again at the same address after the time.
        ///
        /// A silent death, as of a machine without power, resets no connection.
        case kill(Target, isSilent: Bool)
        /// The host dies and comes back with another model's weights for the time.
        case wrongModel(Int)
        /// The host dies and comes back with weights of another type for the time.
        case otherWeights(Int)
        /// The host restarts and describes itself only after the time.
        case notReady(Int)
        /// The host refuses every call, or fails it.
        case refusing(Int, isBroken: Bool)
        /// The process stands still.
        case hang(Target)
        /// What one process sends does not reach the other.
        case partition(from: Target, to: Target)
        /// Everything from and to the process takes longer, by this many nanoseconds.
        case delay(Target, Int64)
        /// Messages on different connections overtake each other.
        case reorder(Int64)
        /// Timers and notices of the process come twice.
        case duplicate(Target)
        /// Bytes to the process arrive in small pieces.
        case torn(Target)
        /// Every connection of the process is cut, inside whatever is on its way.
        case cut(Target)
        /// The process reads slowly.
        case slowReader(Target)
        /// The process's clock jumps ahead.
        case clockJump(Target, Int64)
        /// The host computes wrongly.
        case wrongBits(Int, WrongAnswer)
        /// A pool's list of addresses changes.
        case names(host: Int, NameChange)
        /// The process drains, ends and is started again.
        case drain(Target)
        /// The host computes this many times slower.
        case slow(Int, Int64)
    }

    /// When, nanoseconds.
    package var time: Int64
    /// For how long, nanoseconds.
    package var duration: Int64
    /// What.
    package var kind: Kind

    /// For people.
    package var description: String {
        let what =
            switch self.kind {
            case .kill(let target, let isSilent): "\(target) dies\(isSilent ? " silently" : "")"
            case .wrongModel(let host): "host \(host) comes back with another model"
            case .otherWeights(let host): "host \(host) comes back with weights of another type"
            case .notReady(let host): "host \(host) restarts and is not ready"
            case .refusing(let host, let isBroken): "host \(host) \(isBroken ? "fails" : "refuses") every call"
            case .hang(let target): "\(target) stands still"
            case .partition(let from, let to): "nothing from \(from) reaches \(to)"
            case .delay(let target, let time): "\(target) is \(milliseconds(time)) further away"
            case .reorder(let time): "messages are late by up to \(milliseconds(time))"
            case .duplicate(let target): "timers and notices of \(target) come twice"
            case .torn(let target): "bytes reach \(target) in small pieces"
            case .cut(let target): "connections of \(target) are cut"
            case .slowReader(let target): "\(target) reads slowly"
            case .clockJump(let target, let time): "the clock of \(target) jumps by \(milliseconds(time))"
            case .wrongBits(let host, let answer): "host \(host) computes wrongly (\(answer))"
            case .names(let host, let change): "the address of host \(host) \(change)"
            case .drain(let target): "\(target) drains"
            case .slow(let host, let factor): "host \(host) is \(factor) times slower"
            }
        return "\(milliseconds(self.time)), for \(milliseconds(self.duration)): \(what)"
    }

    /// When it is over.
    var end: Int64 { self.time + self.duration }
}
