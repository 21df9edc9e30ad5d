// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import NIOCore
internal import RPCCore
internal import RPCTransport
internal import SwitchModel
internal import SwitchyardProtos
internal import TensorKernels

/// What the compute thread does with one call: experts' feed-forwards from the received bytes into the reply's bytes.
struct ExpertCompute: Sendable {
    let experts: LocalExperts

    /// Elements of one token, the model's width.
    let modelWidth: Int

    /// Computes one call.
    ///
    /// The output rows are written where the socket reads them; the input rows are read where the socket wrote them,
    /// unless they lie across the boundaries of floats, in which case they are moved first.
    ///
    /// - Parameters:
    ///   - job: The call; its work has been checked.
    ///   - load: How busy the host is, for the gateway's choice of replicas.
    ///   - start: When the call left the queue.
    /// - Returns: The reply.
    /// - Throws: ``RPCError`` with `INTERNAL` where an output is not finite or the experts cannot compute.
    func reply(to job: ForwardJob, load: HostLoad, start: ContinuousClock.Instant) throws(RPCError) -> Payload {
        let byteCount = job.work.rows * self.modelWidth * MemoryLayout<Float>.stride
        var outputs = ByteBufferAllocator().buffer(capacity: byteCount)
        var failure: RPCError?
        outputs.writeWithUnsafeMutableBytes(minimumWritableBytes: byteCount) { target in
            do {
                try job.message.withUnsafeReadableBytes { message in
                    let tokens = UnsafeRawBufferPointer(rebasing: message[job.tensor])
                    try self.compute(job.work, tokens: tokens, outputs: target)
                }
                return byteCount
            } catch {
                failure = error as? RPCError ?? RPCError(.internal, "the experts cannot compute: \(error)")
                return 0
            }
        }
        if let failure {
            throw failure
        }
        guard outputs.withUnsafeReadableBytes(FiniteCheck.allFinite) else {
            throw RPCError(
                .internal,
                "an output of \(job.work.layer.stack) layer \(job.work.layer.block) is not finite; "
                    + "the tokens or this host's weights are damaged"
            )
        }
        var load = load
        load.queueMicroseconds = job.arrival.duration(to: start).wholeMicroseconds
        load.computeMicroseconds = start.duration(to: .now).wholeMicroseconds
        let envelope = ForwardResponseEnvelope(
            outputsShape: [UInt32(job.work.rows), UInt32(self.modelWidth)],
            outputsDType: .float32,
            load: load
        )
        return Payload(segments: [ByteBuffer(bytes: envelope.header(tensorByteCount: byteCount)), outputs])
    }

    private func compute(
        _ work: ForwardCheck.Work,
        tokens: UnsafeRawBufferPointer,
        outputs: UnsafeMutableRawBufferPointer
    ) throws {
        guard let tokenBase = tokens.baseAddress, let outputBase = outputs.baseAddress else {
            return
        }
        let elements = work.rows * self.modelWidth
        let result = outputBase.bindMemory(to: Float.self, capacity: elements)
        if Int(bitPattern: tokenBase) % MemoryLayout<Float>.alignment == 0 {
            let source = tokenBase.assumingMemoryBound(to: Float.self)
            try self.experts.forward(layer: work.layer, groups: work.groups, tokens: source, outputs: result)
            return
        }
        try withUnsafeTemporaryAllocation(of: Float.self, capacity: elements) { aligned in
            UnsafeMutableRawBufferPointer(aligned).copyMemory(from: tokens)
            guard let source = aligned.baseAddress else {
                return
            }
            try self.experts.forward(layer: work.layer, groups: work.groups, tokens: source, outputs: result)
        }
    }
}

extension Duration {
    /// The duration in whole microseconds, 0 if it is negative.
    fileprivate var wholeMicroseconds: UInt64 {
        let (seconds, attoseconds) = self.components
        return UInt64(max(0, seconds * 1_000_000 + attoseconds / 1_000_000_000_000))
    }
}
