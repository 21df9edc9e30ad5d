// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import SwitchyardProtos

extension RequestReader {
    /// Says how work waits: as its request asks, or else as the gateway's settings do.
    ///
    /// - Parameters:
    ///   - priority: The request's.
    ///   - milliseconds: The request's queue time-out; 0 is none.
    ///   - work: The work.
    func place(_ priority: Priority, _ milliseconds: UInt32?, in work: inout EngineRequest) {
        work.priority = CallPriority(priority) ?? self.limits.defaultPriority
        let timeout = milliseconds.map { Duration.milliseconds(Int64($0)) } ?? self.limits.queueTimeout
        work.queueTimeout = timeout > .zero ? timeout : nil
    }
}

extension CallPriority {
    /// The request's choice; nil if it makes none.
    fileprivate init?(_ priority: Priority) {
        switch priority {
        case .unspecified: return nil
        case .low: self = .low
        case .normal: self = .normal
        case .high: self = .high
        }
    }

    /// The name in settings and flags.
    var name: String {
        switch self {
        case .low: "low"
        case .normal: "normal"
        case .high: "high"
        }
    }
}
