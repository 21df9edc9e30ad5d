// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import SwitchyardTypes

/// The different answers to an audited call.
struct CallOpinions: Sendable {
    /// Answers with the same bits.
    struct Opinion: Sendable {
        /// The rows as they came, in the call's order and the wire's type.
        let tensor: ByteBuffer
        let reply: LayerReply
    }

    /// Bytes of a row on the wire.
    let rowBytes: Int
    private(set) var all: [Opinion] = []
    /// Rows of the call on which the opinions differ, by their index in it.
    private(set) var conflicting: Set<Int> = []

    /// Starts without opinions.
    ///
    /// - Parameter call: The call.
    init(of call: LayerCall) { self.rowBytes = call.columns * call.rowType.byteCount }

    /// Adds an answer.
    ///
    /// - Parameters:
    ///   - tensor: Its rows as they came.
    ///   - reply: The same, read.
    /// - Returns: The number of its bits among the answers: that of an earlier one, or the next.
    mutating func add(_ tensor: ByteBuffer, _ reply: LayerReply) -> Int {
        if let known = self.number(of: tensor) { return known }
        if let first = self.all.first { self.conflicting.formUnion(self.rows(of: tensor, differingFrom: first.tensor)) }
        self.all.append(Opinion(tensor: tensor, reply: reply))
        return self.all.count - 1
    }

    /// The number of an answer that has these bits.
    ///
    /// - Parameter tensor: An answer's rows as they came.
    /// - Returns: Its number; nil if no answer has them.
    func number(of tensor: ByteBuffer) -> Int? { self.all.firstIndex { $0.tensor == tensor } }

    private func rows(of tensor: ByteBuffer, differingFrom other: ByteBuffer) -> [Int] {
        let rowBytes = self.rowBytes
        return tensor.withUnsafeReadableBytes { own in
            other.withUnsafeReadableBytes { other in
                (0..<min(own.count, other.count) / rowBytes)
                    .filter { row in
                        let bytes = row * rowBytes..<(row + 1) * rowBytes
                        return !own[bytes].elementsEqual(other[bytes])
                    }
            }
        }
    }
}

extension PartialOutputs {
    /// The rows on which all answers to a call agree.
    ///
    /// - Parameters:
    ///   - opinions: The answers.
    ///   - call: The call.
    init(agreedIn opinions: CallOpinions, of call: LayerCall) {
        self.init(of: call.assignment)
        guard let first = opinions.all.first else { return }
        self.add(call.reply(tensor: first.tensor, without: opinions.conflicting.sorted()))
    }
}
