// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import NIOCore
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

extension WireFinishReason {
    /// The protocol's name of a sequence's end.
    init(_ reason: SwitchModel.FinishReason) {
        switch reason {
        case .endOfSequence: self = .endOfSequence
        case .length: self = .length
        case .stop: self = .stop
        }
    }
}

extension Method {
    static let forward = Method(ExpertHostMethods.forward)
    static let backward = Method(ExpertHostMethods.backward)
    static let describe = Method(ExpertHostMethods.describe)
    static let hold = Method(ExpertHostMethods.hold)
    static let settle = Method(ExpertHostMethods.settle)
    static let generate = Method(GatewayMethods.generate)
    static let generateStream = Method(GatewayMethods.generateStream)
    static let encode = Method(GatewayMethods.encode)
    static let score = Method(GatewayMethods.score)
    static let describeModel = Method(GatewayMethods.describeModel)
    static let describeCluster = Method(GatewayMethods.describeCluster)
    static let rollout = Method(GatewayMethods.rollout)

    static let serverLive = Method(GRPCInferenceServiceMethods.serverLive)
    static let serverReady = Method(GRPCInferenceServiceMethods.serverReady)
    static let modelReady = Method(GRPCInferenceServiceMethods.modelReady)
    static let serverMetadata = Method(GRPCInferenceServiceMethods.serverMetadata)
    static let modelMetadata = Method(GRPCInferenceServiceMethods.modelMetadata)
    static let modelInfer = Method(GRPCInferenceServiceMethods.modelInfer)

    private init(_ name: MethodName) {
        self.init(service: name.service, name: name.name)
    }
}

extension ProtoMessage {
    /// Reads a received message.
    ///
    /// - Parameter buffer: The whole message.
    /// - Throws: ``RPCError``: `INTERNAL` for bytes that are not a message, as gRPC specifies
    ///   (https://github.com/grpc/grpc/blob/v1.51.1/doc/statuscodes.md), `INVALID_ARGUMENT` for a wrong field.
    init(reading buffer: ByteBuffer) throws(RPCError) {
        let result: Result<Self, RPCError> = buffer.withUnsafeReadableBytes { bytes in
            do throws(ProtoError) {
                return .success(try Self(serialized: bytes))
            } catch {
                let code: Status.Code
                switch error.code {
                case .malformed: code = .internal
                case .overLimit: code = .resourceExhausted
                case .invalidUTF8, .unknownChoice, .sizeMismatch: code = .invalidArgument
                }
                return .failure(RPCError(code, error.description))
            }
        }
        self = try result.get()
    }
}
