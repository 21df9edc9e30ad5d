// SPDX-License-Identifier: Apache-2.0

/// The version of this software, as reported to other processes and to people.
public enum SoftwareVersion {
    /// Major, minor and patch.
    public static let current = "0.1.0"
}
