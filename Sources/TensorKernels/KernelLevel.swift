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

    /// Advanced SIMD, called NEON (AArch64).
    case neon = 3

    /// The highest level that this machine can run, determined once.
    public static let best = KernelLevel(rawValue: Int32(ck_best_level())) ?? .scalar

    /// The levels that this machine can run, lowest first.
    public static var available: [KernelLevel] {
        KernelLevel.allCases.filter { ck_has_level($0.rawValue) == 1 }
    }

    /// Orders levels by what they require; those of different architectures in any order.
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
        case .neon: "NEON"
        }
    }

    /// The name of the instructions that int8 products use at this level on this machine.
    public var int8Name: String {
        switch Int(ck_int8_kernel(self.rawValue)) {
        case CK_INT8_AVX2: "AVX2"
        case CK_INT8_VNNI: "AVX-512 VNNI"
        case CK_INT8_NEON: "NEON"
        case CK_INT8_DOT: "NEON dot product"
        default: "portable"
        }
    }
}
