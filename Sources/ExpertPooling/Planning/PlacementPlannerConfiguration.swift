// SPDX-License-Identifier: Apache-2.0

/// When an expert gets another pool, and when it loses it again.
public struct PlacementPlannerConfiguration: Sendable, Equatable {
    /// The fraction by which a group of extras must lower the load of a layer's busiest replica to be added.
    public var minimumGain = 0.1

    /// The fraction of the busiest load that each single extra must take off its pool: a smaller one costs another
    /// host a read of the expert's weights for no noticeable gain.
    public var minimumStep = 0.02

    /// The fraction of the share that an expert had when its extra came into force; below it the extra may be released.
    public var releaseShare = 0.5

    /// The fraction by which releasing extras may raise the load of a layer's busiest replica; below ``minimumGain``,
    /// so that a released extra is not added again at once.
    public var releaseGain = 0.04

    /// How long an expert's share must have been below the lower threshold.
    public var holdTime: Duration = .seconds(60)

    /// How long an extra must have made its pool the busiest, so that the layer would be better off without it.
    public var burdenTime: Duration = .seconds(300)

    /// How long a plan stays unchanged after a change, unless a pool lost an expert that is sent to it.
    public var settleTime: Duration = .seconds(10)

    /// Rows that a layer's averages must be based on before it is planned.
    public var minimumRows = 2000.0

    /// Pools that one expert may have besides its own.
    public var extrasPerExpert = 3

    /// Extras that one layer may have.
    public var extrasPerLayer = 32

    /// The default values.
    public static let defaults = PlacementPlannerConfiguration()

    /// Creates the default configuration.
    public init() {}
}
