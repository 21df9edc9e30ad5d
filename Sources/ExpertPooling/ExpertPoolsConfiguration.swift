// SPDX-License-Identifier: Apache-2.0

/// The bounds by which replicas are chosen, ejected and asked again.
public struct ExpertPoolsConfiguration: Sendable, Equatable {
    /// Calls that may be out to one replica.
    public var outstandingPerReplica = 64
    /// Replicas that one call is tried on, one after the other, before its rows are dropped.
    public var attemptsPerCall = 2
    /// Failures in a row that eject a replica.
    public var failuresToEject = 3
    /// First time that an ejected replica is left alone; it doubles with each further ejection.
    public var firstEjection: Duration = .milliseconds(500)
    /// Answered calls in a row after which an ejection is forgotten, so that the next one starts short again.
    public var successesToForgive = 100
    /// Longest time that an ejected replica is left alone.
    public var longestEjection: Duration = .seconds(30)
    /// Time before a failed question to a replica is asked again.
    public var describeRetry: Duration = .milliseconds(500)

    /// The values that are used where nothing else is said.
    public static let defaults = ExpertPoolsConfiguration()

    /// Creates the default configuration.
    public init() {}
}
