// SPDX-License-Identifier: Apache-2.0

/// Metadata by which a trainer says that a `Forward` call is its own, so that served calls need not wait for it.
public enum CallWork {
    /// The metadata's key.
    public static let key = "switchyard-work"

    /// What a trainer's calls say; calls of gateways say nothing.
    public static let training = "training"
}
