// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
public import RPCTransport
internal import SwitchyardProtos

/// The standard health service, `grpc.health.v1.Health`, over a registry.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/health-checking.md, and for the newer `List`,
/// https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto. One deviation: when the process drains,
/// `Watch` sends `NOT_SERVING` and then ends with `UNAVAILABLE`, since a stream without an end would hold up the drain.
public struct HealthService: Sendable {
    /// The service's full name.
    public static let name = HealthMethods.service

    /// A request names a service; anyone may send one, even where callers need tokens.
    private static let maxRequestBytes = 1 << 10

    private let registry: HealthRegistry

    /// Creates the service.
    ///
    /// - Parameter registry: The statuses to report.
    public init(registry: HealthRegistry) {
        self.registry = registry
    }

    /// `Check`, `Watch` and `List`, for a server.
    public var methods: [ServiceMethod] {
        let registry = self.registry
        return [
            .unaryOnEventLoop(Self.method("Check")) { request, _, responder in
                responder.finish(Self.check(request, registry))
            }
            .requests(upTo: Self.maxRequestBytes),
            .serverStreaming(Self.method("Watch")) { request, _, writer in
                let service = try Self.service(in: request).get()
                for await status in registry.watch(service) {
                    try await writer.write(Payload(bytes: HealthCheckResponse(status: status).serialized()))
                }
                throw RPCError(.unavailable, "the server is draining; watch another one")
            }
            .requests(upTo: Self.maxRequestBytes),
            .unaryOnEventLoop(Self.method("List")) { _, _, responder in
                let statuses = registry.statuses.mapValues { HealthCheckResponse(status: $0) }
                responder.finish(.success(Payload(bytes: HealthListResponse(statuses: statuses).serialized())))
            }
            .requests(upTo: Self.maxRequestBytes),
        ]
    }

    private static func method(_ name: String) -> Method {
        Method(service: Self.name, name: name)
    }

    private static func check(_ request: ByteBuffer, _ registry: HealthRegistry) -> Result<Payload, RPCError> {
        Self.service(in: request)
            .flatMap { service in
                guard let status = registry.status(of: service) else {
                    let known = registry.statuses.keys.filter { !$0.isEmpty }.sorted().joined(separator: ", ")
                    let message = "this server has no service \"\(service)\"; it has \(known.isEmpty ? "none" : known)"
                    return .failure(RPCError(.notFound, message))
                }
                return .success(Payload(bytes: HealthCheckResponse(status: status).serialized()))
            }
    }

    /// The service that a request names.
    private static func service(in request: ByteBuffer) -> Result<String, RPCError> {
        do throws(ProtoError) {
            let message = try HealthCheckRequest(serialized: Array(request.readableBytesView))
            return .success(message.service)
        } catch {
            return .failure(RPCError(.invalidArgument, "the request is not a HealthCheckRequest: \(error)"))
        }
    }
}
