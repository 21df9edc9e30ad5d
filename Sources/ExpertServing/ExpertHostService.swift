// SPDX-License-Identifier: Apache-2.0

internal import BatchScheduling
internal import Checkpoints
internal import Logging
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import ServiceKit
internal import SwitchyardProtos
internal import Telemetry

/// The host's methods on the wire.
struct ExpertHostService: Sendable {
    let check: ForwardCheck
    let queue: ForwardQueue
    let mapped: WeightWatch
    let card: HostCard
    let metrics: ExpertHostMetrics
    let logger: Logger
    /// Computes calls on the event loop; nil leaves all to the compute thread.
    var passes: HostPasses?
    var stages: CallStages?

    /// The server's handlers.
    var methods: [ServiceMethod] {
        [
            .unaryOnEventLoop(.forward) { message, context, responder in
                self.compute(message, isBackward: false, context, responder)
            },
            .unaryOnEventLoop(.backward) { message, context, responder in
                self.compute(message, isBackward: true, context, responder)
            },
            .unaryOnEventLoop(.describe) { _, _, responder in
                let description = self.card.description(load: self.queue.load)
                responder.finish(.success(Payload(bytes: description.serialized())))
            }
            .requests(upTo: 1 << 10),
        ]
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
        do throws(RPCError) {
            if let failure = self.mapped.failure {
                throw RPCError(.unavailable, "the host stops, because \(failure)")
            }
            (work, tensor) = try self.read(message, isBackward: isBackward)
        } catch {
            self.metrics.count(.invalid, kind)
            self.log(error, trace)
            responder.finish(.failure(error))
            return
        }
        do throws(RPCError) {
            let job = ForwardJob(
                work: work,
                kind: kind,
                message: message,
                tensor: tensor,
                arrival: .now,
                responder: responder,
                trace: trace
            )
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
    ) throws(RPCError) -> (work: ForwardCheck.Work, tensor: Range<Int>) {
        let result: Result<(ForwardCheck.Work, Range<Int>), RPCError> = message.withUnsafeReadableBytes { bytes in
            do {
                let (envelope, tensor) = try ForwardRequestEnvelope.parse(bytes, isBackward: isBackward)
                let work = try self.check.check(envelope, tensorByteCount: tensor.count, isBackward: isBackward)
                return .success((work, tensor))
            } catch let error as ProtoError {
                return .failure(RPCError(error))
            } catch {
                return .failure(error as? RPCError ?? RPCError(.internal, "\(error)"))
            }
        }
        return try result.get()
    }
}

extension Method {
    static let forward = Method(ExpertHostMethods.forward)
    static let backward = Method(ExpertHostMethods.backward)
    static let describe = Method(ExpertHostMethods.describe)

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
