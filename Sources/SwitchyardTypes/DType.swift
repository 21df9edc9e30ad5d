// SPDX-License-Identifier: Apache-2.0

/// The type of a number in a tensor: as a checkpoint stores it, as weights are packed, as rows are sent.
///
/// All are little-endian. Not every type serves every purpose. ``isWeight``, ``isPacked`` and ``isRow`` say which do.
public enum DType: String, Sendable, Hashable, CaseIterable, CustomStringConvertible {
    /// IEEE 754 binary64.
    case float64
    /// IEEE 754 binary32.
    case float32
    /// The upper half of a binary32, which it widens to exactly.
    case bfloat16
    /// IEEE 754 binary16.
    case float16
    /// Signed, 64 bits.
    case int64
    /// Signed, 32 bits.
    case int32
    /// Signed, 16 bits.
    case int16
    /// Signed, 8 bits.
    ///
    /// As a packed type, one scale per output: `weight = scale * q` with `scale = max |row| / 127` and `q` the nearest
    /// integer, ties to even. A product quantises each of its input rows in the same way.
    case int8
    /// Unsigned, 64 bits.
    case uint64
    /// Unsigned, 32 bits.
    case uint32
    /// Unsigned, 16 bits.
    case uint16
    /// Unsigned, 8 bits.
    case uint8
    /// One byte, 0 or 1.
    case bool

    /// The types that a checkpoint's weights may have.
    public static let weights: [DType] = [.float32, .bfloat16, .float16]

    /// The types that weights may be packed in.
    public static let packed: [DType] = [.float32, .bfloat16, .int8]

    /// The types that rows may have: token rows on their way to experts, and keys and values.
    public static let rows: [DType] = [.float32, .bfloat16]

    /// Whether a checkpoint's weights may have this type.
    public var isWeight: Bool { Self.weights.contains(self) }

    /// Whether weights may be packed in this type.
    public var isPacked: Bool { Self.packed.contains(self) }

    /// Whether rows may have this type.
    public var isRow: Bool { Self.rows.contains(self) }

    /// Bytes per element.
    public var byteCount: Int {
        switch self {
        case .float64, .int64, .uint64: 8
        case .float32, .int32, .uint32: 4
        case .bfloat16, .float16, .int16, .uint16: 2
        case .int8, .uint8, .bool: 1
        }
    }

    /// The name in flags, settings, reports and messages: `float32`.
    public var description: String { self.rawValue }

    /// The name in the header of a safetensors file: `F32`.
    public var safetensorsName: String {
        switch self {
        case .float64: "F64"
        case .float32: "F32"
        case .bfloat16: "BF16"
        case .float16: "F16"
        case .int64: "I64"
        case .int32: "I32"
        case .int16: "I16"
        case .int8: "I8"
        case .uint64: "U64"
        case .uint32: "U32"
        case .uint16: "U16"
        case .uint8: "U8"
        case .bool: "BOOL"
        }
    }

    /// Reads a name in the header of a safetensors file.
    ///
    /// - Parameter name: For example `F32`; nil for a name that is not in the list.
    public init?(safetensorsName name: String) {
        guard let type = Self.allCases.first(where: { $0.safetensorsName == name }) else {
            return nil
        }
        self = type
    }
}
