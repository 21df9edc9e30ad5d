// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchModel
internal import SwitchTraining
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

extension ShardedExperts {
    /// Rows of one call.
    struct Piece {
        var rows: ShardRows
        /// Where they lie among the layer's rows.
        var ranges: [Range<Int>]
    }

    /// One shard's rows of a layer.
    struct Part {
        var shard: Int
        var pieces: [Piece]

        /// Puts answers where their rows lie.
        func put(_ answers: [FloatMatrix], into results: FloatMatrix) {
            for (piece, answer) in zip(self.pieces, answers) {
                var next = 0
                for range in piece.ranges {
                    (results.pointer + range.lowerBound * results.columns)
                        .update(from: answer.pointer + next * results.columns, count: range.count * results.columns)
                    next += range.count
                }
            }
        }
    }

    /// Divides a layer's rows among shards and calls.
    func parts(
        _ layer: SparseLayer,
        _ groups: [SwitchModel.ExpertRows],
        _ tokens: FloatMatrix,
        gradients: FloatMatrix?,
        _ places: [RowPlace]?
    ) -> [Part] {
        var assigned: [[[(expert: Int, rows: Range<Int>)]]] = Array(repeating: [], count: self.links.count)
        var room = Array(repeating: 0, count: self.links.count)
        var next = 0
        for group in groups {
            let shard = self.shardOf[group.expert]
            var rows = next..<next + group.rows
            next = rows.upperBound
            while !rows.isEmpty {
                if room[shard] == 0 {
                    assigned[shard].append([])
                    room[shard] = Self.mostRows
                }
                let taken = min(room[shard], rows.count)
                assigned[shard][assigned[shard].count - 1]
                    .append((group.expert, rows.lowerBound..<rows.lowerBound + taken))
                rows = rows.lowerBound + taken..<rows.upperBound
                room[shard] -= taken
            }
        }
        return assigned.enumerated()
            .compactMap { shard, pieces in
                guard !pieces.isEmpty else { return nil }
                let place = self.links[shard].place
                return Part(
                    shard: shard,
                    pieces: pieces.map { groups in
                        self.piece(layer, groups, tokens, gradients, places, place, self.links[shard].session)
                    }
                )
            }
    }

    private func piece(
        _ layer: SparseLayer,
        _ groups: [(expert: Int, rows: Range<Int>)],
        _ tokens: FloatMatrix,
        _ gradients: FloatMatrix?,
        _ places: [RowPlace]?,
        _ place: (step: Int, attempt: Int),
        _ session: TrainingSession
    ) -> Piece {
        let rows = groups.reduce(0) { $0 + $1.rows.count }
        let sent = gradients == nil ? rows : 2 * rows
        let rowBytes = tokens.columns * MemoryLayout<Float>.stride
        var tensor = ByteBufferAllocator().buffer(capacity: sent * rowBytes)
        for matrix in [tokens, gradients].compactMap({ $0 }) {
            for group in groups {
                tensor.writeBytes(
                    UnsafeRawBufferPointer(
                        start: matrix.pointer + group.rows.lowerBound * matrix.columns,
                        count: group.rows.count * rowBytes
                    )
                )
            }
        }
        var bytes: [UInt8] = []
        if let places {
            bytes.reserveCapacity(8 * rows)
            for place in groups.lazy.flatMap({ places[$0.rows] }) {
                withUnsafeBytes(of: place.sequence.littleEndian) { bytes.append(contentsOf: $0) }
                withUnsafeBytes(of: place.position.littleEndian) { bytes.append(contentsOf: $0) }
            }
        }
        let envelope = TrainingRowsEnvelope(
            rows: ForwardRequestEnvelope(
                modelFingerprint: session.run,
                stack: WireStack(layer.stack),
                layer: UInt32(layer.block),
                groups: groups.map { ExpertRowsMessage(expert: UInt32($0.expert), rows: UInt32($0.rows.count)) },
                tokensShape: TensorShape(rows: sent, columns: tokens.columns)
            ),
            trainer: session.trainer,
            step: UInt64(place.step),
            attempt: UInt32(place.attempt),
            places: bytes
        )
        return Piece(rows: ShardRows(envelope: envelope, tensor: tensor), ranges: groups.map(\.rows))
    }
}
