// SPDX-License-Identifier: Apache-2.0

internal import CKernels

/// The instruction set that a kernel uses; every level gives the same bits.
public enum KernelLevel: Int32, Sendable, Hashable, CaseIterable, Comparable {
    /// Portable C.
    case scalar = 0

    /// AVX2 with fused multiply-add (x86-64).
    case avx2 = 1

    /// AVX-512 F (x86-64).
    case avx512 = 2

    /// The highest level that this machine can run, found out once.
    public static let best = KernelLevel(rawValue: Int32(ck_best_level())) ?? .scalar

    /// The levels that this machine can run, lowest first.
    public static var available: [KernelLevel] {
        KernelLevel.allCases.filter { $0 <= KernelLevel.best }
    }

    /// Orders levels by what they require.
    ///
    /// - Parameters:
    ///   - left: A level.
    ///   - right: Another level.
    /// - Returns: Whether `left` requires less than `right`.
    public static func < (left: KernelLevel, right: KernelLevel) -> Bool {
        left.rawValue < right.rawValue
    }

    /// The name people know the instruction set by.
    public var name: String {
        switch self {
        case .scalar: "portable"
        case .avx2: "AVX2"
        case .avx512: "AVX-512"
        }
    }
}
