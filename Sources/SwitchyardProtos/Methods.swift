// SPDX-License-Identifier: Apache-2.0

/// A method's name on the wire, in its two parts.
public struct MethodName: Sendable, Hashable {
    /// The full name of the service.
    public let service: String

    /// The method's own name.
    public let name: String
}

/// The one method of server reflection, under both of its services' names.
public enum ReflectionMethods {
    /// A stream of ``ServerReflectionRequest`` to a stream of ``ServerReflectionResponse``.
    public static let v1 = MethodName(service: "grpc.reflection.v1.ServerReflection", name: "ServerReflectionInfo")
    /// The same for older clients.
    public static let v1alpha = MethodName(
        service: "grpc.reflection.v1alpha.ServerReflection",
        name: "ServerReflectionInfo"
    )
}
