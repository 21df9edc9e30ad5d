// SPDX-License-Identifier: Apache-2.0

/// The version of this software, as processes tell it to one another and to people.
public enum SoftwareVersion {
    /// Major, minor and patch.
    public static let current = "0.1.0"
}
