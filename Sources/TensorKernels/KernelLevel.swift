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

    /// The level to compute with, determined once: the highest that this machine can run, or the one that the environment variable
    /// `SWITCHYARD_KERNELS` names, so that levels can be compared.
    public static let best = KernelLevel(rawValue: Int32(ck_best_level())) ?? .scalar

    /// What is wrong with a value of `SWITCHYARD_KERNELS`, which would be ignored; nil if nothing is.
    ///
    /// - Parameter value: The variable's value; nil where it is not set.
    /// - Returns: A sentence that says which names there are.
    public static func problem(with value: String?) -> String? {
        guard let value, !value.isEmpty else { return nil }
        if let level = KernelLevel(rawValue: Int32(ck_named_level(value))), Self.available.contains(level) {
            return nil
        }
        let all: [String] = ["portable", "avx2", "avx512", "neon"]
        let names = all.filter { name in Self.available.contains { $0.rawValue == Int32(ck_named_level(name)) } }
        return
            "\(CK_LEVEL_VARIABLE) is \"\(value.prefix(80))\"; this machine computes with \(names.joined(separator: ", ")); unset it to "
            + "take the fastest"
    }

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
