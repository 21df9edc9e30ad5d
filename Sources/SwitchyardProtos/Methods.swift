// SPDX-License-Identifier: Apache-2.0

/// A method's name on the wire, in its two parts.
public struct MethodName: Sendable, Hashable {
    /// The full name of the service.
    public let service: String

    /// The method's own name.
    public let name: String
}

/// The methods of `switchyard.v1.Gateway`.
public enum GatewayMethods {
    /// The full name of the service.
    public static let service = "switchyard.v1.Gateway"
    /// ``GenerateRequest`` to ``GenerateResponse``.
    public static let generate = MethodName(service: Self.service, name: "Generate")
    /// ``GenerateRequest`` to a stream of ``GenerateEvent``.
    public static let generateStream = MethodName(service: Self.service, name: "GenerateStream")
    /// ``EncodeRequest`` to ``EncodeResponse``.
    public static let encode = MethodName(service: Self.service, name: "Encode")
    /// ``ScoreRequest`` to ``ScoreResponse``.
    public static let score = MethodName(service: Self.service, name: "Score")
    /// ``DescribeModelRequest`` to ``ModelDescription``.
    public static let describeModel = MethodName(service: Self.service, name: "DescribeModel")
    /// ``DescribeClusterRequest`` to ``ClusterDescription``.
    public static let describeCluster = MethodName(service: Self.service, name: "DescribeCluster")
}

/// The methods of `switchyard.v1.ExpertHost`.
public enum ExpertHostMethods {
    /// The full name of the service.
    public static let service = "switchyard.v1.ExpertHost"
    /// ``ForwardRequestEnvelope`` to ``ForwardResponseEnvelope``.
    public static let forward = MethodName(service: Self.service, name: "Forward")
    /// ``DescribeHostRequest`` to ``HostDescription``.
    public static let describe = MethodName(service: Self.service, name: "Describe")
}

/// The methods of `grpc.health.v1.Health`.
public enum HealthMethods {
    /// The full name of the service.
    public static let service = "grpc.health.v1.Health"
    /// ``HealthCheckRequest`` to ``HealthCheckResponse``.
    public static let check = MethodName(service: Self.service, name: "Check")
    /// ``HealthCheckRequest`` to a stream of ``HealthCheckResponse``.
    public static let watch = MethodName(service: Self.service, name: "Watch")
    /// ``HealthListRequest`` to ``HealthListResponse``.
    public static let list = MethodName(service: Self.service, name: "List")
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
