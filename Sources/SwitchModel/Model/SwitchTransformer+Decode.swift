// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import SwitchyardTypes
public import TensorKernels

/// New tokens for one decoder row.
public struct DecoderInput {
    /// What the row remembers; the call adds the tokens to it.
    public var cache: DecoderCache

    /// Token ids, at least one: the start token first of all, then what was generated, or many at once.
    public var tokens: [Int32]

    /// A token that must not be chosen next, which ``StepOptions/Logits/greatest`` then leaves out.
    public var excludedToken: Int32?

    /// Where the tokens go whatever the routers would choose, one entry for each of ``tokens``; nil if the routers choose.
    ///
    /// A token's probability is still the router's, of the given expert, and no capacity is applied to it.
    public var routes: StackRoutes?

    /// Describes a row's new tokens.
    ///
    /// - Parameters:
    ///   - cache: What the row remembers; the call adds the tokens to it.
    ///   - tokens: Token ids, at least one.
    ///   - excludedToken: A token that must not be chosen next.
    ///   - routes: Where the tokens go; nil if the routers choose.
    public init(
        cache: DecoderCache,
        tokens: [Int32],
        excludedToken: Int32? = nil,
        routes: StackRoutes? = nil
    ) {
        self.cache = cache
        self.tokens = tokens
        self.excludedToken = excludedToken
        self.routes = routes
    }
}

extension SwitchTransformer {
    /// Runs the decoder over new tokens of some rows, whatever their lengths so far.
    ///
    /// A row's result does not depend on the other rows. Where the call throws, no cache has changed.
    ///
    /// - Parameters:
    ///   - rows: New tokens and the caches they belong to, each cache once.
    ///   - experts: Where the experts are.
    ///   - options: How to run the call.
    ///   - record: Counts what happens to the tokens; sequences are named by their index in `rows`.
    ///   - meanwhile: Called while all of the call's experts are in flight and there is nothing else to do: does a
    ///     piece of other work, or returns false if there is none for now.
    /// - Returns: Logits `[rows, vocabulary]` of each row's last token, some of them minus infinity where only the
    ///   greatest is requested, or `[tokens, vocabulary]` of all tokens.
    /// - Throws: `ModelError` for rows without tokens, unknown ids and caches named twice; what the executor throws.
    public func decode(
        _ rows: [DecoderInput],
        experts: any ExpertExecutor,
        options: StepOptions = StepOptions(),
        record: inout RoutingRecord,
        meanwhile: (() -> Bool)? = nil
    ) throws -> FloatMatrix {
        guard self.configuration.hasDecoder else {
            throw ModelError(
                code: .unsupported,
                message: "the model is an encoder alone and cannot decode; load a checkpoint with a decoder"
            )
        }
        try self.requireValid(rows)
        guard !rows.isEmpty else {
            return FloatMatrix(rows: 0, columns: self.head.outputs)
        }
        func begin(_ rows: ArraySlice<DecoderInput>) -> DecoderLane {
            DecoderLane(self, rows: rows, experts: experts, options: options, memory: self.lanes.take())
        }
        guard options.microBatches > 1 else {
            var lane = begin(rows[...])
            return try withUnsafeMutablePointer(to: &lane) { lane in
                let lanes = UnsafeMutableBufferPointer(start: lane, count: 1)
                return try self.decode(rows, lanes, options: options, record: &record, meanwhile: meanwhile)
            }
        }
        var lanes = options.microBatches(of: rows.map(\.tokens.count)).map { begin(rows[$0]) }
        return try lanes.withUnsafeMutableBufferPointer { lanes in
            try self.decode(rows, lanes, options: options, record: &record, meanwhile: meanwhile)
        }
    }

    /// Runs lanes to their ends, and gives their memory back.
    private func decode(
        _ rows: [DecoderInput],
        _ lanes: UnsafeMutableBufferPointer<DecoderLane>,
        options: StepOptions,
        record: inout RoutingRecord,
        meanwhile: (() -> Bool)?
    ) throws -> FloatMatrix {
        do {
            try self.run(lanes, record: &record, meanwhile: meanwhile)
        } catch {
            // Their memory may still be in use, and is not given back.
            for index in lanes.indices { lanes[index].cancel() }
            throw error
        }
        for index in rows.indices { rows[index].cache.advance(by: rows[index].tokens.count) }
        if options.collectHiddenStates, let lane = lanes.first {
            record.append(hiddenState: self.decoderNorm(lane.hidden), stack: .decoder)
        }
        // One product for all lanes, since the projection's weights are many.
        func part(_ lane: DecoderLane) -> FloatMatrix {
            options.logits == .all ? lane.hidden : lane.hidden.gather(lane.last)
        }
        let hidden = lanes.count == 1 ? part(lanes[0]) : FloatMatrix.joined(lanes.map(part))
        let memory = lanes[0].memory
        if options.logits == .greatest {
            memory.excluded.removeAll(keepingCapacity: true)
            for index in rows.indices { memory.excluded.append(rows[index].excludedToken.map { Int($0) }) }
        }
        let excluded = options.logits == .greatest ? memory.excluded : nil
        let logits = self.logits(hidden, onlyGreatestExcept: excluded)
        for index in lanes.indices { self.lanes.giveBack(lanes[index].memory) }
        return logits
    }

    /// Lets lanes take turns: while the experts of one are in flight, another computes.
    private func run(
        _ lanes: UnsafeMutableBufferPointer<DecoderLane>,
        record: inout RoutingRecord,
        meanwhile: (() -> Bool)?
    ) throws {
        var turn = 0
        var isMore = true
        while let next = self.next(of: lanes, turn: turn) {
            if isMore, let meanwhile, !lanes[next].isReady {
                isMore = meanwhile()
                continue
            }
            try lanes[next].advance(record: &record)
            turn += 1
            isMore = true
        }
    }

    /// The lane that goes on: the one whose turn it is, unless it would wait and another one would not; nil once all are
    /// finished.
    private func next(of lanes: UnsafeMutableBufferPointer<DecoderLane>, turn: Int) -> Int? {
        var next: Int?
        for offset in lanes.indices {
            let index = (turn + offset) % lanes.count
            guard !lanes[index].isFinished else { continue }
            if lanes[index].isReady { return index }
            next = next ?? index
        }
        return next
    }

    /// Projects the last block's output onto the vocabulary.
    ///
    /// - Parameters:
    ///   - hidden: `[rows, d_model]`.
    ///   - excluded: Where only the greatest logits are requested, what each row must not choose.
    /// - Returns: `[rows, vocabulary]`.
    private func logits(_ hidden: FloatMatrix, onlyGreatestExcept excluded: [Int?]?) -> FloatMatrix {
        self.project(self.decoderNorm(hidden), onlyGreatestExcept: excluded)
    }

    /// The logits of final hidden states, such as a prompt's.
    ///
    /// - Parameters:
    ///   - hidden: Final hidden states, `[tokens, d_model]`.
    ///   - rows: Which of them.
    /// - Returns: `[rows, vocabulary]`.
    public func logits(ofFinal hidden: FloatMatrix, rows: Range<Int>) -> FloatMatrix {
        self.project(hidden.gather(Array(rows)), onlyGreatestExcept: nil)
    }

    /// Projects normalised rows, which it may change, onto the vocabulary.
    private func project(_ normed: FloatMatrix, onlyGreatestExcept excluded: [Int?]?) -> FloatMatrix {
        if self.headScale != 1 {
            Residual.scale(
                normed.pointer,
                by: self.headScale,
                count: normed.rows * normed.columns,
                into: normed.pointer
            )
        }
        if let excluded, let screen = self.headScreen, normed.rows <= ProductScreen.mostRows {
            return screen.product(self.head, normed, except: excluded, pool: self.pool)
        }
        let logits = FloatMatrix.temporary(rows: normed.rows, columns: self.head.outputs)
        self.pool.run(Product(self.head, normed, into: logits))
        self.headBias?.add(to: logits, pool: self.pool)
        return logits
    }

    /// Whether a cache is of this model, or of one of the same shape.
    private func fits(_ cache: DecoderCache) -> Bool {
        guard let sequence = cache.sequence else {
            return self.configuration.design.isDecoderOnly && cache.blockCount == self.decoderBlocks.count
                && cache.headCount == self.configuration.headCount && cache.keyWidth == self.configuration.keyWidth
                && cache.type == self.cacheType
        }
        return !self.configuration.design.isDecoderOnly && sequence.crossKeys.count == self.decoderBlocks.count
            && sequence.hidden.columns == self.configuration.modelWidth
    }

    private func requireValid(_ rows: [DecoderInput]) throws(ModelError) {
        var seen: Set<ObjectIdentifier> = []
        for index in rows.indices {
            let row = rows[index]
            try self.requireKnown(row.tokens, input: index)
            try self.requireFitting(row.routes, stack: .decoder, tokens: row.tokens.count, input: index)
            guard self.fits(row.cache) else {
                throw ModelError(
                    code: .invalidInput,
                    message: "row \(index) was encoded by another model; encode it with this one"
                )
            }
            // A few are compared with each other, which takes no memory.
            var isKnown = rows.count > 64 && !seen.insert(ObjectIdentifier(row.cache)).inserted
            if rows.count <= 64 {
                for earlier in 0..<index where rows[earlier].cache === row.cache { isKnown = true }
            }
            guard !isKnown else {
                throw ModelError(
                    code: .invalidInput,
                    message: "row \(index) names a cache that an earlier row names too; fork the cache instead"
                )
            }
        }
    }
}
