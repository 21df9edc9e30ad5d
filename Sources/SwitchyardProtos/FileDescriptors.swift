// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// The descriptors of all `.proto` files, for server reflection.
public enum FileDescriptors {
    /// A serialized `google.protobuf.FileDescriptorSet` with every file, imports before the files that import them.
    public static var serializedSet: [UInt8] {
        Array(
            UnsafeBufferPointer(start: switchyard_file_descriptor_set(), count: switchyard_file_descriptor_set_size())
        )
    }

    /// Finds the files by what they declare.
    ///
    /// - Throws: ``ProtoError`` if this build's descriptor set is damaged.
    public static func index() throws(ProtoError) -> DescriptorIndex {
        try DescriptorIndex(serializedSet: Self.serializedSet)
    }
}
