// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

/// The check of a `Forward` or `Backward` call before it is queued.
struct ForwardCheck: Sendable {
    /// A call that passed the check.
    struct Work: Sendable, Equatable {
        let layer: SparseLayer
        let groups: [SwitchModel.ExpertRows]
        let rows: Int
        /// The type of rows on the wire, in both directions.
        let rowType: DType
        /// Whether gradients are asked for: the call holds as many rows of output gradients, after the token rows.
        var isBackward = false
    }

    /// The types of token rows that are accepted.
    static let acceptedTypes = DType.rows.map { WireDType($0) }

    /// The fingerprint of the checkpoint that the host's experts come from.
    let fingerprint: UInt64

    /// Elements of one token, the model's width.
    let modelWidth: Int

    /// Experts of each sparse layer in the whole model.
    let expertCount: Int

    /// Sparse layers of the whole model.
    let sparseLayers: Set<SparseLayer>

    /// The experts that the host holds.
    let held: [SparseLayer: Set<Int>]

    /// Rows that one call may have.
    let maxRows: Int

    /// How the experts' weights are kept; nil where none is held.
    var weightType: DType?

    /// Checks all fields of a call, the cheapest and most telling first.
    ///
    /// - Parameters:
    ///   - envelope: The call without its tensor's bytes.
    ///   - tensorByteCount: The number of the tensor's bytes.
    ///   - isBackward: Whether the call is a `Backward`, whose fields have the numbers of `Forward`'s.
    /// - Returns: What to compute.
    /// - Throws: ``RPCError`` with `FAILED_PRECONDITION` if the caller has the wrong host, `RESOURCE_EXHAUSTED` if
    ///   the call is too large, `INVALID_ARGUMENT` for any other fault.
    func check(
        _ envelope: ForwardRequestEnvelope,
        tensorByteCount: Int,
        isBackward: Bool = false
    ) throws(RPCError) -> Work {
        guard envelope.modelFingerprint == self.fingerprint else {
            throw RPCError(
                .failedPrecondition,
                "model_fingerprint is \(envelope.modelFingerprint.fingerprintText), but this host's experts come from the checkpoint "
                    + "\(self.fingerprint.fingerprintText); give the gateway and its hosts parts of the same checkpoint"
            )
        }
        let layer = try self.layer(of: envelope)
        let groups = try self.groups(of: envelope, layer: layer)
        let rows = groups.reduce(0) { $0 + $1.rows }
        guard rows <= self.maxRows else {
            throw RPCError(
                .resourceExhausted,
                "groups hold \(rows) rows, over this host's limit of \(self.maxRows) rows per call; "
                    + "send fewer tokens at once or raise the host's limit"
            )
        }
        if isBackward, self.weightType == .int8 {
            throw RPCError(
                .failedPrecondition,
                "this host keeps weights in int8, through which no exact gradient flows; train with hosts that keep them in "
                    + "float32 or bfloat16 (--dtype)"
            )
        }
        let rowType = try self.checkTensor(envelope, rows: rows, byteCount: tensorByteCount, isBackward: isBackward)
        return Work(layer: layer, groups: groups, rows: rows, rowType: rowType, isBackward: isBackward)
    }

    private func layer(of envelope: ForwardRequestEnvelope) throws(RPCError) -> SparseLayer {
        guard let stack = envelope.stack.stack else {
            throw RPCError(.invalidArgument, "stack is not set to a known value; set it to ENCODER or DECODER")
        }
        let layer = SparseLayer(stack: stack, block: Int(envelope.layer))
        guard self.sparseLayers.contains(layer) else {
            let blocks = self.sparseLayers.filter { $0.stack == stack }.map(\.block).sorted()
            throw RPCError(
                .invalidArgument,
                "layer \(envelope.layer) of the \(stack) has no experts; the layers with experts are \(blocks)"
            )
        }
        return layer
    }

    private func groups(of envelope: ForwardRequestEnvelope, layer: SparseLayer) throws(RPCError) -> [SwitchModel
        .ExpertRows]
    {
        guard !envelope.groups.isEmpty else {
            throw RPCError(.invalidArgument, "groups is empty; send at least one expert's rows")
        }
        let held = self.held[layer] ?? []
        var groups: [SwitchModel.ExpertRows] = []
        groups.reserveCapacity(min(envelope.groups.count, self.expertCount))
        for (index, group) in envelope.groups.enumerated() {
            let expert = Int(group.expert)
            guard expert < self.expertCount else {
                throw RPCError(
                    .invalidArgument,
                    "groups[\(index)].expert is \(expert); this model has experts 0 to \(self.expertCount - 1)"
                )
            }
            if let previous = groups.last, previous.expert >= expert {
                throw RPCError(
                    .invalidArgument,
                    "groups[\(index)].expert is \(expert) after \(previous.expert); name each expert once, ascending"
                )
            }
            guard group.rows > 0 else {
                throw RPCError(.invalidArgument, "groups[\(index)].rows is 0; leave out experts without rows")
            }
            guard held.contains(expert) else {
                throw RPCError(
                    .failedPrecondition,
                    "groups[\(index)].expert \(expert) of \(layer.stack) layer \(layer.block) is not held here; this "
                        + "host holds \(held.sorted()); check the gateway's placement"
                )
            }
            groups.append(SwitchModel.ExpertRows(expert: expert, rows: Int(group.rows)))
        }
        return groups
    }

    private func checkTensor(
        _ envelope: ForwardRequestEnvelope,
        rows: Int,
        byteCount: Int,
        isBackward: Bool
    ) throws(RPCError) -> DType {
        let field = isBackward ? "rows" : "tokens"
        guard let rowType = envelope.tokensDType.type, isBackward ? rowType == .float32 : rowType.isRow else {
            throw RPCError(
                .invalidArgument,
                "\(field).dtype is \(envelope.tokensDType); this host takes \(isBackward ? "FLOAT32" : "FLOAT32 and BFLOAT16")"
            )
        }
        let shape = envelope.tokensShape
        let sent = isBackward ? 2 * rows : rows
        guard shape.count == 2, Int(shape[0]) == sent, Int(shape[1]) == self.modelWidth else {
            throw RPCError(
                .invalidArgument,
                "\(field).shape is \(shape); from the groups' rows\(isBackward ? ", each with a gradient," : "") and "
                    + "the model's width it must be [\(sent), \(self.modelWidth)]"
            )
        }
        let expected = sent * self.modelWidth * rowType.byteCount
        guard byteCount == expected else {
            throw RPCError(
                .invalidArgument,
                "\(field).data has \(byteCount) bytes; \(envelope.tokensDType) values of shape \(shape) take \(expected)"
            )
        }
        return rowType
    }
}
