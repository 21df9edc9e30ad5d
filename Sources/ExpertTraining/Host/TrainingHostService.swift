// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos
internal import TensorKernels

/// A training host's methods on the wire.
///
/// Every call is a job of the host's one compute thread, in the order of arrival.
struct TrainingHostService: Sendable {
    let jobs: HostJobs
    let metrics: TrainingHostMetrics

    /// The server's handlers.
    var methods: [ServiceMethod] {
        [
            self.method(.trainingOpen, OpenShardRequest.self, upTo: 8 << 20) { (replica, request) throws(RPCError) in
                try replica.open(request)
            },
            self.method(.trainingStore, StoreStateRequest.self, upTo: ShardReplica.mostPieceBytes + 1024) {
                (replica, request) throws(RPCError) in
                try replica.store(request)
            },
            self.method(.trainingLoad, LoadStateRequest.self) { (replica, request) throws(RPCError) in
                try replica.load(request)
            },
            self.method(.trainingPrepare, PrepareStepRequest.self) { (replica, request) throws(RPCError) in
                try replica.prepare(request)
            },
            self.method(.trainingApply, ApplyStepRequest.self) { (replica, request) throws(RPCError) in
                let state = try replica.apply(request)
                self.metrics.applied(step: Int(state.step))
                return state
            },
            self.method(.trainingFetch, FetchStateRequest.self) { (replica, request) throws(RPCError) in
                try replica.fetch(request)
            },
            .unaryOnEventLoop(.trainingSnapshot) { message, context, responder in
                self.snapshot(message, context, responder)
            }
            .requests(upTo: 1024),
            .unaryOnEventLoop(.trainingForward) { message, context, responder in
                self.rows(message, isBackward: false, context, responder)
            },
            .unaryOnEventLoop(.trainingBackward) { message, context, responder in
                self.rows(message, isBackward: true, context, responder)
            },
        ] + [ExpertHostMethods.forward, ExpertHostMethods.backward, ExpertHostMethods.describe].map(self.refusal)
    }

    /// A serving gateway's method: it finds no serving host here.
    private func refusal(_ name: MethodName) -> ServiceMethod {
        .unaryOnEventLoop(Method(service: name.service, name: name.name)) { _, _, responder in
            responder.finish(
                .failure(
                    RPCError(
                        .failedPrecondition,
                        "this host trains, and does not serve; start another without --train for the gateway"
                    )
                )
            )
        }
        .requests(upTo: 64 << 20)
    }

    private func method<Request: ProtoMessage & Sendable, Response: ProtoMessage>(
        _ method: Method,
        _ type: Request.Type,
        upTo bytes: Int = 1024,
        _ body: @escaping @Sendable (ShardReplica, Request) throws(RPCError) -> Response
    ) -> ServiceMethod {
        .unaryOnEventLoop(method) { message, context, responder in
            self.jobs.push(context, responder) { replica throws(RPCError) in
                let request = try Self.request(type, message)
                return Payload(bytes: try body(replica, request).serialized())
            }
        }
        .requests(upTo: bytes)
    }

    private static func request<Request: ProtoMessage>(
        _ type: Request.Type,
        _ message: ByteBuffer
    ) throws(RPCError) -> Request {
        do throws(ProtoError) {
            return try Request(serialized: Array(message.readableBytesView))
        } catch {
            throw RPCError(.invalidArgument, error.description)
        }
    }

    private func snapshot(_ message: ByteBuffer, _ context: ServerContext, _ responder: UnaryResponder) {
        self.jobs.push(context, responder, answersLater: true) { replica throws(RPCError) in
            let (response, write) = try replica.snapshot(try Self.request(SnapshotRequest.self, message))
            guard let write else {
                responder.finish(.success(Payload(bytes: response.serialized())))
                return Payload(bytes: [])
            }
            // The disk is slow; the next step need not wait for it.
            self.jobs.inBackground { [response] in
                var response = response
                let failure = write()
                response.isOnDisk = failure == nil
                response.diskError = failure ?? ""
                self.metrics.wroteSnapshot(failed: failure != nil)
                responder.finish(.success(Payload(bytes: response.serialized())))
            }
            return Payload(bytes: [])
        }
    }

    private func rows(
        _ message: ByteBuffer,
        isBackward: Bool,
        _ context: ServerContext,
        _ responder: UnaryResponder
    ) {
        let arrival = ContinuousClock.now
        self.jobs.push(context, responder) { replica throws(RPCError) in
            let start = ContinuousClock.now
            let (envelope, rows) = try Self.read(message, isBackward: isBackward)
            let columns = rows.tokens.columns
            let outputs: FloatMatrix
            if isBackward, let gradients = rows.gradients {
                outputs =
                    try replica.backward(envelope, tokens: rows.tokens, outputGradients: gradients)
                    ?? FloatMatrix(rows: 0, columns: columns)
            } else {
                outputs = try replica.forward(envelope, tokens: rows.tokens)
            }
            self.metrics.computed(
                isBackward: isBackward,
                isReplay: envelope.isReplay,
                rows: rows.tokens.rows,
                waited: start - arrival,
                time: .now - start
            )
            return Self.answer(outputs)
        }
    }

    private static func answer(_ outputs: FloatMatrix) -> Payload {
        let bytes = UnsafeRawBufferPointer(
            start: outputs.pointer,
            count: outputs.rows * outputs.columns * MemoryLayout<Float>.stride
        )
        let envelope = ForwardResponseEnvelope(outputsShape: TensorShape(rows: outputs.rows, columns: outputs.columns))
        return withExtendedLifetime(outputs) {
            Payload(
                segments: [
                    ByteBuffer(bytes: envelope.header(tensorByteCount: bytes.count)), ByteBuffer(bytes: bytes),
                ]
            )
        }
    }

    /// The rows of a call, and the gradients that follow them.
    private static func read(
        _ message: ByteBuffer,
        isBackward: Bool
    ) throws(RPCError) -> (TrainingRowsEnvelope, (tokens: FloatMatrix, gradients: FloatMatrix?)) {
        let result: Result<(TrainingRowsEnvelope, (tokens: FloatMatrix, gradients: FloatMatrix?)), RPCError> =
            message.withUnsafeReadableBytes { bytes in
                do throws(ProtoError) {
                    let (envelope, tensor) = try TrainingRowsEnvelope.parse(bytes, isBackward: isBackward)
                    guard envelope.rows.tokensShape.count == 2, envelope.rows.tokensDType == .float32,
                        envelope.rows.rowCount > 0
                    else {
                        return .failure(
                            RPCError(.invalidArgument, "rows must be FLOAT32 and have two axes, with at least one row")
                        )
                    }
                    let count = envelope.rows.rowCount
                    let columns = Int(envelope.rows.tokensShape[1])
                    func matrix(_ first: Int) -> FloatMatrix {
                        let matrix = FloatMatrix(uninitializedRows: count, columns: columns)
                        let size = count * columns * MemoryLayout<Float>.stride
                        let start = tensor.lowerBound + first * columns * MemoryLayout<Float>.stride
                        UnsafeMutableRawBufferPointer(start: matrix.pointer, count: size)
                            .copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[start..<start + size]))
                        return matrix
                    }
                    return .success((envelope, (matrix(0), isBackward ? matrix(count) : nil)))
                } catch {
                    return .failure(RPCError(.invalidArgument, error.description))
                }
            }
        return try result.get()
    }
}

extension Method {
    static let trainingOpen = Method(TrainingHostMethods.open)
    static let trainingStore = Method(TrainingHostMethods.store)
    static let trainingLoad = Method(TrainingHostMethods.load)
    static let trainingForward = Method(TrainingHostMethods.forward)
    static let trainingBackward = Method(TrainingHostMethods.backward)
    static let trainingPrepare = Method(TrainingHostMethods.prepare)
    static let trainingApply = Method(TrainingHostMethods.apply)
    static let trainingSnapshot = Method(TrainingHostMethods.snapshot)
    static let trainingFetch = Method(TrainingHostMethods.fetch)

    fileprivate init(_ name: MethodName) {
        self.init(service: name.service, name: name.name)
    }
}
