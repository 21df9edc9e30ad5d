// SPDX-License-Identifier: Apache-2.0

extension WireDType {
    /// The bytes of one element, or nothing where the type is not given or is no tensor's.
    public var byteCount: Int? {
        switch self {
        case .unspecified, .int8: nil
        case .float32: 4
        case .bfloat16, .float16: 2
        }
    }

    /// The type as the commands' flags and reports write it; nothing where it is not given.
    public var name: String? {
        switch self {
        case .unspecified: nil
        case .float32: "float32"
        case .bfloat16: "bfloat16"
        case .float16: "float16"
        case .int8: "int8"
        }
    }
}
