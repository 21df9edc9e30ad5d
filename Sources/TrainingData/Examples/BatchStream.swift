// SPDX-License-Identifier: Apache-2.0

/// The batches of a run, one after the other, from any position on.
public struct BatchStream<Lines: LineSource>: Sendable {
    /// The examples that batches are made of.
    public private(set) var examples: ExampleStream<Lines>

    private let limits: BatchLimits
    /// An example that did not fit into the last batch, and the position before it.
    private var pending: (example: TokenizedExample, position: DataPosition)?

    /// Makes a stream.
    ///
    /// - Parameters:
    ///   - examples: The examples.
    ///   - limits: How large a batch may become.
    /// - Throws: ``DataError`` when the limits end no batch, or are too small for the longest example.
    public init(_ examples: ExampleStream<Lines>, limits: BatchLimits) throws(DataError) {
        try limits.check(examples.settings)
        self.examples = examples
        self.limits = limits
    }

    /// Where the next batch begins: a run that resumes there gets the same batches from there on.
    public var position: DataPosition { self.pending?.position ?? self.examples.position }

    /// The next batch.
    ///
    /// - Returns: The batch, with at least one example; nil at the end. The last batch of an epoch is filled up with the
    ///   next epoch's examples unless the limits say otherwise; the very last may be smaller than the limits.
    /// - Throws: As ``ExampleStream/next()``.
    public mutating func next() throws(DataError) -> TokenizedBatch? {
        var batch = TokenizedBatch()
        if let pending = self.pending {
            batch.append(pending.example)
            self.pending = nil
        }
        var epoch = self.examples.position.epoch
        while true {
            if let limit = self.limits.examples, batch.count >= limit {
                return batch
            }
            let position = self.examples.position
            guard let example = try self.examples.next() else {
                return batch.count > 0 ? batch : nil
            }
            let isOver = self.limits.endsWithEpoch && batch.count > 0 && self.examples.position.epoch != epoch
            guard !isOver, self.limits.hasRoom(for: example, in: batch) else {
                self.pending = (example, position)
                return batch
            }
            epoch = self.examples.position.epoch
            batch.append(example)
        }
    }
}
