// SPDX-License-Identifier: Apache-2.0

/// A scenario that could not be run, as opposed to one that showed a fault in the cluster.
package struct FaultError: Error, Sendable, CustomStringConvertible {
    /// What is wrong and what to do about it.
    package let description: String

    /// Creates an error.
    package init(_ description: String) {
        self.description = description
    }
}
