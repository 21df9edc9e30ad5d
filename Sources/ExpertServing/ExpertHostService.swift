// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos
internal import Synchronization
internal import Telemetry

/// The host's methods on the wire.
struct ExpertHostService: Sendable {
    let models: HostModels
    let queue: ForwardQueue
    let metrics: ExpertHostMetrics
    let logger: Logger
    /// Computes calls on the event loop; nil leaves all to the compute thread.
    var passes: HostPasses?
    var stages: CallStages?
    private let envelope = KeptEnvelope()

    init(
        models: HostModels,
        queue: ForwardQueue,
        metrics: ExpertHostMetrics,
        logger: Logger,
        passes: HostPasses? = nil,
        stages: CallStages? = nil
    ) {
        self.models = models
        self.queue = queue
        self.metrics = metrics
        self.logger = logger
        self.passes = passes
        self.stages = stages
    }

    /// The server's handlers.
    var methods: [ServiceMethod] {
        [
            .unaryOnEventLoop(.forward) { message, context, responder in
                self.compute(message, isBackward: false, context, responder)
            },
            .unaryOnEventLoop(.backward) { message, context, responder in
                self.compute(message, isBackward: true, context, responder)
            },
            .unaryOnEventLoop(.describe) { message, _, responder in
                responder.finish(
                    self.describing(message) { (request: DescribeHostRequest) throws(RPCError) in
                        self.models.model(request.modelFingerprint)
                    }
                )
            }
            .requests(upTo: Self.maxControlBytes),
            .unaryOnEventLoop(.hold) { message, _, responder in
                responder.finish(
                    self.describing(message) { (request: HoldRequest) throws(RPCError) in try self.models.hold(request)
                    }
                )
            }
            .requests(upTo: Self.maxControlBytes),
            .unary(.settle) { message, _ in
                try self.describing(message) { (request: SettleRequest) throws(RPCError) in
                    try self.models.settle(request.modelFingerprint)
                }
                .get()
            }
            .requests(upTo: Self.maxControlBytes),
        ]
    }

    private static let maxControlBytes = 1 << 10

    /// Reads a request, does what it asks for, and describes the checkpoint that comes of it.
    private func describing<Request: ProtoMessage>(
        _ message: ByteBuffer,
        _ body: (Request) throws(RPCError) -> HostModel
    ) -> Result<Payload, RPCError> {
        let read: Result<Request, RPCError> = message.withUnsafeReadableBytes { bytes in
            do throws(ProtoError) {
                return .success(try Request(serialized: bytes))
            } catch {
                return .failure(RPCError(error))
            }
        }
        do throws(RPCError) {
            let description = self.models.description(try body(try read.get()), load: self.queue.load)
            return .success(Payload(bytes: description.serialized()))
        } catch {
            return .failure(error)
        }
    }

    /// Checks a call and queues it; runs on an event loop.
    private func compute(
        _ message: ByteBuffer,
        isBackward: Bool,
        _ context: ServerContext,
        _ responder: UnaryResponder
    ) {
        let trace = TraceContext.begin(context.metadata)
        let isForTraining = context.metadata.first(CallWork.key) == CallWork.training
        let kind: HostAdmission.Kind = isBackward ? .gradients : isForTraining ? .training : .serving
        let work: ForwardCheck.Work
        let tensor: Range<Int>
        let model: HostModel
        do throws(RPCError) {
            (work, tensor, model) = try self.read(message, isBackward: isBackward)
            if let failure = model.mapped.failure {
                throw RPCError(.unavailable, "the host stops, because \(failure)")
            }
        } catch {
            self.metrics.count(.invalid, kind)
            self.log(error, trace)
            responder.finish(.failure(error))
            return
        }
        do throws(RPCError) {
            let job = ForwardJob(
                work: work,
                model: model,
                kind: kind,
                message: message,
                tensor: tensor,
                arrival: .now,
                responder: responder,
                trace: trace
            )
            model.called(at: job.arrival)
            self.stages?.mark(.queued)
            let passes = kind == .serving ? self.passes : nil
            let id = try self.queue.push(
                job,
                source: context.peer,
                deadline: context.deadline,
                wakes: passes == nil
            )
            let queue = self.queue
            context.onCancel {
                queue.cancel(id)
            }
            // After this read, so that other calls which came with it are known, and what this one answers leaves at once.
            if let passes { responder.afterRead { passes.computeAtOnce() } }
        } catch {
            self.log(error, trace)
            responder.finish(.failure(error))
        }
    }

    /// Logs why a traced call is not computed.
    private func log(_ error: RPCError, _ trace: TraceContext?) {
        guard let trace, self.logger.logLevel <= .debug else { return }
        var metadata = trace.logMetadata
        metadata["error"] = "\(error)"
        self.logger.debug("a traced call is not computed", metadata: metadata)
    }

    private func read(
        _ message: ByteBuffer,
        isBackward: Bool
    ) throws(RPCError) -> (work: ForwardCheck.Work, tensor: Range<Int>, model: HostModel) {
        // Another event loop may be reading: then this one uses memory of its own.
        if let result = self.envelope.kept.withLockIfAvailable({ self.read(message, isBackward, into: &$0) }) {
            return try result.get()
        }
        var envelope = ForwardRequestEnvelope()
        return try self.read(message, isBackward, into: &envelope).get()
    }

    private func read(
        _ message: ByteBuffer,
        _ isBackward: Bool,
        into envelope: inout ForwardRequestEnvelope
    ) -> Result<(work: ForwardCheck.Work, tensor: Range<Int>, model: HostModel), RPCError> {
        message.withUnsafeReadableBytes { bytes in
            do {
                let tensor = try envelope.read(bytes, isBackward: isBackward)
                let model = self.models.model(envelope.modelFingerprint)
                let work = try model.check.check(envelope, tensorByteCount: tensor.count, isBackward: isBackward)
                return .success((work, tensor, model))
            } catch let error as ProtoError {
                return .failure(RPCError(error))
            } catch {
                return .failure(error as? RPCError ?? RPCError(.internal, "\(error)"))
            }
        }
    }

    /// The memory in which calls are read.
    final class KeptEnvelope: Sendable {
        let kept = Mutex(ForwardRequestEnvelope())
    }
}

extension Method {
    static let forward = Method(ExpertHostMethods.forward)
    static let backward = Method(ExpertHostMethods.backward)
    static let describe = Method(ExpertHostMethods.describe)
    static let hold = Method(ExpertHostMethods.hold)
    static let settle = Method(ExpertHostMethods.settle)

    init(_ name: MethodName) {
        self.init(service: name.service, name: name.name)
    }
}

extension RPCError {
    /// The status of a call whose message cannot be read.
    ///
    /// Bytes that are not a message are `INTERNAL`, as gRPC specifies
    /// (https://github.com/grpc/grpc/blob/v1.51.1/doc/statuscodes.md); a message with a wrong field is the caller's
    /// fault.
    init(_ error: ProtoError) {
        switch error.code {
        case .malformed: self.init(.internal, error.description)
        case .overLimit: self.init(.resourceExhausted, error.description)
        case .invalidUTF8, .unknownChoice, .sizeMismatch: self.init(.invalidArgument, error.description)
        }
    }
}
