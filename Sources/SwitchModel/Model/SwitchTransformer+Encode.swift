// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
internal import TensorKernels

extension SwitchTransformer {
    /// Runs the encoder over sequences of any lengths, concatenated and never padded.
    ///
    /// - Parameters:
    ///   - inputs: Token ids of each sequence, at least one each.
    ///   - routes: For each sequence where its tokens go, nil where the routers choose; empty where they always do.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call; `logits` is ignored.
    ///   - record: Counts what happens to the tokens; sequences are named by their index in `inputs`.
    /// - Returns: The encoded sequences, in the order of the inputs.
    /// - Throws: `ModelError` for a model without an encoder, empty sequences and unknown ids; what the executor throws.
    public func encode(
        _ inputs: [[Int32]],
        routes: [StackRoutes?] = [],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions(),
        record: inout RoutingRecord
    ) throws -> [EncodedSequence] {
        try self.requireValid(inputs, routes: routes)
        let runs = options.microBatches(of: inputs.map(\.count))
            .map { EncoderRun(self, checked: inputs[$0], routes: routes, experts: experts, options: options) }
        do {
            // The runs take turns: while the experts of one are in flight, the others compute.
            while runs.contains(where: { !$0.isFinished }) {
                for run in runs where !run.isFinished {
                    try run.advance(record: &record)
                }
            }
        } catch {
            for run in runs {
                run.cancel()
            }
            throw error
        }
        return runs.flatMap { $0.result() }
    }

    /// Checks an encoder call's inputs and routes.
    func requireValid(_ inputs: [[Int32]], routes: [StackRoutes?]) throws(ModelError) {
        guard self.configuration.hasEncoder else {
            throw ModelError(
                code: .unsupported,
                message: "the model is a decoder alone and encodes nothing; prefill its input with PrefillRun"
            )
        }
        guard routes.isEmpty || routes.count == inputs.count else {
            throw ModelError(
                code: .invalidInput,
                message:
                    "there are \(routes.count) entries of routes for \(inputs.count) inputs; give one for each, or none"
            )
        }
        for (index, tokens) in inputs.enumerated() {
            try self.requireKnown(tokens, input: index)
            let given = routes.isEmpty ? nil : routes[index]
            try self.requireFitting(given, stack: .encoder, tokens: tokens.count, input: index)
        }
    }

    /// Refuses routes of other layers, other tokens or unknown experts.
    func requireFitting(_ routes: StackRoutes?, stack: Stack, tokens: Int, input: Int) throws(ModelError) {
        // Every row of every step comes here, and hardly any has routes.
        guard let routes else { return }
        let layers = self.configuration.sparseLayers.filter { $0.stack == stack }
        if let fault = routes.fault(layers: layers, tokens: tokens, expertCount: self.configuration.expertCount) {
            throw ModelError(code: .invalidInput, message: "the \(stack)'s routes of input \(input): it \(fault)")
        }
    }
}

extension FloatMatrix {
    /// Copies consecutive rows into separate matrices; the matrix itself where there is one part.
    func cut(into lengths: [Int]) -> [FloatMatrix] {
        if lengths.count == 1, lengths[0] == self.rows {
            return [self]
        }
        var start = 0
        return lengths.map { length in
            let part = FloatMatrix(uninitializedRows: length, columns: self.columns)
            part.pointer.update(from: self.pointer + start * self.columns, count: length * self.columns)
            start += length
            return part
        }
    }

    /// Copies some rows `[tokens, heads * width]` as `[heads, tokens, width]`.
    ///
    /// - Parameters:
    ///   - heads: Number of heads.
    ///   - rows: The rows.
    ///   - target: Room for as many elements.
    func separateHeads(_ heads: Int, rows: Range<Int>, into target: TypedRows) {
        let width = self.columns / heads
        for head in 0..<heads {
            for (token, row) in rows.enumerated() {
                target.write(self.pointer + row * self.columns + head * width, row: head * rows.count + token)
            }
        }
    }

    /// Matrices of one width, stacked; the matrix itself where there is one.
    static func joined(_ parts: [FloatMatrix]) -> FloatMatrix {
        if parts.count == 1 {
            return parts[0]
        }
        let columns = parts.first?.columns ?? 0
        let output = FloatMatrix.temporary(rows: parts.reduce(0) { $0 + $1.rows }, columns: columns)
        var start = 0
        for part in parts {
            (output.pointer + start * columns).update(from: part.pointer, count: part.rows * columns)
            start += part.rows
        }
        return output
    }

    /// Copies some rows.
    func gather(_ rows: [Int]) -> FloatMatrix {
        let output = FloatMatrix.temporary(rows: rows.count, columns: self.columns)
        for (index, row) in rows.enumerated() {
            (output.pointer + index * self.columns).update(from: self.pointer + row * self.columns, count: self.columns)
        }
        return output
    }
}
